"""Where a call stands: in a worker of somebody else's pool, or where a backend was chosen for it.

A `pmap` in a worker of another pool that took all CPUs would have as many workers as CPUs in each
of as many processes.  How many CPUs the machine gives is `machine`'s, and what a choice means
`selection`'s; here both can be asked for next to nothing, as every call does.
"""

from __future__ import annotations

import os
import sys
from contextvars import ContextVar

TYPE_CHECKING = False  # type checkers take it for true, and importing `typing` costs 5 ms
if TYPE_CHECKING:
    from typing import Any

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

chosen: ContextVar[tuple[Any, bool] | None] = ContextVar("chosen", default=None)
"""The backend that was chosen, and whether by code that another engine's worker runs for us: only
such code chooses for itself."""


def at_home() -> bool:
    """Return whether a call stands in this process's own code, which has chosen no backend."""
    return chosen.get() is None and not lodged.get()
