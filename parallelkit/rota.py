"""Whose turn it is: a few workers, and many runs that want them, at the same time.

Runs are numbers here.  A run asks for workers, and holds each on a lease.  Where there are too few,
those who hold fewest come first, then those who have waited longest; a run that holds more than its
share gives one up, and where there are more runs than workers, leases end after `QUANTUM`.  Giving
up is done between two chunks, by whoever has the workers; here is only decided who.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

QUANTUM = 0.02
"""Seconds of a lease that others wait for: handing a worker over takes some 0.3 ms, 2 % of it, and
a request that finds eight others before it on two workers waits for less than a tenth of a second.
"""


class Lease(NamedTuple):
    """A worker that a run holds, and since when."""

    run: int
    worker: int
    since: float


class Rota:
    """Who has the workers, of whom there are `most`, and who waits for one."""

    def __init__(self, most: int = 1) -> None:
        self.most = most
        self.leases: dict[tuple[int, int], Lease] = {}
        self.wanted: dict[int, int] = {}  # how many more each run wants, who waits longest first
        self.recalled: set[tuple[int, int]] = set()

    def ask(self, run: int, count: int) -> None:
        """Note that a run wants `count` workers more."""
        self.wanted[run] = self.wanted.get(run, 0) + count

    def give_up(self, run: int) -> None:
        """Note that a run wants no more workers."""
        self.wanted.pop(run, None)

    def took(self, run: int, worker: int, now: float) -> None:
        """Note that a run has a worker from now on."""
        self.leases[run, worker] = Lease(run, worker, now)

    def left(self, run: int, worker: int) -> None:
        """Note that a run has a worker no longer."""
        self.leases.pop((run, worker), None)
        self.recalled.discard((run, worker))

    def forget(self, run: int) -> None:
        """Note that a run is over; it holds nothing any more."""
        self.give_up(run)
        for key in [key for key in self.leases if key[0] == run]:
            self.left(*key)

    def held(self, run: int) -> int:
        """Return how many workers a run has and is to keep."""
        return sum(key[0] == run and key not in self.recalled for key in self.leases)

    def grants(self) -> Iterator[int]:
        """Yield the run that may have the next worker, as long as there is one to be had.

        Before the next is asked for, `took` must have said what became of this one.
        """
        while self.wanted and len(self.leases) < self.most:
            run = min(self.wanted, key=self.held)
            count = self.wanted.pop(run) - 1
            if count:
                self.wanted[run] = count  # behind the others
            yield run

    def recalls(self, now: float, idle: Callable[[Lease], bool]) -> list[Lease]:
        """Return the leases that are to end as soon as may be, which then count as recalled."""
        ended = []
        # Those who come first get what was recalled before.
        for run in sorted(self.wanted, key=self.held)[len(self.recalled) :]:
            lease = self._owed(run, now, idle)
            if lease is not None:
                self.recalled.add((lease.run, lease.worker))
                ended.append(lease)
        return ended

    def _owed(self, run: int, now: float, idle: Callable[[Lease], bool]) -> Lease | None:
        """Return the lease that is to end for `run`, if one is."""
        others = self._others(run)
        unused = next(filter(idle, others), None)
        if unused is not None or not others:
            return unused
        mine = self.held(run)
        richest = max({lease.run for lease in others}, key=self.held)
        if self.held(richest) > mine + 1:
            return next(lease for lease in others if lease.run == richest)
        oldest = others[0]
        return oldest if not mine and now >= oldest.since + QUANTUM else None

    def _others(self, run: int) -> list[Lease]:
        """Return the leases that could end for `run`, the oldest first."""
        kept = [lease for key, lease in self.leases.items() if key not in self.recalled]
        return [lease for lease in kept if lease.run != run]

    @property
    def due(self) -> float:
        """The earliest time at which `recalls` may have something new by itself."""
        waiting = sorted(self.wanted, key=self.held)[len(self.recalled) :]
        if not waiting or self.held(waiting[0]):
            return math.inf
        others = self._others(waiting[0])
        return others[0].since + QUANTUM if others else math.inf
