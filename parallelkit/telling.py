"""Warns the user, at the line of theirs that led here."""

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
