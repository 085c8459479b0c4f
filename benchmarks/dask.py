"""Many short items on Dask: one task for each, the best batches by hand, and `pmap`.

    python -m benchmarks.dask [items [rounds]]

A cluster of two worker processes with a thread each, on this machine.  Items take 100 us by the
clock, so that what else the machine does weighs on all three alike.  Rounds are interleaved.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

from parallelkit import pmap

COST = 100e-6
BATCHES = (10, 20, 40, 80, 160)
SHARE = 20  # of the items, one in so many is run as a task of its own


def item(x: int) -> int:
    """Take `COST` seconds."""
    end = perf_counter() + COST
    while perf_counter() < end:
        pass
    return x


def batch(xs: range) -> list[int]:
    """Run items one after the other, as one would write it."""
    return [item(x) for x in xs]


def by_hand(client: Any, count: int, batches: int) -> float:
    """Return the seconds that so many batches of equal size take."""
    began = perf_counter()
    size = -(-count // batches)
    parts = [range(start, min(start + size, count)) for start in range(0, count, size)]
    futures = [client.submit(batch, part, pure=False) for part in parts]
    results = [x for part in client.gather(futures) for x in part]
    assert results == list(range(count))
    return perf_counter() - began


def one_by_one(client: Any, count: int, _: int) -> float:
    """Return the seconds that `count` tasks of one item would take, by a share of them."""
    began = perf_counter()
    futures = [client.submit(item, x, pure=False) for x in range(count // SHARE)]
    client.gather(futures)
    return (perf_counter() - began) * SHARE


def ours(client: Any, count: int, _: int) -> float:
    """Return the seconds that `pmap` takes."""
    began = perf_counter()
    assert pmap(item, range(count), backend=client) == list(range(count))
    return perf_counter() - began


def main(count: int = 100_000, rounds: int = 5) -> None:
    """Print seconds and ratios."""
    from distributed import Client, LocalCluster

    ways: dict[str, tuple[Callable[[Any, int, int], float], int]] = {
        "pmap": (ours, 0),
        **{f"{batches} batches": (by_hand, batches) for batches in BATCHES},
    }
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        ours(client, 100, 0)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, (way, number) in ways.items():
                times[name].append(way(client, count, number))
        single = one_by_one(client, count, 0)
    middle = {name: statistics.median(each) for name, each in times.items()}
    for name, seconds in middle.items():
        print(f"{name:12} {seconds:8.2f} s")
    best = min(seconds for name, seconds in middle.items() if name != "pmap")
    print(f"{'one by one':12} {single:8.2f} s (by one in {SHARE})")
    print(f"pmap has {best / middle['pmap']:.2f} of the throughput of the best batches,")
    print(f"and {single / middle['pmap']:.1f} times that of one task for each item")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
