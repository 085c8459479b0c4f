"""One map, from its first item to its last outcome, as a state machine.

`Run` is told what happened (an event) and answers with what to do (commands).  It holds no item,
no outcome, no process, no thread and no clock: items are known by their position in the input, and
the time is a number handed in with each event.  So one history of events always gives the same
commands, a test can play a thousand workers in a moment, and every backend shares one scheduler.

Here are the decisions; `ledgers` remembers, and `chunking` knows prices.  Promises, which
`Run.check` verifies:

- a pulled position is queued, held by one worker or by the caller, ready, or given, and never two
  of these (past the position of a failure that ends the run, it may also be forgotten);
- until `Finish` or `Fail` some command is unanswered: a run never waits for nobody.
"""

from __future__ import annotations

from collections import deque

from parallelkit.chunking import PROBE, Pace, split
from parallelkit.events import (
    HOME,
    Begin,
    Cancel,
    Command,
    Done,
    Event,
    Fail,
    Finish,
    Give,
    Joined,
    Kill,
    Lost,
    Pull,
    Pulled,
    Reason,
    Refused,
    Send,
    Start,
    Taken,
    Tick,
    Work,
)
from parallelkit.ledgers import (
    Failures,
    Home,
    Input,
    Limits,
    Output,
    Staff,
    audit,
    awaits,
    lowest_held,
    without,
)

__all__ = ["Limits", "Run", "split"]

SHORT = 5e-3  # a second chunk may wait in a worker behind one of at most so many seconds, which
# hides the journey; queues deeper or slower than that strand work (limits.md, section 6)
MANY = 100  # and behind so many items, which take the caller a while to pack
SOON = 2e-3  # workers that are here by then are waited for: a turn of the caller takes as long
OVERDUE = 2e-3  # the caller is stuck in an item if a turn takes so much longer than its budget
READ_AHEAD = 8  # chunks per worker taken from an iterator before they are needed
READ_AT_MOST = 250_000  # and items: they lie in the caller's memory
READING = 1e-3  # seconds that one Pull may take, for nobody is attended to meanwhile
ACCIDENTS = 3  # losses in a row that no item explains, besides one for each worker
STORY = 50  # events that are kept, to be replayed when something went wrong


class Run:
    """The state of one map.  Change it through `handle` alone.

    `story` holds the last events, each with its time and the commands it was answered with.
    """

    __slots__ = (
        "_out",
        "ended",
        "failures",
        "home",
        "input",
        "limits",
        "output",
        "pace",
        "staff",
        "story",
    )

    def __init__(self, limits: Limits, pace: Pace | None = None) -> None:
        self.limits = limits
        self.pace = pace or Pace()
        self.input = Input()
        self.staff = Staff(limits.workers, timed=limits.timeout is not None)
        self.home = Home()
        self.output = Output(limits.ordered)
        self.failures = Failures()
        self.ended = False
        self.story: deque[tuple[float, Event, list[Command]]] = deque(maxlen=STORY)
        self._out: list[Command] = []

    def handle(self, event: Event, now: float) -> list[Command]:
        """Record `event`, which happened at `now`, and return what to do about it, in order.

        After `Finish` or `Fail` a run only answers with nothing.
        """
        if self.ended:
            return []
        out: list[Command] = []
        self._out = out
        self._record(event, now)
        if not self.ended:
            self._advance(now)
        self.story.append((now, event, out))
        return out

    @property
    def deadline(self) -> float | None:
        """The earliest time at which a `Tick` changes anything, or None."""
        if self.ended:
            return None
        times = [self.home.watch, self.failures.until]
        if self.limits.timeout is not None and self.staff.since:
            times.append(next(iter(self.staff.since.values())) + self.limits.timeout)
        return min((time for time in times if time is not None), default=None)

    # Recording what happened.

    def _record(self, event: Event, now: float) -> None:
        if isinstance(event, Done):
            self._done(event, now)
        elif isinstance(event, Joined):
            self.staff.join(event.worker)
        elif isinstance(event, Pulled):
            self.input.arrive(event.count, event.last, now)
        elif isinstance(event, Taken):
            self.output.taken += event.count
        else:
            self._record_rare(event, now)

    def _record_rare(self, event: Begin | Refused | Lost | Tick | Cancel, now: float) -> None:
        staff = self.staff
        if isinstance(event, Begin):
            self.input.begin(event.length, event.pulled)
            staff.hired = not self.limits.home
        elif isinstance(event, Tick):
            self._tick(now)
        elif isinstance(event, Lost):
            self._lost(event, now)
        elif isinstance(event, Refused):
            staff.starting -= event.count
            staff.allowed = max(0, staff.allowed - event.count)
        else:
            self._end(Fail(self._first(), "cancelled"))

    def _done(self, event: Done, now: float) -> None:
        worker, stop, failed = event.worker, event.stop, event.failed
        if worker == HOME:
            part = self._returned(stop)
        elif worker in self.staff.chunks:
            part = self.staff.finish(worker, stop, now)
            self.staff.losses = 0
        else:  # it finished in the moment it was killed for being late
            return
        self.pace.observe(len(part), event.seconds, event.carriage)
        if not failed:
            self._ready(part)
            return
        for block in split(part, failed):
            self._ready(block)
        for position in sorted(failed):
            self._failed(position, "raised", now)

    def _returned(self, stop: int) -> range:
        """Take back what the caller left of its chunk, and return the part it has run."""
        chunk = self.home.chunk
        assert chunk is not None, "the caller finished what it was not given"
        self.home.chunk = self.home.watch = None
        self.input.put_back(range(stop, chunk.stop))
        return range(chunk.start, stop)

    def _lost(self, event: Lost, now: float) -> None:
        staff = self.staff
        if event.worker in staff.dying:
            staff.dying.remove(event.worker)
        elif event.worker in staff.chunks:
            self._drop(event.worker, event.suspects, now)
        else:
            staff.starting -= 1
            self._accident()

    def _drop(self, worker: int, suspects: range, now: float) -> None:
        """Hand what a dead `worker` held to others, except for what may have killed it."""
        held = self.staff.leave(worker)
        for part in without(held, suspects):
            self.input.put_back(part)
        doubtful = [position for chunk in held for position in chunk if position in suspects]
        if not doubtful:
            self._accident()
        elif len(doubtful) == 1:
            self._failed(doubtful[0], "died", now)
        else:  # alone, each will show whether it was the one
            for position in doubtful:
                self.input.repeat(position)

    def _accident(self) -> None:
        self.staff.losses += 1
        if self.staff.losses >= ACCIDENTS + self.limits.workers:
            self.staff.allowed = 0  # nobody stays: starting more would never end

    def _tick(self, now: float) -> None:
        if self.limits.timeout is not None:
            for worker in self.staff.late(now, self.limits.timeout):
                self._kill(worker, now)
        home = self.home
        if home.watch is not None and now >= home.watch:
            elapsed = now - home.since
            left = self.input.left()
            if self.pace.stuck(elapsed, None if left is None else left + 1, self.staff.allowed):
                self.staff.hired = True
                home.watch = None
            else:  # the longer it takes, the longer it will: ask again when that has doubled
                home.watch = now + elapsed

    def _kill(self, worker: int, now: float) -> None:
        """End a worker whose item is late."""
        first, *others = self.staff.leave(worker)
        self.staff.dying.add(worker)
        self._out.append(Kill(worker))
        for chunk in reversed([first[1:], *others]):
            self.input.put_back(chunk)
        self._failed(first.start, "late", now)

    def _ready(self, block: range) -> None:
        for part in self.output.add(block):
            self._out.append(Give(part))

    def _failed(self, position: int, reason: Reason, now: float) -> None:
        """Retry, keep or remember the failure of one item."""
        failures = self.failures
        if failures.first is not None and position > failures.first:
            return
        if failures.count(position, reason, self.limits.retries):
            self.input.repeat(position)
        elif self.limits.keep_errors:
            failures.causes[position] = reason
            self._ready(range(position, position + 1))
        else:
            if failures.first is None and self.limits.grace is not None:
                failures.until = now + self.limits.grace
            failures.first, failures.reason = position, reason
            self.input.cut(position)

    # Deciding what to do.

    def _advance(self, now: float) -> None:
        staff, stock = self.staff, self.input
        if self.output.given == stock.pulled and stock.exhausted:
            self._end(Finish())
            return
        if self.failures.first is not None and self._settled(self.failures.first, now):
            self._end(Fail(self.failures.first, self.failures.reason))
            return
        if not staff.hired:
            self._consider()
        if staff.hired:
            if len(staff.chunks) < staff.allowed:
                self._hire()
            if stock.queued and (staff.idle or staff.half):
                self._dispatch(now)
        if not stock.exhausted:
            self._pull(now)
        if self.limits.home and self.home.chunk is None:
            self._work(now)
        if staff.hired and not staff.allowed:
            self._unstaffed()

    def _settled(self, first: int, now: float) -> bool:
        """Return whether the failure at `first` is to be told now."""
        if self.failures.until is not None and now >= self.failures.until:
            return True
        lowest = lowest_held(self.staff, self.home)
        return not self.input.queued and (lowest is None or lowest >= first)

    def _first(self) -> int:
        """Return the lowest position that was not given."""
        if self.limits.ordered:
            return self.output.given
        lowest = lowest_held(self.staff, self.home)
        return self.input.first() if lowest is None else min(self.input.first(), lowest)

    def _consider(self) -> None:
        """Decide, between two turns of the caller, whether workers are worth starting."""
        if self.home.chunk is None:
            left = self.input.left()
            self.staff.hired = self.pace.worthwhile(left, self.staff.allowed)

    def _hire(self) -> None:
        """Start as many workers as there are items for, if they are worth it."""
        staff = self.staff
        present = staff.count()
        left = self.input.left()
        spare = self.input.queued if left is None else left
        count = min(staff.allowed - present, spare - len(staff.idle) - staff.starting)
        if count <= 0:
            return
        price = self.pace.item
        if present and left and price is not None and price * left / present < self.pace.launch:
            return  # those who are here will be done before another is
        staff.starting += count
        self._out.append(Start(count))

    def _dispatch(self, now: float) -> None:
        staff, stock, out = self.staff, self.input, self._out
        while stock.queued:
            size = self._size()
            if staff.idle:
                workers = staff.idle
            elif staff.half and self._short(size):
                workers = staff.half
            else:
                return
            if self.limits.ahead is not None and not stock.alone:
                size = self._admitted(size, size)
                if not size:
                    return
            worker = workers.popitem()[0]
            chunk = stock.take(size)
            staff.send(worker, chunk, now)
            out.append(Send(worker, chunk))

    def _size(self) -> int:
        """Return how many items the next chunk should have."""
        limits, stock = self.limits, self.input
        if limits.timeout is not None:
            return 1  # a timeout is promised per item, so an item is what must be killable
        if limits.chunksize is not None:
            return limits.chunksize
        left = stock.queued if stock.exhausted else stock.left()
        if left is None:  # as much is to be expected as was seen
            left = max(self.pace.seen, stock.queued)
        staff = self.staff
        return self.pace.chunk(left, len(staff.chunks) + staff.starting or 1)

    def _short(self, size: int) -> bool:
        """Return whether a chunk of `size` may wait in a worker behind another."""
        item = self.pace.item
        short = item is not None and (size * item < SHORT or size >= MANY)
        return short and self.limits.timeout is None

    def _room(self, size: int, position: int) -> int:
        """Return how many items from `position` on may enter, with chunks of `size`."""
        if self.limits.ahead is None:
            return READ_AT_MOST
        bound = max(1, self.limits.ahead * self.limits.workers * size)
        return bound - (position - self.output.taken)

    def _admitted(self, count: int, size: int) -> int:
        """Return how many of the next `count` items may be handed out, with chunks of `size`.

        Those that were handed out before have been admitted, or a caller who waits for one of
        them would wait for ever.
        """
        stock = self.input
        again = stock.reached - stock.waiting[0].start
        return min(count, again + max(0, self._room(size, stock.reached)))

    def _alone(self) -> bool:
        """Return whether the caller has the items to itself, because nobody else is there."""
        staff = self.staff
        return self.limits.home and not (staff.hired and (staff.allowed or staff.count()))

    def _pull(self, now: float) -> None:
        """Ask for what is needed now, or else for what will be."""
        stock = self.input
        if stock.asked is not None or stock.stop is not None:
            return
        alone, size = self._alone(), self._size()
        if alone and self.home.chunk is not None:
            return
        slots = len(self.staff.idle) + self.staff.starting
        if alone:  # a few more than the first, to be shared if that is a long one
            goal = 2 * self.limits.workers
            if self.pace.item is not None:
                goal = self.pace.turn(self.pace.budget())
        elif slots:
            goal = size * slots
        else:
            goal = max(1, READ_AHEAD * size * self.staff.count())
        if stock.price is None:
            goal = 1
        elif stock.price:
            goal = min(goal, stock.queued + max(1, int(READING / stock.price)))
        room = self._room(size, stock.pulled)
        count = min(goal - stock.queued, READ_AT_MOST - stock.queued, room)
        if count > 0:
            stock.asked = now
            self._out.append(Pull(count))

    def _work(self, now: float) -> None:
        """Have the caller run some items itself, where that helps."""
        stock, home, pace = self.input, self.home, self.pace
        alone = self._alone()
        if not stock.waiting or (alone and stock.asked is not None):
            return
        budget = pace.budget() if alone else PROBE
        if not alone and not self._helps(budget):
            return
        size = pace.turn(budget)
        if self.limits.ahead is not None:
            size = self._admitted(size, self._size())
            if not size:
                return
        home.chunk, home.since = stock.take_waiting(size), now
        more = stock.queued or not stock.exhausted
        if more and not self.staff.hired and self.staff.allowed > 1:
            home.watch = now + budget + OVERDUE
        self._out.append(Work(home.chunk, budget))

    def _helps(self, budget: float) -> bool:
        """Return whether the caller should run items while workers are on their way."""
        staff, item = self.staff, self.pace.item
        if not staff.starting or self.pace.launch < SOON or item is None:
            return False
        # Not if the workers would have finished everything before the caller is back.
        return not staff.chunks or self.input.queued * item / staff.count() >= max(budget, item)

    def _unstaffed(self) -> None:
        """End the run if there are no workers and never will be, and the caller may not help."""
        if self.staff.count() or self.home.chunk is not None:
            return
        if self.failures.first is not None:
            self._end(Fail(self.failures.first, self.failures.reason))
        elif not self.limits.home or self.input.alone:  # what may have killed a worker stays out
            self._end(Fail(self._first(), "unstaffed"))

    def _end(self, command: Fail | Finish) -> None:
        self._out.append(command)
        self.ended = True

    # Self-knowledge.

    def check(self) -> None:
        """Raise AssertionError if a promise is not kept."""
        audit(self.input, self.staff, self.home, self.output, self.failures)
        assert self.staff.count() <= self.limits.workers, "too many workers"
        going = awaits(self.input, self.staff, self.home, self.output)
        assert self.ended or going, "the run waits for nobody"
