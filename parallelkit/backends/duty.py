"""What a worker has from the run that it works for, as the caller's end knows it.

Above all its chunks, oldest first, and how part of what it has not begun is taken back.  Neither
side waits for the other, and nothing is locked:

- the caller writes on the board up to where the worker may go (`Duty.reclaim`);
- the worker, before it begins some items, first writes that it does (a *claim*), then reads whether
  it may, and goes no further than it may;
- when all that was written has long been seen by both, the caller reads the claim: what is neither
  claimed nor allowed will not be begun (`Duty.settle`), and only then is it anybody else's.

Had the worker read the old limit, its claim would have been written before that, and would be seen
by then.  A worker that claimed more than it then may begin says so at the end of its chunk.
"""

from __future__ import annotations

from collections import deque

from ..board import Slot

SEEN = 0.5e-3
"""Seconds after which a store is seen by all who load, and what a processor put off is done: both
take less than a microsecond, and a process that is interrupted in between does not put off more."""


class Duty:
    """The chunks of one worker, whose line on the board is `slot`."""

    def __init__(self, slot: Slot, ashore: bool = False) -> None:
        self.slot = slot
        self.chunks: deque[range] = deque()
        self.numbers: deque[int] = deque()  # by which both ends know the chunks
        self.limits: dict[
            int, int
        ] = {}  # up to where those may be begun of which some is reclaimed
        self.asked = 0.0  # when these were written
        self.ghosts: set[int] = set()  # those that were taken back whole, of which it is to hear
        self.learned = 0  # definitions sent
        self.joined = False  # whether the run counts on it
        self.heard = False  # whether it has taken in what it was sent first
        self.heavy = False  # whether anything large has come from it
        self.ashore = ashore  # whether nothing may travel beside the messages

    def give(self, chunk: range) -> None:
        """Record that the worker was sent a chunk."""
        number = self.slot.turn()
        # Else it would be allowed what was taken from it: it may not have come to that yet.
        if self.ghosts:
            live = (*self.numbers, *self.ghosts)
            assert not any(self.slot.clash(number, each) for each in live), "it has too many chunks"
        self.slot.allow(number)
        self.chunks.append(chunk)
        self.numbers.append(number)

    def answered(self, stop: int, cut: bool) -> range:
        """Record that the oldest chunk was done up to `stop`, and ends there if it was `cut`.

        Return it as it was.
        """
        chunk = self.chunks[0]
        if cut or stop == chunk.stop:
            self.chunks.popleft()
            self.numbers.popleft()
        else:
            self.chunks[0] = range(stop, chunk.stop)
        return chunk

    def skipped(self, number: int) -> bool:
        """Record that the worker ran nothing of a chunk; return whether that is news."""
        self.ghosts.discard(number)
        return bool(self.numbers) and self.numbers[0] == number

    def clean(self) -> bool:
        """Return whether the worker has taken in all that was sent."""
        return self.heard and not self.chunks and not self.ghosts

    def reclaim(self, keep: float, now: float) -> None:
        """Allow the worker only a share of what it has not begun, and one item at least."""
        number, reach = self.slot.claimed()
        begun = [chunk.start for chunk in self.chunks]
        if number in self.numbers:
            at = self.numbers.index(number)
            begun[at] = max(reach, begun[at])
            begun[:at] = [chunk.stop for chunk in self.chunks][:at]
        spare = sum(chunk.stop - at for chunk, at in zip(self.chunks, begun, strict=True))
        kept = max(int(spare * keep), number not in self.numbers)
        limits = {}
        for each, chunk, at in zip(self.numbers, self.chunks, begun, strict=True):
            stop = min(chunk.stop, at + kept)
            kept -= stop - at
            if stop < chunk.stop:
                limits[each] = stop
        # The last first: a worker that has seen the end of one chunk will see that of the next.
        for each in reversed(limits):
            self.slot.limit(each, limits[each])
        self.limits, self.asked = limits, now

    def settle(self, now: float) -> int | None:
        """Return from which position on the worker begins nothing, and take that from it.

        None if it has begun everything, or this cannot be told yet: then the end of its chunk will
        tell.
        """
        if now - self.asked < SEEN:
            return None
        claimed, reach = self.slot.claimed()
        limits, self.limits = self.limits, {}
        numbers = list(self.numbers)
        for at, number in enumerate(numbers):
            chunk = self.chunks[at]
            stop = limits.get(number, chunk.stop)
            if number == claimed:
                stop = max(stop, reach)
            if stop < chunk.stop and claimed not in numbers[at + 1 :]:
                self._cut(at, stop)
                return stop
        return None

    def _cut(self, at: int, stop: int) -> None:
        chunk = self.chunks[at]
        kept = at + (stop > chunk.start)
        if kept > at:
            self.chunks[at] = range(chunk.start, stop)
        while len(self.chunks) > kept:
            self.chunks.pop()
            self.ghosts.add(self.numbers.pop())
