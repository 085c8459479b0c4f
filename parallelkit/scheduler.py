"""One map, from its first item to its last outcome, as a state machine.

`Run` is told what happened (an event) and answers with what to do (commands).  It holds no item,
no outcome, no process, no thread and no clock: items are known by their position in the input, and
the time is a number handed in with each event.  So one history of events always gives the same
commands, a test can play a thousand workers in a moment, and every backend shares one scheduler.

Decisions are made here; `ledgers` remembers, `portions` says how much, `outlook` how far a run is
and how long it waits, `chunking` knows prices.  Promises, which `Run.check` verifies:

- a pulled position is queued, resting, bound for home, held by one worker or by the caller, ready,
  or given, and never two of these (behind a failure that ends the run, it may be forgotten);
- until `Finish` or `Fail` some command is unanswered or a time is set.
"""

from __future__ import annotations

from collections import deque

from parallelkit.chunking import NOTABLE, PROBE, Pace, split
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
    Reason,
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
from parallelkit.ledgers import Failures, Home, Input, Limits, Output, Staff, without
from parallelkit.outlook import Outlook
from parallelkit.portions import Portions
from parallelkit.stealing import Stealing

__all__ = ["Limits", "Run", "split"]

OVERDUE = 2e-3  # the caller is stuck in an item if a turn takes so much longer than its budget
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
        "outlook",
        "output",
        "portions",
        "staff",
        "stealing",
        "story",
    )

    def __init__(self, limits: Limits, pace: Pace | None = None) -> None:
        self.limits = limits
        pace = pace or Pace()
        self.input = Input()
        self.staff = Staff(limits.workers, timed=limits.timeout is not None)
        self.home = Home()
        self.output = Output(limits.ordered)
        self.failures = Failures()
        self.stealing = Stealing(pace, self.staff)
        ledgers = self.input, self.staff, self.home, self.output, self.stealing
        self.portions = Portions(limits, pace, *ledgers)
        self.outlook = Outlook(limits, *ledgers, self.failures)
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
    def pace(self) -> Pace:
        """What items cost."""
        return self.portions.pace

    @property
    def deadline(self) -> float | None:
        """The earliest time at which a `Tick` changes anything, or None."""
        return None if self.ended else self.outlook.deadline()

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
        elif isinstance(event, Reclaimed):
            self._reclaimed(event, now)
        else:
            self._record_rare(event, now)

    def _record_rare(self, event: Event, now: float) -> None:
        staff = self.staff
        if isinstance(event, Begin):
            self.input.begin(event.length, event.pulled, event.done)
            self.output.given = self.output.taken = event.done
            staff.hired = not self.limits.home
            if event.held:  # and has been for a while
                self.home.hold(self.input.take_waiting(event.held), now - PROBE, now)
        elif isinstance(event, Tick):
            self._tick(now)
        elif isinstance(event, Lost):
            self._lost(event, now)
        elif isinstance(event, Strained):
            staff.strained = event.strained
        elif isinstance(event, Refused):
            staff.starting -= event.count
            staff.allowed = max(0, staff.allowed - event.count)
        elif isinstance(event, Offered):
            staff.allowed += event.count
        else:
            self._end(Fail(self.outlook.first(), "cancelled"))

    def _done(self, event: Done, now: float) -> None:
        worker, stop, failed = event.worker, event.stop, event.failed
        if worker == HOME:
            part = self._returned(stop)
        elif worker in self.staff.chunks:
            part = self._finished(event, now)
        else:  # it finished in the moment it was killed for being late
            return
        if event.doubtful:
            self.input.scatter(part)
            return
        ran = len(part) - len(event.unsent)
        if ran:
            self.pace.observe(ran, event.seconds, event.carriage)
            if event.weight > NOTABLE and not (failed and self.limits.folded):
                self.pace.weigh(0 if self.limits.folded else ran, event.weight)
        if failed:
            self._sort_out(event, part, now)
        elif part:
            self._ready(part)
        if worker != HOME and self.limits.home:
            lost = len(event.unreturned)
            self.home.count(ran - lost, len(event.unsent), lost)

    def _finished(self, event: Done, now: float) -> range:
        """Return the part of a worker's chunk that it has run."""
        staff, worker, stop = self.staff, event.worker, event.stop
        if event.cut:
            self.input.put_back(range(stop, staff.chunks[worker][0].stop))
        part = staff.finish(worker, stop, now, event.cut)
        staff.losses = 0
        if self.stealing.begun:
            self.stealing.heard(worker, len(part), event.seconds)
        return part

    def _reclaimed(self, event: Reclaimed, now: float) -> None:
        """Take back what a worker has not begun."""
        worker = event.worker
        if self.stealing.owed.get(worker):
            parts = self.staff.reclaim(worker, event.stop)
            for part in parts:
                self.input.put_back(part)
            self.stealing.settled(worker, sum(map(len, parts)), now)

    def _sort_out(self, event: Done, part: range, now: float) -> None:
        """Find out what is to become of a part of which some positions failed."""
        for block in split(part, event.failed):
            self._ready(block)
        strays = {*event.unsent, *event.unreturned} if self.limits.home else ()
        for position in sorted(event.failed):
            if position in strays:
                self._leave_home(range(position, position + 1))
            else:
                self._failed(position, "raised", now, hopeless=position in event.hopeless)

    def _returned(self, stop: int) -> range:
        """Take back what the caller left of its chunk, and return the part it has run."""
        home, chunk = self.home, self.home.chunk
        assert chunk is not None, "the caller finished what it was not given"
        home.chunk = home.watch = None
        rest = range(stop, chunk.stop)
        if home.own:
            self._leave_home(rest)
        else:
            self.input.put_back(rest)
        return range(chunk.start, stop)

    def _leave_home(self, block: range) -> None:
        """Leave to the caller what only it can run."""
        stop = self.input.stop
        self.home.bind(block if stop is None else range(block.start, min(block.stop, stop)))

    def _lost(self, event: Lost, now: float) -> None:
        staff = self.staff
        if event.worker in staff.dying:
            staff.dying.remove(event.worker)
        elif event.worker in staff.chunks:
            self._drop(event, now)
        else:
            staff.starting -= 1
            self._accident(event)

    def _drop(self, event: Lost, now: float) -> None:
        """Hand what a dead worker held to others, except for what may have killed it."""
        held, suspects = self.staff.leave(event.worker), event.suspects
        self.stealing.release(event.worker)
        for part in without(held, suspects):
            if self.staff.lone:
                self.input.isolate(part.start)
            else:
                self.input.put_back(part)
        doubtful = [position for chunk in held for position in chunk if position in suspects]
        if not doubtful:
            self._accident(event)
        elif len(doubtful) == 1:
            self._died(doubtful[0], now)
        else:  # alone, each will show whether it was the one
            for position in doubtful:
                self.input.repeat(position)

    def _died(self, position: int, now: float) -> None:
        """Blame an item for the death of its worker, unless it may only have been the biggest."""
        excused = self.failures.excused
        # What waits to be the only one died in company of this one: nothing was handed out since.
        crowded = self.portions.busy() or self.input.exclusive
        if self.staff.strained and crowded and position not in excused:
            excused.add(position)
            self.input.isolate(position)
        else:
            self._failed(position, "died", now)

    def _accident(self, event: Lost) -> None:
        self.staff.losses += not event.swept
        if self.staff.losses >= ACCIDENTS + self.limits.workers:
            self.staff.allowed = 0  # nobody stays: starting more would never end

    def _tick(self, now: float) -> None:
        if self.limits.timeout is not None:
            for worker in self.staff.late(now, self.limits.timeout):
                self._kill(worker, now)
        for worker in self.stealing.settling(now):
            self._out.append(Settle(worker))
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
        self.stealing.release(worker)
        self.staff.dying.add(worker)
        self._out.append(Kill(worker))
        for chunk in reversed([first[1:], *others]):
            self.input.put_back(chunk)
        self._failed(first.start, "late", now)

    def _ready(self, block: range) -> None:
        for part in self.output.add(block):
            self._out.append(Give(part))

    def _failed(self, position: int, reason: Reason, now: float, *, hopeless: bool = False) -> None:
        """Retry, keep or remember the failure of one item."""
        failures = self.failures
        if failures.first is not None and position > failures.first:
            return
        if failures.count(position, reason, 0 if hopeless else self.limits.retries):
            self.input.rest(position, now + failures.pause(position, self.limits.backoff))
        elif self.limits.keep_errors:
            failures.causes[position] = reason
            self._ready(range(position, position + 1))
        else:
            if failures.first is None and self.limits.grace is not None:
                failures.until = now + self.limits.grace
            failures.first, failures.reason = position, reason
            self.input.cut(position)
            self.home.cut(position)

    # Deciding what to do.

    def _advance(self, now: float) -> None:
        staff, stock = self.staff, self.input
        self.stealing.due = None
        if stock.resting:
            stock.wake(now)
        if self.output.given == stock.pulled and stock.exhausted:
            self._end(Finish())
            return
        if self.failures.first is not None and self.outlook.settled(self.failures.first, now):
            self._end(Fail(self.failures.first, self.failures.reason))
            return
        if not staff.hired and self.home.chunk is None:  # between two turns of the caller
            staff.hired = self.pace.worthwhile(stock.left(), staff.allowed)
        elif staff.lone and not staff.busy():
            staff.lone = False
        if staff.hired and len(staff.chunks) < staff.allowed:
            self._hire()
        if staff.strained or staff.lone or stock.exclusive:
            self._spare(now)
        else:
            self._share(now)
        if staff.hired and not staff.allowed:
            self._unstaffed()

    def _share(self, now: float) -> None:
        """Keep everybody busy."""
        staff, stock = self.staff, self.input
        if staff.hired and stock.queued and (staff.idle or staff.half):
            self._dispatch(now)
        if not stock.exhausted:
            self._pull(now)
        if self.limits.home and self.home.chunk is None:
            size, budget = self.portions.own()
            if size:
                self._turn(size, budget, now)
        if staff.idle and self.limits.stealing and self._starved():
            self._out.extend(self.stealing.look(now))

    def _starved(self) -> bool:
        """Return whether there is nothing in prospect for the idle but what others have."""
        return self.input.asked is None and self.failures.first is None and not self.home.closed

    def _spare(self, now: float) -> None:
        """Hand out one item once nobody has any, so that it has all memory to itself."""
        staff, stock, portions = self.staff, self.input, self.portions
        if not portions.busy():
            # Rather to a worker than to the caller: what is killed for memory should not be that.
            single = portions.single()
            if staff.idle and (portions.again() or (single and not self.home.closed)):
                staff.lone = bool(stock.exclusive)
                self._send(staff.idle, 1, now)
            elif self.home.bound or (single and portions.forsaken()):
                self._turn(1, PROBE, now)
        if not stock.exhausted:
            self._pull(now)

    def _hire(self) -> None:
        """Start as many workers as there are items for, if they are worth it."""
        if (count := self.portions.missing()) > 0:
            self.staff.starting += count
            self._out.append(Start(count))

    def _dispatch(self, now: float) -> None:
        staff, stock, portions = self.staff, self.input, self.portions
        while portions.spread():
            size = portions.size()
            if staff.idle:
                workers = staff.idle
            elif staff.half and portions.short(size):
                workers = staff.half
            else:
                return
            if self.limits.ahead is not None and not stock.alone:
                size = portions.admitted(size, size)
                if not size:
                    return
            self._send(workers, size, now)

    def _send(self, workers: dict[int, None], size: int, now: float) -> None:
        """Give the next chunk to the newest of `workers`."""
        worker = workers.popitem()[0]
        chunk = self.input.take(size)
        self.staff.send(worker, chunk, now)
        if self.stealing.begun:
            self.stealing.sent(worker)
        self._out.append(Send(worker, chunk))

    def _pull(self, now: float) -> None:
        """Ask for items, if more are wanted."""
        stock = self.input
        if stock.asked is not None or stock.stop is not None:
            return
        if (count := self.portions.ask()) > 0:
            stock.asked = now
            self._out.append(Pull(count))

    def _turn(self, size: int, budget: float, now: float) -> None:
        """Have the caller run up to `size` items, those first that nobody else can."""
        home, stock = self.home, self.input
        home.own = bool(home.bound)
        home.chunk = home.take(size) if home.own else stock.take_waiting(size)
        home.since = now
        more = stock.queued or not stock.exhausted
        if more and not self.staff.hired and self.staff.allowed > 1:
            home.watch = now + budget + OVERDUE
        self._out.append(Work(home.chunk, budget))

    def _unstaffed(self) -> None:
        """End the run if there are no workers and never will be, and the caller may not help."""
        if self.staff.count() or self.home.chunk is not None:
            return
        if self.failures.first is not None:
            self._end(Fail(self.failures.first, self.failures.reason))
        elif not self.limits.home or self.input.again():  # what may have killed one stays out
            self._end(Fail(self.outlook.first(), "unstaffed"))

    def _end(self, command: Fail | Finish) -> None:
        self._out.append(command)
        self.ended = True

    # Self-knowledge.

    def check(self) -> None:
        """Raise AssertionError if a promise is not kept."""
        self.outlook.audit()
        assert self.ended or self.outlook.awaits(), "the run waits for nobody"
