"""What pmap costs where it cannot win: calls that are over before workers could help.

    python -m benchmarks.micro.small_calls [--quick]

`pmap(f, xs)` without `workers=` against `[f(x) for x in xs]`, `f` taking about half a microsecond.
Cold: the first call of a fresh process, which does nothing else; one process for each measurement,
half of them running the loop.  Warm: in one process, with the workers of an earlier call up.  Both
are interleaved, and the medians are told.  What pmap may cost beyond the loop is 50 us: the last
column but one is `pmap - 1.05 * loop`.  The last counts the processes that the calls started.
"""

from __future__ import annotations

from statistics import median

from benchmarks import machine_line, printed, quick, table

LENGTHS = (10, 1_000, 100_000)
ALLOWED = 50  # us that a call may cost beyond 1.05 of the loop

SETTING = """
import sys
from time import perf_counter
import psutil
from parallelkit import pmap

def f(x):
    return sum(range(x % 8 + 60)) + x

xs, repeats = list(range(int(sys.argv[1]))), int(sys.argv[2])
"""

COLD_LOOP = """
began = perf_counter()
[f(x) for x in xs]
print(perf_counter() - began)
"""

COLD_PMAP = """
began = perf_counter()
pmap(f, xs)
seconds = perf_counter() - began
print(seconds, len(psutil.Process().children(recursive=True)))
"""

WARM = """
pmap(f, xs[:2], workers=2)
before = len(psutil.Process().children(recursive=True))
for _ in range(repeats):
    began = perf_counter()
    [f(x) for x in xs]
    between = perf_counter()
    pmap(f, xs)
    print(between - began, perf_counter() - between)
print(len(psutil.Process().children(recursive=True)) - before)
"""


def cold(items: int, processes: int) -> tuple[float, float, int]:
    """Return the seconds of loop and pmap, each the first call of its process; and processes."""
    loops, pmaps, started = [], [], []
    for _ in range(processes):
        loops += printed(SETTING + COLD_LOOP, str(items), "1")
        seconds, children = printed(SETTING + COLD_PMAP, str(items), "1")
        pmaps.append(seconds)
        started.append(int(children))
    return median(loops), median(pmaps), max(started)


def warm(items: int, repeats: int) -> tuple[float, float, int]:
    """Return the seconds of loop and pmap while workers are up, and processes started."""
    *seconds, started = printed(SETTING + WARM, str(items), str(repeats))
    return median(seconds[::2]), median(seconds[1::2]), int(started)


def main() -> None:
    """Print the table."""
    few = quick(__doc__)
    rows = []
    for items in LENGTHS:
        repeats = max(10, min(300, (100_000 if few else 1_000_000) // items))
        measured = {"cold": cold(items, 5 if few else 31), "warm": warm(items, repeats)}
        for state, (loop, ours, started) in measured.items():
            beyond = (ours - 1.05 * loop) * 1e6
            micro = f"{loop * 1e6:.1f}", f"{ours * 1e6:.1f}", f"{ours / loop:.2f}", f"{beyond:.0f}"
            verdict = "yes" if beyond < ALLOWED else "NO"
            rows.append((f"{items:,} items, {state}", *micro, verdict, started))
    print(machine_line(), end="\n\n")
    heads = ("", "loop, us", "pmap, us", "ratio", "pmap - 1.05 loop, us", "below 50", "processes")
    print(table(heads, rows))


if __name__ == "__main__":
    main()
