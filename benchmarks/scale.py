"""What the jobs of `versus` would take with up to 1,024 workers, by this machine's own prices.

    python -m benchmarks.scale [--quick] [--out DIR]

The simulator of the tests plays each job with the scheduler of this library and with the policies
of multiprocessing.Pool and joblib.  What it is fed with is measured first: the time of each item,
and for each library what the caller pays for a chunk and for an item in it.  For as many workers as
there are CPUs the job is also run, interleaved, and stands beside its prediction.  The number told
is the loop's time over the time with workers.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, NamedTuple

from benchmarks import ROOT, machine_line, table
from benchmarks.simulate import WARM, Fixed, of_joblib, of_pool
from benchmarks.versus.jobs import JOBS, Job
from benchmarks.versus.jobs.job import piped
from benchmarks.versus.peers import WORKERS
from benchmarks.versus.work import per_microsecond
from parallelkit import pmap
from parallelkit.chunking import Pace
from parallelkit.scheduler import Limits, Run

sys.path.insert(0, str(ROOT / "tests"))

import simulator

CREWS = (2, 8, 64, 256, 1_024)
NAMES = ("noop", "5us", "1ms", "100ms", "even", "log-normal", "descending", "giant", "records")
NAMES += ("lines", "counting")
EACH = 2_000  # items up to which each one's time is taken; of more, the mean stands for all
OURS, POOL, JOBLIB = "parallelkit", "Pool", "joblib"

Mapped = Callable[..., Any]  # of a function, items, and the size of a chunk


class Prices(NamedTuple):
    """What a library takes, in seconds.

    A chunk's journey, the caller's CPU for it, the caller's CPU for an item in it, and a worker's
    time for an item, besides the function's.
    """

    latency: float
    packing: float
    carrying: float
    working: float


class Costs(NamedTuple):
    """What a job's items take, how often each is repeated, and what they cost beyond a number."""

    seconds: list[float]
    repeat: int
    carrying: float

    @property
    def total(self) -> float:
        return sum(self.seconds) * self.repeat


def libraries(stack: ExitStack) -> dict[str, Mapped]:
    """Return how each library maps with workers that are up."""
    pool = stack.enter_context(multiprocessing.get_context("fork").Pool(WORKERS))
    found: dict[str, Mapped] = {
        OURS: lambda fn, items, size=None: pmap(fn, items, workers=WORKERS, chunksize=size),
        POOL: lambda fn, items, size=None: pool.map(fn, items, size),
    }
    if find_spec("joblib"):
        from joblib import Parallel, delayed

        def by_joblib(fn: Any, items: Any, size: int | None = None) -> Any:
            run = Parallel(WORKERS, batch_size=size or "auto")
            return run(delayed(fn)(item) for item in items)

        found[JOBLIB] = by_joblib
    return found


def journey(mapped: Mapped, items: int, size: int) -> tuple[float, float]:
    """Return an item's seconds and the caller's CPU seconds, in chunks of a size: the least."""
    taken = []
    for _ in range(6):
        began, cpu = perf_counter(), process_time()
        mapped(abs, range(items), size)
        taken.append((perf_counter() - began, process_time() - cpu))
    seconds, spent = (min(column) for column in zip(*taken[1:], strict=True))
    return seconds / items, spent / items


def priced(found: dict[str, Mapped]) -> dict[str, Prices]:
    """Measure what each library takes for next to nothing; `abs` is little beside its working."""
    latency = piped(300) / 300
    prices = {}
    for name, mapped in found.items():
        seconds, carrying = journey(mapped, 100_000, 5_000)
        _, chunk = journey(mapped, 600, 1)
        packing = max(chunk - carrying, 1e-6)
        prices[name] = Prices(latency, packing, carrying, WORKERS * seconds)
    return prices


def costs_of(job: Job, given: Sequence[Any]) -> Costs:
    """Measure what the items take, and what it takes to pickle them and their results."""
    results, seconds = [], []
    if len(given) <= EACH:
        for item in given:
            began = perf_counter()
            results.append(job.fn(item))
            seconds.append(perf_counter() - began)
        repeat = 1
    else:
        began = perf_counter()
        results = [job.fn(item) for item in given]
        seconds, repeat = [(perf_counter() - began) / len(given)], len(given)
    sample = slice(0, min(len(given), 1_000))
    both = list(given[sample]), results[sample]
    carried = min(carriage(both) for _ in range(3)) / len(both[0])
    plain = min(carriage((list(range(1_000)),) * 2) for _ in range(3)) / 1_000
    return Costs(seconds, repeat, max(0.0, carried - plain))


def carriage(both: tuple[list[Any], list[Any]]) -> float:
    began = perf_counter()
    items, results = (pickle.dumps(part, -1) for part in both)
    del items
    pickle.loads(results)
    return perf_counter() - began


@contextmanager
def paying(prices: Prices, beyond: float) -> Iterator[None]:
    """Have the simulator's caller pay these prices."""
    before = simulator.LATENCY, simulator.PACKING, simulator.CARRYING
    carrying = prices.carrying + beyond
    simulator.LATENCY, simulator.PACKING = prices.latency, prices.packing
    simulator.CARRYING = carrying
    try:
        yield
    finally:
        simulator.LATENCY, simulator.PACKING, simulator.CARRYING = before


def predicted(name: str, costs: Costs, prices: Prices, workers: int) -> float:
    """Return the seconds that a library would take with so many workers."""
    count = len(costs.seconds) * costs.repeat
    policy: Any
    if name == OURS:
        policy = Run(Limits(workers, home=False), Pace(launch=WARM))
    else:
        policy = Fixed(workers, of_pool if name == POOL else of_joblib, depth=2)
    beside = prices.working + costs.carrying  # a worker unpickles and pickles as the caller does
    seconds = [item + beside for item in costs.seconds]
    with paying(prices, costs.carrying):
        return simulator.Machine(seconds, WARM, costs.repeat).play(policy, count).seconds


def bound(costs: Costs, workers: int) -> float:
    """Return the loop's time over what nobody can beat: a fair share, or the longest item."""
    return costs.total / max(costs.total / workers, *costs.seconds)


def real(job: Job, given: Any, found: dict[str, Mapped], rounds: int) -> dict[str, float]:
    """Run a job, rounds interleaved; return each library's median of the loop's time over its."""
    taken: dict[str, list[float]] = {name: [] for name in found}
    for number in range(rounds + 1):
        began = perf_counter()
        [job.fn(item) for item in given]
        loop = perf_counter() - began
        for name, mapped in found.items():
            began = perf_counter()
            mapped(job.fn, given)
            if number:  # the first round warms
                taken[name].append(loop / (perf_counter() - began))
    return {name: median(ratios) for name, ratios in taken.items()}


def measured(names: Sequence[str], *, quick: bool) -> dict[str, Any]:
    """Measure the prices, predict all jobs, and run them; return all that is known then."""
    loops, jobs = per_microsecond(), {}
    with ExitStack() as stack:
        found = libraries(stack)
        prices = priced(found)
        for name in names:
            job = JOBS[name]
            share = 0.1 if quick and not job.whole else 1.0
            count = max(1, int(job.count * share))
            given = job.make(count, loops * (0.1 if quick and job.whole else 1.0))
            costs = costs_of(job, given)
            jobs[name] = {
                "title": job.title,
                "loop": costs.total,
                "bound": {str(crew): bound(costs, crew) for crew in CREWS},
                "predicted": {
                    library: {
                        str(crew): costs.total / predicted(library, costs, prices[library], crew)
                        for crew in sorted({*CREWS, WORKERS})
                    }
                    for library in found
                },
                "real": real(job, given, found, 1 if quick else 3),
            }
            print(f"{name}: {costs.total:.2f} s of work", file=sys.stderr, flush=True)
    return {
        "machine": machine_line(),
        "workers": WORKERS,
        "prices": {name: price._asdict() for name, price in prices.items()},
        "jobs": jobs,
    }


def number(times: float) -> str:
    return f"{times:.2f}" if times < 10 else f"{times:.0f}"


def prices_table(results: dict[str, Any]) -> str:
    rows = [
        (
            name,
            f"{price['packing'] * 1e6:.1f}",
            f"{price['carrying'] * 1e9:.0f}",
            f"{price['working'] * 1e9:.0f}",
        )
        for name, price in results["prices"].items()
    ]
    heads = ("price", "the caller: a chunk, us", "an item in it, ns", "a worker: an item, ns")
    return table(heads, rows)


def checked(results: dict[str, Any]) -> str:
    """Return, for as many workers as there are CPUs, what was predicted and what was so."""
    workers, libraries = str(results["workers"]), list(results["prices"])
    rows = [
        (
            job["title"],
            *(
                f"{number(job['predicted'][name][workers])} / {number(job['real'][name])}"
                for name in libraries
            ),
        )
        for job in results["jobs"].values()
    ]
    return table((f"{workers} workers: predicted / real", *libraries), rows)


def scaled(results: dict[str, Any]) -> str:
    """Return what is predicted for more workers: each library's, and what nobody can beat."""
    libraries = list(results["prices"])
    rows = [
        (
            job["title"],
            *(
                ", ".join(number(job["predicted"][name][str(crew)]) for name in libraries)
                + f" of {number(job['bound'][str(crew)])}"
                for crew in CREWS
            ),
        )
        for job in results["jobs"].values()
    ]
    return table((", ".join(libraries), *(f"{crew:,} workers" for crew in CREWS)), rows)


def main() -> None:
    """Measure, predict, run, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer items, for a first look")
    parser.add_argument("--jobs", default="", metavar="NAMES", help=", ".join(NAMES))
    parser.add_argument("--out", type=Path, metavar="DIR", help="write scale.json")
    chosen = parser.parse_args()
    names = [name for name in NAMES if not chosen.jobs or name in chosen.jobs.split(",")]
    results = measured(names, quick=chosen.quick)
    print(results["machine"])
    for part in (prices_table, checked, scaled):
        print(f"\n{part(results)}")
    if chosen.out:
        chosen.out.mkdir(parents=True, exist_ok=True)
        (chosen.out / "scale.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
