"""Where the items come from: by position where the input allows it, else as they are pulled.

A run names items by position.  `Indexed` finds them in the caller's own lists, which are never
copied whole; `Pulled` keeps what an iterator gave until the outcomes are with the caller, because
an item may have to be sent again.  Both give *columns*: for each iterable, the arguments it
contributes to a chunk.  How arrays and tables become columns is decided in `columns`.
"""

from __future__ import annotations

from itertools import islice

TYPE_CHECKING = False  # type checkers take it for true, and importing `typing` costs 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any, Protocol

    Columns = tuple[Sequence[Any], ...]

    class Source(Protocol):
        """The items of one run."""

        length: int | None
        at_hand: int
        error: Exception | None
        kind: type | None  # of the first item, where that is known

        def pull(self, count: int, /) -> tuple[int, bool]:
            """Take up to `count` items; return how many came and whether these were the last."""

        def columns(self, chunk: range) -> Columns:
            """Return the arguments of the positions in `chunk`."""

        def drop(self, chunk: range) -> None:
            """Forget the items of `chunk`, whose outcomes are with the caller."""
else:
    Source = object  # others import the name, for the same purpose


def source(iterables: tuple[Iterable[Any], ...]) -> Source:
    """Return the items that `zip(*iterables)` would give, ending with the shortest."""
    sequences = [_sliceable(each) for each in iterables]
    if any(each is None for each in sequences) or _length(iterables) is None:
        return Pulled(iterables)
    return Indexed(tuple(sequences))


def _sliceable(iterable: Any) -> Any:
    """Return what `columns.sliceable` says, which is loaded for what only it can tell."""
    kind = type(iterable)
    if kind in (list, tuple, range):
        return iterable
    if kind.__module__ == "builtins" and kind not in (str, bytes, bytearray, memoryview):
        return None
    from .columns import sliceable

    return sliceable(iterable)


class Indexed:
    """Items of sequences that can be sliced."""

    def __init__(self, sequences: tuple[Sequence[Any], ...]) -> None:
        self.sequences = sequences
        self.at_hand = min([len(each) for each in sequences])
        self.length: int | None = self.at_hand
        self.error: Exception | None = None
        first = next(iter(sequences[0][:1]), None) if self.at_hand else None
        self.kind: type | None = type(first)

    def pull(self, _: int) -> tuple[int, bool]:
        """Nothing is left to pull."""
        return 0, True

    def columns(self, chunk: range) -> Columns:
        """Return a slice of each sequence.

        Raises:
            RuntimeError: One of them is shorter now than it was.
        """
        start, stop = chunk.start, chunk.stop
        columns = tuple([each[start:stop] for each in self.sequences])
        if min(map(len, columns)) < stop - start:
            raise RuntimeError("a list of items was made shorter while it was being mapped")
        return columns

    def drop(self, chunk: range) -> None:
        """Nothing is kept."""


class Pulled:
    """Items of iterators.  Where one raises, `error` holds what, and the input ends there."""

    def __init__(self, iterables: tuple[Iterable[Any], ...]) -> None:
        self.length = _length(iterables)
        self.at_hand = 0
        self.error: Exception | None = None
        self.kind: type | None = None
        self._several = len(iterables) > 1
        # Not strict: like map(), the shortest decides.
        rows = zip(*iterables, strict=False)
        self._items: Iterator[Any] = rows if self._several else iter(iterables[0])
        self._kept: list[Any] = []
        self._base = 0  # the position of the first item kept
        self._dropped: dict[int, int] = {}

    def pull(self, count: int) -> tuple[int, bool]:
        """Take up to `count` items; return how many came and whether these were the last."""
        if self.error is not None:  # the input ended there, whatever else it would give
            return 0, True
        before = len(self._kept)
        try:
            self._kept.extend(islice(self._items, count))
        except Exception as error:
            # What came before it comes first for the caller too, as in a loop.
            self.error = error
        got = len(self._kept) - before
        self.at_hand += got
        return got, got < count

    def columns(self, chunk: range) -> Columns:
        """Return the arguments of the positions in `chunk`."""
        rows = self._kept[chunk.start - self._base : chunk.stop - self._base]
        if not self._several:
            return (rows,)
        return tuple([list(column) for column in zip(*rows, strict=True)])

    def drop(self, chunk: range) -> None:
        """Forget items from the front, as far as nothing before them is still wanted."""
        start = self._base
        if chunk.stop <= start:
            return
        self._dropped[max(chunk.start, start)] = chunk.stop  # some may be forgotten already
        while start in self._dropped:
            start = self._dropped.pop(start)
        # In large steps: each one moves what is left of the list.
        if start - self._base > len(self._kept) // 2:
            del self._kept[: start - self._base]
            self._base = start
        elif start > self._base:
            self._dropped[self._base] = start


def _length(iterables: tuple[Iterable[Any], ...]) -> int | None:
    """Return how many items there are if every iterable knows its length."""
    lengths = []
    for each in iterables:
        try:
            lengths.append(len(each))  # type: ignore[arg-type]
        except Exception:  # there is none, it is beyond an index, or the user's own fails
            return None
    return min(lengths)
