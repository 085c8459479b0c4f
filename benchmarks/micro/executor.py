"""What a task costs: to submit, to have done with many others, and to have done alone.

    python -m benchmarks.micro.executor [--quick]

`abs` on integers, which is next to nothing, with two workers.  Beside `Executor` stand the
standard library's three ways.  Rounds are interleaved; medians are told, and the least, which on a
busy machine says more.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks import machine_line, quick, table
from parallelkit import Executor

WORKERS = 2

Submit = Callable[[int], Any]


def round_of(submit: Submit, tasks: int) -> tuple[float, float, float]:
    """Return seconds per task: to submit many, until all are done, and for one at a time."""
    began = perf_counter()
    submitted = [submit(number) for number in range(tasks)]
    middle = perf_counter()
    for each in submitted:
        each()
    end = perf_counter()
    for number in range(tasks // 20):
        submit(number)()
    alone = perf_counter() - end
    return (middle - began) / tasks, (end - began) / tasks, alone / (tasks // 20)


def main() -> None:
    """Print the table."""
    few = quick(__doc__)
    with ExitStack() as stack:
        pool = stack.enter_context(multiprocessing.Pool(WORKERS))
        kinds = (Executor, ProcessPoolExecutor, ThreadPoolExecutor)
        ways: dict[str, Submit] = {
            "multiprocessing.Pool": lambda x: pool.apply_async(abs, (x,)).get
        }
        for kind in kinds:
            executor = stack.enter_context(kind(WORKERS))
            ways[kind.__name__] = lambda x, submit=executor.submit: submit(abs, x).result
        taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
        for number in range(4 if few else 10):
            for name, submit in ways.items():
                seconds = round_of(submit, 1_000 if few else 3_000)
                if number:  # the first round starts and warms everything
                    taken[name].append(seconds)
    rows = []
    for name, rounds in taken.items():
        columns = list(zip(*rounds, strict=True))
        rows.append((name, *(f"{median(c) * 1e6:.1f} ({min(c) * 1e6:.1f})" for c in columns)))
    print(machine_line(), end="\n\n")
    print(table(("us per task: median (least)", "to submit", "among many", "alone"), rows))


if __name__ == "__main__":
    main()
