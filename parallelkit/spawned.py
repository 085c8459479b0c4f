"""A worker that is an interpreter of its own, where there is no zygote to fork one.

Its standard input is a lifeline: the caller holds the other end and writes nothing more to it, so
its end is the end of the caller, whoever killed it.  Where another child of the caller has
inherited that end, only a look at who our parent is will tell.  A thread waits for both, since the
worker's main thread may be deep in a user's function; a function that never lets go of the
interpreter lock holds the thread up too, which is the price of portability.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import threading

from . import worker
from .board import attach
from .zygote import ADOPTED, leave, open_standard


def main(fd: int, board: int | str, number: int, caller: int) -> None:
    """Be a worker of `caller` on socket `fd` (on Windows -1: it comes through the lifeline)."""
    gc.enable()
    lifeline = os.dup(0)
    open_standard()
    if fd < 0:
        size = int.from_bytes(os.read(lifeline, 4), "little")
        sock: socket.socket = socket.fromshare(_exactly(lifeline, size))  # type: ignore[attr-defined]
    else:
        sock = socket.socket(fileno=fd)
        os.set_inheritable(fd, False)
        assert isinstance(board, int)
        os.set_inheritable(board, False)
    threading.Thread(target=_end_with, args=(caller, lifeline), daemon=True).start()
    worker.main(sock, attach(board, number), portable=True)
    leave(0)


def _exactly(fd: int, size: int) -> bytes:
    received = b""
    while len(received) < size:
        received += os.read(fd, size - len(received))
    return received


def _end_with(caller: int, lifeline: int) -> None:
    if os.name == "posix":
        while os.getppid() == caller and not select.select([lifeline], [], [], ADOPTED)[0]:
            pass
    else:  # where nothing is inherited unasked
        os.read(lifeline, 1)
    os._exit(1)
