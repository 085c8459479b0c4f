"""What follows from all ledgers of a run: how far it is, what it waits for, whether it is sound.

`Outlook` looks and answers; it changes nothing.  Acting on the answers is `scheduler`'s.
"""

from __future__ import annotations

from itertools import pairwise

from parallelkit.ledgers import Failures, Home, Input, Limits, Output, Staff
from parallelkit.records import dataclass
from parallelkit.stealing import Stealing


@dataclass(slots=True)
class Outlook:
    """The view of a run that says what it waits for."""

    limits: Limits
    stock: Input
    staff: Staff
    home: Home
    output: Output
    stealing: Stealing
    failures: Failures

    def deadline(self) -> float | None:
        """Return the earliest time at which a `Tick` changes anything, or None."""
        times = [self.home.watch, self.failures.until, self.stealing.deadline()]
        if self.stock.resting:
            times.append(self.stock.resting[0][0])
        if self.limits.timeout is not None and self.staff.since:
            times.append(next(iter(self.staff.since.values())) + self.limits.timeout)
        return min((time for time in times if time is not None), default=None)

    def first(self) -> int:
        """Return the lowest position that was not given."""
        if self.limits.ordered:
            return self.output.given
        held = self.lowest_held()
        left = [self.stock.first(), *(block.start for block in self.home.bound[:1])]
        return min(left if held is None else [*left, held])

    def settled(self, first: int, now: float) -> bool:
        """Return whether the failure at `first` is to be told now."""
        if self.failures.until is not None and now >= self.failures.until:
            return True
        if self.stock.queued or self.stock.resting or self.home.bound:
            return False
        lowest = self.lowest_held()
        return lowest is None or lowest >= first

    def lowest_held(self) -> int | None:
        """Return the lowest position that a worker or the caller holds, or None."""
        starts = [chunk.start for held in self.staff.chunks.values() for chunk in held]
        if self.home.chunk is not None:
            starts.append(self.home.chunk.start)
        return min(starts, default=None)

    def awaits(self) -> bool:
        """Return whether an event is still to come: an answer, a time, or a taken outcome."""
        stock, output = self.stock, self.output
        busy = self.staff.busy() or self.home.chunk is not None
        answers = busy or stock.asked is not None or self.staff.starting
        return bool(answers or stock.resting) or output.taken < output.given

    def audit(self) -> None:
        """Raise AssertionError if the ledgers contradict each other."""
        stock, staff, home = self.stock, self.staff, self.home
        alone = [range(position, position + 1) for position in stock.again()]
        held = [chunk for chunks in staff.chunks.values() for chunk in chunks]
        here = [] if home.chunk is None else [home.chunk]
        ready = self.output.ready.values()
        blocks = [*stock.waiting, *alone, *held, *here, *home.bound, *ready]
        blocks.sort(key=lambda block: block.start)
        assert all(a.stop <= b.start for a, b in pairwise(blocks)), "a position is in two places"
        count = sum(map(len, blocks)) + self.output.given
        assert count == stock.pulled or self.failures.first is not None, "a position is nowhere"
        queued = sum(map(len, [*stock.waiting, *alone])) - len(stock.resting)
        assert stock.queued == queued, "the queue is miscounted"
        assert not staff.lone or len(held) + len(here) <= 1, "a lone item has company"
        assert self.limits.home or not home.bound, "the caller is left what it may not run"
        self._audit_staff()

    def _audit_staff(self) -> None:
        staff = self.staff
        loads = {worker: len(chunks) for worker, chunks in staff.chunks.items()}
        assert set(staff.idle) == {worker for worker, load in loads.items() if load == 0}, "idle"
        half = {worker for worker, load in loads.items() if load == 1} - set(self.stealing.owed)
        assert set(staff.half) == half, "half"
        assert staff.starting >= 0, "more workers came than were asked for"
        assert not (staff.timed and set(staff.since) - set(staff.chunks)), "a clock runs for nobody"
        self._audit_stealing(loads)

    def _audit_stealing(self, loads: dict[int, int]) -> None:
        stealing = self.stealing
        assert self.limits.stealing or not stealing.begun, "work is taken where it cannot be"
        assert set(stealing.asked) <= set(stealing.owed), "an answer is due from nobody"
        assert all(loads.get(worker) for worker in stealing.owed), "the idle owe work"
        assert stealing.promised == sum(stealing.owed.values()), "what is owed is miscounted"
        owing = {worker for worker, count in stealing.owed.items() if count}
        assert not owing & set(stealing.ends), "a worker is asked while it is asked"
        wrong = "the idle are expected to be busy"
        assert set(stealing.ends) <= {worker for worker, load in loads.items() if load}, wrong
