"""A call that its caller runs alone, as long as workers would not end it sooner.

Most calls never come to that, and pay for nothing that workers need.  Else, and when an item fails
or takes so long that others had better not wait for it, an engine takes over where the caller is.
Whether workers pay, `chunking` says.  This room, and what it loads, must load next to nothing: for
a short script that is what the whole call costs.
"""

from __future__ import annotations

from _weakref import proxy  # `weakref` is more to load
from time import perf_counter, thread_time

from . import learned
from .guard import Guard
from .home import Home

TYPE_CHECKING = False  # type checkers take it for true, and importing `typing` costs 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .backends import Backend
    from .chunking import Pace
    from .engine import Engine
    from .source import Source

PROBE = 1e-3  # seconds that the caller runs items before anything is decided
PATIENCE = 2e-3  # seconds longer than a turn should take after which others take over the rest
FAST = 5e-6  # seconds of an item below which it cannot have waited, only been interrupted
AT_ONCE = 4096  # items of an iterator that are pulled before they are run
FEW = 16  # the least, to be shared if the first of them is a long one
PULLING = 1e-3  # seconds of pulling after which these are fewer


class Solo:
    """One call.

    `open_engine` makes the engine that takes over, told whether workers are sure to be wanted.
    `results` is the list that the caller is to have in the end.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        source: Source,
        open_engine: Callable[[Home, bool], Engine],
    ) -> None:
        self.source = source
        self.open_engine = open_engine
        self.results: list[Any] = []
        self.home = Home(fn, source, None, None)
        self.home.sink = self.results
        self.key = learned.key(fn, source.kind)
        self.pace: Pace | None = None  # when there is something to decide
        self.engine: Engine | None = None
        self.budget = PROBE
        self.pulling = 1
        self.ended = source.length is not None and source.at_hand >= source.length
        self.brief = False  # whether nobody need watch
        self.began = 0.0  # by the clock of this thread

    def run(self) -> Engine | None:
        """Run items to the end; or return the engine that is to go on, which knows how far it is.

        What the function raises is the engine's to tell.
        """
        self.began = thread_time()
        costs = learned.recall(self.key)
        if costs is not None:
            length = self.source.length
            self.brief = length is not None and costs[0] * length < PROBE
            # What carrying an item costs is only guessed if it was never weighed.
            if not self.brief and costs[1] is not None and self._pays(costs):
                return self._shared()
        # Not itself: what the caller lets go of must not wait for the guard's thread to end.
        guard = Guard(proxy(self))
        try:
            return self._run(guard)
        except BaseException:
            if self.engine is not None:
                self.engine.close()
            raise
        finally:
            guard.close()

    def _run(self, guard: Guard) -> Engine | None:
        results, source, home = self.results, self.source, self.home
        while True:
            start = len(results)
            if start == source.at_hand and not self._pull():
                break
            if self.brief or self.deadline is None:
                seconds, failure = self._turn()
            else:
                with guard:
                    seconds, failure = self._turn()
            if failure is not None or self.engine is not None:
                return self._left(start, seconds, failure)
            home.seconds += seconds
            if not (self.ended and len(results) == source.at_hand):
                self.brief = False  # it has turned out otherwise
                if self._pays(None, start):
                    return self._shared()
            source.drop(range(start, len(results)))
        if source.error is not None:
            return self._opened()
        self._conclude()
        return None

    def _turn(self) -> tuple[float, BaseException | None]:
        """Run what is at hand, as far as the budget goes."""
        chunk = range(len(self.results), self.source.at_hand)
        began = perf_counter()
        try:
            self.home.run(chunk, self.budget, self.results)
        except Exception as error:
            return perf_counter() - began, error
        return perf_counter() - began, None

    def _pull(self) -> bool:
        """Take further items; return whether there are any."""
        if self.ended:
            return False
        before = self.source.at_hand
        while not self.ended and self.source.at_hand - before < FEW:
            began = perf_counter()
            _, self.ended = self.source.pull(self.pulling)
            if perf_counter() - began > PULLING:
                self.pulling = 1
                break
            self.pulling = min(4 * self.pulling, AT_ONCE)
        return self.source.at_hand > before

    def _pays(self, costs: learned.Costs | None, start: int = 0) -> bool:
        """Return whether workers are expected to end the call sooner; choose the next budget.

        The items from `start` on are those of the last turn, which are still there.
        """
        home, count = self.home, len(self.results)
        if costs is None and home.seconds < PROBE:
            self.budget = PROBE - home.seconds
            return False
        from .chunking import Pace

        pace = self.pace
        if pace is None:
            item, carriage, weight = costs or (None, None, 0.0)
            pace = self.pace = Pace(item=item, launch=0.0, carriage=carriage, weight=weight)
        if costs is None:
            pace.seen, pace.seconds, pace.item = count, home.seconds, self._price()
        self.budget = pace.budget()
        return self._worthwhile(pace, start)

    def _worthwhile(self, pace: Pace, start: int) -> bool:
        from .machine import cpu_bound

        length, workers = self.source.length, cpu_bound()
        left = None if length is None else length - len(self.results)
        pace.launch = learned.launch(workers if left is None else min(workers, left))
        if not pace.worthwhile(left, workers):
            return False
        if pace.carriage is None and self.results:
            pace.carriage = self.home.weigh(start, self.results[start : start + 64])
        return pace.worthwhile(left, workers)

    def _conclude(self) -> None:
        """Remember what the call taught."""
        count, pace = len(self.results), self.pace
        if not count:
            return
        if pace is not None:
            known = pace.carriage, pace.weight
        else:
            before = learned.recall(self.key)
            known = (None, 0.0) if before is None else before[1:]
        learned.remember(self.key, (self._price(), *known))

    def _price(self) -> float:
        """Return the seconds that an item takes.

        On a busy machine fast ones seem to take several times as long, which no worker would mend.
        """
        count = len(self.results)
        item = self.home.seconds / count
        if item < FAST:
            item = min(item, (thread_time() - self.began) / count)
        return max(item, 1e-9)

    # An engine takes over.

    def _shared(self) -> Engine:
        """Return an engine that is to share the work."""
        return self._opened(shared=True)

    def _opened(self, shared: bool = False) -> Engine:
        """Return an engine that knows how far the caller is."""
        engine, known = self.open_engine(self.home, shared), self.pace
        engine.begin_with(len(self.results))
        if known is not None and known.item is not None:  # as of the last turn
            pace = engine.run.pace
            pace.seen, pace.item, pace.carriage = known.seen, known.item, known.carriage
            pace.seconds = known.seen * known.item
        return engine

    def _left(self, start: int, seconds: float, failure: BaseException | None) -> Engine:
        """Return the engine that has taken over in this turn, or does so since an item failed.

        The turn began with item `start`.
        """
        engine, results = self.engine, self.results
        self.home.halted = False
        if engine is None:
            engine = self._opened()
            engine.begin_with(len(results), 1)
            engine.step()
        held = engine.run.home.chunk
        assert held is not None
        before = held.start - start  # the engine knows nothing of these
        if before:
            share = seconds * before / (len(results) - start + (failure is not None))
            engine.run.pace.observe(before, share)
            seconds -= share
        engine.answer(held, self.home.told(held, results, held.start, seconds, failure))
        return engine

    # What the guard asks.

    @property
    def deadline(self) -> float | None:
        """When the caller has been in an item for too long."""
        if self.engine is not None:
            return self.engine.deadline
        if self.ended and self.source.at_hand - len(self.results) < 2:
            return None  # nothing waits for it
        return perf_counter() + self.budget + PATIENCE

    @property
    def backend(self) -> Backend | None:
        """Where workers are, if there are any."""
        return None if self.engine is None else self.engine.backend

    def act(self) -> None:
        """Have an engine take over the rest, in the guard's thread."""
        if self.engine is not None:
            self.engine.act()
            return
        self.home.halted = True  # first, so that what is said next is how far it goes
        done, until = len(self.results), self.home.until
        if done == until:  # it is between two turns of the loop, and will look at the clock
            self.home.halted = False
            return
        engine = self._opened()
        engine.begin_with(done, until - done)
        self.engine = engine  # before it acts, as what it began is to be ended if that fails
        engine.act()
