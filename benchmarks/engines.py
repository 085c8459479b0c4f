"""What chunks cost on Dask and Ray: items a second, beside what one would write by hand.

    python -m benchmarks.engines [--quick] [dask] [ray]

100,000 items of 100 us of pure Python (10,000 with `--quick`), on two workers of each engine, four
ways: `pmap` with nothing said; hand-batched code with the chunk size that is best of several, all
of which are shown; one task for each item, for a hundredth of the items, as that takes long; and
the plain loop, for what there is to gain.  Clusters are started as processes and ended here.
Rounds are interleaved, and the medians of the ratios in each round are told.  So is the CPU time of
all processes together, cluster and caller, which a busy machine changes less than the wall time.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import psutil

from benchmarks import machine_line, quick, table

sys.path[:0] = [str(Path(__file__).parent.parent / "tests" / part) for part in ("", "engines")]

WORKERS = 2
ITEM = 100e-6  # seconds
SIZES = (200, 1000, 2500, 5000)  # items of a hand-made batch

Way = Callable[[int], object]  # does so many items


def spin(x: int) -> int:
    """Compute for about `ITEM` seconds: the same work each time, whatever else the CPU does."""
    total = x
    for y in range(ROUNDS):
        total += y & 3
    return total


def calibrated() -> int:
    """Return how many turns of the loop in `spin` take `ITEM` seconds."""
    best = min(_turns(100_000) for _ in range(20))
    return max(1, int(ITEM / best))


def _turns(count: int) -> float:
    total, began = 0, perf_counter()
    for y in range(count):
        total += y & 3
    return (perf_counter() - began) / count


ROUNDS = calibrated()


def several(start: int, stop: int) -> list[int]:
    """Return what a hand-made batch gives."""
    return [spin(x) for x in range(start, stop)]


def batches(items: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, items)) for start in range(0, items, size)]


@contextlib.contextmanager
def on_dask() -> Iterator[tuple[Any, Callable[[int, int], Any], Way]]:
    from dask_cluster import Cluster
    from distributed import Client
    from scripts import MARK

    os.environ[MARK] = "engines"
    with TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder), WORKERS)
        try:
            with Client(scheduler_file=str(cluster.contact)) as client:
                client.wait_for_workers(WORKERS)

                def batched(items: int, size: int) -> Any:
                    starts, stops = zip(*batches(items, size), strict=True)
                    return client.gather(client.map(several, starts, stops, pure=False))

                def single(items: int) -> Any:
                    return client.gather(client.map(spin, range(items), pure=False))

                yield client, batched, single
        finally:
            cluster.close()


@contextlib.contextmanager
def on_ray() -> Iterator[tuple[Any, Callable[[int, int], Any], Way]]:
    from clusters import ray_cluster
    from scripts import MARK

    with ray_cluster() as cluster:
        os.environ[MARK] = cluster.mark
        os.environ.update(cluster.credentials)
        import ray

        ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)
        many, one = ray.remote(several), ray.remote(spin)

        def batched(items: int, size: int) -> Any:
            return ray.get([many.remote(*each) for each in batches(items, size)])

        def single(items: int) -> Any:
            return ray.get([one.remote(x) for x in range(items)])

        yield "ray", batched, single
        ray.shutdown()


def spent() -> float:
    """Return the CPU seconds of this process and of the cluster that was started here."""
    from scripts import MARK, marked

    total = 0.0
    for process in [psutil.Process(), *marked(os.environ[MARK])]:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def cost(way: Way, items: int) -> tuple[float, float]:
    """Return what an item costs in wall time, and in CPU time."""
    cpu, began = spent(), perf_counter()
    way(items)
    elapsed = perf_counter() - began
    return elapsed / items, (spent() - cpu) / items


def measure(
    backend: Any, batched: Callable[[int, int], Any], single: Way, items: int, times: int
) -> list[list[str]]:
    """Return the rows of an engine's table."""
    from parallelkit import pmap

    ways: dict[str, tuple[Way, int]] = {
        "pmap": (lambda count: pmap(spin, range(count), backend=backend), items),
        **{
            f"by hand, batches of {size}": (lambda count, size=size: batched(count, size), items)
            for size in SIZES
        },
        "a task for each item": (single, items // 100),
        "the loop": (lambda count: [spin(x) for x in range(count)], items // 10),
    }
    for way, count in ways.values():
        way(count // 10)  # the first round starts and warms everything
    taken: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(times):
        for name, (way, count) in ways.items():
            elapsed, used = cost(way, count)
            taken[name].append(elapsed)
            cpu[name].append(used)
    ratios = {
        name: median(each / ours for each, ours in zip(taken[name], taken["pmap"], strict=True))
        for name in ways
    }
    return [
        [
            name,
            f"{1 / median(taken[name]):,.0f}",
            f"{ratios[name]:.2f}",
            f"{median(cpu[name]) * 1e6:.0f}",
        ]
        for name in ways
    ]


def main() -> None:
    """Print a table for each engine."""
    engines = {"dask": on_dask, "ray": on_ray}
    chosen = [name for name in engines if name in sys.argv] or list(engines)
    sys.argv = [each for each in sys.argv if each not in engines]
    few = quick(__doc__)
    print(machine_line())
    for name in chosen:
        with engines[name]() as (backend, batched, single):
            rows = measure(backend, batched, single, 10_000 if few else 100_000, 3 if few else 5)
        print(f"\n{name}, {WORKERS} workers, items of {ITEM * 1e6:.0f} us\n")
        print(table([name, "items a second", "pmap's gain", "CPU us an item"], rows))


if __name__ == "__main__":
    main()
