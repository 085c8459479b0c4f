"""One run among many that share workers, in one thread: a `Visit`.

It is an engine as any other, with three differences.  It never waits, but goes as far as it can and
says when it is to be looked after again.  It asks for its workers, is granted them one by one, and
gives one back between two chunks when others wait.  And what its caller is to hear, who is in
another thread, is told; what the caller says comes back as calls in this one.

Who is granted what is decided in `rota`, and `host` calls.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from time import perf_counter
from typing import Any
from weakref import WeakMethod

from . import events
from .backends import Backend, Block
from .backends.processes import Processes
from .branches import Branch, Trunk
from .calls import abroad, staffing, terms
from .chunking import WAIT
from .engine import Engine
from .errors import WorkerDied
from .failures import note
from .options import Plan
from .outcomes import Outcomes, Work
from .rota import Rota
from .source import Indexed, Pulled, Source
from .tasks import RAISED, Initial, Task, call, told
from .wire import END, Message

GRACE = 0.1
"""Seconds that what runs may go on when the caller gave up: a worker that comes to the end of its
chunk serves the next, and another costs 2 ms to start.  Chunks of short items take a tenth."""

_numbers = itertools.count(1)

Words = events.Pull | tuple[Block, int] | None
"""What a visit tells its caller: give me more items; here are outcomes, of so many; it is over."""


class Fed(Pulled):
    """Items that the caller sends, as they are asked for."""

    def __init__(self, several: bool, length: int | None = None) -> None:
        super().__init__(((),))
        self.length = length
        self._several = several
        self.inflow: deque[Any] = deque()
        self.last = False
        self.asked = 0  # items for which there is no answer

    def pull(self, count: int) -> tuple[int, bool]:
        """Take up to `count` of the items that were sent."""
        got = min(count, len(self.inflow))
        self._kept.extend(self.inflow.popleft() for _ in range(got))
        return got, self.last and not self.inflow


class Lodging(Processes):
    """Worker processes held on leases, which end one by one."""

    brisk = False

    def __init__(self, checked: Plan, work: Work, trunk: Trunk, rota: Rota, run: int) -> None:
        super().__init__(*staffing(checked, work))
        self.selector.close()
        self.selector = Branch(trunk, run)
        self.rota = rota
        self.run = run
        self.recalled: set[int] = set()

    def _adopt(self, number: int, link: Any) -> None:
        super()._adopt(number, link)
        self.rota.took(self.run, number, perf_counter())

    def _part(self, number: int) -> Any:
        self.rota.left(self.run, number)
        self.recalled.discard(number)
        return super()._part(number)

    def send(self, worker: int, chunk: range, columns: tuple[Any, ...]) -> int:
        """Have `worker` run a chunk; one that is to leave is lost before it has come to it."""
        return 0 if worker in self.recalled else super().send(worker, chunk, columns)

    def wait(self, timeout: float | None) -> list[tuple[events.Event, Block | None]]:
        """Return what happened; workers that were recalled are lost when they have no chunk."""
        happened = super().wait(timeout)
        for worker in tuple(self.recalled):
            if self.idle(worker):
                self._give_back(worker)
                happened.append((events.Lost(worker, swept=True), None))
        return happened

    def idle(self, worker: int) -> bool:
        """Return whether a worker has nothing to do."""
        duty = self.links[worker].duty
        return duty.heard and not duty.chunks

    def _give_back(self, worker: int) -> None:
        link = self._part(worker)
        link.say(Message(END, b""))
        link.outbox.flush()
        link.pool.give_back(link)


class Visit(Engine):
    """One run, on workers that it is lent, for a caller in another thread.

    `tell`, a method, is called with what the caller is to hear, in the thread that serves the run.
    """

    source: Source
    backend: Backend | None
    failure: BaseException | None
    open_backend: Callable[[], Backend]

    def __init__(
        self,
        checked: Plan,
        work: Work,
        source: Source,
        tell: Callable[[Words], None],
        ordered: bool = True,
        ahead: int | None = None,
        grace: float | None = WAIT,
    ) -> None:
        limits, pace = terms(checked, work, source, ordered, ahead, grace, shared=True)
        super().__init__(work, source, limits, pace, _homeless)
        self.number = next(_numbers)
        self.checked = checked
        # Not itself: what waits for it in a loop that was left behind could never be forgotten.
        self.teller = WeakMethod(tell)
        self.context = copy_context()  # the caller's: pickling runs code of the caller's
        self.wanted = 0  # workers that the run asked for since this was last looked at
        self.leaving: float | None = None  # until when what runs may go on, if the caller left
        self.over = False

    # In the thread that serves it.

    def lodge(self, trunk: Trunk, rota: Rota, ring: Callable[[], None]) -> None:
        """Have workers from `rota`, watched through `trunk`, or another engine's, who `ring`."""
        work = self.outcomes.work
        if self.checked.backend.venue is not None:
            self.open_backend = partial(_abroad, self.checked, work, ring)
            return
        self.open_backend = partial(Lodging, self.checked, work, trunk, rota, self.number)

    def advance(self) -> None:
        """Do what can be done without waiting."""
        now = perf_counter()
        deadline = self.run.deadline
        if deadline is not None and now >= deadline:
            self.events.append(events.Tick())
        if self.backend is not None and now >= self.governor.due:
            self._look_after_memory(now)
        while not self.over:
            while self.todo and not self.over:
                self.obey(self.todo.popleft())
            if not self.events:
                self._listen(0.0)
            if not self.events:
                break
            self.todo.extend(self.run.handle(self.events.popleft(), now := perf_counter()))
        if self.leaving is not None and (now >= self.leaving or not self._running()):
            self.finish()

    @property
    def due(self) -> float:
        """When it is to be looked after, whatever happens."""
        return min(self.governor.due, self.run.deadline or math.inf, self.leaving or math.inf)

    def obey(self, command: events.Command) -> None:
        """Carry out a command; a `Pull` or a `Start` later."""
        match command:
            case events.Give(chunk):
                block = self.outcomes.take(chunk)
                self.source.drop(chunk)
                self.tell((block, len(chunk)))
            case events.Finish():
                self.failure = self.source.error
                self.finish()
            case events.Fail(position, reason):
                self.failure = self._failure(position, reason)
                self.finish()
            case events.Pull(count):
                assert isinstance(self.source, Fed)
                self.source.asked = count
                self._ask(self.source)
            case events.Start(count) if self.checked.backend.venue is None:
                self.wanted += count
            case _:
                super().obey(command)

    def granted(self) -> None:
        """Take one of the workers that were asked for, or start it."""
        self._start(1)

    def _ask(self, source: Fed) -> None:
        """Answer the run's `Pull`, or ask the caller for what it takes."""
        count, last = source.pull(source.asked)
        if count or last:
            source.asked = 0
            self.events.append(events.Pulled(count, last))
        else:
            self.tell(events.Pull(source.asked))

    def tell(self, words: Words) -> None:
        """Have the caller hear something; if its loop is no more, so is the caller."""
        tell = self.teller()
        with suppress(RuntimeError):
            if tell is not None:
                tell(words)
                return
        if self.leaving is None:
            self.leave(0.0)

    def finish(self) -> None:
        """End the run: workers that are busy are ended, and the caller hears that it is over."""
        if not self.over:
            self.over = True
            self.close()
            self.tell(None)

    def fail(self, error: BaseException) -> None:
        """End the run with an error that is not an item's."""
        self.failure = error
        self.finish()

    def _running(self) -> bool:
        lodging = self.backend
        return isinstance(lodging, Lodging) and any(
            link.duty.chunks for link in lodging.links.values()
        )

    # What others say; it is called in the thread that serves the run.

    def hear(self) -> None:
        """Be told by another engine's worker that something is there."""

    def feed(self, rows: list[Any], last: bool, error: Exception | None) -> None:
        """Take in items that were asked for."""
        source = self.source
        assert isinstance(source, Fed)
        source.inflow.extend(rows)
        source.last, source.error = last, error
        if source.asked:
            self._ask(source)

    def taken(self, count: int) -> None:
        """Make room for as many results as were read."""
        self.events.append(events.Taken(count))

    def leave(self, grace: float | None = None) -> None:
        """Begin nothing more; end when what runs is done, or after `grace` seconds (`GRACE`)."""
        self.todo.clear()
        self.events.clear()
        self.run.handle(events.Cancel(), perf_counter())
        self.wanted, self.leaving = 0, perf_counter() + (GRACE if grace is None else grace)
        if isinstance(self.backend, Lodging):
            self.backend.recalled.update(self.backend.links)


def _abroad(checked: Plan, work: Work, ring: Callable[[], None]) -> Backend:
    venue = checked.backend.venue
    assert venue is not None, "the workers are to be ours"
    root, _, _, settings = staffing(checked, work)
    slots = abroad(checked, venue, root, settings)
    slots.inbox.bell = ring
    return slots


def _homeless() -> Backend:
    raise AssertionError("a visit is lodged before it begins")


class Calls(Outcomes):
    """The outcome of one call, which tells of the call, where that of a map tells of items."""

    def item(self, position: int) -> str:
        """Return words for the call."""
        (column,) = self.source.columns(range(position, position + 1))
        return told(column[0])

    def died(self, position: int, how: str, doubtful: bool = False) -> None:
        """Record that a worker died, and how, on the call, for a visit has no other."""
        del doubtful
        self.errors[position] = WorkerDied(f"a worker {how} while it ran {self.item(position)}")

    def inscribed(self, error: BaseException, position: int) -> BaseException:
        """Have `error` tell the call."""
        note(error, RAISED + self.item(position))
        return error


class Errand(Visit):
    """A visit for the sake of one call."""

    def __init__(self, checked: Plan, task: Task, tell: Callable[[Words], None]) -> None:
        # The call is the item and not the function: what cannot be pickled is then its own error.
        work = Work(call, Initial(None, ()))
        super().__init__(checked, work, Indexed(([task],)), tell)
        self.outcomes = Calls(work, self.source)
