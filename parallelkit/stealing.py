"""From whom to take back work that was handed out and not begun, and when.

Once there is nothing left to hand out, some workers have nothing to do while others hold chunks
that turned out to be long.  Part of what those have not begun is *reclaimed*: the worker is told
to go no further (`Reclaim`), is given time to hear of it, and then asked how far it has come
(`Settle`).  What is beyond that is handed out again, as any item that nobody holds.

`Stealing` keeps who can be asked, whoever will be busy for longest first, and whom it has asked.
It does so only from the first time that there was nothing to hand out: before, it costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from parallelkit.chunking import Pace
from parallelkit.events import Reclaim
from parallelkit.ledgers import Staff
from parallelkit.records import dataclass, field

SETTLING = 1e-3  # seconds in which a worker will have seen what it was asked: twice what the driver
# of local workers waits for (`backends.duty`), and as fine as one can wait for sockets
LEAST = 2e-3  # seconds of work that a worker must have left: an exchange takes half of that
GONE = (-1.0, -1.0)  # what no worker's work ends at or began at
ROUND = 0.5  # and so many journeys to each worker: in less the caller cannot supply them all


@dataclass(slots=True)
class Stealing:
    """The ledger of who holds work that others could do.

    `ends` tells until when each worker that could be asked should be busy, by what an item costs,
    and since when; `latest` is a heap of the first, the last in time first, and `longest` one of
    the second.  Both may have entries that no longer hold.  `asked` tells until when those have
    time that were asked, and `owed` for how many idle workers (`promised` in all) each that has not
    answered is to leave work; `served` of these are still to have it.  Who has given something up
    is in `owed`, with 0, until it has done the rest: it gets nothing before, since it need not have
    heard yet where the rest ends.  `due` is when to look again.

    `price` is seconds and items of the newest parts: what is left is rather like these.
    """

    pace: Pace
    staff: Staff
    begun: bool = False
    ends: dict[int, tuple[float, float]] = field(default_factory=dict)
    latest: list[tuple[float, int]] = field(default_factory=list)
    longest: list[tuple[float, int]] = field(default_factory=list)
    asked: dict[int, float] = field(default_factory=dict)
    owed: dict[int, int] = field(default_factory=dict)
    promised: int = 0
    served: int = 0
    due: float | None = None
    price: tuple[float, float] = (0.0, 0.0)

    # What happened to a worker.

    def sent(self, worker: int) -> None:
        """Record that `worker` was given a chunk."""
        self.served = max(0, self.served - 1)
        self._note(worker)

    def heard(self, worker: int, items: int, seconds: float) -> None:
        """Record that `worker` has run `items` of its items, in `seconds`."""
        if items:
            before = self.price
            self.price = (before[0] / 2 + seconds, before[1] / 2 + items)
        self._note(worker)

    def settled(self, worker: int, count: int, now: float) -> None:
        """Record that `worker` gave up `count` items."""
        shared = self.owed[worker]
        self.release(worker)
        if count:  # else it has begun all it has
            self.served += shared
            held = self._held(worker)
            if held:
                self.owed[worker] = 0
                self.staff.half.pop(worker, None)
            left = min(count / shared, held)  # not begun, besides what it is on
            if left > 1:
                self._expect(worker, now, left)

    def release(self, worker: int) -> None:
        """Record that `worker` owes no answer any more, and has nothing that could be asked for."""
        self.promised -= self.owed.pop(worker, 0)
        self.asked.pop(worker, None)
        self.ends.pop(worker, None)
        if len(self.staff.chunks.get(worker, ())) == 1:
            self.staff.half[worker] = None

    def _note(self, worker: int) -> None:
        count = self._held(worker)
        if worker in self.owed:
            if not count:
                self.release(worker)
            else:
                self.staff.half.pop(worker, None)
                if self.owed[worker]:
                    return
        if count > 1:
            self._expect(worker, self.staff.since[worker], count)
        else:
            self.ends.pop(worker, None)

    def _held(self, worker: int) -> int:
        return sum(map(len, self.staff.chunks[worker]))

    def _expect(self, worker: int, since: float, count: float) -> None:
        """Record that `worker` has been on `count` items since then."""
        seconds, items = self.price
        end = since + count * max(self.pace.item or 0.0, seconds / items if items else 0.0)
        self.ends[worker] = (end, since)
        heappush(self.latest, (-end, worker))
        heappush(self.longest, (since, worker))

    # Whom to ask.

    def look(self, now: float) -> Iterator[Reclaim]:
        """Yield what to ask for the workers that are idle and have nothing in prospect."""
        staff = self.staff
        if not self.begun:
            self.begun = True
            for worker, held in staff.chunks.items():
                if held:
                    self._note(worker)
        while len(staff.idle) > self.promised:
            victim = self._victim(now)
            if victim is None:
                return
            shared = max(1, (len(staff.idle) - self.promised) // len(self.ends))
            del self.ends[victim]
            self.asked[victim] = now + SETTLING
            self.owed[victim] = shared
            self.promised += shared
            staff.half.pop(victim, None)
            yield Reclaim(victim, 1 / (1 + shared))

    def _victim(self, now: float) -> int | None:
        """Return whose work is worth taking, if anybody's is; else `due` is when it may be."""
        least = max(LEAST, ROUND * len(self.staff.chunks) * self.pace.trip)
        latest, longest, ends = self.latest, self.longest, self.ends
        while latest and ends.get(latest[0][1], GONE)[0] != -latest[0][0]:
            heappop(latest)
        if not latest:
            longest.clear()
            return None
        if -latest[0][0] - now >= least:
            return latest[0][1]
        # Whoever is late is on dear items, perhaps on one: the longer it takes, the longer it may.
        while ends.get(longest[0][1], GONE)[1] != longest[0][0]:
            heappop(longest)
        since, worker = longest[0]
        due = max(ends[worker][0], since + 2 * least)
        if now >= due:
            return worker
        self.due = due
        return None

    # Whom to wait for.

    def settling(self, now: float) -> Iterator[int]:
        """Yield the workers that had time enough to hear what was asked of them."""
        while self.asked:
            worker, until = next(iter(self.asked.items()))
            if until > now:
                return
            del self.asked[worker]
            yield worker

    def deadline(self) -> float | None:
        """Return when there is something to settle or to look for."""
        if not self.asked:
            return self.due
        until = next(iter(self.asked.values()))
        return until if self.due is None else min(self.due, until)
