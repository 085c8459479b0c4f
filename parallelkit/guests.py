"""What is left to this process of the CPUs where it is a worker of somebody else's pool.

A `pmap` there that took all CPUs would have as many workers as CPUs in each of as many processes.
How many CPUs the machine gives is `machine`'s.
"""

from __future__ import annotations

import os
import sys
from contextvars import ContextVar

_LOKY = ("joblib.externals.loky.", "loky.")  # joblib brings a copy of its own
_SHARE = "OMP_NUM_THREADS"
"""The environment variable in which joblib tells a worker its share: the CPUs divided by the
workers, or `inner_max_num_threads`, or what the user had set."""


def allotted() -> int | None:
    """Return how many CPUs this process has as a worker of joblib's, None if it is none.

    Other pools do not tell their workers how many they are.
    """
    processes = sys.modules.get("multiprocessing.process")
    current = getattr(processes, "current_process", None)  # None where it is just being loaded
    if current is None or not type(current()).__module__.startswith(_LOKY):
        return None
    try:
        return max(1, int(os.environ[_SHARE]))
    except (KeyError, ValueError):
        return None


lodged: ContextVar[bool] = ContextVar("lodged", default=False)
"""Whether this is code that another engine's worker runs for us.

A map in it that waited for the same engine could wait for ever, as its own place is taken.
"""
