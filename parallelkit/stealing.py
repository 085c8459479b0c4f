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
from dataclasses import dataclass, field
from heapq import heappop, heappush

from parallelkit.chunking import JOURNEY, Pace
from parallelkit.events import Reclaim
from parallelkit.ledgers import Limits, Staff

SETTLING = 1e-3  # seconds until what is written on the board has been seen: a million of cycles
LEAST = 2e-3  # seconds of work that a worker must have left: an exchange takes half of that
ROUND = 1.0  # journeys for each worker: in less, the caller could not supply all with their parts


@dataclass(slots=True)
class Stealing:
    """The ledger of who holds work that others could do.

    `ends` tells until when each worker that could be asked should be busy, by what an item costs;
    `latest` is a heap of that, the last first, and `longest` one of those who are on their chunk
    for longest.  Both may have entries that no longer hold.  `asked` tells until when those have
    time who were asked last, and `owed` how many idle workers each of them is to give work to.
    `due` is when to look again.
    """

    limits: Limits
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
    seconds: float = 0.0
    items: float = 0.0
    due: float | None = None

    def observe(self, items: int, seconds: float) -> None:
        self.items = self.items / 2 + items
        self.seconds = self.seconds / 2 + seconds

    def note(self, worker: int) -> None:
        """Record that what `worker` holds is no longer what it was."""
        staff = self.staff
        held = staff.chunks.get(worker, ())
        count = sum(map(len, held))
        if worker in self.owed:
            if held:
                staff.half.pop(worker, None)  # it gets nothing while this is not settled
                return
            self.release(worker)
        if count < 2 or self.pace.item is None:
            self.ends.pop(worker, None)
            return
        self.expect(worker, staff.since[worker], count)

    def sent(self, worker: int) -> None:
        """Record that `worker` was given a chunk."""
        self.served = max(0, self.served - 1)
        self.note(worker)

    def price(self):
        item = self.pace.item
        if self.items:
            item = max(item, self.seconds / self.items)
        return item

    def expect(self, worker: int, since: float, count: float) -> None:
        end = since + count * self.price()
        self.ends[worker] = (end, since)
        heappush(self.latest, (-end, worker))
        heappush(self.longest, (since, worker))

    def release(self, worker: int) -> None:
        """Record that `worker` owes no answer any more, and has nothing that could be asked for."""
        self.promised -= self.owed.pop(worker, 0)
        self.asked.pop(worker, None)
        self.ends.pop(worker, None)
        if len(self.staff.chunks.get(worker, ())) == 1:
            self.staff.half[worker] = None

    def settle(self, worker: int, got: int, now: float) -> None:
        shared = self.owed[worker]
        self.release(worker)
        if not got:
            return
        self.served += shared
        kept = got / shared
        if kept < 1:
            return
        staff = self.staff
        self.expect(worker, now, kept)

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
        until = next(iter(self.asked.values()), None)
        if self.due is None or until is None:
            return self.due if until is None else until
        return min(self.due, until)

    def look(self, now: float) -> Iterator[Reclaim]:
        """Yield what to ask for the workers that are idle and have nothing in prospect."""
        staff = self.staff
        if not self.begun:
            self.begun = True
            for worker, held in staff.chunks.items():
                if held:
                    self.note(worker)
        while len(staff.idle) > self.promised:
            worker = self._victim(now)
            if worker is None:
                return
            shared = max(1, (len(staff.idle) - self.promised) // len(self.ends))
            del self.ends[worker]
            self.asked[worker] = now + SETTLING
            self.owed[worker] = shared
            self.promised += shared
            staff.half.pop(worker, None)
            yield Reclaim(worker, 1 / (1 + shared))

    def _victim(self, now: float) -> int | None:
        """Return whose work is worth taking, if anybody's is; else `due` is when it may be."""
        least = max(LEAST, ROUND * len(self.staff.chunks) * JOURNEY)
        latest, longest, ends = self.latest, self.longest, self.ends
        while latest and ends.get(latest[0][1], (0.0, 0.0))[0] != -latest[0][0]:
            heappop(latest)
        if not latest:
            self.longest.clear()
            return None
        if -latest[0][0] - now >= least:
            return latest[0][1]
        # Whoever is late is on dear items, perhaps on one: the longer it takes, the longer it may.
        while longest and ends.get(longest[0][1], (0.0, -1.0))[1] != longest[0][0]:
            heappop(longest)
        since, worker = longest[0]
        self.due = max(ends[worker][0], since + 2 * least)
        if now < self.due:
            return None
        self.due = None
        return worker
