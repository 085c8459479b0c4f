"""What travels to a worker and back for an executor: one task, or several that are known short.

Here is decided how many travel together and what becomes of each; when a worker is free for them is
the run's to say, and `service` carries it out.
"""

from __future__ import annotations

import math
import pickle
import sys
from functools import partial
from itertools import islice
from multiprocessing.process import current_process
from types import BuiltinFunctionType, CodeType
from typing import Any

from .desk import Desk, Future
from .errors import WorkerDied
from .pages import SETTLED, Page, Pages, run
from .tasks import Key, Task

LONG = 1e-3  # seconds of work that travel together: ten journeys, so these are a tenth of the cost
MOST = 100  # tasks that travel together: more gains nothing, and they cannot be cancelled
PATIENCE = 2e-3  # seconds until a trip of several is looked after: twice what it should take
_NEVER = math.inf
_KINDS = 256  # functions whose price is remembered; a program has a handful


class Trip:
    """One task, or with a `page` several, on their way.

    With a page, the futures of those that were taken back are no longer here.  From `due` on it is
    to be looked after.  A `killed` one was ended on purpose, and nobody else is to blame.
    """

    __slots__ = ("asked", "due", "futures", "killed", "page")

    def __init__(
        self, futures: list[Future], page: Page | None = None, due: float = _NEVER
    ) -> None:
        self.futures = futures
        self.page = page
        self.due = due
        self.asked = self.killed = False

    def task(self) -> Future | None:
        """Return the task that the worker is on, or was on when it ended, if that can be told."""
        futures, page = self.futures, self.page
        if page is None:
            return futures[0] if futures else None
        begun = page.begun
        return futures[begun] if 0 <= begun < min(page.end, len(futures)) else None

    def begin(self) -> list[Task]:
        """Return the tasks, which from now on count as running, without those cancelled."""
        pairs = [(future, future.begin()) for future in self.futures]
        self.futures = [future for future, task in pairs if task is not None]
        if not self.futures:
            self.page = None
        return [task for _, task in pairs if task is not None]

    def tell(self, end: int) -> None:
        """Give the results before `end` that lie on the page to their futures."""
        assert self.page is not None
        for number, blob in enumerate(self.page.results(end), self.page.read):
            try:
                value, error = pickle.loads(blob), None
            except Exception as failed:  # a result's own __setstate__ can raise anything
                value, error = None, failed
            self.futures[number].end(value, error)

    def look_after(self, now: float) -> list[Future]:
        """Return what waits behind a task that takes long, once it is sure that it waits."""
        page = self.page
        assert page is not None
        begun = max(0, page.begun)
        if not self.asked or begun >= page.end:
            page.end = begun + 1
            self.asked, self.due = True, now + SETTLED
            return []
        self.tell(begun)
        left = self.futures[page.end :]
        del self.futures[page.end :]
        self.due = _NEVER
        return left

    def end(self, future: Future) -> bool:
        """Have a task not run; return whether its worker must be ended for that."""
        if self.page is None:
            return True
        number = self.futures.index(future)
        if self.page.begun < number:
            self.page.end = min(self.page.end, number)
            return False
        self.killed = self.page.begun == number
        return self.killed

    def go_back(self) -> list[Future]:
        """Start again after a worker went, with the task that it was on; return the others."""
        assert self.page is not None
        self.tell(len(self.futures))
        left = self.futures[self.page.read :]
        self.page, self.futures, self.due = None, left[:1], _NEVER
        return left[1:]

    def arrived(self, value: Any) -> list[Future]:
        """Give out what came back; return the tasks that were not run."""
        if self.page is None:
            for future in self.futures:
                future.end(value, None)
            return []
        number, made, result = value
        self.tell(number)
        for future in self.futures[number : number + made]:
            future.end(result, None)
        return self.futures[number + made :]

    def failed(self, error: BaseException) -> list[Future]:
        """Give the error to the task that is to blame; return those that were not run."""
        if self.page is None:
            for future in self.futures:
                future.end(None, error)
            return []
        begun = self.page.begun
        if begun < 0:  # it could not travel, and each by itself will show why
            for future in self.futures:
                future.alone = True
            return self.futures
        self.tell(begun)
        blamed = self.task() if isinstance(error, WorkerDied) else None
        if not isinstance(error, WorkerDied):
            blamed = self.futures[begun] if begun < len(self.futures) else None
        if blamed is None or (self.killed and not blamed.cancelled()):
            return self.futures[begun:]
        blamed.end(None, error)
        return self.futures[begun + 1 :]


class Journeys:
    """The open input of an executor's run: positions for what waits, bound when they are sent."""

    def __init__(self, desk: Desk, workers: int, together: bool) -> None:
        self.desk = desk
        self.workers = workers
        self.together = together
        self.length: int | None = None
        self.at_hand = 0
        self.error: Exception | None = None
        self.kind: type | None = None
        self.bound: dict[int, Trip] = {}
        self.free = 0  # positions that were made and not bound
        self.prices: dict[object, float] = {}
        self.pages: Pages | None = None

    def pull(self, count: int) -> tuple[int, bool]:
        """Make positions for what waits; none, and not the last, is no answer yet."""
        count = max(0, min(count, len(self.desk.queue) - self.free))
        self.free += count
        over = not count and self.desk.over()
        # Some of those who travel together may come back in want of another journey.
        return count, over and not any(trip.page for trip in self.bound.values())

    def columns(self, chunk: range) -> tuple[list[None]]:
        """Return nothing: what travels depends on the worker, and `load` says it."""
        return ([None] * len(chunk),)

    def load(self, position: int, worker: int, now: float) -> tuple[Any, ...] | None:
        """Return what travels to `worker` for `position`, and counts as running from now on."""
        trip = self.bound.get(position)
        if trip is None:
            self.free -= 1
            trip = self.bound[position] = self._trip(worker, now)
        elif trip.page is not None:  # its worker is gone, through no fault of a task
            self.again(trip.go_back())
        tasks = trip.begin()
        if trip.page is None:
            return (*_key(), *tasks[0]) if tasks else None
        assert self.pages is not None
        trip.page.open(len(tasks))
        rows = [task[1:] for task in tasks]
        return (*_key(), run, (self.pages.place(trip.page), tasks[0][0], rows), {})

    def _trip(self, worker: int, now: float) -> Trip:
        first = next(self.desk.take(), None)
        if first is None:
            return Trip([])
        count = self._count(first)
        page = self._page(worker) if count > 1 else None
        if page is None:
            return Trip([first])
        futures = [first, *islice(self.desk.take(like=first), count - 1)]
        return Trip(futures, page, now + PATIENCE)

    def _count(self, first: Future) -> int:
        """Return how many tasks like `first` should travel together."""
        price = self.prices.get(kind(first)) if self.together and not first.alone else None
        waiting = len(self.desk.queue)
        if price is None or waiting < self.workers or price > LONG / 2:
            return 1
        return min(MOST, int(LONG / max(price, 1e-6)), 1 + waiting // self.workers)

    def _page(self, worker: int) -> Page | None:
        try:
            if self.pages is None:
                self.pages = Pages(self.workers)
            used = {trip.page.number for trip in self.bound.values() if trip.page is not None}
            return self.pages.of(worker, used)
        except LookupError:
            return None
        except (OSError, MemoryError):  # no room
            self.together = False
            return None

    def learn(self, position: int, seconds: float) -> None:
        """Note what the tasks of a trip that came back took."""
        trip = self.bound.get(position)
        if trip is None or not trip.futures or not self.together:
            return
        count = 1 if trip.page is None else max(0, trip.page.begun) + 1
        name, price = kind(trip.futures[0]), seconds / count
        old = self.prices.get(name, price)
        # The dearer weighs more: what is held up by a long one has waited for nothing.
        self.prices[name] = max((old + price) / 2, price / 4)
        if len(self.prices) > _KINDS:
            self.prices.pop(next(iter(self.prices)))

    def leave(self, position: int) -> Trip:
        """Forget a position, and return what travelled for it."""
        return self.bound.pop(position)

    def again(self, futures: list[Future]) -> None:
        """Let tasks that travelled in vain be the next."""
        self.desk.queue.extendleft(reversed(futures))

    def rest(self) -> list[Future]:
        """Return the tasks on their way that have no outcome, when all workers are gone."""
        left: list[Future] = []
        for trip in self.bound.values():
            others = trip.go_back() if trip.page is not None else []
            left += [*trip.futures, *others]
        return left

    def gone(self, worker: int) -> None:
        """Let the page of a worker that is gone be another's."""
        if self.pages is not None:
            self.pages.leave(worker)

    def drop(self, _: range) -> None:
        """Nothing more is kept."""

    def words(self, position: int) -> str:
        """Return words for the task at `position`."""
        task = self.bound[position].task()
        return "a task" if task is None else task.words()


def kind(future: Future) -> object:
    """Return what tells that two tasks should take alike: the code they run."""
    fn = future.function()
    while isinstance(fn, partial):
        fn = fn.func
    code = getattr(fn, "__code__", None)
    if isinstance(code, CodeType):
        return code
    return fn if isinstance(fn, BuiltinFunctionType) else type(fn)


def _key() -> tuple[Key, ...]:
    """Return what must go before a task so that it can reach a manager, if there may be one."""
    if "multiprocessing.managers" not in sys.modules:
        return ()
    return (Key(bytes(current_process().authkey)),)
