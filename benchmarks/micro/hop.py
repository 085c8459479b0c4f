"""What sending costs: one chunk to a worker and back, and one item in a large chunk.

    python -m benchmarks.micro.hop [--quick]

`abs` on integers, which is next to nothing, so that all that is measured is the journey.  Chunks of
one item give the price of a chunk, in time and in CPU time of the caller (who serves all workers,
so that is what bounds their number); chunks of 10,000 give the price of an item.  Beside it is
`multiprocessing.Pool.map` with the same chunks.  Rounds are interleaved, and medians are told.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from statistics import median
from time import perf_counter, process_time

from benchmarks import machine_line, quick, table
from parallelkit import pmap

LARGE = 10_000  # items of a large chunk
CREWS = (1, 2)

Mapped = Callable[[range, int], object]


def measured(action: Mapped, items: int, chunksize: int) -> tuple[float, float]:
    """Return seconds and CPU seconds of this process for a call."""
    began, cpu = perf_counter(), process_time()
    action(range(items), chunksize)
    return perf_counter() - began, process_time() - cpu


def ours(workers: int) -> Mapped:
    return lambda items, size: pmap(abs, items, workers=workers, chunksize=size)


def theirs(pool: multiprocessing.pool.Pool) -> Mapped:
    return lambda items, size: pool.map(abs, items, size)


def rounds(ways: dict[str, Mapped], items: int, size: int, times: int) -> dict[str, list[float]]:
    """Return for each way the median seconds and CPU seconds per item."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(times + 1):
        for name, action in ways.items():
            pair = measured(action, items, size)
            if number:  # the first round starts and warms everything
                taken[name].append(pair)
    return {
        name: [median(each) / items for each in zip(*pairs, strict=True)]
        for name, pairs in taken.items()
    }


def main() -> None:
    """Print the table."""
    few = quick(__doc__)
    rows = []
    for workers in CREWS:
        with multiprocessing.Pool(workers) as pool:
            ways = {"parallelkit": ours(workers), "multiprocessing.Pool": theirs(pool)}
            times = 3 if few else 9
            chunks = rounds(ways, 300 if few else 2_000, 1, times)
            items = rounds(ways, LARGE * (10 if few else 40), LARGE, times)
        for name in ways:
            chunk, item = chunks[name], items[name]
            micro = [f"{value * 1e6:.1f}" for value in chunk]
            nano = [f"{value * 1e9:.0f}" for value in item]
            rows.append((f"{name}, {workers} worker{'s' * (workers > 1)}", *micro, *nano))
    print(machine_line(), end="\n\n")
    print(table(("", "chunk, us", "its CPU, us", "item, ns", "its CPU, ns"), rows))


if __name__ == "__main__":
    main()
