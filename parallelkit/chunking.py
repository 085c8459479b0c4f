"""How much to hand out at a time, and whether workers are worth starting.

A chunk costs the same journey whatever its size, and starting workers costs one launch.  `Pace`
learns what an item costs and weighs it against these two: how many items make the journey cheap
without starving the other workers near the end, how long the caller works by itself before it
decides again, and whether the work that remains repays a launch.

Times are seconds, counts are items.  `Pace` is told durations and never looks at a clock; who gets
a chunk, and when, is left to `scheduler`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt

from .records import dataclass

JOURNEY = 20e-6  # seconds of the caller per chunk, sent and received (benchmarks.hop)
SHORTEST = 20  # journeys that a chunk should be worth: it then costs 5 % of what it does
LONGEST = 200  # and at most: so short that a second one may wait behind it and hide the journey
ROUND = 4  # times the caller's journeys to all workers, which it must not spend its time on
SHARES = 4  # chunks per worker that the rest is cut into; 2 to 8 differ by 1 % (simulate)
SHORT = 250  # a second chunk may wait in a worker behind one of at most so many journeys, which
# hides the journey; queues deeper or slower than that strand work (benchmarks.simulate)
GROWTH = 16  # a chunk is at most so many times what was measured: an unknown cost is met in steps

# Where what was handed out can be taken back, chunks need not be so small (all by simulate):
FIRST = 16  # of its share a worker has one part at most before anything is measured, lest the
CREW = 4  # caller be busy with first chunks; and one item for so many workers, if that is less
PARTS = 2  # chunks per worker that the rest is cut into
ROOT = 2  # times the root of `Pace.chunk`
SPAN = 2000  # journeys that a chunk is worth at most.  Who was asleep for milliseconds takes 70 us
# for one, three times `JOURNEY`: after 4 ms that is 2 % of a worker, after 40 ms it is nothing
QUEUED = 20_000  # as `SHORT`, but of all workers together: each of a few should have something to
# go on with, while the caller sleeps and wakes; of 1,024 few can wait
WAIT = 0.2  # seconds for an earlier failure: a worker may have two such chunks, and be held up
LOAD = 400e-6  # seconds that the caller packs for a journey, when packing is what bounds it
LAST_LOAD = LOAD / 4  # and at the end, when workers would else wait for the last of these

HEAVY = 4 << 20  # bytes of a chunk: copying them takes twenty journeys, and memory is soon short
NOTABLE = HEAVY >> 4  # bytes of a chunk below which its weight is no news
FOLDING = 3e-10  # seconds per byte of what a chunk was folded into: to be copied, and folded again
HEAVIER = 16  # times as heavy are chunks at most where a journey is dear

PROBE = 1e-3  # what the caller runs before a measured price is believed (first calls are dear)
SLICE = 2e-3  # the caller's shortest turn after that: a decision, some 5 us, is then 0.3 % of it
LONGEST_SLICE = 20e-3  # and its longest, so that costs which rise late still bring workers
STRIDE = 16  # a turn is at most so many times what was measured, or a slow item would hold up many

CARRIAGE = 0.2e-6  # to pickle an item and its result, both ways: between an int and a small dict
MARGIN = 1.15  # working together must win by 15 % on paper, or noise would make it lose


@dataclass(slots=True)
class Pace:
    """The price of one item, learned as the run goes, and the prices it is weighed against.

    Args:
        item: Seconds per item, where an earlier call has measured it.
        launch: Seconds until workers that are asked for work: 25 ms when they must be started on
            the machine this was measured on, 0.15 ms when they are there.
        carriage: Seconds to pickle and unpickle one item and its result; None until measured.
        weight: Bytes of one item or one result as it travels, whichever are more.
        journey: Seconds that a chunk costs besides what it does, as its backend states.
        depth: How many of the run's workers share a place to work: while the chunk of one is run,
            those of the others wait there, or are on their way.
        queue: Journeys, of all workers together, that chunks may be worth behind which others wait
            in the workers; none may wait if it is 0.
        block: Bytes of what a chunk is folded into, where that is heavy.
        first: How many items the caller runs before it knows what they cost: the least that show.
        span: Journeys that a chunk is worth at most, where it can be taken back.
    """

    item: float | None = None
    launch: float = 0.025
    carriage: float | None = None
    weight: float = 0.0
    journey: float = JOURNEY
    depth: int = 1
    queue: int = SHORT
    block: float = 0.0
    first: int = 1
    span: int = SPAN
    seen: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Let a remembered price count as much as a probe would."""
        if self.item is not None and not self.seen:
            self.item = max(self.item, 1e-9)
            self.seen = int(PROBE / self.item) + 1
            self.seconds = self.seen * self.item

    def observe(self, items: int, seconds: float, carriage: float | None = None) -> None:
        """Learn from `items` items that took `seconds` seconds."""
        self.seen += items
        self.seconds += seconds
        # Over all items, not the newest: workers report dear chunks late, so that the newest
        # prices are too low in the beginning.  A clock may say 0.0 for a fast item.
        self.item = self.seconds / self.seen or 1e-9
        if carriage is not None:
            old = self.carriage
            # The first measurement may have been interrupted, so a later one halves its weight.
            self.carriage = carriage if old is None else (old + min(carriage, 4 * old)) / 2

    def weigh(self, items: int, size: float) -> None:
        """Learn that `items` items, or their results, travelled in `size` bytes.

        With 0 items it was what a chunk was folded into, which makes any chunk's trip dear.
        """
        if not items:
            self.block = max(size, (self.block + size) / 2)
            return
        weight = size / items
        # Heavier ones count at once and lighter ones slowly: too much at a time is what hurts.
        self.weight = max(weight, (self.weight + weight) / 2)

    @property
    def trip(self) -> float:
        """Seconds that a chunk costs besides what it does, with what it is folded into."""
        return max(self.journey, self.block * FOLDING)

    def chunk(self, left: int, workers: int, bold: bool = False) -> int:
        """Return how many items to send next to one of `workers`, of `left` not yet sent.

        `bold` says that what proves to be too much can be taken back.
        """
        item = self.item
        if item is None:
            return max(1, min(left // (FIRST * workers), workers // CREW)) if bold else 1
        if bold:
            most = min(self._bold(left * item, workers, item) / item, GROWTH * self.seen)
        else:
            places = max(1, workers // self.depth)
            most = self._careful(left * item, places, item) / item
            most = min(most, GROWTH * self.seen / workers)
        if self.weight:
            most = min(most, HEAVY * min(HEAVIER, self.journey / JOURNEY) / self.weight)
        return max(1, min(left, int(most)))

    def _careful(self, rest: float, workers: int, item: float) -> float:
        """Return how many of the `rest` seconds of work to send next."""
        journey = self.journey
        least = SHORTEST * journey
        if self.carriage and workers * self.carriage > 2 * item:
            # The caller, who carries one way, cannot feed more: shares are of those it can, and a
            # journey should be little beside what it carries.
            workers = int(2 * item / self.carriage) + 1
            least = max(least, SHORTEST * journey / self.carriage * item)
        # Chunks of t seconds cost the caller rest / t journeys, and the last of them may end t
        # later than it could: their sum is least where t is the root.
        best = max(rest / (SHARES * workers), sqrt(rest * journey))
        seconds = max(best, min(least, rest / workers))
        return min(seconds, max(LONGEST * journey, least, ROUND * workers * journey))

    def _bold(self, rest: float, workers: int, item: float) -> float:
        """Return the same, where the end of a chunk can be taken back if it proves to be long.

        So nothing is to be gained by chunks that take less than a journey to each worker.
        """
        journey = self.trip
        least = SHORTEST * journey
        longest = max(self.span * self.journey, least)
        if self.carriage and workers * self.carriage > item:  # packing is what keeps the caller
            workers = min(workers, int(2 * item / self.carriage) + 1)
            least = 2 * LAST_LOAD / self.carriage * item
            longest = 2 * LOAD / self.carriage * item
        else:
            least = max(least, workers * journey)
            longest = max(longest, ROUND * workers * journey)
        # A worker's share at most, unless the caller would need longer to carry so many parts.
        share = max(rest / workers, PARTS * workers * journey)
        least = min(least, ROOT * sqrt(rest * journey), share)
        return min(max(rest / (PARTS * workers), least), longest)

    def budget(self) -> float:
        """Return for how long the caller works by itself before it decides again."""
        if self.seconds < PROBE:
            return PROBE
        # In proportion to what was spent, so that a long run in the caller has few decisions.
        return min(max(SLICE, self.seconds / 4), LONGEST_SLICE)

    def turn(self, budget: float) -> int:
        """Return how many items the caller should hold for `budget` seconds of work."""
        if self.item is None:
            return self.first  # it may be a long one, and what lies behind it would wait with it
        return max(1, int(min(STRIDE * self.seen, 2 * budget / self.item)))

    def worthwhile(self, left: int | None, workers: int) -> bool:
        """Return whether starting `workers` workers is expected to end the run sooner.

        `left` is how many items are not done, None when that cannot be told.
        """
        if self.item is None or self.seconds < PROBE:
            return False
        return self._pays(self.item, left, workers)

    def stuck(self, elapsed: float, left: int | None, workers: int) -> bool:
        """Return the same while the caller is in an item that has taken `elapsed` so far.

        That is a lower bound of what the item costs, and the only news of it; so it stands for
        the others too, and the item itself is counted in `left`.
        """
        return self._pays((self.seconds + elapsed) / (self.seen + 1), left, workers, elapsed)

    def _pays(self, item: float, left: int | None, workers: int, elapsed: float = 0.0) -> bool:
        carriage = CARRIAGE if self.carriage is None else self.carriage
        if left is None:
            # Length unknown: pay for a launch once as much was spent without one, so the total is
            # at most twice the best choice in hindsight (the ski-rental bound: Karlin et al.,
            # Competitive snoopy caching, Algorithmica 3, 1988).
            spent = self.seconds + elapsed
            share = max((item + carriage) / workers, carriage)
            return spent >= self.launch and item > MARGIN * share
        if left < 2:
            return False
        crew = min(workers, left)
        together = max((item + carriage) * left / crew, carriage * left)
        together += PARTS * crew * self.block * FOLDING
        return item * left > MARGIN * (self.launch + together)


def split(chunk: range, holes: Sequence[int]) -> Iterator[range]:
    """Yield the parts of `chunk` between `holes`, which are left out, in order.

    Outcomes are stored and given in these parts; each hole is a part of its own.
    """
    start = chunk.start
    for hole in sorted(holes):
        if start < hole:
            yield range(start, hole)
        start = hole + 1
    if start < chunk.stop:
        yield range(start, chunk.stop)
