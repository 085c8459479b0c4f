"""The process that workers are forked from.

A worker costs 2 ms to fork from an interpreter that has loaded what workers need, and 30 to start
afresh.  The user's own process must not be forked (its threads hold locks, its descriptors leak),
so one fresh interpreter, the zygote, is started for the purpose: it has one thread, never runs or
imports anything of the user's, and does nothing but fork, reap and watch.

It ends, and its workers with it, when the caller is gone: it sees the end of its control socket,
and, since other processes may have inherited the caller's end, also the end of the caller itself.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import socket
import struct
import sys
from functools import cache
from typing import Any, NoReturn

from . import worker
from .board import Slot, attach

REQUEST = struct.Struct("<ii")
"""A request: `FORK` and a slot, with the worker's socket beside it; or `STATUS` and a process."""
REPLY = struct.Struct("<i")
FORK, STATUS = 1, 2

RUNNING = -1 << 30
"""The status of a process that has not ended, or is none of ours."""

_REMEMBERED = 4096  # ends of workers that nobody has asked about yet
ADOPTED = 1.0
"""Seconds between looks at who our parent is, where a caller's end is no event."""


class Zygote:
    """The zygote's side of the control socket."""

    def __init__(self, control: socket.socket, board: int, caller: int) -> None:
        self.control = control
        self.board = board
        self.caller = caller
        self.children: set[int] = set()
        self.ended: dict[int, int] = {}
        self.waiter = selectors.DefaultSelector()
        self.signals = socket.socketpair()

    def serve(self) -> None:
        """Fork on demand until the caller is gone; then end every worker."""
        signals, waker = self.signals
        for end in self.signals:
            end.setblocking(False)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.signal(signal.SIGINT, _nothing)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # it was blocked until now
        self.waiter.register(self.control, selectors.EVENT_READ, self._answer)
        self.waiter.register(signals, selectors.EVENT_READ, lambda: _drain(signals))
        timeout = None if self._watch_caller() else ADOPTED
        while self._turn(timeout):
            self._reap()
        self._end_children()
        signal.set_wakeup_fd(-1)
        self._close()

    def _watch_caller(self) -> bool:
        """Have the end of the caller wake us; return whether that can be had."""
        try:
            pidfd = os.pidfd_open(self.caller)
        except (AttributeError, OSError):  # another system, an old kernel, a sandbox
            return False
        self.waiter.register(pidfd, selectors.EVENT_READ, lambda: False)
        return True

    def _turn(self, timeout: float | None) -> bool:
        """Wait and do what is asked; return whether the caller is still there."""
        for key, _ in self.waiter.select(timeout):
            if not key.data():
                return False
        return os.getppid() == self.caller

    def _answer(self) -> bool:
        """Do one request; return False when there will be no more."""
        try:
            request, fds, _, _ = socket.recv_fds(self.control, REQUEST.size, 1)
        except OSError:
            return False
        if len(request) < REQUEST.size:
            return False
        kind, number = REQUEST.unpack(request)
        if kind == FORK:
            for fd in fds:  # one, or none where we may not open more: the caller sees it close
                os.set_inheritable(fd, False)  # programs that the user's function starts keep off
                self._fork(socket.socket(fileno=fd), number)
        else:
            self._reap()
            try:
                self.control.sendall(REPLY.pack(self.ended.pop(number, RUNNING)))
            except OSError:  # it ended before it heard
                return False
        return True

    def _fork(self, sock: socket.socket, number: int) -> None:
        parent = os.getpid()  # asked now: by the time the child can ask, we may be gone
        try:
            child = os.fork()
        except OSError:  # no room for another process: the caller sees the socket close
            sock.close()
            return
        if child:
            self.children.add(child)
            sock.close()
        else:
            self._become_worker(sock, attach(self.board, number), parent)

    def _become_worker(self, sock: socket.socket, slot: Slot, parent: int) -> NoReturn:
        """In the child: be a worker, and leave without the zygote's own ends."""
        status = 1
        try:
            die_with_parent(parent)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._close()
            worker.main(sock, slot)
            status = 0
        except BaseException:  # a worker's own failure must be seen, not unwind into the zygote
            sys.excepthook(*sys.exc_info())
        finally:
            leave(status)

    def _close(self) -> None:
        self.waiter.close()
        for sock in (self.control, *self.signals):
            sock.close()

    def _reap(self) -> None:
        """Note how each worker that has ended did so."""
        while self.children:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not child:
                return
            self.children.discard(child)
            if len(self.ended) >= _REMEMBERED:
                self.ended.pop(next(iter(self.ended)))
            self.ended[child] = os.waitstatus_to_exitcode(status)

    def _end_children(self) -> None:
        for child in self.children:
            os.kill(child, signal.SIGKILL)
        for child in self.children:
            os.waitpid(child, 0)


def _nothing(*_: object) -> None:
    pass


def _drain(signals: socket.socket) -> bool:
    try:
        while signals.recv(1024):
            pass
    except BlockingIOError:
        return True
    return False


def leave(status: int) -> NoReturn:
    """End a worker at once, after writing out what was printed."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except BaseException:  # nothing may keep a worker that was told to go
            status = status or 1
    os._exit(status)


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process when `parent`, which forked it, ends (Linux only).

    Right between zygote and worker: the signal comes when the *thread* that forked ends, and the
    zygote has one.  The caller has many, so it must never be used there.
    """
    if sys.platform != "linux":
        return
    PR_SET_PDEATHSIG = 1  # noqa: N806  linux/prctl.h
    _prctl()(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel knew
        os._exit(1)


@cache
def _prctl() -> Any:
    import ctypes

    return ctypes.CDLL(None).prctl


def close_others(*kept: int) -> None:
    """Close every descriptor above standard error but `kept`: whatever the caller let leak."""
    low = 3
    for fd in sorted(kept):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, max(low, min(os.sysconf("SC_OPEN_MAX"), 1 << 16)))


def open_standard() -> None:
    """Make descriptors 0, 1 and 2 exist: a socket that got one of these would be printed to."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)  # a worker that reads standard input must not take what the caller would read
    os.set_inheritable(0, True)  # where it was closed, `null` is 0 itself
    for fd in (1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.dup2(null, fd)
    if null > 2:
        os.close(null)


def main(control: int, board: int, caller: int) -> None:
    """Be the zygote.  `control` and `board` are descriptors, `caller` is a process."""
    open_standard()
    close_others(control, board)
    os.set_inheritable(control, False)
    os.set_inheritable(board, False)
    # What each worker would load, 12 ms and more, or have memory of its own for.
    if sys.platform == "linux":
        _prctl()
    import _locale  # noqa: F401
    import faulthandler  # noqa: F401

    import cloudpickle  # noqa: F401

    gc.collect()
    gc.freeze()  # what is here now stays shared: a collector's pass in a worker would copy it
    gc.enable()
    Zygote(socket.socket(fileno=control), board, caller).serve()
    os._exit(0)
