"""Arrays that several processes see and write: `SharedArray` and `share`.

Where their memory comes from, and when it goes, is `segments`' business.  numpy is loaded when the
first array is made, not with this room.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, SupportsIndex

from parallelkit import segments

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

COMPARED = ("lt", "le", "eq", "ne", "gt", "ge")
ALONE = ("neg", "pos", "abs", "invert")
COMBINED = (
    *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow"),
    *("lshift", "rshift", "and", "or", "xor"),
)

Operation = Callable[..., Any]


def _operators() -> type:
    """Return what numpy's `NDArrayOperatorsMixin` would give, without loading numpy."""
    methods: dict[str, Any] = {"__slots__": ()}
    for name in ALONE:
        methods[f"__{name}__"] = _alone(getattr(operator, name))
    for name in COMPARED:
        methods[f"__{name}__"] = _forward(getattr(operator, name))
    for name in COMBINED:
        operation = getattr(operator, f"__{name}__")
        methods[f"__{name}__"], methods[f"__r{name}__"] = _forward(operation), _back(operation)
        methods[f"__i{name}__"] = _in_place(getattr(operator, f"__i{name}__"))
    methods["__divmod__"], methods["__rdivmod__"] = _forward(divmod), _back(divmod)
    return type("_Operators", (), methods)


def _alone(operation: Operation) -> Operation:
    return lambda shared: operation(shared.array)


def _forward(operation: Operation) -> Operation:
    return lambda shared, other: operation(shared.array, other)


def _back(operation: Operation) -> Operation:
    return lambda shared, other: operation(other, shared.array)


def _in_place(operation: Operation) -> Operation:
    def write(shared: SharedArray, other: Any) -> Any:
        array = shared.array
        result = operation(array, other)
        return shared if result is array else result

    return write


if TYPE_CHECKING:
    from numpy.lib.mixins import NDArrayOperatorsMixin as _Operators
else:
    _Operators = _operators()

Order = Literal["C", "F"]


def share(array: npt.ArrayLike) -> SharedArray:
    """Copy an array into memory that workers read and write without copying.

    Args:
        array: Any shape, any dtype without Python objects. It is left as it is.

    Returns:
        An array of the same shape, dtype and order (`"C"` where it is neither), which pickles as
        a handle. Its memory is freed when no process holds it, even after a crash.

    Raises:
        TypeError: The dtype contains Python objects, or the array has a mask.
        MemoryError: There is no room for it.

    Example:
        >>> import numpy as np
        >>> table = share(np.ones((1000, 8)))
        >>> table[0] = 7
        >>> table.shape, float(table.sum())
        ((1000, 8), 8048.0)
    """
    return SharedArray.from_array(array)


class SharedArray(_Operators):
    """An array in memory that every process it is passed to sees and may write.

    It works like an `ndarray` (indexing, arithmetic, numpy's functions, methods by name); `array`
    is one.  Pickled, it becomes a handle of about 200 bytes: whoever unpickles it, while this
    process holds it, gets the same memory.  Its slices are plain arrays and pickle by copy.  What
    several processes write at once they must agree on: a lock is not included.

    The `nbytes` bytes are freed when no process holds an array over them, however it ends.

    Args:
        shape: A length or a tuple of lengths; may be empty or hold zeros.
        dtype: Any dtype without Python objects.
        order: `"C"` for rows together in memory, `"F"` for columns.

    Raises:
        TypeError: The dtype contains Python objects.
        ValueError: A length is negative.
        MemoryError: `nbytes` is more than this process may take (see `machine.memory`).

    Example:
        >>> counts = SharedArray((2, 3), dtype="int64")
        >>> counts[1] += 5
        >>> counts.sum(axis=1).tolist()
        [0, 15]
    """

    __slots__ = ("__weakref__", "_array")
    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # `==` compares item by item

    def __init__(
        self,
        shape: SupportsIndex | Sequence[SupportsIndex],
        dtype: npt.DTypeLike = float,
        order: Order = "C",
    ) -> None:
        self._array: np.ndarray[Any, Any] | None = _zeros(shape, dtype, order)

    @staticmethod
    def from_array(array: npt.ArrayLike) -> SharedArray:
        """Copy an array into shared memory; see `share`."""
        return _over(_copied(array))

    @property
    def array(self) -> np.ndarray[Any, Any]:
        """The array itself, writable; the memory lives as long as it or any view of it.

        Raises:
            ValueError: The SharedArray was closed.
        """
        if self._array is None:
            raise ValueError("this SharedArray was closed: use it before close(), or keep .array")
        return self._array

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each dimension."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the items."""
        dtype: np.dtype[Any] = self.array.dtype
        return dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self.array.ndim

    @property
    def size(self) -> int:
        """The number of items."""
        return self.array.size

    @property
    def nbytes(self) -> int:
        """The bytes that the items take."""
        return self.array.nbytes

    def close(self) -> None:
        """Let go of the memory; other arrays over it, here and elsewhere, keep it and stay valid.

        May be called again.  Any other use after it raises `ValueError`.
        """
        self._array = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., SharedArray], tuple[Any, ...]]:
        array = self.array
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        segment: Any = array.base
        return _attached, (tuple(segment.handle()), array.shape, array.dtype, order)

    def __copy__(self) -> SharedArray:
        return self.from_array(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedArray:
        return self.from_array(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self.array
        if copy:
            return array.astype(array.dtype if dtype is None else dtype)
        if dtype is None or array.dtype == dtype:
            return array
        if copy is False:
            raise ValueError(f"a {array.dtype} array cannot be seen as {dtype} without a copy")
        return array.astype(dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        result = getattr(ufunc, method)(*_plain(inputs), **_plain(options))
        # `out=` gives back what was passed; several outputs are plain arrays over the same memory.
        out = options.get("out", ())
        return out[0] if len(out) == 1 and isinstance(out[0], SharedArray) else result

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        return function(*_plain(args), **_plain(options))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what numpy or pickle asks for, we answer or do not have
            raise AttributeError(f"'SharedArray' object has no attribute {name!r}")
        return getattr(self.array, name)

    def __getitem__(self, key: Any) -> Any:
        return self.array[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.array[key] = value

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.array)

    def __contains__(self, item: Any) -> bool:
        return item in self.array

    def __bool__(self) -> bool:
        return bool(self.array)

    def __int__(self) -> int:
        return int(self.array)

    def __float__(self) -> float:
        return float(self.array)

    def __complex__(self) -> complex:
        return complex(self.array)

    def __index__(self) -> int:
        return operator.index(self.array)

    def __repr__(self) -> str:
        return "SharedArray(closed)" if self._array is None else f"SharedArray({self._array!r})"

    def __str__(self) -> str:
        return repr(self) if self._array is None else str(self._array)


def _zeros(
    shape: SupportsIndex | Sequence[SupportsIndex], dtype: npt.DTypeLike, order: Order
) -> np.ndarray[Any, Any]:
    import numpy as np

    lengths = [shape] if isinstance(shape, SupportsIndex) else shape
    # numpy's own idea of an item: "S" means "S1", and a dtype may itself be an array.
    model = np.empty(0, dtype)
    full = tuple(operator.index(length) for length in lengths) + model.shape[1:]
    if min(full, default=0) < 0:
        raise ValueError(f"shape must not hold negative lengths, got {shape!r}")
    if order not in {"C", "F"}:
        raise ValueError(f"order must be 'C' or 'F', got {order!r}")
    _check_plain(model.dtype)
    segment = segments.create(math.prod(full) * model.itemsize)
    return np.ndarray(full, model.dtype, segment, order=order)


def _copied(array: npt.ArrayLike) -> np.ndarray[Any, Any]:
    import numpy as np

    masked = sys.modules.get("numpy.ma")
    if masked is not None and isinstance(array, masked.MaskedArray):
        raise TypeError("a SharedArray has no mask: share array.filled(), or .data and .mask each")
    source = np.asarray(array)
    _check_plain(source.dtype)
    if not (source.flags.c_contiguous or source.flags.f_contiguous) or not source.nbytes:
        target = _zeros(source.shape, source.dtype, "C")
        np.copyto(target, source)
        return target
    order: Order = "C" if source.flags.c_contiguous else "F"
    content = source.ravel(order).view(np.uint8).data  # no copy: it is contiguous in this order
    segment = segments.create(source.nbytes, content)
    return np.ndarray(source.shape, source.dtype, segment, order=order)


def _check_plain(dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise TypeError(
            f"a SharedArray cannot hold Python objects, got dtype {dtype!r}: "
            "use numbers, strings of fixed length, or a structured dtype of such"
        )


def _attached(
    handle: tuple[Any, ...], shape: tuple[int, ...], dtype: np.dtype[Any], order: Order
) -> SharedArray:
    """Return the SharedArray that was pickled, over the same memory.

    Raises:
        FileNotFoundError: Whoever pickled it has let go of it before.
    """
    import numpy as np

    segment = segments.attach(segments.Handle(*handle))
    return _over(np.ndarray(shape, dtype, segment, order=order))


def _over(array: np.ndarray[Any, Any]) -> SharedArray:
    """Return the SharedArray of an array that lies over a segment."""
    shared = SharedArray.__new__(SharedArray)
    shared._array = array  # noqa: SLF001 -- the one place beside `__init__` where one is born
    return shared


def _plain(value: Any) -> Any:
    """Return numpy's arguments with the arrays themselves in place of SharedArrays."""
    if isinstance(value, SharedArray):
        return value.array
    if type(value) in {list, tuple}:
        return type(value)(map(_plain, value))
    if type(value) is dict:
        return {name: _plain(each) for name, each in value.items()}
    return value
