"""What a run may do, and what it must remember: who holds which positions, what was given.

`Limits` says the one; the other stands in six ledgers, which keep themselves consistent and decide
nothing.  The decisions are `scheduler`'s; what follows from all of them together is `outlook`'s.

Positions are kept as ranges, so no ledger grows with the number of items, only with the number of
chunks in the air and of items that failed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from operator import attrgetter

from parallelkit.chunking import WAIT, split
from parallelkit.events import Reason
from parallelkit.records import dataclass, field

LONGEST_PAUSE = 60.0  # seconds before a repeat: what a minute has not mended, an hour seldom does
MOST_DOUBLINGS = 1000  # of a pause: 2.0 ** 1024 is too large for a float

# Workers get nothing more once, of nine positions, eight do not travel.  The first rule is about
# time: what is computed in vain is computed again.  The second is about the caller, whom each item
# that cannot be sent costs 0.2 ms (measured), and no worker anything.
FUTILE = 8
IN_VAIN = 3
UNSENT = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """What the caller allows.  Counts are items, times are seconds.

    Args:
        workers: How many workers may be started.
        ordered: Outcomes are given in the order of the input, else as they come.
        retries: How often an item that failed is tried again.
        timeout: How long one item may take.
        keep_errors: A failed item's outcome is given in its place; otherwise it ends the run.
        home: The caller may run items, which excludes `timeout`, `retries` and `keep_errors`.
        chunksize: How many items are handed out at a time, where the user has fixed it.
        ahead: How many chunks per worker may lie between input and caller; None: any number.
        backoff: How long an item that failed waits until it is tried again for the first time; each
            further time it waits twice as long, up to a minute.
        stealing: What was handed out and not begun may be reclaimed: the backend can do that.
        folded: Outcomes are folded where they arise, in blocks (`folding`), and only these travel.
        grace: How long after a failure that ends the run the items before it are waited for, so
            that it ends with the failure a loop would have met first; None: until they are done.
    """

    workers: int
    ordered: bool = True
    retries: int = 0
    timeout: float | None = None
    keep_errors: bool = False
    home: bool = True
    chunksize: int | None = None
    ahead: int | None = None
    grace: float | None = WAIT
    backoff: float = 0.0
    stealing: bool = False
    folded: bool = False


@dataclass(slots=True)
class Input:
    """What is known of the input, and the pulled positions that nobody holds.

    `alone` are positions to be handed out one by one, before the `waiting` blocks; the `exclusive`
    ones come before all, each to be the only item that runs; `queued` counts the three.  `resting`
    is a heap of positions that will be `alone`, each after the time from which on it is.  All
    positions below `reached` were handed out at least once.  `price` is what it takes to pull one
    item.  From `stop` on, where it is set, positions are no longer wanted.
    """

    length: int | None = None
    pulled: int = 0
    exhausted: bool = False
    asked: float | None = None
    price: float | None = None
    waiting: deque[range] = field(default_factory=deque)
    alone: deque[int] = field(default_factory=deque)
    exclusive: deque[int] = field(default_factory=deque)
    resting: list[tuple[float, int]] = field(default_factory=list)
    queued: int = 0
    reached: int = 0
    stop: int | None = None

    def begin(self, length: int | None, pulled: int, done: int = 0) -> None:
        """Record what is known when the run begins; the first `done` positions are not wanted."""
        self.length = length
        self.exhausted = length is not None and pulled >= length
        self._append(pulled)
        if done:
            self.take_waiting(done)

    def arrive(self, count: int, last: bool, now: float) -> None:
        """Record `count` items that were pulled."""
        if self.asked is not None and count:
            price = (now - self.asked) / count
            # Half of the weight goes to the newest: an input may stall and recover.
            self.price = price if self.price is None else (self.price + price) / 2
        self.asked = None
        self.exhausted = last
        self._append(count)

    def _append(self, count: int) -> None:
        start = self.pulled
        self.pulled += count
        if not count or self.stop is not None:
            return
        self.queued += count
        if self.waiting and self.waiting[-1].stop == start:
            self.waiting[-1] = range(self.waiting[-1].start, self.pulled)
        else:
            self.waiting.append(range(start, self.pulled))

    def take(self, count: int) -> range:
        """Return the next chunk, of at most `count` positions."""
        first = self.exclusive or self.alone
        if first:
            self.queued -= 1
            position = first.popleft()
            return range(position, position + 1)
        return self.take_waiting(count)

    def take_waiting(self, count: int) -> range:
        """Return the next chunk of positions that need not be alone."""
        block = self.waiting[0]
        start, stop = block.start, block.stop
        if stop - start <= count:
            self.waiting.popleft()
            chunk = block
        else:
            chunk = range(start, start + count)
            self.waiting[0] = range(start + count, stop)
            stop = start + count
        self.queued -= stop - start
        self.reached = max(self.reached, stop)
        return chunk

    def put_back(self, chunk: range) -> None:
        """Make `chunk` the next to be taken."""
        if self.stop is not None:
            chunk = range(chunk.start, min(chunk.stop, self.stop))
        if not chunk:
            return
        self.queued += len(chunk)
        if self.waiting and self.waiting[0].start == chunk.stop:
            self.waiting[0] = range(chunk.start, self.waiting[0].stop)
        else:
            self.waiting.appendleft(chunk)

    def scatter(self, part: range) -> None:
        """Make the positions of `part` the next to be taken, one by one."""
        wanted = part if self.stop is None else range(part.start, min(part.stop, self.stop))
        self.waiting.extendleft(range(position, position + 1) for position in reversed(wanted))
        self.queued += len(wanted)

    def repeat(self, position: int) -> None:
        """Have `position` handed out again, alone."""
        if self.stop is None or position < self.stop:
            self.alone.append(position)
            self.queued += 1

    def isolate(self, position: int) -> None:
        """Have `position` handed out again, as the only one that runs."""
        if self.stop is None or position < self.stop:
            self.exclusive.append(position)
            self.queued += 1

    def rest(self, position: int, until: float) -> None:
        """Have `position` handed out again, alone, from the time `until` on."""
        if self.stop is None or position < self.stop:
            heappush(self.resting, (until, position))

    def wake(self, now: float) -> None:
        """Queue the positions that have rested."""
        while self.resting and self.resting[0][0] <= now:
            self.repeat(heappop(self.resting)[1])

    def cut(self, stop: int) -> None:
        """Forget the positions from `stop` on: they are no longer wanted."""
        self.stop = stop
        blocks = [range(block.start, min(block.stop, stop)) for block in self.waiting]
        self.waiting = deque(block for block in blocks if block)
        self.alone = deque(position for position in self.alone if position < stop)
        self.exclusive = deque(position for position in self.exclusive if position < stop)
        self.resting = [(until, position) for until, position in self.resting if position < stop]
        heapify(self.resting)
        self.queued = sum(map(len, [*self.waiting, self.alone, self.exclusive]))

    def left(self) -> int | None:
        """Return how many wanted items nobody holds, or None when that cannot be told."""
        here = self.queued + len(self.resting)
        if self.exhausted or self.stop is not None:
            return here
        if self.length is None:
            return None
        return here + max(0, self.length - self.pulled)

    def first(self) -> int:
        """Return the lowest position that nobody holds."""
        starts = [block.start for block in self.waiting]
        return min([*starts, *self.again(), self.pulled])

    def again(self) -> list[int]:
        """Return the positions that will be handed out again, each by itself."""
        return [*self.alone, *self.exclusive, *(position for _, position in self.resting)]


@dataclass(slots=True)
class Staff:
    """Who works besides the caller, and on what.

    `chunks` are what each worker holds, oldest first; a worker with none is in `idle`, one with
    one in `half`, unless it is to have no second.  `since` tells since when workers are on their
    oldest chunk, those that have one, if `timed` the earliest first.  `allowed` is how many workers
    there may be, `losses` how many were lost in a row for no reason that an item has given.
    `strained` says that memory is short, and `lone` that one of them has an item which must be the
    only one that runs.
    """

    allowed: int
    timed: bool = False
    chunks: dict[int, deque[range]] = field(default_factory=dict)
    idle: dict[int, None] = field(default_factory=dict)
    half: dict[int, None] = field(default_factory=dict)
    since: dict[int, float] = field(default_factory=dict)
    dying: set[int] = field(default_factory=set)
    starting: int = 0
    hired: bool = False
    losses: int = 0
    strained: bool = False
    lone: bool = False

    def join(self, worker: int) -> None:
        """Record that `worker` is ready."""
        self.starting -= 1
        self.chunks[worker] = deque()
        self.idle[worker] = None

    def count(self) -> int:
        """Return how many workers there are or will be."""
        return len(self.chunks) + len(self.dying) + self.starting

    def busy(self) -> bool:
        """Return whether any worker has a chunk, or is still leaving with one."""
        return len(self.idle) < len(self.chunks) or bool(self.dying)

    def send(self, worker: int, chunk: range, now: float) -> None:
        """Record that `worker`, taken out of `idle` or `half`, was given `chunk`."""
        held = self.chunks[worker]
        held.append(chunk)
        if len(held) == 1:
            self.half[worker] = None
            self.since[worker] = now

    def finish(self, worker: int, stop: int, now: float, cut: bool = False) -> range:
        """Record that `worker` finished its oldest chunk up to `stop` and return that part.

        Where it was `cut`, the rest is nobody's.
        """
        held = self.chunks[worker]
        chunk = held[0]
        if self.timed:
            del self.since[worker]
        if stop < chunk.stop and not cut:
            held[0] = range(stop, chunk.stop)
        else:
            held.popleft()
            if held:
                self.half[worker] = None
            else:
                self.half.pop(worker, None)
                self.idle[worker] = None
        if held:
            self.since[worker] = now
        return range(chunk.start, stop) if stop < chunk.stop else chunk

    def reclaim(self, worker: int, stop: int | None) -> list[range]:
        """Record that `worker` begins nothing from `stop` on; return that, which is nobody's."""
        held = self.chunks[worker]
        parts = curtail(held, stop)
        if not held:
            self.half.pop(worker, None)
            self.idle[worker] = None
        elif len(held) == 1:
            self.half[worker] = None
        return parts

    def leave(self, worker: int) -> deque[range]:
        """Record that `worker` is gone and return what it held."""
        self.idle.pop(worker, None)
        self.half.pop(worker, None)
        self.since.pop(worker, None)
        return self.chunks.pop(worker)

    def late(self, now: float, timeout: float) -> list[int]:
        """Return the workers that have been on their oldest chunk for `timeout` seconds."""
        # The very sum that `Run.deadline` is made of: `since <= now - timeout` rounds otherwise,
        # and a Tick at the deadline could find nobody late.
        return [worker for worker, since in self.since.items() if since + timeout <= now]


@dataclass(slots=True)
class Home:
    """What the caller itself is running, since when, and when to wonder what keeps it.

    `bound` are blocks, lowest first, that only the caller can run, because their items or results
    do not travel; `own` says that `chunk` is from there.  `unsent` and `unreturned` count the
    positions of which an item did not get to a worker or a result did not get back, `carried`
    those of which both did.  `closed` says that so little travels that workers are to have no more.
    """

    chunk: range | None = None
    since: float = 0.0
    watch: float | None = None
    own: bool = False
    bound: list[range] = field(default_factory=list)
    unsent: int = 0
    unreturned: int = 0
    carried: int = 0
    closed: bool = False

    def hold(self, chunk: range, since: float, watch: float) -> None:
        """Record that the caller runs `chunk`."""
        self.chunk, self.since, self.watch = chunk, since, watch

    def bind(self, block: range) -> None:
        """Leave `block`, which nobody runs now, to the caller."""
        if not block:
            return
        bound, start, stop = self.bound, block.start, block.stop
        at = bisect_left(bound, start, key=attrgetter("start"))
        if at < len(bound) and bound[at].start == stop:
            stop = bound.pop(at).stop
        if at and bound[at - 1].stop == start:
            at -= 1
            start = bound.pop(at).start
        bound.insert(at, range(start, stop))

    def take(self, count: int) -> range:
        """Return the next of the chunks that only the caller can run, of at most `count`."""
        block = self.bound.pop(0)
        self.bind(block[count:])
        return block[:count]

    def cut(self, stop: int) -> None:
        """Forget the positions from `stop` on: they are no longer wanted."""
        bound = [range(block.start, min(block.stop, stop)) for block in self.bound]
        self.bound = [block for block in bound if block]

    def count(self, carried: int, unsent: int, unreturned: int) -> None:
        """Record how many positions that a worker was given travelled, and how many did not."""
        self.carried += carried
        self.unsent += unsent
        self.unreturned += unreturned
        futile = self.unsent + self.unreturned > FUTILE * self.carried
        if futile and (self.unreturned >= IN_VAIN or self.unsent >= UNSENT):
            self.closed = True


@dataclass(slots=True)
class Output:
    """Blocks that have outcomes, and how far the caller is."""

    ordered: bool
    ready: dict[int, range] = field(default_factory=dict)
    given: int = 0
    taken: int = 0

    def add(self, block: range) -> Iterator[range]:
        """Record that `block` has outcomes; yield the blocks to be given now, which then are."""
        if not self.ordered:
            self.given += len(block)
            yield block
        elif block.start != self.given:
            self.ready[block.start] = block
        else:
            self.given = block.stop
            yield block
            while self.given in self.ready:
                block = self.ready.pop(self.given)
                self.given = block.stop
                yield block


@dataclass(slots=True)
class Failures:
    """What failed so far: by position, how often and why, and the failure that ends the run.

    `tries` and `deaths` count the attempts that failed and those of them that ended a worker.
    `excused` died once more, with many around them and too little memory for all.  `causes` are the
    reasons of failures that are given in the item's place.  `first` is the lowest position that
    failed for good, and `until` when its failure is told at the latest.
    """

    tries: dict[int, int] = field(default_factory=dict)
    deaths: dict[int, int] = field(default_factory=dict)
    excused: set[int] = field(default_factory=set)
    causes: dict[int, Reason] = field(default_factory=dict)
    first: int | None = None
    reason: Reason = "raised"
    until: float | None = None

    def count(self, position: int, reason: Reason, retries: int) -> bool:
        """Record a failed attempt and return whether there may be another."""
        tries = self.tries[position] = self.tries.get(position, 0) + 1
        if reason == "died":
            deaths = self.deaths[position] = self.deaths.get(position, 0) + 1
            # Two deaths are no accident, and a third would only cost another worker.
            return tries <= retries and deaths < 2
        return tries <= retries

    def pause(self, position: int, backoff: float) -> float:
        """Return how long `position`, which failed just now, is to wait before it is repeated."""
        doublings = min(self.tries[position] - 1, MOST_DOUBLINGS)
        return min(backoff * 2.0**doublings, LONGEST_PAUSE)


def curtail(held: deque[range], stop: int | None) -> list[range]:
    """Take what comes from position `stop` on, in its order, off `held`; return it, last first.

    None stands for the end of all.
    """
    if stop is None:
        return []
    for at, chunk in enumerate(held):
        if chunk.start <= stop < chunk.stop:
            later = [held.pop() for _ in range(len(held) - at)]
            later[-1] = range(stop, chunk.stop)
            if stop > chunk.start:
                held.append(range(chunk.start, stop))
            return later
    return []


def without(chunks: Sequence[range], suspects: range) -> list[range]:
    """Return the parts of `chunks` that are not in `suspects`, last first."""
    parts: list[range] = []
    for chunk in chunks:
        holes = range(max(chunk.start, suspects.start), min(chunk.stop, suspects.stop))
        parts += split(chunk, holes)
    return parts[::-1]
