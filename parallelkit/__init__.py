"""Parallel maps that behave like the serial ones.

>>> from parallelkit import pmap
>>> pmap(abs, [-1, 2, -3])
[1, 2, 3]
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for true, and importing `typing` costs 5 ms
if TYPE_CHECKING:
    from . import errors as errors
    from .amaps import amap as amap
    from .amaps import arun as arun
    from .executor import Executor as Executor
    from .machine import cpu_count as cpu_count
    from .maps import imap as imap
    from .maps import pmap as pmap
    from .pool import Pool as Pool
    from .reduce import preduce as preduce
    from .selection import backend as backend
    from .shared import SharedArray as SharedArray
    from .shared import share as share
    from .sync.gates import Barrier as Barrier
    from .sync.gates import Event as Event
    from .sync.locks import Condition as Condition
    from .sync.locks import Lock as Lock
    from .sync.locks import RLock as RLock
    from .sync.numerals import Counter as Counter
    from .sync.numerals import Value as Value
    from .sync.permits import BoundedSemaphore as BoundedSemaphore
    from .sync.permits import Semaphore as Semaphore
    from .sync.queues import Queue as Queue

__version__ = "0.1.0"

_ROOMS = {
    "Barrier": "sync.gates",
    "BoundedSemaphore": "sync.permits",
    "Condition": "sync.locks",
    "Counter": "sync.numerals",
    "Event": "sync.gates",
    "Executor": "executor",
    "Lock": "sync.locks",
    "Pool": "pool",
    "Queue": "sync.queues",
    "RLock": "sync.locks",
    "Semaphore": "sync.permits",
    "SharedArray": "shared",
    "Value": "sync.numerals",
    "amap": "amaps",
    "arun": "amaps",
    "backend": "selection",
    "cpu_count": "machine",
    "imap": "maps",
    "parallel_map": "maps",
    "parallel_reduce": "reduce",
    "pmap": "maps",
    "preduce": "reduce",
    "share": "shared",
}
_ALIASES = {"parallel_map": "pmap", "parallel_reduce": "preduce"}

__all__ = (
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Counter",
    "Event",
    "Executor",
    "Lock",
    "Pool",
    "Queue",
    "RLock",
    "Semaphore",
    "SharedArray",
    "Value",
    "amap",
    "arun",
    "backend",
    "cpu_count",
    "imap",
    "parallel_map",
    "parallel_reduce",
    "pmap",
    "preduce",
    "share",
)


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562): a worker needs none of them."""
    if name in {"errors", "joblib"}:  # rooms that are used as such
        return _room(name)
    room = _ROOMS.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_room(room), _ALIASES.get(name, name))
    globals()[name] = value
    return value


def _room(name: str) -> object:
    # Not by `importlib`, which takes 1 ms to load.
    return __import__(f"{__name__}.{name}", fromlist=("",))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
