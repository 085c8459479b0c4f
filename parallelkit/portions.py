"""How much: of the items to hand out next, of the input to read, of the caller's own work.

`Portions` looks at the ledgers of a run and answers with a number or a yes; it changes nothing.
What an item costs is `chunking`'s to know, and acting on the answers is `scheduler`'s.
"""

from __future__ import annotations

from parallelkit.chunking import PROBE, SHORT, Pace
from parallelkit.ledgers import Home, Input, Limits, Output, Staff
from parallelkit.records import dataclass
from parallelkit.stealing import Stealing

MANY = 100  # items that take the caller so long to pack that others may wait behind them
SOON = 2e-3  # workers that are here by then are waited for: a turn of the caller takes as long
READ_AHEAD = 8  # chunks per worker taken from an iterator before they are needed
READ_AT_MOST = 250_000  # and items: they lie in the caller's memory
READING = 1e-3  # seconds that one Pull may take, for nobody is attended to meanwhile


@dataclass(slots=True)
class Portions:
    """The view of a run that says how much."""

    limits: Limits
    pace: Pace
    stock: Input
    staff: Staff
    home: Home
    output: Output
    stealing: Stealing

    def size(self) -> int:
        """Return how many items the next chunk should have."""
        limits, stock = self.limits, self.stock
        if limits.timeout is not None:
            return 1  # a timeout is promised per item, so an item is what must be killable
        if self.stealing.served and self.staff.idle and stock.exhausted:
            served = min(self.stealing.served, len(self.staff.idle))  # it was reclaimed for so many
            return min(-(-stock.queued // served) or 1, limits.chunksize or stock.queued)
        if limits.chunksize is not None:
            return limits.chunksize
        left = stock.queued if stock.exhausted else stock.left()
        if left is None:  # as much is to be expected as was seen
            left = max(self.pace.seen, stock.queued)
        workers = len(self.staff.chunks) + self.staff.starting or 1
        size = self.pace.chunk(left, workers, limits.stealing)
        return self._aligned(size) if limits.folded and self.pace.block else size

    def _aligned(self, size: int) -> int:
        """Return a size, at most `size`, with which the next chunk folds into few heavy blocks."""
        waiting = self.stock.waiting
        if not waiting or len(waiting[0]) <= size:
            return size
        stop = waiting[0].start + size
        return size - stop % (1 << (size.bit_length() - 1))

    def short(self, size: int) -> bool:
        """Return whether a chunk of `size` may wait in a worker behind another."""
        pace, item = self.pace, self.pace.item
        if not pace.queue or self.limits.timeout is not None:
            return False
        if self.staff.starting and pace.launch < SOON:
            return False  # whoever is here in a moment should not wait for it to be packed
        most: float = SHORT
        if pace.queue > SHORT:
            most = max(SHORT, pace.queue / (self.staff.count() or 1))
        return item is not None and (size * item < most * pace.journey or size >= MANY)

    def missing(self) -> int:
        """Return how many workers to start, if there are items for them and they are worth it."""
        staff, stock = self.staff, self.stock
        present = staff.count()
        if staff.strained and (present or not self._needed()):
            return 0
        left = stock.left() if not self.home.closed else self.again()
        spare = stock.queued if left is None else left
        count = min(staff.allowed - present, spare - len(staff.idle) - staff.starting)
        if staff.strained:
            return min(count, 1)
        price = self.pace.item
        if present and left and price is not None and price * left / present < self.pace.launch:
            return 0  # those who are here will be done before another is
        return count

    def _needed(self) -> bool:
        """Return whether there is anything that the caller cannot do itself."""
        return not self.limits.home or bool(self.again())

    def again(self) -> int:
        """Return how many of the queued items are to be handed out to a worker by themselves."""
        return len(self.stock.alone) + len(self.stock.exclusive)

    def spread(self) -> int:
        """Return how many of the queued items are for workers."""
        return self.again() if self.home.closed else self.stock.queued

    def _room(self, size: int, position: int) -> int:
        """Return how many items from `position` on may enter, with chunks of `size`."""
        if self.limits.ahead is None:
            return READ_AT_MOST
        workers = max(self.limits.workers, self.staff.allowed)
        bound = max(1, self.limits.ahead * workers * size)
        return bound - (position - self.output.taken)

    def admitted(self, count: int, size: int) -> int:
        """Return how many of the next `count` items may be handed out, with chunks of `size`.

        Those that were handed out before have been admitted, or a caller who waits for one of
        them would wait for ever.
        """
        stock = self.stock
        if self.limits.ahead is None:
            return count
        again = stock.reached - stock.waiting[0].start
        return min(count, again + max(0, self._room(size, stock.reached)))

    def single(self) -> bool:
        """Return whether the next of the waiting items may be handed out by itself."""
        return bool(self.stock.waiting) and self.admitted(1, self.size()) > 0

    def alone(self) -> bool:
        """Return whether the caller has the items to itself, as nobody else can have them."""
        staff = self.staff
        there = staff.hired and (staff.allowed or staff.count()) and not self.home.closed
        return self.limits.home and not there

    def forsaken(self) -> bool:
        """Return whether what waits is the caller's to run, since no worker is there that may."""
        return self.limits.home and (self.home.closed or not self.staff.idle)

    def busy(self) -> bool:
        """Return whether anybody has items, the caller included."""
        return self.home.chunk is not None or self.staff.busy()

    def ask(self) -> int:
        """Return how many items to ask for: what is needed now, or else what will be."""
        stock, size = self.stock, self.size()
        goal = self._goal(size)
        if stock.price is None:
            goal = min(goal, 1)
        elif stock.price:
            goal = min(goal, stock.queued + max(1, int(READING / stock.price)))
        room = self._room(size, stock.pulled)
        return min(goal - stock.queued, READ_AT_MOST - stock.queued, room)

    def _goal(self, size: int) -> int:
        """Return how many items should be queued."""
        staff = self.staff
        if staff.strained:
            return 0 if self.busy() else 1
        slots = len(staff.idle) + staff.starting
        if self.alone():
            if self.home.chunk is not None:
                return 0
            # A few more than the first, to be shared if that is a long one.
            return self._turn() if self.pace.item is not None else 2 * self.limits.workers
        if slots:
            return size * slots
        return max(1, READ_AHEAD * size * staff.count())

    def _turn(self) -> int:
        return self.pace.turn(self.pace.budget())

    def own(self) -> tuple[int, float]:
        """Return how many items the caller should run itself now, and for how many seconds."""
        stock, alone = self.stock, self.alone()
        budget = self.pace.budget() if alone else PROBE
        if self.home.bound:
            return self.pace.turn(budget), budget
        if not stock.waiting or (alone and stock.asked is not None):
            return 0, budget
        if not alone and not self.helps(budget):
            return 0, budget
        size = self.pace.turn(budget)
        return size if self.limits.ahead is None else self.admitted(size, self.size()), budget

    def helps(self, budget: float) -> bool:
        """Return whether the caller should run items while workers are on their way."""
        staff, item = self.staff, self.pace.item
        if not staff.starting or self.pace.launch < SOON or item is None:
            return False
        # Not if the workers would have finished everything before the caller is back.
        return not staff.chunks or self.stock.queued * item / staff.count() >= max(budget, item)
