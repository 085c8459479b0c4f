"""A reduction whose shape depends on positions alone.

Values are combined as a binary tree over their positions: a *block* is the fold of `2**k` values
that begin at a multiple of `2**k`, always made of its two halves.  Any chunk, wherever it begins
and ends, folds into a few such blocks, and neighbours that complete a larger block are combined;
so the value is the same, bit for bit, for any chunks, workers and backend.  Only associativity is
asked of the operation: the operands keep their order.

(Pairwise summation of floats is this tree; its error grows with `log n` where a loop's grows with
`n`: Higham, SIAM J. Sci. Comput. 14, 1993.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from sys import getsizeof
from typing import Any, NamedTuple

Operation = Callable[[Any, Any], Any]

_PIECE = 1 << 13  # values that are folded before the next ones: 0.85 of the time of all at once,
# since what is between stays in the processor's cache
_LARGE = 1 << 14  # bytes of a value, beside which some calls of ours are nothing


class Block(NamedTuple):
    """The fold of the `size` values from `start` on."""

    start: int
    size: int
    value: Any


def fold(op: Operation, start: int, values: Sequence[Any]) -> list[Block]:
    """Return the blocks, in order, that the values at positions `start` onwards fold into."""
    blocks = []
    stop = start + len(values)
    position = start
    while position < stop:
        size = _largest(position, stop)
        whole = size == len(values)  # as mostly, and then it need not be copied
        part = values if whole else values[position - start : position - start + size]
        blocks.append(Block(position, size, _halve(op, part)))
        position += size
    return blocks


def _largest(start: int, stop: int) -> int:
    """Return the size of the largest block that begins at `start` and ends by `stop`."""
    room = 1 << ((stop - start).bit_length() - 1)
    return min(room, start & -start) if start else room


def _halve(op: Operation, values: Sequence[Any]) -> Any:
    """Fold a power of two of values: neighbours first, then neighbours of these, and so on."""
    if len(values) > 2 and _large(values[0]):
        # One half after the other, so that there are a few folds at a time and not half as many
        # as values: memory that was just given back is had again for nothing.
        half = len(values) // 2
        return op(_halve(op, values[:half]), _halve(op, values[half:]))
    if len(values) > _PIECE:
        starts = range(0, len(values), _PIECE)
        values = [_halve(op, values[start : start + _PIECE]) for start in starts]
    while len(values) > 1:
        left, right = values[::2], values[1::2]
        # In 0.6 of the time of a comprehension (3.11), where operators are concerned.
        values = list(map(op, left, right))
        for at in range(len(values), len(left)):  # it raised StopIteration, which ends a map()
            values.append(op(left[at], right[at]))
    return values[0]


def _large(value: Any) -> bool:
    try:
        return getsizeof(value) > _LARGE
    except Exception:  # the user's own __sizeof__ can raise anything
        return False


class Eager:
    """Values of a part that begins at `start`, folded as they come where they are large or many.

    So few of them are held.  Sixteen arrays of 8 MB that are made first and added up then take
    three times as long as when each is added as soon as it can be: memory that is new to a process
    is what costs.
    """

    def __init__(self, op: Operation, start: int) -> None:
        self.tree = Tree(op)
        self.start = start
        self.count = 0  # values that were folded, and are held no more
        self.error: BaseException | None = None  # what `op` raised

    def take(self, values: list[Any]) -> None:
        """Fold those of the next `values` that are large or many, and take them out of the list.

        What `op` raises is kept, and told with the part.
        """
        if self.error is not None or not values:
            return
        try:
            stop = len(values)
            if not _large(values[-1]):  # whole pieces: what is cut anywhere makes many blocks
                stop -= (self.start + self.count + stop) % _PIECE
            if stop > 0:
                self._fold(values if stop == len(values) else values[:stop])
                del values[:stop]
                self.count += stop
        except BaseException as error:
            self.error = error

    def blocks(self, values: list[Any]) -> list[Block]:
        """Return the blocks that all fold into, `values` last, or raise what `op` raised."""
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback has this frame, and so would the values live on with it
        self._fold(values)
        return self.tree.blocks

    def _fold(self, values: list[Any]) -> None:
        self.tree.add(fold(self.tree.op, self.start + self.count, values))


class Tree:
    """Blocks as they arrive in order, combined as far as they go."""

    def __init__(self, op: Operation) -> None:
        self.op = op
        self.blocks: list[Block] = []

    def add(self, blocks: Sequence[Block]) -> None:
        """Add the blocks that follow those added so far."""
        for block in blocks:
            self.blocks.append(block)
            self._combine()

    def _combine(self) -> None:
        while len(self.blocks) > 1:
            left, right = self.blocks[-2:]
            if left.size != right.size or left.start % (2 * left.size):
                return
            value = self.op(left.value, right.value)
            self.blocks[-2:] = [Block(left.start, 2 * left.size, value)]

    def total(self) -> Any:
        """Return the fold of everything added, which is at least one block.

        What is left are blocks of falling size: the last, smallest ones are combined first, so the
        shape depends on nothing but how many values there were.
        """
        *rest, last = [block.value for block in self.blocks]
        for value in reversed(rest):
            last = self.op(value, last)
        return last
