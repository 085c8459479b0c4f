"""What a run stands: workers and zygotes are killed until 200 are dead, and every result counts.

    python -m benchmarks.chaos [--quick]

Items of some 0.3 ms, 20,000 at a time, on 4 workers, of which a process beside us kills one every
20 ms, and a zygote now and then (`tests/chaos.py` does it, and says when it waits).  Told is how
many died, how often items ran again for it (never more than what the dead had not sent yet), how
many items met two deaths and are lost by the rule, and what all that cost in time.  Linux only.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from time import perf_counter

from benchmarks import ROOT, machine_line, quick, table
from parallelkit import pmap

sys.path.insert(0, str(ROOT / "tests"))

from chaos import chaos
from toil import toil

WORKERS = 4
Row = tuple[object, ...]


def undisturbed(items: int) -> float:
    """Return the seconds that it takes when nobody is killed."""
    with tempfile.TemporaryDirectory() as folder:
        began = perf_counter()
        pmap(partial(toil, os.path.join(folder, "log")), range(items), workers=WORKERS)
        return perf_counter() - began


def disturbed(items: int, chunksize: int | None, seed: int) -> list[int | float]:
    """Return workers killed, zygotes killed, items run again, items lost, and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, "log")
        fn = partial(toil, log)
        began = perf_counter()
        with chaos(log, zygotes=20_000, seed=seed) as toll:
            found = pmap(
                fn,
                range(items),
                workers=WORKERS,
                chunksize=chunksize,
                retries=99,
                on_error="return",
            )
        seconds = perf_counter() - began
        runs = Counter(map(int, Path(log).read_text().split()))
    lost = [x for x, outcome in enumerate(found) if outcome != -x]
    assert set(runs) == set(range(items)), "an item never ran"
    assert all(runs[x] >= 2 for x in lost), "an item is lost that did not meet two deaths"
    again = sum(runs.values()) - items
    deaths = toll.workers + WORKERS * toll.zygotes
    assert chunksize is None or again <= deaths * chunksize, "items ran again without a reason"
    return [toll.workers, toll.zygotes, again, len(lost), seconds]


def summed(items: int, chunksize: int | None, kills: int) -> list[str]:
    """Return the sums over as many calls as it takes to kill `kills` workers, as text."""
    sums: list[int | float] = [0, 0, 0, 0, 0.0]
    calls = 0
    while sums[0] + WORKERS * sums[1] < kills:
        sums = [a + b for a, b in zip(sums, disturbed(items, chunksize, calls), strict=True)]
        calls += 1
    return [str(calls * items), *map(str, sums[:4]), f"{sums[4] / calls:.1f}"]


def main() -> None:
    """Print the table."""
    few = quick(__doc__)
    items, kills = (2_000, 20) if few else (20_000, 200)
    rows: list[Row] = [("nobody killed", str(items), "", "", "", "", f"{undisturbed(items):.1f}")]
    for chunksize in (1, 10, None):
        name = "chunks as chosen" if chunksize is None else f"chunks of {chunksize}"
        rows.append((name, *summed(items, chunksize, kills)))
    print(machine_line(), end="\n\n")
    heads = ("", "items", "workers killed", "zygotes", "items again", "items lost", "s per call")
    print(table(heads, rows))


if __name__ == "__main__":
    main()
