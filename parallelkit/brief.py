"""Calls of a few items that are like the call before, straight to its workers.

A call with workers is a run of the scheduler, which weighs who is to have what.  Where there are
few items and everything else is known, there is nothing to weigh, and that would be most of what
such a call costs.  Whatever goes otherwise than expected is for an engine, which takes over.

Holds what must be as it was; leaves to others how chunks go out and outcomes come back.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .backends import warm
from .backends.repeated import Repeated
from .context import capture
from .guests import at_home
from .machine import cpu_count
from .steady import still
from .wire import HEED

if TYPE_CHECKING:
    from .engine import Engine

TOGETHER = 50e-6
"""Seconds of work for which it does not pay to wake a second worker (benchmarks.versus)."""

FEW = 64  # items at most that one worker is sent in such a call


class Call:
    """What a call asked for whose run is kept."""

    def __init__(self, workers: int | None) -> None:
        self.workers = workers
        self.price: float | None = None  # of an item, once a call has told
        self.over = float("-inf")  # when the last such call was
        self.registry = _registry()
        # Where both ends can stay awake at once without taking time from each other.
        self.heedful = cpu_count() > 1

    def again(self, run: Repeated, fn: Any, workers: int | None) -> bool:
        """Return whether another call asks for the same, in the same surroundings."""
        return (
            self.workers is workers
            and still(run.parts, fn)
            and at_home()
            and capture(run.share) == run.context
            and _registry() == self.registry
        )

    def rapid(self, count: int) -> bool:
        """Return whether calls follow each other faster than an end falls asleep."""
        return self.takes(count) < HEED and perf_counter() - self.over < HEED

    def takes(self, count: int) -> float:
        """Return how many seconds so many items take: no end of them, where nobody knows."""
        price = self.price  # once: another thread may forget it
        return inf if price is None else count * price

    def spans(self, count: int, workers: int) -> list[range] | None:
        """Return which items go to a worker each, None if that is to be weighed."""
        if not 0 < count <= FEW:
            return None
        if count == 1 or self.takes(count) < TOGETHER:
            return [range(count)]
        return [range(at, at + 1) for at in range(count)] if count <= workers else None


class Begun:
    """A call whose `items` are with workers in chunks of `size`, and which needs an engine."""

    def __init__(self, run: Repeated, items: Sequence[Any], size: int) -> None:
        self.run = run
        self.items = items
        self.size = size
        self.engine: Engine | None = None

    def hand_over(self, engine: Engine) -> None:
        """Have an engine go on.

        It asks for just these chunks if it knows no price, for then a worker has one at a time.
        """
        self.engine = engine
        engine.open_backend = lambda: self.run
        pace = engine.run.pace
        pace.item, pace.seen, pace.seconds = None, 0, 0.0

    def close(self) -> None:
        """End what was begun, unless an engine came to it, which does so itself."""
        if self.engine is None or self.engine.backend is None:
            self.run.close()


def remember(engine: Engine, workers: int | None) -> None:
    """Keep what the next call can be compared with, of one that names only its workers."""
    run = engine.backend
    if type(run) is not Repeated or not run.kept:
        return
    if run.call is None or run.call.workers != workers:
        run.call = Call(workers)
    run.call.price = engine.run.pace.item


def attempt(
    fn: Callable[..., Any], iterables: tuple[Any, ...], workers: int | None
) -> tuple[list[Any] | None, Begun | None]:
    """Return the results of a call that names only its workers, or else what was begun of it."""
    run = warm.parked()
    if type(run) is not Repeated or len(iterables) != 1:
        return None, None
    call, column = run.call, iterables[0]
    if call is None or type(column) not in (list, tuple, range):
        return None, None
    spans = call.spans(len(column), len(run.links))
    if not spans or not call.again(run, fn, workers):
        return None, None
    items = column[:]  # pickling them can change the list
    results, begun = run.attempt(items, spans)
    return results, Begun(run, items, len(spans[0])) if begun else None


def _registry() -> set[str] | None:
    """Return the modules of which cloudpickle's user said that they go by value."""
    found = getattr(sys.modules.get("cloudpickle"), "list_registry_pickle_by_value", None)
    return None if found is None else found()
