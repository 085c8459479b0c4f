"""A killer of workers: a process beside the caller that ends random ones of them, and zygotes.

    python tests/chaos.py CALLER LOG PERIOD ZYGOTES SEED

Every PERIOD seconds it sends SIGKILL to one worker of process CALLER, and to its zygote each time
that LOG, which the workers write, has grown by ZYGOTES bytes (0: never).  It waits while there is
no progress at all: where machines stall, no worker would live long enough, which is another story.
It stops at the end of its input and prints how many of each it killed.  Linux only.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PROGRESS = 200  # bytes of the log, some 40 items, between two kills
ZYGOTE, SPAWNED = "parallelkit.zygote", "parallelkit.spawned"


def children(pid: int) -> list[int]:
    """Return the children of all threads of a process, none if it is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += map(int, file.read().split())
    return found


def command(pid: int) -> str:
    """Return a process's command line, nothing if it is a zombie or gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline") as file:
        return file.read()
    return ""


def staff(caller: int) -> tuple[list[int], list[int]]:
    """Return the zygotes and the workers of a process."""
    commands = {pid: command(pid) for pid in children(caller)}
    zygotes = [pid for pid, line in commands.items() if ZYGOTE in line]
    spawned = [pid for pid, line in commands.items() if SPAWNED in line]
    forked = [pid for zygote in zygotes for pid in children(zygote)]
    return zygotes, spawned + [pid for pid in forked if command(pid)]


def killed(pids: list[int], dice: random.Random) -> int:
    """Kill one of `pids`; return how many that were."""
    with contextlib.suppress(ProcessLookupError, IndexError):
        os.kill(dice.choice(pids), 9)
        return 1
    return 0


def main(caller: int, log: str, period: float, zygotes: int, seed: int) -> None:
    dice = random.Random(seed)
    counts, last, root = [0, 0], 0, 0
    while not select.select([sys.stdin], [], [], period)[0]:
        size = os.stat(log).st_size if os.path.exists(log) else 0
        if size < last + PROGRESS:
            continue
        roots, workers = staff(caller)
        last = size
        if zygotes and size >= root + zygotes:
            counts[1] += killed(roots, dice)
            root = size
        else:
            counts[0] += killed(workers, dice)
    print(*counts)


@dataclass
class Toll:
    """How many workers and zygotes were killed; known after the block."""

    workers: int = 0
    zygotes: int = 0


@contextmanager
def chaos(log: str, period: float = 0.02, zygotes: int = 0, seed: int = 0) -> Iterator[Toll]:
    """Have workers of this process killed while the block runs."""
    toll = Toll()
    line = [sys.executable, __file__, *map(str, (os.getpid(), log, period, zygotes, seed))]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killer:
        try:
            yield toll
        finally:
            out, _ = killer.communicate()
            toll.workers, toll.zygotes = map(int, out.split())


if __name__ == "__main__":
    one, where, *numbers = sys.argv[1:]
    main(int(one), where, float(numbers[0]), int(numbers[1]), int(numbers[2]))
