"""How soon an end is noticed: of a worker that is killed, and of a call that fails.

    python -m benchmarks.ends [--quick]

A death counts from right before a worker kills itself until the caller has the error.  An abort
counts from right before one of 64 busy workers raises until the caller has the exception, which
includes the end of the other 63, who would be busy for an hour.  Medians and the latest are told.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from time import monotonic

from benchmarks import machine_line, quick, table
from parallelkit import pmap
from parallelkit.errors import WorkerDied

CREW = 64
ROUNDS, FEW = 20, 3


def die(note: str, _: int) -> None:
    Path(note).write_text(str(monotonic()))
    os.kill(os.getpid(), signal.SIGKILL)


def fail_when_all_are_busy(folder: str, x: int) -> None:
    Path(folder, str(x)).touch()
    if x:
        time.sleep(3600)
    while len(os.listdir(folder)) < CREW:
        time.sleep(0.01)
    raise ValueError(monotonic())


def death() -> float:
    """Return the seconds until a killed worker is told of."""
    with tempfile.TemporaryDirectory() as folder:
        note = os.path.join(folder, "note")
        try:
            pmap(partial(die, note), [0], workers=1)
        except WorkerDied:
            return monotonic() - float(Path(note).read_text())
    raise AssertionError("nobody died")


def abort() -> float:
    """Return the seconds until a call with many busy workers has ended."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            pmap(partial(fail_when_all_are_busy, folder), range(CREW), workers=CREW, chunksize=1)
        except ValueError as error:
            return monotonic() - float(error.args[0])
    raise AssertionError("nothing was raised")


def main() -> None:
    """Print the table."""
    rounds = FEW if quick(__doc__) else ROUNDS
    ends = {"a worker is killed": death, f"an item raises beside {CREW - 1} others": abort}
    taken: dict[str, list[float]] = {what: [] for what in ends}
    for _ in range(rounds):
        for what, end in ends.items():
            taken[what].append(end())
    print(machine_line(), end="\n\n")
    rows = [(what, f"{median(s) * 1e3:.1f}", f"{max(s) * 1e3:.1f}") for what, s in taken.items()]
    print(table(("ms until the caller knows", "median", "latest"), rows))


if __name__ == "__main__":
    main()
