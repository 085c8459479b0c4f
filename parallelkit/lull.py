"""Fewer passes of the garbage collector while results come in.

A collector's pass is due after so many new containers, whether any is garbage or not.  Results are
none, and where there are 200,000 dicts of them, passes over all that lives take longer than all
else that the caller does: 0.34 s without any, 0.58 s with them.  So passes come later (not never:
other threads have garbage too) while one unpickled chunk follows another.  They are as they were
while the thread waits for anything, and when it runs code of the user's, but for what unpickling
calls.

There is no lock: whatever two threads or Ctrl-C leave half done, the next `end` puts right.
"""

from __future__ import annotations

import gc
import os
from threading import get_ident

CALM = 100_003
"""Containers after which a pass is due; Python begins with 700 or 2,000.  No number that a user
would choose: it is known for ours where a thread has read it here and set it again later."""

_calm: set[int] = set()  # the threads that results come to
_usual: list[tuple[int, int, int]] = []  # what was set when it was last changed, and is to be again


def begin() -> None:
    """Have passes come later, until `end`."""
    thread = get_ident()
    if thread in _calm:
        return
    _calm.add(thread)
    now = gc.get_threshold()
    if 0 < now[0] < CALM:  # 0: the user wants none
        _usual[:] = [now]
        gc.set_threshold(CALM, *now[1:])


def lasts() -> bool:
    """Return whether it does, for this thread."""
    return get_ident() in _calm


def end() -> None:
    """Have them come as before, unless this goes on in another thread."""
    _calm.discard(get_ident())
    if not _calm:
        _restore()


def _restore() -> None:
    for usual in _usual:
        if gc.get_threshold() == (CALM, *usual[1:]):  # else it is not ours
            gc.set_threshold(*usual)


def _forked() -> None:
    """Restore, in a copy of this process, what threads had changed that it has no copies of."""
    _calm.clear()
    _restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
