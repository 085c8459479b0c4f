"""What workers run under chaos: next to nothing to import, or they would die before they are up."""

from __future__ import annotations

import os
import time


def toil(log: str, x: int) -> int:
    """Return `-x` after some 0.3 ms, most of it in Python; note the run in one write."""
    fd = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"%d\n" % x)
    os.close(fd)
    end = time.perf_counter() + 2e-4
    while time.perf_counter() < end:
        pass
    return -x


def nap(x: int) -> int:
    """Return `-x` after a millisecond."""
    time.sleep(1e-3)
    return -x


def misbehave(bad: dict[int, str], x: int) -> int:
    """Return `-x`, but for items in `bad`, with which it does as it says there."""
    fault = bad.get(x)
    if fault == "raise":
        raise ValueError(x)
    if fault == "die":
        os._exit(1)
    if fault == "hang":
        time.sleep(3600)
    return -x
