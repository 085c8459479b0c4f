"""Every exception parallelkit raises, and the messages that several rooms share.

    ParallelError
    |- WorkerDied (RuntimeError)       a worker died on an item
    |- ItemTimeout (TimeoutError)      an item ran past its timeout
    |- RemoteError (RuntimeError)      what a function raised could not travel; this stands for it
    |- NoWorkers (OSError)             no worker could be started, or none stayed
    |- InternalError (RuntimeError)    parallelkit is wrong; the message holds what it did last

What the caller's own function raises is none of these: it arrives as itself.  Bad arguments raise
`TypeError` and `ValueError`.
"""

from __future__ import annotations

import reprlib
from typing import Any


class ParallelError(Exception):
    """The base of every error of parallelkit's own."""


class WorkerDied(ParallelError, RuntimeError):
    """A worker process died while it ran an item."""


class ItemTimeout(ParallelError, TimeoutError):
    """An item ran longer than its timeout, and its worker was ended."""


class RemoteError(ParallelError, RuntimeError):
    """Stands for an exception that could not travel: it has that one's type, text and traceback."""


class NoWorkers(ParallelError, OSError):
    """No worker process could be started, or none lived long enough to run an item."""


class InternalError(ParallelError, RuntimeError):
    """Parallelkit broke one of its own rules; please report the message, which replays it."""


_REPR = reprlib.Repr()  # stops early in long containers, whose whole repr could take minutes
_REPR.maxstring = _REPR.maxother = 200


def shortened(value: Any, limit: int = 80) -> str:
    """Return `repr(value)` in at most `limit` characters, whatever `value` is.

    Example:
        >>> shortened(list(range(100)), 20)
        '[0, 1, 2, 3, 4, ...]'
    """
    try:
        text = _REPR.repr(value)
    except BaseException as error:  # a repr of the user's can fail in any way
        text = f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text if len(text) <= limit else text[: limit - 3] + "..."
