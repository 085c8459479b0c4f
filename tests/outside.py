"""An outside that Hypothesis controls: it answers a run's commands when and how it pleases.

`World` checks on the way what no command may do, and `check_failure` how a run may end.  Where a
test plays the outside itself, `staffed` makes the run, and `tell` and `answers` talk to it.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque

from hypothesis import strategies as st

from parallelkit.chunking import QUEUED, SHORT, Pace
from parallelkit.events import (
    HOME,
    Begin,
    Command,
    Done,
    Event,
    Fail,
    Finish,
    Give,
    Joined,
    Kill,
    Lost,
    Offered,
    Pull,
    Pulled,
    Reclaim,
    Reclaimed,
    Refused,
    Send,
    Settle,
    Start,
    Strained,
    Taken,
    Tick,
    Work,
)
from parallelkit.scheduler import Limits, Run, split

CRASHES = 25
QUEUES = st.sampled_from([0, SHORT, QUEUED])


@st.composite
def some_limits(draw: st.DrawFn) -> Limits:
    home = draw(st.booleans())
    return Limits(
        workers=draw(st.integers(1, 5)),
        ordered=draw(st.booleans()),
        retries=0 if home else draw(st.integers(0, 2)),
        timeout=None if home else draw(st.sampled_from([None, None, 1.0])),
        keep_errors=False if home else draw(st.booleans()),
        home=home,
        chunksize=draw(st.sampled_from([None, None, 1, 3])),
        ahead=draw(st.sampled_from([None, None, 1, 3])),
        grace=draw(st.sampled_from([None, 0.0, 0.1])),
        backoff=0.0 if home else draw(st.sampled_from([0.0, 0.0, 0.05, 40.0])),
        stealing=draw(st.booleans()),
    )


class World:
    """An outside that answers commands when and how Hypothesis pleases."""

    def __init__(self, draw: st.DataObject, limits: Limits, total: int, flips: int) -> None:
        self.source = draw
        self.limits = limits
        launch, queue = draw.draw(st.sampled_from([1e-4, 0.3])), draw.draw(QUEUES)
        self.run = Run(limits, Pace(launch=launch, queue=queue))
        self.now = 0.0
        self.total = total
        self.pulled = 0
        self.asked = 0
        self.numbers = itertools.count(HOME + 1)
        self.joining: list[int] = []
        self.chunks: dict[int, deque[range]] = {HOME: deque()}
        self.dying: list[int] = []
        self.reclaimed: set[int] = set()
        self.settling: set[int] = set()
        self.spared: set[int] = set()
        self.blocks: set[range] = set()
        self.given: list[int] = []
        self.untaken = 0
        self.raised: Counter[int] = Counter()
        self.deaths: Counter[int] = Counter()
        self.late: Counter[int] = Counter()
        self.hopeless: set[int] = set()
        self.rests: dict[int, float] = {}
        self.strained = False
        self.flips = flips
        self.excused: set[int] = set()
        self.exclusive: set[int] = set()
        self.bound: set[int] = set()
        self.suspected: set[int] = set()
        self.astray = draw.draw(st.sampled_from([0, 0, 1, 9]))  # in ten
        self.lone: int | None = None
        self.failed: float | None = None
        self.crashes = CRASHES
        self.offers = draw.draw(st.sampled_from([0, 0, 2]))
        self.most = limits.workers
        self.reached = 0
        self.widest = 1
        self.ticked_at = -1.0
        self.end: Finish | Fail | None = None

    def tell(self, event: Event) -> None:
        if self.lone not in self.holders():
            self.lone = None
        for command in self.run.handle(event, self.now):
            assert self.end is None, "a command after the end"
            self.obey(command)
        self.run.check()
        for until, position in self.run.input.resting:
            assert self.now < until == self.rests.get(position), "a wrong rest"
            assert self.end or self.run.deadline <= until, "it is not waited for"
        if self.end:
            assert self.run.ended
            assert self.run.deadline is None
            assert self.run.handle(Tick(), self.now) == []

    def obey(self, command: Command) -> None:
        match command:
            case Pull(count):
                assert count > 0
                assert not self.asked
                assert not self.strained or (count == 1 and not self.holders())
                self.asked = count
            case Start(count):
                self.start(count)
            case Work(chunk, budget):
                assert self.limits.home
                assert budget > 0
                self.take(HOME, chunk, 1)
            case Send(worker, chunk):
                assert worker not in self.dying
                self.take(worker, chunk, 1 if self.limits.timeout else 2)
            case Reclaim(worker, keep):
                assert self.limits.stealing
                assert not self.limits.timeout
                assert 0 < keep < 1
                assert self.chunks[worker]
                assert worker not in self.reclaimed, "it was asked and has not answered"
                self.reclaimed.add(worker)
            case Settle(worker):
                assert worker in self.reclaimed
                assert worker not in self.settling, "it was told to answer twice"
                self.settling.add(worker)
            case Kill(worker):
                self.dying.append(worker)
                self.late[self.chunks[worker][0].start] += 1
                self.rest(self.chunks[worker][0].start)
            case Give(chunk):
                self.give(chunk)
            case Fail() | Finish():
                self.end = command

    def start(self, count: int) -> None:
        assert count > 0
        if self.strained:
            assert count == 1
            assert set(self.chunks) == {HOME}
            assert not self.joining
        self.joining += itertools.islice(self.numbers, count)
        present = len(self.chunks) - 1 + len(self.joining)
        assert present <= self.most, "too many workers"

    def take(self, worker: int, chunk: range, depth: int) -> None:
        assert chunk
        assert len(self.chunks[worker]) < depth
        assert worker not in self.reclaimed, "it is given while it is asked"
        assert worker not in self.spared, "it may not have heard yet what it has lost"
        self.check_company(worker, chunk)
        assert not self.hopeless & set(chunk), "tried again without hope"
        assert all(self.rests.get(position, 0.0) <= self.now for position in chunk), "no rest"
        self.chunks[worker].append(chunk)
        first = self.run.failures.first
        assert first is None or chunk.stop <= first, "nobody wants it any more"
        if worker != HOME:
            assert not self.bound & set(chunk), "sent where it cannot go"
            assert not self.run.home.closed or set(chunk) <= self.suspected, "sent in vain"
            self.widest = max(self.widest, len(chunk))
            if self.limits.timeout:
                assert len(chunk) == 1
            elif self.limits.chunksize:
                assert len(chunk) <= self.limits.chunksize
        self.reached = max(self.reached, chunk.stop)
        taken = len(self.given) - self.untaken
        if self.limits.ahead and self.limits.chunksize and not self.limits.timeout:
            bound = self.limits.ahead * self.most * self.limits.chunksize
            assert self.reached - taken <= bound, "too far ahead"

    def holders(self) -> list[int]:
        return [worker for worker, held in self.chunks.items() if held]

    def check_company(self, worker: int, chunk: range) -> None:
        """Check that an item which needs all memory is the only one that runs."""
        holders = self.holders()
        assert self.lone not in holders, "company for a lone item"
        exclusive = self.exclusive.intersection(chunk)
        if self.strained or exclusive:
            assert len(chunk) == 1
            assert not holders, "company while memory is short"
        if exclusive:
            assert worker != HOME
            self.exclusive -= exclusive
            self.lone = worker

    def attempts(self, position: int) -> int:
        return self.raised[position] + self.deaths[position] + self.late[position]

    def rest(self, position: int) -> None:
        pause = self.limits.backoff * 2 ** (self.attempts(position) - 1)
        self.rests[position] = self.now + min(pause, 60.0)

    def give(self, block: range) -> None:
        if block in self.blocks:
            self.blocks.remove(block)
        else:  # nothing came of it, so it must be a failure that is kept
            assert len(block) == 1
            assert self.limits.keep_errors
            assert self.deaths[block.start] + self.late[block.start]
            assert self.run.failures.causes[block.start] in {"died", "late"}
        self.given += block
        self.untaken += len(block)

    def happen(self) -> None:
        """Let one of the things that can happen next happen."""
        self.now += 0.01
        busy = [w for w in self.holders() if w not in self.dying]
        held = [w for w in busy if w != HOME]
        mortal = [w for w in self.chunks if w != HOME and w not in self.dying]
        possible = [self.pull] * bool(self.asked) + [self.join] * bool(self.joining)
        possible += [self.refuse] * bool(self.joining and self.crashes)
        possible += [self.killed] * bool(self.dying) + [self.took] * bool(self.untaken)
        possible += [lambda: self.finish(busy)] * 2 * bool(busy)
        possible += [lambda: self.crash(mortal)] * bool(mortal and self.crashes)
        possible += [self.tick] * (self.run.deadline is not None)
        possible += [self.settle] * 2 * bool(self.settling)
        assert possible, "deadlock"
        possible += [self.strain] * bool(self.flips) + [self.offer] * bool(self.offers)
        possible += [lambda: self.crash(held)] * bool(self.strained and self.crashes and held)
        self.draw(possible)()

    def draw(self, choices: list) -> object:
        return self.source.draw(st.sampled_from(choices))

    def pull(self) -> None:
        count, self.asked = min(self.asked, self.total - self.pulled), 0
        if count:  # an input may give less than it is asked for
            count = self.source.draw(st.integers(1, count))
        self.pulled += count
        last = self.pulled == self.total and (not count or self.draw([True, False]))
        self.tell(Pulled(count, last))

    def join(self) -> None:
        worker = self.joining.pop(0)
        self.chunks[worker] = deque()
        self.tell(Joined(worker))

    def refuse(self) -> None:
        self.crashes -= 1
        worker = self.joining.pop()
        self.tell(self.draw([Refused(1), Lost(worker), Lost(worker, swept=True)]))

    def offer(self) -> None:
        """Let the place grow."""
        self.offers -= 1
        count = self.draw([1, 3])
        self.most += count
        self.tell(Offered(count))

    def finish(self, busy: list[int]) -> None:
        worker = self.draw(busy)
        chunk = self.chunks[worker].popleft()
        stop = chunk.stop
        if len(chunk) > 1 and self.draw([False, True]):
            stop = self.source.draw(st.integers(chunk.start + 1, chunk.stop))
        if stop < chunk.stop and worker != HOME:
            self.chunks[worker].appendleft(range(stop, chunk.stop))
        part = range(chunk.start, stop)
        cut = self.cut(worker, stop < chunk.stop)
        if cut:
            part = range(part.start, part.stop - (self.draw([0, 1]) and len(part)))
            stop = part.stop
        if worker != HOME and len(part) > 1 and self.draw([0] * 9 + [1]):
            self.tell(Done(worker, stop, 0.0, doubtful=True, cut=cut))
            return
        strays = self.stray(part) if worker != HOME else ((), ())
        failed = self.fail(part, strays)
        lacking = tuple({*failed, *strays[0], *strays[1]})
        self.blocks.update(split(part, lacking))
        self.blocks.update(range(position, position + 1) for position in failed)
        done = Done(worker, stop, len(part) * self.draw([0.0, 1e-3, 0.1]), lacking)
        done.carriage = self.draw([None, None, 1e-6])
        done.hopeless = tuple(self.hopeless.intersection(failed))
        done.unsent, done.unreturned = strays
        done.cut = cut
        self.tell(done)

    def cut(self, worker: int, goes_on: bool) -> bool:
        """Let the chunk of a worker end where its part does, if some of it was reclaimed."""
        cut = worker in self.reclaimed and goes_on and self.draw([False, True])
        if cut:
            self.chunks[worker].popleft()
        if not self.chunks[worker]:
            self.forget(worker)
        return bool(cut)

    def forget(self, worker: int) -> None:
        """Expect no answer from a worker that has nothing, or is gone."""
        for some in self.reclaimed, self.settling, self.spared:
            some.discard(worker)

    def settle(self) -> None:
        """Let a worker from which some was reclaimed give up what it pleases."""
        worker = self.draw(sorted(self.settling))
        held = self.chunks[worker]
        stops = [None, *(position for chunk in held for position in chunk)]
        stop = self.draw(stops)
        self.forget(worker)
        if stop is not None:
            self.spared.add(worker)
            while stop not in held[-1]:
                held.pop()
            last = held.pop()
            if stop > last.start:
                held.append(range(last.start, stop))
        if not held:
            self.spared.discard(worker)
        self.tell(Reclaimed(worker, stop))

    def fail(self, part: range, strays: tuple[tuple[int, ...], ...]) -> list[int]:
        """Return which positions of a part failed, some of them without hope."""
        some = part and self.draw([0] * 9 + [1])
        drawn = {self.draw(part), self.draw(part)} if some else set()
        failed = list(drawn.difference(*strays))
        if self.limits.home:
            self.bound.update(*strays)
        else:  # a failure like any other
            failed += [*strays[0], *strays[1]]
        self.raised.update(failed)
        self.hopeless.update(failed[: self.draw([0, 0, 1, 2])])
        for position in failed:
            self.rest(position)
        return failed

    def stray(self, part: range) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return which positions of a part did not get there, and which did not come back."""
        lost = [at for at in part if self.astray and self.draw(range(10)) < self.astray]
        cut = self.source.draw(st.integers(0, len(lost)))
        return tuple(lost[:cut]), tuple(lost[cut:])

    def crash(self, mortal: list[int]) -> None:
        self.crashes -= 1
        worker = self.draw(mortal)
        suspects = range(0)
        held = self.chunks.pop(worker)
        self.forget(worker)
        if held and self.draw([True, True, False]):
            first = self.draw(held[0])
            suspects = range(first, min(first + self.draw([1, 1, 2]), held[0].stop))
            self.suspected.update(suspects)
        if len(suspects) == 1:
            self.died(suspects[0])
        elif worker == self.lone and held:
            self.exclusive.update(held[0])
        self.tell(Lost(worker, suspects, self.draw([False, True])))

    def died(self, position: int) -> None:
        crowded = self.holders() or self.run.input.exclusive
        if self.strained and crowded and position not in self.excused:
            self.excused.add(position)
            self.exclusive.add(position)
        else:
            self.deaths[position] += 1
            self.rest(position)

    def strain(self) -> None:
        self.flips -= 1
        self.strained = self.draw([True, not self.strained])
        self.tell(Strained(self.strained))

    def killed(self) -> None:
        worker = self.dying.pop(0)
        held = self.chunks.pop(worker)
        self.tell(Lost(worker, held[0] if held else range(0)))

    def took(self) -> None:
        count = self.source.draw(st.integers(1, self.untaken))
        self.untaken -= count
        self.tell(Taken(count))

    def tick(self) -> None:
        self.now = max(self.now, self.run.deadline + self.draw([0.0, 1.0]))
        self.tell(Tick())
        assert self.end or (self.run.deadline or self.now + 1) > self.now, "late and let be"


def check_failure(world: World, end: Fail, limits: Limits) -> None:
    position, reason = end.position, end.reason
    assert position not in world.given
    attempts = world.attempts(position)
    if reason in {"raised", "died", "late"}:
        assert not limits.keep_errors
        if attempts <= limits.retries and position not in world.hopeless:
            assert reason == "died"
            assert world.deaths[position] == 2
        elif position in world.hopeless:
            assert reason == "raised"
        else:
            assert attempts == limits.retries + 1
        if limits.grace is None and world.run.staff.allowed:  # else nobody was left to find out
            missing = set(range(position)) - set(world.given)
            assert not missing, "the loop would have failed later"
    elif reason == "unstaffed":
        assert world.crashes < CRASHES
    else:
        assert reason == "cancelled"
        assert set(range(position)) <= set(world.given)


def tell(run: Run, *events: tuple[float, Event]) -> list[list[Command]]:
    """Return what `run` answers to each of `events`."""
    answers = []
    for now, event in events:
        answers.append(run.handle(event, now))
        run.check()
    return answers


def answers(run: Run, *events: tuple[float, Event]) -> list[Command]:
    """Return what `run` answers to the last of `events`."""
    return tell(run, *events)[-1]


def staffed(length: int, workers: int = 2, pace: Pace | None = None, **limits: object) -> Run:
    """Return a run on a list whose workers, 1 and up, have just come."""
    run = Run(Limits(workers, home=False, **limits), pace)
    tell(run, (0.0, Begin(length, length)))
    tell(run, *[(0.0, Joined(worker + 1)) for worker in range(min(workers, length))])
    return run
