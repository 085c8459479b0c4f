"""Arrays that several processes see and write: `SharedArray` and `share`.

Where their memory comes from, and when it goes, is `segments`' business.  numpy is loaded when the
first array is made, not with this room.
"""

from __future__ import annotations

import contextlib
import math
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, SupportsIndex

from parallelkit import handles, lending, segments, slabs
from parallelkit.handles import Order, Spot
from parallelkit.operators import Operators
from parallelkit.segments import Segment

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


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


class SharedArray(Operators):
    """An array in memory that every process it is passed to sees and may write.

    It holds zeros at first; the system gives no memory that would be had sooner with anything else
    in it.  It works like an `ndarray` (indexing, arithmetic, numpy's functions, methods by name);
    `array` is one.  Pickled, it becomes a handle of about 200 bytes: whoever unpickles it, while
    this process holds it, gets the same memory.  Its slices are plain arrays and pickle by copy.
    What several processes write at once they must agree on, with a `Lock` for instance.

    The `nbytes` bytes are freed when no process holds an array over them, however it ends.  Where
    there are more than 8 arrays of less than 64 KiB, they lie together, in slabs of 1 MiB or more,
    and each slab is freed with the last array in it.

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

    __slots__ = ("__weakref__", "_array", "_lies")
    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # `==` compares item by item

    def __init__(
        self,
        shape: SupportsIndex | Sequence[SupportsIndex],
        dtype: npt.DTypeLike = float,
        order: Order = "C",
    ) -> None:
        made = _zeros(shape, dtype, order)
        self._array: np.ndarray[Any, Any] | None = made.array
        self._lies: tuple[Segment, int] | None = (made.segment, made.start)

    @staticmethod
    def from_array(array: npt.ArrayLike) -> SharedArray:
        """Copy an array into shared memory; see `share`."""
        return _over(_copied(array))

    @staticmethod
    def attach(handle: str) -> SharedArray:
        """Return the array that a handle stands for, over the same memory.

        Args:
            handle: The `handle` of a SharedArray, in any process of the same user.

        Raises:
            FileNotFoundError: The process that the handle is from has let go of the array.
            ValueError: It is no handle, or not all of it.
        """
        spot = handles.from_text(handle)
        try:
            return _attached(*spot)
        except (TypeError, ValueError) as error:  # what it names is smaller than it says
            raise handles.wrong(handle) from error

    @property
    def handle(self) -> str:
        """A text of some 150 characters or more with which other processes `attach` the array.

        It is good as long as this process holds the array, and may go into a command line, an
        environment variable or a file; it has no characters that a shell would change.

        Raises:
            TypeError: The dtype is another package's, which only a pickle can name.
            ValueError: The SharedArray was closed.
        """
        return handles.to_text(self._spot())

    def readonly(self) -> SharedArray:
        """Return the same array for reading: who writes gets a `ValueError`, here and elsewhere.

        Pickled or attached by its `handle`, it remains for reading, and what others write into the
        array itself shows in it.  A process that has both can still write the array itself.
        """
        spot = self._spot()._replace(writable=False)
        assert self._lies is not None
        return _over(_laid(self._lies[0], spot))

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
        self._array = self._lies = None

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
        handle, *layout = self._spot()
        return _attached, (tuple(handle), *layout)

    def _spot(self) -> Spot:
        """Return where others find the array."""
        array = self.array
        assert self._lies is not None
        segment, start = self._lies
        flags = array.flags
        order: Order = "F" if flags.f_contiguous and not flags.c_contiguous else "C"
        handle = segment.handle()
        return Spot(handle, start, tuple(array.shape), array.dtype, order, flags.writeable)

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


class _Lying(NamedTuple):
    """An array, and where it lies."""

    array: np.ndarray[Any, Any]
    segment: Segment
    start: int


def _zeros(
    shape: SupportsIndex | Sequence[SupportsIndex], dtype: npt.DTypeLike, order: Order
) -> _Lying:
    import numpy as np

    lengths: Any = shape
    with contextlib.suppress(TypeError):
        lengths = [operator.index(shape)]  # type: ignore[arg-type]
    # numpy's own idea of an item: "S" means "S1", and a dtype may itself be an array.
    model = np.empty(0, dtype)
    full = tuple(operator.index(length) for length in lengths) + model.shape[1:]
    if min(full, default=0) < 0:
        raise ValueError(f"shape must not hold negative lengths, got {shape!r}")
    if order not in {"C", "F"}:
        raise ValueError(f"order must be 'C' or 'F', got {order!r}")
    _check_plain(model.dtype)
    segment, start = slabs.take(math.prod(full) * model.itemsize)
    array = np.ndarray(full, model.dtype, segment, start, order=order)
    slabs.note(segment, array)
    return _Lying(array, segment, start)


def _copied(array: npt.ArrayLike) -> _Lying:
    import numpy as np

    masked = sys.modules.get("numpy.ma")
    if masked is not None and isinstance(array, masked.MaskedArray):
        raise TypeError("a SharedArray has no mask: share array.filled(), or .data and .mask each")
    source = np.asarray(array)
    _check_plain(source.dtype)
    order: Order = "F" if source.flags.f_contiguous and not source.flags.c_contiguous else "C"
    if source.nbytes < slabs.SMALL or not (source.flags.c_contiguous or order == "F"):
        made = _zeros(source.shape, source.dtype, order)
        np.copyto(made.array, source)
        return made
    content = source.ravel(order).view(np.uint8).data  # no copy: it is contiguous in this order
    segment = segments.create(source.nbytes, content)
    return _Lying(np.ndarray(source.shape, source.dtype, segment, order=order), segment, 0)


def _check_plain(dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise TypeError(
            f"a SharedArray cannot hold Python objects, got dtype {dtype!r}: "
            "use numbers, strings of fixed length, or a structured dtype of such"
        )


def _attached(handle: tuple[Any, ...], *layout: Any) -> SharedArray:
    """Return the SharedArray that was pickled, over the same memory.

    Raises:
        FileNotFoundError: Whoever pickled it has let go of it before.
    """
    spot = Spot(segments.Handle(*handle), *layout)
    segment = segments.attach(spot.segment, spot.writable)
    lending.borrow(segment, partial(segments.there, spot.segment))
    return _over(_laid(segment, spot))


def _laid(segment: Segment, spot: Spot) -> _Lying:
    """Return an array over a segment that is mapped here."""
    import numpy as np

    memory: Any = segment
    if not spot.writable:
        # An array over bytes that cannot be written: any other could be made writable again.
        memory = np.frombuffer(memoryview(segment).toreadonly(), np.uint8)
    array = np.ndarray(spot.shape, spot.dtype, memory, spot.start, order=spot.order)
    return _Lying(array, segment, spot.start)


def _over(lying: _Lying) -> SharedArray:
    """Return the SharedArray of an array that lies over a segment."""
    shared = SharedArray.__new__(SharedArray)
    shared._array = lying.array  # noqa: SLF001 -- the one place beside `__init__` of its birth
    shared._lies = (lying.segment, lying.start)  # noqa: SLF001
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
