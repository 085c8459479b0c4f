"""Every exception parallelkit raises, and the messages that several rooms share.

    ParallelError
    |- WorkerDied (RuntimeError)       a worker died on an item
    |- ItemTimeout (TimeoutError)      an item ran past its timeout
    |- RemoteError (RuntimeError)      what a function raised could not travel; this stands for it
    |- NoWorkers (OSError)             no worker could be started, or none stayed
    |- InternalError (RuntimeError)    parallelkit is wrong; the message holds what it did last

    MemoryShortage (RuntimeWarning)    a warning: items run one at a time, for want of memory
    AloneWarning (RuntimeWarning)      a warning: the calling thread runs items itself, and why

What the caller's own function raises is none of these: it arrives as itself.  Bad arguments raise
`TypeError` and `ValueError`.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from itertools import islice
from typing import Any


class ParallelError(Exception):
    """The base of every error of parallelkit's own."""


class WorkerDied(ParallelError, RuntimeError):
    """A worker process died while it ran an item.

    Attributes:
        index: The item's position in the input.
        item: The item; a tuple of arguments if there were several iterables.
        replay: Call it to run the item again in the calling process.
    """

    index: int
    item: Any
    replay: Callable[[], Any]


class ItemTimeout(ParallelError, TimeoutError):
    """An item ran longer than its timeout, and its worker was ended.

    A note tells the Python stack where it was.  The attributes are those of `WorkerDied`.
    """

    index: int
    item: Any
    replay: Callable[[], Any]


class RemoteError(ParallelError, RuntimeError):
    """Stands for an exception that could not travel: it has that one's type, text and traceback."""


class NoWorkers(ParallelError, OSError):
    """No worker process could be started, or none lived long enough to run an item.

    Or the engine given as `backend=` is gone, cannot be reached, or has workers that are unfit.
    """


class InternalError(ParallelError, RuntimeError):
    """Parallelkit broke one of its own rules; please report the message, which replays it."""


class MemoryShortage(RuntimeWarning):
    """Memory runs short, so items run one at a time until there is more."""


class AloneWarning(RuntimeWarning):
    """Workers would have helped but could not: the calling thread runs every item, or some."""


class _Repr(reprlib.Repr):
    """Stops early in long and deep containers, whose whole repr could take minutes.

    The standard one sorts dicts and sets first, and copies the whole of a long `bytes`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3  # each has up to six elements, so this is more than a message shows
        self.maxstring = self.maxother = 200

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        if level <= 0 or not x:
            return "{...}" if x else "{}"
        some = [each for pair in islice(x.items(), self.maxdict) for each in pair]
        parts = [self.repr1(each, level - 1) for each in some]
        texts = [f"{key}: {value}" for key, value in zip(parts[::2], parts[1::2], strict=True)]
        return "{" + ", ".join(texts + ["..."] * (len(x) > self.maxdict)) + "}"

    def repr_set(self, x: set[Any], level: int) -> str:
        return super().repr_set(set(islice(x, self.maxset + 1)), level)

    def repr_frozenset(self, x: frozenset[Any], level: int) -> str:
        return super().repr_frozenset(frozenset(islice(x, self.maxfrozenset + 1)), level)

    def repr_bytes(self, x: bytes, _: int) -> str:
        return repr(x[: self.maxother])

    def repr_bytearray(self, x: bytearray, _: int) -> str:
        return repr(x[: self.maxother])


_REPR = _Repr()


def shortened(value: Any, limit: int = 80) -> str:
    """Return `repr(value)` in at most `limit` characters, whatever `value` is.

    Example:
        >>> shortened(list(range(100)), 20)
        '[0, 1, 2, 3, 4, 5...'
    """
    try:
        text = _REPR.repr(value)
    except BaseException as error:  # a repr of the user's can fail in any way
        text = f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    if "\n" in text:  # an array's rows would tear a message apart
        text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
