"""Play a `Run` on a machine that does not exist, in virtual time.

Item `i` takes `costs[i]` seconds wherever it runs.  The caller is one processor: it makes every
decision, packs and unpacks every chunk, and runs items when told to.  Nothing fails here; failures
are the property's in `test_scheduler.py`.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from parallelkit.events import (
    HOME,
    Begin,
    Command,
    Done,
    Event,
    Fail,
    Finish,
    Joined,
    Pull,
    Pulled,
    Send,
    Start,
    Tick,
    Work,
)

LATENCY = 25e-6  # seconds from the caller to a worker and back, besides the caller's own time
PACKING = 10e-6  # seconds of the caller per chunk, sent and received
CARRYING = 45e-9  # and per item


class Decider(Protocol):
    """What `Run` is to a machine, and what the policies of others can be played as."""

    def handle(self, event: Event, now: float) -> list[Command]:
        """Return what to do about `event`."""

    @property
    def deadline(self) -> float | None:
        """The time at which a Tick is due."""


class Played(NamedTuple):
    """How it went: virtual seconds until the end, chunks sent, and events in all."""

    seconds: float
    chunks: int
    events: int
    end: Command


class Machine:
    """A machine with as many workers as are asked for, each there `launch` seconds later.

    Each of `costs` is that of `repeat` items in a row.
    """

    def __init__(self, costs: Sequence[float], launch: float, repeat: int = 1) -> None:
        self.sums = [0.0, *itertools.accumulate(costs), 0.0]
        self.repeat = repeat
        self.count = len(costs) * repeat
        self.launch = launch
        self.agenda: list[tuple[float, int, Event]] = []
        self.order = itertools.count()
        self.numbers = itertools.count(HOME + 1)
        self.free: dict[int, float] = {}
        self.now = 0.0
        self.pulled = 0
        self.chunks = 0

    def play(self, run: Decider, length: int | None) -> Played:
        """Play `run` to its end; with no length the items come from an iterator."""
        self.tell(0.0, Begin(length, 0 if length is None else self.count))
        for events in itertools.count(1):
            for command in run.handle(self.next(run.deadline), self.now):
                if isinstance(command, Finish | Fail):
                    return Played(self.now, self.chunks, events, command)
                self.obey(command)
        raise AssertionError

    def tell(self, when: float, event: Event) -> None:
        heapq.heappush(self.agenda, (when, next(self.order), event))

    def next(self, deadline: float | None) -> Event:
        """Return what happens next, after the caller has found the time for it."""
        if deadline is not None and (not self.agenda or deadline < self.agenda[0][0]):
            self.now = max(self.now, deadline)
            return Tick()
        when, _, event = heapq.heappop(self.agenda)
        self.now = max(self.now, when)
        if isinstance(event, Done) and event.worker != HOME:
            self.now += PACKING / 2
        return event

    def obey(self, command: Command) -> None:
        if isinstance(command, Send):
            self.send(command.worker, command.chunk)
        elif isinstance(command, Work):
            self.work(command.chunk, command.budget)
        elif isinstance(command, Start):
            for worker in itertools.islice(self.numbers, command.count):
                self.free[worker] = 0.0
                self.tell(self.now + self.launch, Joined(worker))
        elif isinstance(command, Pull):
            count = min(command.count, self.count - self.pulled)
            self.pulled += count
            self.tell(self.now, Pulled(count, last=count < command.count))

    def before(self, position: int) -> float:
        """Return what all items before `position` cost."""
        index, rest = divmod(position, self.repeat)
        start = self.sums[index]
        return start * self.repeat + (self.sums[index + 1] - start) * rest

    def send(self, worker: int, chunk: range) -> None:
        self.chunks += 1
        self.now += PACKING / 2 + CARRYING * len(chunk)
        seconds = self.before(chunk.stop) - self.before(chunk.start)
        begun = max(self.now + LATENCY / 2, self.free[worker])
        self.free[worker] = begun + seconds
        self.tell(
            begun + seconds + LATENCY / 2, Done(worker, chunk.stop, seconds, (), 2 * CARRYING)
        )

    def work(self, chunk: range, budget: float) -> None:
        """Run items in the caller; a helping thread sees to the rest once a turn is overdue."""
        stop = chunk.start + 1
        begun = self.before(chunk.start)
        while stop < chunk.stop and self.before(stop) - begun < budget:
            stop += 1
        seconds = self.before(stop) - begun
        self.tell(self.now + seconds, Done(HOME, stop, seconds))
        self.now += min(seconds, budget)
