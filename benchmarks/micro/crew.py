"""Many workers: how long their start holds the caller, and whether each has its share.

    python -m benchmarks.micro.crew [--quick]

A fresh process maps with so many workers over items that sleep, one in a chunk, so that the CPUs
are for the caller and each worker ought to have as many items as any other.  Told are the CPU time
of the caller for a first call, in which all workers are needed, and when the last of them began;
then, for items of 2 ms, how many each had, and how long it waited for its next.
"""

from __future__ import annotations

from statistics import median

from benchmarks import machine_line, printed, quick, table

CREWS = (2, 16, 64)

SCRIPT = """
import os, sys, time
from collections import defaultdict
from parallelkit import pmap

workers, items = int(sys.argv[1]), int(sys.argv[2])

def nap(seconds):
    began = time.perf_counter()
    time.sleep(seconds)
    return os.getpid(), began, time.perf_counter()

began, cpu = time.perf_counter(), time.process_time()
first = pmap(nap, [0.25] * (4 * workers), workers=workers, chunksize=1)
seconds, spent = time.perf_counter() - began, time.process_time() - cpu
heads = {}
for pid, when, _ in first:
    heads.setdefault(pid, when - began)
naps = defaultdict(list)
for pid, start, end in pmap(nap, [0.002] * (items * workers), workers=workers, chunksize=1):
    naps[pid].append((start, end))
gaps = [
    start - end
    for each in map(sorted, naps.values())
    for (_, end), (start, _) in zip(each, each[1:])
]
counts = sorted(map(len, naps.values())) + [0] * (workers - len(naps))
print(spent, seconds, len(heads), max(heads.values()))
print(min(counts), sorted(counts)[len(counts) // 2], max(counts))
print(sorted(gaps)[len(gaps) // 2], sorted(gaps)[len(gaps) * 99 // 100], max(gaps))
"""


def main() -> None:
    """Print the table."""
    few = quick(__doc__)
    rows = []
    for workers in CREWS:
        runs = [
            printed(SCRIPT, str(workers), "20" if few else "100") for _ in range(1 if few else 5)
        ]
        columns = [median(column) for column in zip(*runs, strict=True)]
        spent, _, there, last, least, middle, most, gap, late, longest = columns
        rows.append(
            (
                workers,
                f"{spent * 1e3:.0f}",
                f"{last * 1e3:.0f} ({there:.0f})",
                f"{least:.0f} / {middle:.0f} / {most:.0f}",
                " / ".join(f"{seconds * 1e3:.2f}" for seconds in (gap, late, longest)),
            )
        )
    print(machine_line(), end="\n\n")
    heads = (
        "workers",
        "caller's CPU, ms",
        "the last began after, ms (of so many)",
        "items a worker: least / median / most",
        "wait for the next, ms: median / 99 % / longest",
    )
    print(table(heads, rows))


if __name__ == "__main__":
    main()
