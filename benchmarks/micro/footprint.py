"""What having parallelkit costs before it does anything: imports, and processes that wait.

    python -m benchmarks.micro.footprint [--quick]

Imports: CPU time of the import statement alone, in fresh processes, interleaved, medians, beside
joblib's.  Memory: USS (what would come free if the process ended) of processes that wait between
two calls, after `abs` was mapped by two workers; beside joblib's and multiprocessing's.
"""

from __future__ import annotations

import importlib.util
from statistics import median

from benchmarks import machine_line, printed, quick, table

IMPORTS = ("import parallelkit", "from parallelkit import pmap", "import joblib")

IMPORTING = """
import time
began = time.process_time()
{statement}
print(time.process_time() - began)
"""

# Each maps with two workers, which then wait; what they are forked from is the one with children.
WAITING = {
    "parallelkit": "from parallelkit import pmap; pmap(abs, range(100), workers=2)",
    "joblib": (
        "from joblib import Parallel, delayed\n"
        "with Parallel(n_jobs=2) as run: run(delayed(abs)(item) for item in range(100))"
    ),
    "multiprocessing, forkserver": (
        "import multiprocessing; pool = multiprocessing.get_context('forkserver').Pool(2); "
        "pool.map(abs, range(100))"
    ),
}

# What holds on to a map that is over is not told: only processes that Python code runs in.
WEIGHING = """
import psutil
import os, sys
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what others complain of at their end
for process in psutil.Process().children(recursive=True):
    if "resource_tracker" not in " ".join(process.cmdline()):
        print(len(process.children()), process.memory_full_info().uss)
"""


def imports(repeats: int) -> list[tuple[str, str]]:
    """Return the rows of what importing costs."""
    seconds: dict[str, list[float]] = {statement: [] for statement in IMPORTS}
    for _ in range(repeats):
        for statement in seconds:
            if present(statement.split()[1]):
                seconds[statement] += printed(IMPORTING.format(statement=statement))
    return [
        (f"`{statement}`", f"{median(taken) * 1e3:.1f}" if taken else "not installed")
        for statement, taken in seconds.items()
    ]


def waiting() -> list[tuple[str, str, str]]:
    """Return the rows of what processes weigh: one worker, and what workers are forked from."""
    rows = []
    for name, using in WAITING.items():
        if not present(name.split(",")[0]):
            rows.append((name, "not installed", ""))
            continue
        numbers = printed(f"{using}\n{WEIGHING}")
        weights = list(zip(numbers[::2], numbers[1::2], strict=True))
        workers = [uss for children, uss in weights if not children]
        parents = [uss for children, uss in weights if children]
        rows.append((name, _mebibytes(workers), _mebibytes(parents)))
    return rows


def present(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _mebibytes(weights: list[float]) -> str:
    return f"{median(weights) / 2**20:.1f}" if weights else "-"


def main() -> None:
    """Print the tables."""
    repeats = 5 if quick(__doc__) else 41
    print(machine_line(), end="\n\n")
    print(table(("", "CPU, ms"), imports(repeats)), end="\n\n")
    print(table(("USS, MiB", "an idle worker", "what forks them"), waiting()))


if __name__ == "__main__":
    main()
