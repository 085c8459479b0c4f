"""Which processor a worker sits on, where calls follow each other faster than an end falls asleep.

Who is written to is woken on the processor of who wrote, and goes on there while one of the two is
always at work (Linux 6.18: a task that sleeps for a moment does not even leave the processor's
queue).  So a call of next to nothing takes 125 us, as both take turns and find the caches cold,
where on a processor each they take 55 (measured, two virtual CPUs; 1,000 such calls did not change
it).  Only who is awake can be moved, and the kernel has no word for it but the affinity,
which is changed for a moment and set again, between two calls of the user's function.  (What the
system sets in that moment is lost; and a worker that has moved will not be on processors that its
container is given later.)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter

from . import wire

_LOSSES = 3
"""Calls in a row that found the processor shared, before the worker moves: that takes 150 to 300
us, which is what is lost by three or four (measured)."""

_STAY, _LONG = 1e-3, 1.0
"""Seconds until it may move again: each move doubles them, up to the second number, as long as the
new place turns out to be shared too, which it is where all processors are busy."""


def move() -> bool:
    """Have this thread go on on another processor, if it may; return whether that was done."""
    try:
        with open("/proc/thread-self/stat", "rb") as file:
            here = int(file.read().rpartition(b")")[2].split()[36])
        allowed = os.sched_getaffinity(0)
        others = allowed - {here}
        if others:
            try:
                os.sched_setaffinity(0, others)
            finally:
                os.sched_setaffinity(0, allowed)
    except Exception:  # not Linux, or not all of it, or forbidden: no worker may be lost for this
        return False
    return bool(others)


class Seat:
    """Where a worker sits, and whether it would better sit elsewhere.

    `watch` looks for what comes, as `wire.heed` does; `leave` goes elsewhere, if that can be.
    """

    def __init__(
        self,
        watch: Callable[..., object] = wire.heed,
        leave: Callable[[], bool] = move,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._watch, self._leave, self._clock = watch, leave, clock
        self.answered = self.moved = float("-inf")
        self.quick = False  # whether calls follow each other, and each is soon over
        self.losses = self.gains = 0  # such calls in a row that found it shared, or not
        self.stay = _STAY

    def attend(self, began: float, look: Callable[[], object]) -> None:
        """Look for what comes after an answer, given just now to what was heard at `began`.

        `began` is a time of `perf_counter`.
        """
        now = self._clock()
        self.quick = began - self.answered < wire.HEED and now - began < wire.HEED
        self.answered = now
        if not self.quick:
            self.losses = self.gains = 0
        losses = self.losses
        self._watch(look, crowded=self._shared)
        if self.losses == losses:  # not shared: that adds one, or makes 0 of two and more
            self.losses = 0
            self.gains += self.quick
            if self.gains >= _LOSSES:
                self.stay = _STAY

    def _shared(self) -> float:
        """Return until when to look on, 0.0 for no longer: somebody else has had the processor."""
        now = self._clock()
        self.gains = 0
        self.losses += self.quick
        if self.losses < _LOSSES or now - self.moved < self.stay:
            return 0.0
        self.losses = 0
        self.stay = min(2 * self.stay, _LONG)
        self.moved = now
        return self._clock() + wire.HEED if self._leave() else 0.0
