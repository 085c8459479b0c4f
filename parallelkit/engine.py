"""The loop that joins a run, its items, a backend and a clock.

The run decides, the backend carries, the source holds the items, and the engine passes words from
one to the other; outcomes live here between a worker and the caller.  It has no thread of its own:
it moves when the caller asks for the next result.  While the caller runs an item that may take
long, a helper thread (`guard`) keeps the rest moving.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from time import perf_counter
from typing import Any, NamedTuple

from . import events
from .backends import Backend, Block
from .chunking import Pace, split
from .errors import InternalError, ItemTimeout, NoWorkers, WorkerDied, shortened
from .events import HOME, Event
from .folding import fold
from .guard import Guard
from .home import Home
from .scheduler import Limits, Run
from .source import Source


_BRIEF = 1e-3  # seconds that workers may be left alone while the caller runs an item


_NOTE = "parallelkit: raised by "


class Work(NamedTuple):
    """What a run does with each item."""

    fn: Callable[..., Any]
    worker_state: Callable[[], Any] | None = None
    op: Callable[[Any, Any], Any] | None = None  # folds the results of neighbours, for a reduction
    seed: int | None = None


class Engine:
    """One run in the real world.

    `open_backend` makes the place where workers live, when the run first asks for one.
    """

    def __init__(
        self,
        work: Work,
        source: Source,
        limits: Limits,
        pace: Pace,
        open_backend: Callable[[], Backend],
    ) -> None:
        self.work = work
        self.source = source
        self.run = Run(limits, pace)
        self.backend: Backend | None = None
        self.open_backend = open_backend
        self.events: deque[Event] = deque([events.Begin(source.length, source.at_hand)])
        self.todo: deque[events.Command] = deque()
        self.blocks: dict[int, Block] = {}
        self.errors: dict[int, BaseException] = {}
        self.sent: dict[int, deque[range]] = {}
        self.failure: BaseException | None = None
        self.home = Home(work.fn, source, work.seed, work.op)

    def results(self) -> Generator[Block, None, None]:
        """Yield blocks of outcomes; at the end `failure` is what the run failed with, if it did.

        It is not raised from here, because a generator cannot raise a StopIteration of the user's.
        """
        try:
            while True:
                while self.todo:
                    command = self.todo.popleft()
                    if isinstance(command, events.Give):
                        yield self._outcomes(command.chunk)
                        self.source.drop(command.chunk)
                        self.events.append(events.Taken(len(command.chunk)))
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
            if self.backend is not None:
                self.backend.close()

    def step(self) -> None:
        """Pass one event to the run, waiting for one if there is none."""
        if not self.events:
            self._wait()
        if self.events:
            self.todo.extend(self.run.handle(self.events.popleft(), perf_counter()))

    def _wait(self) -> None:
        deadline = self.run.deadline
        timeout = None if deadline is None else max(0.0, deadline - perf_counter())
        if self.backend is None:
            raise InternalError(f"the run waits for nobody\n{self.run.story}")
        for event, block in self.backend.wait(timeout):
            self._note(event, block)
            self.events.append(event)
        if deadline is not None and perf_counter() >= deadline:
            self.events.append(events.Tick())

    def _note(self, event: Event, block: Block | None) -> None:
        """Keep what belongs to an event but is not the run's to know."""
        if isinstance(event, events.Done) and block is not None:
            self._keep(event, block)
        elif isinstance(event, events.Lost):
            if self.sent.pop(event.worker, None) is not None:  # else it was ended by us
                for position in event.suspects:
                    self.errors[position] = self._died(event.worker, position)

    def _keep(self, event: events.Done, block: Block) -> None:
        """Store the outcomes of a part in the pieces in which the run will give them."""
        chunks = self.sent.get(event.worker)
        if chunks is None:  # it finished in the moment it was ended for being late
            return
        start = chunks[0].start
        if event.stop == chunks[0].stop:
            chunks.popleft()
        else:
            chunks[0] = range(event.stop, chunks[0].stop)
        if not event.failed:
            self.blocks[start] = block
            return
        for offset, error in block.failures.items():
            self.errors[start + offset] = self._noted(error, start + offset)
        op = self.work.op
        for part in split(range(start, event.stop), event.failed):
            values = block.values[part.start - start : part.stop - start]
            self.blocks[part.start] = Block(fold(op, part.start, values) if op else values, {})

    # Commands.

    def obey(self, command: events.Command) -> None:
        """Carry out a command, but for those that `results` itself sees to."""
        match command:
            case events.Send(worker, chunk):
                self._send(worker, chunk)
            case events.Work(chunk, budget):
                self._work(chunk, budget)
            case events.Pull(count):
                self.events.append(events.Pulled(*self.source.pull(count)))
            case events.Start(count):
                self._start(count)
            case events.Kill(worker):
                self._kill(worker)

    def _start(self, count: int) -> None:
        if self.backend is None:
            self.backend = self.open_backend()
        self.backend.start(count)

    def _send(self, worker: int, chunk: range) -> None:
        assert self.backend is not None
        self.sent.setdefault(worker, deque()).append(chunk)
        self.backend.send(worker, chunk, self.source.columns(chunk))

    def _kill(self, worker: int) -> None:
        assert self.backend is not None
        if chunks := self.sent.pop(worker, None):
            position = chunks[0].start
            self.errors[position] = self._late(position)
        self.backend.kill(worker)

    def _work(self, chunk: range, budget: float) -> None:
        """Run items in the caller, while a guard attends to everything else if they may be long."""
        item = self.run.pace.item
        brief = item is not None and item < _BRIEF
        if self.run.deadline is None and (self.backend is None or brief):
            self._poll()
            turn = self.home.work(chunk, budget)
            self._poll()
        else:
            with Guard(self):
                turn = self.home.work(chunk, budget)
        self.sent[HOME] = deque([range(chunk.start, turn.stop)])
        event = events.Done(HOME, turn.stop, turn.seconds, turn.failed, turn.carriage)
        self._note(event, turn.block)
        self.events.append(event)

    def _poll(self) -> None:
        """Let the backend write, and take what has happened, without waiting."""
        for event, block in self.backend.wait(0) if self.backend is not None else ():
            self._note(event, block)
            self.events.append(event)

    # Outcomes.

    def _outcomes(self, chunk: range) -> Block:
        if chunk.start in self.blocks:
            return self.blocks.pop(chunk.start)
        return Block([None], {0: self.errors.pop(chunk.start)})

    def _failure(self, position: int, reason: events.Reason) -> BaseException:
        if reason == "unstaffed":
            return NoWorkers(
                "no worker process could be started, or none lived long enough to run an item: "
                "see above for what they printed, or run the plain loop"
            )
        return self.errors.get(position) or InternalError(
            f"item {position} failed ({reason}) for no known cause\n{self.run.story}"
        )

    def _item(self, position: int) -> str:
        columns = self.source.columns(range(position, position + 1))
        text = ", ".join(shortened(column[0]) for column in columns)
        return f"item {position} ({text})"

    def _noted(self, error: BaseException, position: int) -> BaseException:
        notes = getattr(error, "__notes__", ())
        if not any(str(note).startswith(_NOTE) for note in notes):
            error.add_note(f"{_NOTE}{self._item(position)}")
        return error

    def _died(self, worker: int, position: int) -> WorkerDied:
        assert self.backend is not None
        return WorkerDied(
            f"a worker {self.backend.obituary(worker)} while it ran {self._item(position)}; "
            "look for a crash in compiled code, a call of os._exit, or too little memory"
        )

    def _late(self, position: int) -> ItemTimeout:
        return ItemTimeout(
            f"{self._item(position)} ran longer than timeout={self.run.limits.timeout!r} seconds, "
            "and its worker was ended"
        )

