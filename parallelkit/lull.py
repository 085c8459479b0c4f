"""Fewer passes of the garbage collector while results come in.

A collector's pass is due after so many new containers, whether any is garbage or not.  Results are
none, and where there are 200,000 dicts of them, passes over all that lives take longer than all
else that the caller does: 0.34 s without them, 0.58 s with them.  So passes come later (not never:
other threads have garbage too) while one unpickled chunk follows another.  They are as they were
before the thread waits for anything, and before it runs code of the user's.
"""

from __future__ import annotations

import gc
import os
from threading import Lock, get_ident

CALM = 100_000  # containers after which a pass is due; 700 or 2,000 is what Python begins with

_lock = Lock()
_calm: set[int] = set()  # the threads that results come to
_before: list[tuple[int, int, int]] = []  # what was set before the first of them


def begin() -> None:
    """Have passes come later, until `end`."""
    thread = get_ident()
    if thread in _calm:
        return
    with _lock:
        _calm.add(thread)
        now = gc.get_threshold()
        if not _before and 0 < now[0] < CALM:  # 0: the user wants none
            _before.append(now)
            gc.set_threshold(CALM, *now[1:])


def lasts() -> bool:
    """Return whether it does, for this thread."""
    return get_ident() in _calm


def end() -> None:
    """Have them come as before, unless this goes on in another thread."""
    if not _calm:
        return
    with _lock:
        _calm.discard(get_ident())
        if not _calm:
            _restore()


def _restore() -> None:
    while _before:
        before = _before.pop()
        if gc.get_threshold() == (CALM, *before[1:]):  # else somebody has set it meanwhile
            gc.set_threshold(*before)


def _forked() -> None:
    """Restore, in a copy of this process, what threads had changed that it has no copies of."""
    global _lock
    _lock = Lock()
    _calm.clear()
    _restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
