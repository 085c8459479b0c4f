"""Where a worker is stuck, told by the worker itself in its last moment.

A worker that is ended for being late first writes the Python stack of its main thread, by a signal
handler in C that needs no interpreter lock, so also while it is deep in compiled code.  It writes
to memory that it alone holds open; the caller, who need not keep a descriptor for each worker,
opens that through /proc when the time has come.  Linux only; elsewhere there is no stack to tell.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Self

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep

_MOST = 64 * 1024  # bytes of a stack that are read: faulthandler stops at 100 frames


def telling_signal() -> int | None:
    """Return the signal at which a worker tells its stack and dies, where there is one.

    A real-time signal, which functions hardly ever use for themselves.
    """
    last = getattr(signal, "SIGRTMAX", None)
    return None if last is None or not os.path.isdir("/proc/self/fd") else int(last) - 2


def prepare() -> int:
    """In a worker: make ready to tell; return the descriptor to be read, -1 where there is none."""
    number = telling_signal()
    if number is None:
        return -1
    import faulthandler

    try:
        fd = os.memfd_create("parallelkit-stack", os.MFD_CLOEXEC)
    except (AttributeError, OSError):
        return -1
    # chain: when all is told, the signal does what it does by default, which is to end us.
    faulthandler.register(number, file=fd, all_threads=False, chain=True)
    return fd


class Telling:
    """The caller's view of a worker's last words.  A `with` block in which it is to speak."""

    def __init__(self, pid: int, fd: int) -> None:
        self.path = f"/proc/{pid}/fd/{fd}"
        self.open = -1
        self.text = ""

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            self.open = os.open(self.path, os.O_RDONLY)
        return self

    def __exit__(self, *_: object) -> None:
        if self.open >= 0:
            self.text = _users(os.pread(self.open, _MOST, 0).decode(errors="replace"))
            os.close(self.open)


def _users(told: str) -> str:
    """Return the frames that are the user's, the innermost first, as faulthandler wrote them."""
    lines = [line for line in told.splitlines() if line.startswith("  File ")]
    ours = f'File "{_HERE}', 'File "<string>"'  # the second started us
    return "\n".join(line for line in lines if not any(each in line for each in ours))
