"""How close chunking comes to the best that is possible, on machines that do not exist.

    python -m benchmarks.simulate [--quick]

Each policy plays the same work on the simulator of the tests (`tests/simulator.py`): 2 to 1,024
workers that are already there, seven shapes of cost, and items of 1 us to 30 ms on average.  What
is printed is efficiency: the time that nobody can beat who does not know the costs, over the time
taken.  A case has half a second of work for each worker that the caller
can feed, and at least two items for each; where these are more than 200,000, neighbours cost the
same.  Everything is seeded, so two runs print the same.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from simulator import CARRYING, Decider, Machine

from parallelkit.chunking import QUEUED, Pace
from parallelkit.events import Begin, Command, Done, Event, Finish, Joined, Send, Start
from parallelkit.scheduler import Limits, Run

WORKERS = (2, 8, 64, 1024)
MEANS = (1e-6, 30e-6, 1e-3, 30e-3)  # seconds per item
SHARE = 0.5  # seconds of work for each worker
FEWEST = 2  # items for each worker
MOST = 200_000  # different costs in a case: more would only take longer to play
WARM = 150e-6  # seconds until a worker that is there already has its first chunk


def even(count: int, _: random.Random) -> list[float]:
    return [1.0] * count


def log_normal(count: int, chance: random.Random) -> list[float]:
    return [chance.lognormvariate(0, 1) for _ in range(count)]


def bimodal(count: int, chance: random.Random) -> list[float]:
    return [20.0 if chance.random() < 0.05 else 1.0 for _ in range(count)]


def ascending(count: int, _: random.Random) -> list[float]:
    return [1.0 + position for position in range(count)]


def descending(count: int, _: random.Random) -> list[float]:
    return [float(count - position) for position in range(count)]


def one_giant(count: int, _: random.Random) -> list[float]:
    costs = [1.0] * count
    costs[count * 3 // 4] = count / 100
    return costs


def dearer_at_the_end(count: int, _: random.Random) -> list[float]:
    return [10.0 if position >= 0.9 * count else 1.0 for position in range(count)]


SHAPES = (even, log_normal, bimodal, ascending, descending, one_giant, dearer_at_the_end)


class Fixed:
    """A policy of others: chunks of `size(run)` items, one after the other, `depth` per worker."""

    def __init__(self, workers: int, size: Callable[[Fixed], int], depth: int = 1) -> None:
        self.workers = workers
        self.size = size
        self.depth = depth
        self.count = self.left = 0
        self.batch = 1
        self.sent: dict[int, deque[tuple[float, int]]] = {}
        self.took = 0.0
        self.deadline: float | None = None

    def handle(self, event: Event, now: float) -> list[Command]:
        if isinstance(event, Begin):
            assert event.length is not None
            self.count = self.left = event.length
            return [Start(self.workers)]
        if isinstance(event, Joined):
            self.sent[event.worker] = deque()
            return [self.send(event.worker, now) for _ in range(min(self.depth, self.left))]
        assert isinstance(event, Done)
        sent, size = self.sent[event.worker].popleft()
        self.took = now - sent if size == self.batch else 0.0
        if self.left:
            return [self.send(event.worker, now)]
        return [] if any(self.sent.values()) else [Finish()]

    def send(self, worker: int, now: float) -> Command:
        size = min(self.left, self.size(self))
        start = self.count - self.left
        self.left -= size
        self.sent[worker].append((now, size))
        return Send(worker, range(start, start + size))


def of_pool(run: Fixed) -> int:
    """Return the chunk of multiprocessing.Pool: a quarter of a worker's share."""
    return -(-run.count // (4 * run.workers))


def of_joblib(run: Fixed) -> int:
    """Return the next batch of joblib: doubled or halved until one takes 0.2 to 2 seconds."""
    if 0 < run.took < 0.2:
        run.batch *= 2
    elif run.took > 2 and run.batch > 1:
        run.batch //= 2
    run.took = 0.0
    return run.batch


def ours(workers: int) -> Decider:
    return Run(Limits(workers, home=False, stealing=True), Pace(launch=WARM, queue=QUEUED))


POLICIES: dict[str, tuple[bool, Callable[[int], Decider]]] = {
    "parallelkit": (True, ours),
    "Pool, n/4p": (True, lambda workers: Fixed(workers, of_pool, depth=2)),
    "joblib, auto": (True, lambda workers: Fixed(workers, of_joblib, depth=2)),
    "parallelkit, unknown length": (False, ours),
}


def case(
    shape: Callable[[int, random.Random], list[float]], mean: float, workers: int
) -> tuple[list[float], int]:
    """Return the costs of one case, `mean` seconds on average, and how often each is repeated."""
    fed = min(workers, mean / CARRYING)
    total = max(FEWEST * workers, round(SHARE * fed / mean))
    repeat = -(-total // MOST)
    count = total // repeat
    costs = shape(count, random.Random(count))
    scale = mean * count / sum(costs)
    return [cost * scale for cost in costs], repeat


def least(costs: list[float], repeat: int, workers: int) -> float:
    """Return the time below which nobody can be who does not know the costs beforehand.

    That is list scheduling (Graham 1966): whoever is free takes the next item, which costs nothing
    to hand out; or what the caller needs to pack all items, if that is more.
    """
    packing = CARRYING * len(costs) * repeat
    if repeat > 1:  # so many items fill the gaps
        return max(sum(costs) * repeat / workers, *costs, packing)
    free = [0.0] * workers
    for cost in costs:
        heapq.heapreplace(free, free[0] + cost)
    return max(*free, packing)


def main() -> None:
    """Print a table of efficiencies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="up to 64 workers, two mean costs")
    parser.add_argument("--cases", action="store_true", help="print every case")
    chosen = parser.parse_args()
    machines = WORKERS[:3] if chosen.quick else WORKERS
    means = MEANS[1:3] if chosen.quick else MEANS
    start = time.perf_counter()
    results: dict[tuple[str, int], list[float]] = {}
    for workers in machines:
        for shape in SHAPES:
            for mean in means:
                costs, repeat = case(shape, mean, workers)
                length = len(costs) * repeat
                bound = least(costs, repeat, workers)
                for name, (sized, policy) in POLICIES.items():
                    if not sized and workers > 64:
                        continue
                    played = Machine(costs, WARM, repeat).play(
                        policy(workers), length if sized else None
                    )
                    value = bound / played.seconds
                    results.setdefault((name, workers), []).append(value)
                    if chosen.cases:
                        print(f"{name:28} {workers:5} {shape.__name__:18} {mean:8.6f} {value:.3f}")
    print("geometric mean (minimum) of the efficiency, by number of workers")
    print(f"{'':28}" + "".join(f"{workers:>14}" for workers in machines))
    for name in POLICIES:
        cells = [results.get((name, workers)) for workers in machines]
        print(f"{name:28}" + "".join(f"{summary(cell) if cell else '-':>14}" for cell in cells))
    print(f"{len(SHAPES) * len(means)} cases a column, {time.perf_counter() - start:.0f} s")


def summary(values: list[float]) -> str:
    return f"{math.exp(sum(map(math.log, values)) / len(values)):.3f} ({min(values):.2f})"


if __name__ == "__main__":
    main()
