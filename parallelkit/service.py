"""The run behind an executor: without end, for tasks that come while it goes on, in one thread.

It is an engine as any other, with three differences.  The input is open: a `Pull` is answered when
there is something.  A position is a journey, and which task makes it is decided when a worker is
free, so that until then it can be cancelled.  And outcomes go to futures.
"""

from __future__ import annotations

import math
import traceback
from collections import Counter
from concurrent.futures import _base
from time import perf_counter
from typing import NamedTuple

from . import events
from .backends import Block
from .backends.processes import Processes
from .backends.slots import Slots
from .broken import BrokenExecutor, TaskDied
from .calls import abroad
from .chunking import Pace
from .desk import Desk
from .engine import Engine
from .errors import NoWorkers, WorkerDied
from .events import Event
from .failures import note
from .job import Settings
from .machine import cpu_count
from .options import Plan
from .outcomes import Outcomes, Work
from .scheduler import Limits
from .tasks import RAISED, Errand, Initial, call, call_each
from .trips import Journeys

_LONG = 86400.0  # seconds to listen at a time: systems have their own idea of the longest
_FOREVER = math.inf
"""The time limit of a task where the user set none.  There is one, since the run then gives a
worker one task at a time, and none waits in a worker behind another that may wait for it."""


class Terms(NamedTuple):
    """What an executor was asked for."""

    plan: Plan
    initial: Initial
    tasks_per_worker: int | None
    parts: bool = False
    """Whether its tasks are parts of one call: cut to size, with arrays that stay as they are."""

    def most(self) -> int:
        """Return how many workers there may be."""
        plan = self.plan
        abroad = plan.backend.venue is not None
        return plan.workers if plan.asked or abroad else min(plan.workers, cpu_count())


class Fates(Outcomes):
    """Outcomes that tell of calls, where those of a map tell of items."""

    source: Journeys

    def item(self, position: int) -> str:
        """Return words for the task at `position`."""
        return self.source.words(position)

    def died(self, position: int, how: str, doubtful: bool = False) -> None:
        """Record that a worker died, and how, on the task at `position`."""
        del doubtful  # a task travels alone, or tells itself which of several it was
        text = f"a worker {how} while it ran {self.item(position)}; the executor goes on"
        self.errors[position] = TaskDied(text)

    def inscribed(self, error: BaseException, position: int) -> BaseException:
        """Have `error` tell the call, unless its message does."""
        if not isinstance(error, WorkerDied | TimeoutError):
            future = self.source.bound[position].task()
            fn = call_each if future is None else future.function()
            if fn is not call_each and not isinstance(fn, Errand):  # which tell it themselves
                note(error, RAISED + self.item(position))
        return error


class Crew(Processes):
    """Worker processes of which an executor can let one go, and keep others from using them."""

    def __init__(self, root: tuple[object, ...], most: int, settings: Settings) -> None:
        super().__init__(root, most, max(1, cpu_count() // most), settings)
        self.initialized = False

    def retire(self, worker: int) -> None:
        """Let go of a worker that has nothing to do; `wait` reports `Lost`."""
        link = self._part(worker)
        link.pool.bury(link)
        self.happened.append((events.Lost(worker), None))

    def close(self) -> None:
        """End the run; what an initializer left in a worker is not for other runs."""
        for number, link in tuple(self.links.items()) if self.initialized else ():
            if not link.duty.chunks:
                self.retire(number)
        super().close()


class Service(Engine):
    """The engine of one executor, at work in its helper thread."""

    source: Journeys
    backend: Crew | Slots | None

    def __init__(self, desk: Desk, terms: Terms) -> None:
        work = Work(call, terms.initial, retry_on=terms.plan.retry_on)
        super().__init__(work, _journeys(desk, terms), _limits(terms), Pace(), lambda: _crew(terms))
        self.outcomes = Fates(work, self.source)
        self.desk = desk
        self.terms = terms
        self.asked = 0  # journeys for which there was no task
        self.joined = False
        self.served: Counter[int] = Counter()  # tasks by worker, where that is limited

    def serve(self) -> None:
        """Run tasks until the desk is closed and nothing is left."""
        try:
            self.backend = crew = _crew(self.terms)
            crew.wakeable()
            self.desk.bell = crew.wake
            while True:
                while self.todo:
                    command = self.todo.popleft()
                    if isinstance(command, events.Give):
                        self._give(command.chunk)
                    elif isinstance(command, events.Fail):
                        raise self._failure(command.position, command.reason)
                    elif isinstance(command, events.Finish):
                        return
                    else:
                        self.obey(command)
                self.step()
        finally:
            self.desk.quiet()
            self.close()

    def _give(self, chunk: range) -> None:
        block = self.outcomes.take(chunk)
        for offset, position in enumerate(chunk):
            error = block.failures.get(offset)
            if error is not None:
                self._forgive(position)
            trip = self.source.leave(position)
            value = block.values[offset]
            self.source.again(trip.arrived(value) if error is None else trip.failed(error))

    def _forgive(self, position: int) -> None:
        """Forget that a task failed: a map is over some day, this is not."""
        failures = self.run.failures
        failures.excused.discard(position)
        for kept in (failures.tries, failures.deaths, failures.causes):
            kept.pop(position, None)

    def obey(self, command: events.Command) -> None:
        """Carry out a command; a `Pull` perhaps later."""
        if isinstance(command, events.Pull):
            self.asked = command.count
            self._answer()
        elif isinstance(command, events.Send):
            assert self.backend is not None
            worker, chunk = command.worker, command.chunk
            self.outcomes.send(worker, chunk)
            load = self.source.load(chunk.start, worker, perf_counter())
            self.backend.send(worker, chunk, ([load],))
        else:
            super().obey(command)

    def _answer(self) -> None:
        """Answer the last `Pull`, if it has no answer and there is one."""
        if not self.asked or not (self.desk.queue or self.desk.closed):
            return
        count, last = self.source.pull(self.asked)
        if count or last:
            self.asked = 0
            self.events.append(events.Pulled(count, last))

    def _wait(self) -> None:
        desk = self.desk
        desk.waiting = self.asked > 0
        # Only now, or what came before `waiting` was set would find nobody to wake.
        self._answer()
        self._end_doomed()
        if not self.events:
            self._listen(max(0.0, min(self._until() - perf_counter(), _LONG)))
            self._answer()
        desk.waiting = False
        self._look_after_time(perf_counter())

    def _look_after_time(self, now: float) -> None:
        """Do what is due."""
        for trip in self.source.bound.values():
            if trip.due <= now:  # no task waits behind another that takes long
                self.source.again(trip.look_after(now))
        deadline = self._deadline()
        if deadline is not None and now >= deadline:
            self.events.append(events.Tick())
        if self.outcomes.sent and now >= self.governor.due:
            self._look_after_memory(now)

    def _until(self) -> float:
        """Return until when nothing is to be done but listen."""
        if not self.source.bound:  # nobody looks after memory while nobody works
            return _FOREVER
        trips = [trip.due for trip in self.source.bound.values()]
        return min(self.governor.due, *trips, self._deadline() or _FOREVER)

    def _deadline(self) -> float | None:
        """Return when the run wants to be told of the time; asking it costs a tenth of a task."""
        plan = self.terms.plan
        return self.run.deadline if plan.timeout or plan.retries else None

    def _end_doomed(self) -> None:
        """End the workers of running tasks that were cancelled."""
        assert self.backend is not None
        desk, sent = self.desk, self.outcomes.sent
        if desk.abandoned:
            desk.kill_all()
        while desk.doomed:
            future = desk.doomed.popleft()
            for worker, chunk in [(who, chunk) for who, owed in sent.items() for chunk in owed]:
                trip = self.source.bound.get(chunk.start)
                if trip is not None and future in trip.futures and trip.end(future):
                    self.backend.kill(worker)

    def _note(self, event: Event, block: Block | None) -> None:
        if isinstance(event, events.Done) and not event.doubtful:
            self.source.learn(event.stop - 1, event.seconds)
        super()._note(event, block)
        if isinstance(event, events.Joined):
            self.joined = True
        elif isinstance(event, events.Done) and self.terms.tasks_per_worker is not None:
            self.served[event.worker] += 1
            if self.served[event.worker] >= self.terms.tasks_per_worker:
                assert isinstance(self.backend, Crew)
                self.backend.retire(event.worker)
        elif isinstance(event, events.Lost):
            self.served.pop(event.worker, None)
            self.source.gone(event.worker)


def _journeys(desk: Desk, terms: Terms) -> Journeys:
    plan = terms.plan
    # What is promised for each task by itself needs each to travel by itself.
    each = plan.timeout or plan.retries or terms.tasks_per_worker or terms.parts
    each = each or plan.backend.venue is not None  # pages are memory of this machine
    return Journeys(desk, terms.most(), together=not each)


def _limits(terms: Terms) -> Limits:
    plan = terms.plan
    return Limits(
        workers=terms.most(),
        ordered=False,
        retries=plan.retries,
        timeout=_FOREVER if plan.timeout is None else plan.timeout,
        backoff=plan.backoff,
        keep_errors=True,
        home=False,
        grace=None,
    )


def _crew(terms: Terms) -> Crew | Slots:
    venue, root = terms.plan.backend.venue, (call, terms.initial, None)
    if venue is not None:
        return abroad(terms.plan, venue, root, Settings(urgent=False))
    # `timed`, so that a worker that has joined has the initializer behind it.
    settings = Settings(urgent=False, max_memory=terms.plan.max_memory, timed=True)
    crew = Crew(root, terms.most(), settings)
    crew.initialized = terms.initial.initializer is not None
    if not terms.parts:
        # A map sends an array that comes again as it was the first time; between two tasks of an
        # executor its owner may have changed it.
        crew.definitions.send_anew()
    return crew


def attend(desk: Desk, terms: Terms) -> None:
    """Serve a desk, in a thread of its own, until it is closed or broken."""
    while True:
        service = Service(desk, terms)
        try:
            service.serve()
            return
        except NoWorkers as error:
            # Idle workers may have been killed, by whoever, as often as it takes to give up.
            if not service.joined:
                _detach(error)
                _give_up(service, error)
                return
            _take_back(service)
        except BaseException as error:  # the initializer's, or a definition that does not load
            _detach(error)
            if not service.joined:
                _give_up(service, error)
                return
            _fail(service, error)


def _detach(error: BaseException) -> None:
    """Have an error that is kept keep no frames of ours, and with them the workers."""
    if not isinstance(error, OSError) and not getattr(error, "__notes__", ()):  # none of a worker's
        note(error, "".join(traceback.format_tb(error.__traceback__)).rstrip())
    error.__traceback__ = None


def _take_back(service: Service) -> None:
    service.source.again(service.source.rest())


def _fail(service: Service, error: BaseException) -> None:
    """Fail the tasks that were with workers."""
    for future in service.source.rest():
        future.end(None, _broken("the workers had to be ended", error))


def _give_up(service: Service, error: BaseException) -> None:
    """Fail everything, now and from now on."""
    what = "no worker could be made ready, so the executor runs nothing"
    if not isinstance(error, OSError) and service.terms.initial.initializer is not None:
        what = "the initializer failed, so the executor runs nothing"
        _base.LOGGER.critical("Exception in initializer:", exc_info=error)
    left = service.desk.fail(_broken(what, error))
    _fail(service, error)
    for future in left:
        future.end(None, _broken(what, error))


def _broken(what: str, cause: BaseException) -> BrokenExecutor:
    error = BrokenExecutor(f"{what}: {type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return error
