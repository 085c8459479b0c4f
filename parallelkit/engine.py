"""The loop that joins a run, its items, a backend and a clock.

The run decides, the backend carries, the source holds the items, and the engine passes words from
one to the other.  It has no thread of its own: it moves when the caller asks for the next result.
While the caller runs items itself, a helper thread (`guard`) sees to it that none holds up the
rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from pickle import PicklingError
from time import perf_counter
from typing import cast
from weakref import proxy

from . import events, lull
from .backends import Backend, Block, Reclaiming, Unlearned
from .chunking import NOTABLE, Pace
from .errors import InternalError, NoWorkers
from .events import HOME, Event
from .governor import Governor
from .guard import Guard
from .home import Home, Turn
from .outcomes import Outcomes, Work
from .scheduler import Limits, Run
from .source import Source

_BRIEF = 1e-3  # seconds that workers may be left alone while the caller runs an item

_MANY = 32  # results at a time of which the garbage collector could make much ado

_CALLERS = (events.Give, events.Fail, events.Finish, events.Pull, events.Work)
"""Commands that only the caller's own thread carries out."""


class Engine:
    """One run in the real world.

    `open_backend` makes the place where workers live, when the run first asks for one.  `home` is
    the caller, if it has begun already: what it did then, `begin_with` tells.
    """

    def __init__(
        self,
        work: Work,
        source: Source,
        limits: Limits,
        pace: Pace,
        open_backend: Callable[[], Backend],
        home: Home | None = None,
    ) -> None:
        self.source = source
        self.run = Run(limits, pace)
        self.backend: Backend | None = None
        self.open_backend = open_backend
        self.events: deque[Event] = deque([events.Begin(source.length, source.at_hand)])
        self.todo: deque[events.Command] = deque()
        self.outcomes = Outcomes(work, source, limits.home)
        self.failure: BaseException | None = None
        self.cause: BaseException | None = None  # why there are no workers
        self.home = home or Home(work.fn, source, work.seed, work.op)
        # Not itself: in a cycle, what the caller has forgotten would wait for the collector.
        self.guard = Guard(proxy(self))
        self.governor = Governor()

    def results(self) -> Generator[Block, None, None]:
        """Yield blocks of outcomes; at the end `failure` is what the run failed with, if it did.

        It is not raised from here, because a generator cannot raise a StopIteration of the user's.
        """
        limits = self.run.limits
        bounded = limits.ahead is not None
        # Who calls us runs nothing of the user's then, nor do threads of this process.
        quiet = limits.stealing and not (bounded or limits.folded)
        try:
            while True:
                while self.todo:
                    command = self.todo.popleft()
                    if isinstance(command, events.Give):
                        yield self.outcomes.take(command.chunk)
                        self.source.drop(command.chunk)
                        if bounded:
                            self.events.append(events.Taken(len(command.chunk)))
                        if quiet and len(command.chunk) > _MANY:
                            lull.begin()
                    elif isinstance(command, events.Finish):
                        self.failure = self.source.error
                        return
                    elif isinstance(command, events.Fail):
                        self.failure = self._failure(command.position, command.reason)
                        return
                    else:
                        self.obey(command)
                self.step()
        finally:
            try:
                self.close()
            finally:
                lull.end()

    def begin_with(self, done: int, held: int = 0) -> None:
        """Begin where the caller has the first `done` results already and runs the `held` next."""
        self.source.drop(range(done))
        self.events[0] = events.Begin(self.source.length, self.source.at_hand, done, held)

    def close(self) -> None:
        """End the run, if it has not ended: workers that are busy are ended too."""
        self.guard.close()
        if self.backend is None:
            return
        try:
            self.backend.close()
        except KeyboardInterrupt:  # impatient: what was begun is finished all the same
            self.backend.close()
            raise

    @property
    def deadline(self) -> float | None:
        """The time from which on `act` has something to do."""
        return self.run.deadline

    def act(self) -> None:
        """Do, in the guard's thread, what there is to do while the caller is in its turn."""
        if self.backend is None:
            self.events.append(events.Tick())
        self.step()
        kept = []
        while self.todo:
            command = self.todo.popleft()
            if isinstance(command, _CALLERS):
                kept.append(command)
            else:
                self.obey(command)
                if self.backend is not None:
                    self.backend.wakeable()
        self.todo.extend(kept)

    def step(self) -> None:
        """Pass one event to the run, waiting for one if there is none."""
        if not self.events:
            self._wait()
        if self.events:
            self.todo.extend(self.run.handle(self.events.popleft(), perf_counter()))

    def _wait(self) -> None:
        deadline, now = self.run.deadline, perf_counter()
        if self.backend is None and deadline is None:
            raise InternalError(f"the run waits for nobody\n{self.run.story}")
        until = min(self.governor.due, deadline or self.governor.due)
        self._listen(max(0.0, until - now))
        now = perf_counter()
        if deadline is not None and now >= deadline:
            self.events.append(events.Tick())
        if now >= self.governor.due:
            self._look_after_memory(now)

    def _listen(self, timeout: float) -> None:
        """Let the backend write, and take what has happened, waiting for it up to `timeout`."""
        unlearned: BaseException | None = None
        try:
            happened = [] if self.backend is None else self.backend.wait(timeout)
        except Unlearned as said:
            happened, unlearned = [], said.error
        if unlearned is not None:
            self._do_without(unlearned)
        for event, block in happened:
            self._note(event, block)
            self.events.append(event)

    def _do_without(self, error: BaseException) -> None:
        """Go on without workers, where the caller may run the items, or else raise `error`."""
        if not self.run.limits.home:
            raise error
        self.cause = PicklingError(f"{type(error).__name__}: {error}")

    def _look_after_memory(self, now: float) -> None:
        assert self.backend is not None
        news = self.governor.check(now)
        if news is not None:
            self.events.append(news)
        self.backend.weigh()

    def _note(self, event: Event, block: Block | None) -> None:
        """Keep what belongs to an event but is not the run's to know."""
        if isinstance(event, events.Done):
            self.outcomes.keep(event, block)
        elif isinstance(event, events.Reclaimed):
            self.outcomes.reclaim(event.worker, event.stop)
        elif isinstance(event, events.Lost):
            assert self.backend is not None
            owed = self.outcomes.forget(event.worker)
            # One that was ended on purpose was forgotten then.
            several = len(event.suspects) > 1
            for position in () if owed is None else event.suspects:
                self.outcomes.died(position, self.backend.obituary(event.worker), several)

    # Commands.

    def obey(self, command: events.Command) -> None:
        """Carry out a command, but for those that `results` itself sees to."""
        match command:
            case events.Send(worker, chunk):
                assert self.backend is not None
                self.outcomes.send(worker, chunk)
                size = self.backend.send(worker, chunk, self.source.columns(chunk))
                if size > NOTABLE:
                    self.run.pace.weigh(len(chunk), size)
            case events.Work(chunk, budget):
                self._work(chunk, budget)
            case events.Pull(count):
                lull.end()
                self.events.append(events.Pulled(*self.source.pull(count)))
            case events.Start(count):
                self._start(count)
            case events.Reclaim(worker, keep):
                cast(Reclaiming, self.backend).reclaim(worker, keep)
            case events.Settle(worker):
                cast(Reclaiming, self.backend).settle(worker)
            case events.Kill(worker):
                self._kill(worker)

    def _start(self, count: int) -> None:
        try:
            if self.backend is None:
                self.backend = self.open_backend()
            self.backend.start(count)
            self.governor.begin(perf_counter())
        except (OSError, PicklingError) as error:
            # Where the caller may run the items itself, that is better than none.
            if isinstance(error, PicklingError) and not self.run.limits.home:
                # How pickling went wrong is in the message; where it did is no news of the user's.
                raise error.with_traceback(None) from None
            self.cause = error
            self.events.append(events.Refused(count))

    def _kill(self, worker: int) -> None:
        assert self.backend is not None
        chunks = self.outcomes.forget(worker)
        self.backend.kill(worker)
        if chunks:
            stack = self.backend.obituary(worker)
            self.outcomes.late(chunks[0].start, self.run.limits.timeout, stack)

    def _work(self, chunk: range, budget: float) -> None:
        """Run items in the caller, with everything else attended to if they may be long."""
        item = self.run.pace.item
        # What does not travel may be of another kind than the others, whose price this is.
        brief = item is not None and item < _BRIEF and not self.run.home.own
        self._listen(0)
        lull.end()
        if self.backend is not None and brief:
            turn = self.home.work(chunk, budget)
        else:
            with self.guard:
                turn = self.home.work(chunk, budget)
        self.answer(chunk, turn)

    def answer(self, chunk: range, turn: Turn) -> None:
        """Tell the run what became of the chunk that the caller had."""
        self._listen(0)
        self.outcomes.send(HOME, range(chunk.start, turn.stop))
        event = events.Done(HOME, turn.stop, turn.seconds, turn.failed, turn.carriage)
        self._note(event, turn.block)
        self.events.append(event)

    def _failure(self, position: int, reason: events.Reason) -> BaseException:
        if reason == "unstaffed" and isinstance(self.cause, NoWorkers):
            return self.cause
        if reason == "unstaffed":
            error = NoWorkers(_unstaffed(self.cause or self._last_end()))
            error.__cause__ = self.cause
            return error
        unknown = f"item {position} failed ({reason}) for no known cause\n{self.run.story}"
        return self.outcomes.errors.get(position) or InternalError(unknown)

    def _last_end(self) -> str:
        """Say how the last of the workers ended that were lost, if any was."""
        told = [(event, commands) for _, event, commands in self.run.story]
        ended = {each.worker for _, some in told for each in some if isinstance(each, events.Kill)}
        lost = [event.worker for event, _ in told if isinstance(event, events.Lost)]
        lost = [worker for worker in lost if worker not in ended]
        if self.backend is None or not lost:
            return ""
        return f"the last of them {self.backend.obituary(lost[-1])}"


def _unstaffed(cause: BaseException | str) -> str:
    what = "no worker process could be started, or none lived long enough to run an item"
    if cause:
        what = f"{what}: {cause}"
    return f'{what}; `python -m parallelkit` tells more, and backend="serial" needs none'
