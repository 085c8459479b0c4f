"""Columns of tables and arrays: what to send in place of the items one by one.

`sliceable` tells how to cut an iterable by position into *columns*, each of which gives the items
that the loop would get, types included, and pickles as one buffer where the items are numbers.
Nothing is imported to learn what an iterable is; by what to call its items is `source`'s business.

Exact types only: a subclass can mean anything by a slice.  pandas' arrays of categories are not
here, because the type of one item depends on whether another is missing.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from . import lending

if TYPE_CHECKING:
    from .shared import SharedArray

_SEQUENCES = {list, tuple, range, str, bytes, bytearray}
_NUMBERS = frozenset("?bBhHiIlLqQfd")  # formats that any memoryview can be cast to

_PANDAS = {
    *("Series", "Index", "RangeIndex", "DatetimeIndex", "TimedeltaIndex"),
    *("PeriodIndex", "IntervalIndex"),
}

# Any slice of a pyarrow array of views refers to all their text, and nothing cuts that; slices of
# sparse unions give items of the beginning (pyarrow 14).
_UNCUT = ("string_view", "binary_view", "sparse_union")


def sliceable(iterable: Any) -> Any:
    """Return what gives columns of `iterable` when it is sliced, None if nothing does."""
    kind = type(iterable)
    if kind in _SEQUENCES:
        return iterable
    if kind is memoryview:
        return _numbers(iterable)
    package = kind.__module__.partition(".")[0]
    find = _FINDERS.get(package)
    return None if find is None else find(iterable, kind.__qualname__)


class Sliced:
    """A whole that is cut by slicing it, and then made a column by `column`."""

    def __init__(self, whole: Any, column: Callable[[Any], Any]) -> None:
        self.whole = whole
        self.column = column

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, part: slice) -> Any:
        return self.column(self.whole[part])


class Numbers:
    """Numbers in a row in memory, as Python's own; needs no numpy where it arrives."""

    __slots__ = ("view",)

    def __init__(self, view: memoryview) -> None:
        self.view = view

    def __len__(self) -> int:
        return len(self.view)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.view)

    def __getitem__(self, part: Any) -> Any:
        found = self.view[part]
        return Numbers(found) if isinstance(part, slice) else found

    def __reduce__(self) -> tuple[Any, ...]:
        view = self.view
        # A column of a table may lie across its rows, and a pickle takes only what is together.
        content = pickle.PickleBuffer(view) if view.c_contiguous else view.tobytes()
        return _numbers_from, (content, view.format)


def _numbers_from(content: Any, form: Any) -> Numbers:
    view = memoryview(content)
    return Numbers(view if view.format == form else view.cast("B").cast(form))


class Rows:
    """Rows of a SharedArray, which stay where they are: only the range travels."""

    __slots__ = ("rows", "shared")

    def __init__(self, shared: SharedArray, rows: range) -> None:
        self.shared = shared
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.shared.array[self.rows.start : self.rows.stop])

    def __getitem__(self, part: Any) -> Any:
        found = self.rows[part]
        return Rows(self.shared, found) if isinstance(found, range) else self.shared.array[found]

    def __reduce__(self) -> tuple[Any, ...]:
        return _rows_from, (self.shared, self.rows)


def _rows_from(shared: SharedArray, rows: range) -> Rows:
    lending.lend(shared)  # held for the next chunk, or it would be mapped anew for each
    return Rows(shared, rows)


class Scalars:
    """A slice of a pyarrow array, which pickles as that slice and not with all of its array."""

    __slots__ = ("array",)

    def __init__(self, array: Any) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.array)

    def __getitem__(self, position: int) -> Any:
        return self.array[position]

    def __reduce__(self) -> tuple[Any, ...]:
        pyarrow, array = sys.modules["pyarrow"], self.array
        if isinstance(array, pyarrow.ChunkedArray):
            cut = pyarrow.chunked_array([_cut(chunk) for chunk in array.chunks], array.type)
        else:
            cut = _cut(array)
        return Scalars, (cut,)


def _cut(array: Any) -> Any:
    pyarrow = sys.modules["pyarrow"]
    if "dense_union" in str(array.type):  # concat copies all that it refers to
        return array.take(pyarrow.array(range(len(array))))
    # With a single array, concat would return it as it is, over the buffers of the whole.
    return pyarrow.concat_arrays([array, array[:0]])


# How each library's own are found; each returns None for what it cannot slice.


def _numbers(view: memoryview) -> Numbers | None:
    return Numbers(view) if view.ndim == 1 and view.format in _NUMBERS else None


def _array(iterable: Any, name: str) -> Any:
    return iterable if name == "array" else None


def _numpy(iterable: Any, name: str) -> Any:
    return iterable if name == "ndarray" and iterable.ndim > 0 else None


def _shared(iterable: Any, name: str) -> Rows | None:
    if name != "SharedArray" or iterable.ndim == 0:
        return None
    # Another one over the same memory, so that the run can go on when the caller closes his.
    remake, parts = iterable.__reduce__()
    return Rows(remake(*parts), range(len(iterable)))


def _arrow(iterable: Any, _: str) -> Any:
    pyarrow = sys.modules["pyarrow"]
    if type(iterable).__module__ != "pyarrow.lib":  # a user's extension, or no array
        return None
    if not isinstance(iterable, pyarrow.Array | pyarrow.ChunkedArray):
        return None
    return None if any(word in str(iterable.type) for word in _UNCUT) else Sliced(iterable, Scalars)


def _pandas(iterable: Any, name: str) -> Any:
    if name not in _PANDAS:
        return None
    if name == "RangeIndex":
        return range(iterable.start, iterable.stop, iterable.step)
    array = iterable.array  # by position, without the index
    kind = type(array)
    ours = kind.__module__.partition(".")[0] == "pandas"
    find = _ARRAYS.get(kind.__qualname__) if ours else None
    return None if find is None else find(array)


def _itself(array: Any) -> Any:
    """Return an array of items that only pandas can make, so that a worker loads it anyway."""
    return array


def _listed(array: Any) -> Sliced:
    """Return columns of Python's own items, for which a worker need not load pandas (0.2 s)."""
    return Sliced(array, list)


def _masked(array: Any) -> Sliced:
    return Sliced(array, _unmasked)


def _unmasked(part: Any) -> Any:
    """Return a slice of a masked array, without pandas where nothing is missing."""
    return part if part.isna().any() else part.to_numpy(dtype=part.dtype.numpy_dtype)


def _plain(array: Any) -> Numbers | Sliced:
    """Return columns of a wrapped ndarray, whose items pandas gives as Python's own."""
    values = array.to_numpy()
    return _numbers(memoryview(values)) or Sliced(values, methodcaller("tolist"))


_ARRAYS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("DatetimeArray", "TimedeltaArray", "PeriodArray", "IntervalArray"), _itself),
    **dict.fromkeys(("IntegerArray", "FloatingArray", "BooleanArray"), _masked),
    **dict.fromkeys(("StringArray", "StringArrayNumpySemantics"), _listed),
    **dict.fromkeys(("ArrowStringArray", "ArrowStringArrayNumpySemantics"), _listed),
    **dict.fromkeys(("ArrowExtensionArray",), _listed),
    **dict.fromkeys(("NumpyExtensionArray", "PandasArray"), _plain),  # PandasArray: until 2.1
}

_FINDERS: dict[str, Callable[[Any, str], Any]] = {
    "array": _array,
    "numpy": _numpy,
    "pandas": _pandas,
    "parallelkit": _shared,
    "pyarrow": _arrow,
}
