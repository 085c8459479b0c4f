"""Play a `Run` on a machine that does not exist, in virtual time.

Item `i` takes `costs[i]` seconds wherever it runs.  The caller is one processor: it makes every
decision, packs and unpacks every chunk, and runs items when told to.  Nothing fails here; failures
are the property's in `test_scheduler.py`.
"""

from __future__ import annotations

import heapq
import itertools
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
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
    Reclaim,
    Reclaimed,
    Send,
    Settle,
    Start,
    Tick,
    Work,
)

LATENCY = 25e-6  # seconds from the caller to a worker and back, besides the caller's own time
PACKING = 10e-6  # seconds of the caller per chunk, sent and received
CARRYING = 45e-9  # and per item
RECLAIMING = 5e-6  # seconds of the caller to take something back, besides sending it again
STAMPED = 200e-6  # seconds of work that a worker begins at a time, where its items are shorter


class Decider(Protocol):
    """What `Run` is to a machine, and what the policies of others can be played as."""

    def handle(self, event: Event, now: float) -> list[Command]:
        """Return what to do about `event`."""

    @property
    def deadline(self) -> float | None:
        """The time at which a Tick is due."""


@dataclass
class Held:
    """A chunk that a worker has, since and until when, and the answer to come, None for none."""

    chunk: range
    begun: float
    answer: Done | None = None


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
        self.held: dict[int, deque[Held]] = {}
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
        if isinstance(event, Done) and event.worker != HOME:
            held = self.held[event.worker]
            if not held or held[0].answer is not event:  # what it told of was taken back
                return self.next(deadline)
            held.popleft()
            self.now = max(self.now, when) + PACKING / 2
        self.now = max(self.now, when)
        return event

    def obey(self, command: Command) -> None:
        if isinstance(command, Send):
            self.send(command.worker, command.chunk)
        elif isinstance(command, Work):
            self.work(command.chunk, command.budget)
        elif isinstance(command, Reclaim):
            self.reclaim(command.worker, command.keep)
        elif isinstance(command, Settle):
            self.settle(command.worker)
        elif isinstance(command, Start):
            for worker in itertools.islice(self.numbers, command.count):
                self.free[worker] = 0.0
                self.held[worker] = deque()
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
        held = Held(chunk, max(self.now + LATENCY / 2, self.free[worker]))
        self.held[worker].append(held)
        self.answer(worker, held, chunk.stop)

    def answer(self, worker: int, held: Held, stop: int) -> None:
        """Have `worker` run what it holds up to `stop`, and then say so."""
        seconds = self.before(stop) - self.before(held.chunk.start)
        cut = stop < held.chunk.stop
        held.answer = Done(worker, stop, seconds, (), 2 * CARRYING, cut=cut)
        self.free[worker] = held.begun + seconds
        self.tell(held.begun + seconds + LATENCY / 2, held.answer)

    def reached(self, held: Held) -> int:
        """Return up to where a worker has begun what it holds."""
        chunk, spent = held.chunk, self.now - held.begun
        if spent < 0:
            return chunk.start
        before = self.before(chunk.start)
        stops = [math.ceil(self.place(before + spent)), int(self.place(before + spent + STAMPED))]
        return max(chunk.start + 1, min(max(stops), chunk.stop))

    def place(self, spent: float) -> float:
        """Return how many items all cost `spent` seconds."""
        spent /= self.repeat
        index = bisect_right(self.sums, spent, hi=len(self.sums) - 1) - 1
        cost = self.sums[min(index + 1, len(self.sums) - 2)] - self.sums[index]
        return (index + ((spent - self.sums[index]) / cost if cost else 0.0)) * self.repeat

    def reclaim(self, worker: int, keep: float) -> None:
        """Have a worker keep a share of what it has not begun; what it gives up, it forgets."""
        self.now += RECLAIMING / 2
        held = self.held[worker]
        begun = [self.reached(each) for each in held]
        spare = sum(each.chunk.stop - at for each, at in zip(held, begun, strict=True))
        kept = max(int(spare * keep), begun[:1] == [held[0].chunk.start] if held else 0)
        for each, at in zip(held, begun, strict=True):
            stop = min(each.chunk.stop, at + kept)
            kept -= stop - at
            if stop == each.chunk.start:
                each.answer = None
            elif stop < each.chunk.stop:
                self.answer(worker, each, stop)
            else:
                assert each.answer is not None
                self.free[worker] = each.begun + each.answer.seconds
        if all(each.answer is None for each in held):
            self.free[worker] = self.now

    def settle(self, worker: int) -> None:
        """Tell what a worker has given up."""
        self.now += RECLAIMING / 2
        held = self.held[worker]
        for index, each in enumerate(held):
            answer, start = each.answer, each.chunk.start
            if answer is None or answer.cut:
                stop = start if answer is None else answer.stop
                if answer is not None:
                    each.chunk, answer.cut = range(start, stop), False
                while len(held) > index + (answer is not None):
                    held.pop()
                self.tell(0.0, Reclaimed(worker, stop))  # before what it has yet to say
                return
        if held:
            self.tell(0.0, Reclaimed(worker, None))

    def work(self, chunk: range, budget: float) -> None:
        """Run items in the caller; a helping thread sees to the rest once a turn is overdue."""
        stop = chunk.start + 1
        begun = self.before(chunk.start)
        while stop < chunk.stop and self.before(stop) - begun < budget:
            stop += 1
        seconds = self.before(stop) - begun
        self.tell(self.now + seconds, Done(HOME, stop, seconds))
        self.now += min(seconds, budget)
