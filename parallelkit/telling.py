"""Warns the user, at the line of theirs that led here, and mentions what only costs time."""

from __future__ import annotations

import os
import sys
import warnings
from types import FrameType

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def warn(message: str, category: type[Warning]) -> None:
    """Warn, as if from the innermost frame that is not parallelkit's own."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001  as `warnings` itself does
    level = 1
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


_mentioned: set[str] = set()


def mention(message: str) -> None:
    """Log a message, once in this process, where the user has asked to hear such things.

    The logger is called `parallelkit`, and the level INFO: nothing is wrong.  Whoever has not
    loaded `logging`, which takes 10 ms, has not asked.
    """
    logging = sys.modules.get("logging")
    if logging is None or message in _mentioned:
        return
    log = logging.getLogger("parallelkit")
    if log.isEnabledFor(logging.INFO):
        _mentioned.add(message)
        log.info(message)
