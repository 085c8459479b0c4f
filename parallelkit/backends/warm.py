"""Workers that wait between runs, and the caller's end of each.

Workers are taken for one run and given back after it, so runs in several threads never share one.
They outlive the run because starting costs: a warm one answers in some 50 us, a cold one in 2 ms,
the first of all in 30.  Those that idle leave by themselves.  At the end of the interpreter all
are ended; a forked copy of the process forgets them, for they serve the original.
"""

from __future__ import annotations

import atexit
import contextlib
import heapq
import os
import signal
import socket
import threading
from collections.abc import Iterator
from time import perf_counter
from typing import Protocol

from .. import arenas, parcels, wire
from ..ahead import streams
from ..board import SLOTS, Slot
from ..leases import Berth
from ..machine import resident
from ..wire import Message, Outbox, Reader
from .duty import Duty
from .start import Starter, WorkerProcess, default, discard

_END = 1.0  # seconds for a process that was killed to be gone


class Link:
    """The caller's end of one worker."""

    def __init__(
        self, number: int, sock: socket.socket, process: WorkerProcess, pool: Pool
    ) -> None:
        sock.setblocking(False)
        self.number = number
        self.sock = sock
        self.process = process
        self.pool = pool
        self.reader = Reader(sock)
        self.outbox = Outbox(sock)
        self.slot = pool.starter.board.slot(number)
        self.context: bytes | None = None
        self.berth = Berth(sole=True)
        self.memory = 0  # bytes resident when last looked at
        self.duty = Duty(self.slot)
        # When it was asked for, if it need not wait for the zygote to be up.
        self.asked = perf_counter() if pool.proven else None

    def read(self) -> list[Message]:
        """Receive what is there.

        Raises:
            EOFError: The worker is gone.
            BlockingIOError: Nothing is there.
        """
        try:
            return self._introduced() if self.process.pid is None else self.reader.read()
        except ConnectionError as error:  # it died with unread messages in its socket
            raise EOFError from error

    def _introduced(self) -> list[Message]:
        hello, sentinel = _hello(self.sock)
        if len(hello) < wire.HEADER.size:
            raise EOFError
        message = Message(*_unpacked(hello))
        self.process.introduce(message.first, sentinel, message.second)
        return [message]

    def weigh(self) -> None:
        """Note how much memory the worker holds, where the system tells."""
        with contextlib.suppress(OSError):
            self.memory = resident(self.process.pid) or self.memory

    def say(self, message: Message) -> None:
        """Keep a message for the outbox's next flush."""
        self.outbox.put(wire.frame(message))

    def alive(self) -> bool:
        """Return whether the worker still listens."""
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """Let go of the worker, which then ends by itself if it is not busy."""
        self.sock.close()
        self.berth.close()
        arenas.lose(self.process)
        self.process.let_go()


def _hello(sock: socket.socket) -> tuple[bytes, int | None]:
    """Receive a worker's first message, and the descriptor that tells its end if one came along."""
    if not hasattr(socket, "recv_fds"):
        return sock.recv(wire.HEADER.size), None
    hello, fds, _, _ = socket.recv_fds(sock, wire.HEADER.size, 1)
    for fd in fds:
        os.set_inheritable(fd, False)  # programs that the user starts keep off
    return hello, fds[0] if fds else None


def _unpacked(header: bytes) -> tuple[int, bytes, int, int, float]:
    kind, _, first, second, seconds = wire.HEADER.unpack(header)
    return kind, b"", first, second, seconds


class Parked(Protocol):
    """A run that is over, with all that one like it needs."""

    def dissolve(self) -> None:
        """Let go of what is kept for another run; its workers are the pool's."""


class Pool:
    """The workers of one starter."""

    def __init__(self, starter: Starter) -> None:
        self.starter = starter
        self.lock = threading.Lock()
        self.idle: list[Link] = []
        self.busy: set[Link] = set()
        self.free: list[int] = []
        self.used = 0
        self.retired = False
        self.parked: Parked | None = None
        self.proven = False  # whether any worker has come up

    def take(self, count: int, context: bytes) -> list[Link]:
        """Return up to `count` warm workers, those that have `context` in force first."""
        with self.lock:
            self.idle.sort(key=lambda link: link.context == context)
            taken = [self.idle.pop() for _ in range(min(count, len(self.idle)))]
            self.busy.update(taken)
        try:
            for link in taken:
                if not link.alive():
                    self.bury(link)
        except BaseException:  # Ctrl-C
            for link in taken:
                if link in self.busy:
                    self.give_back(link)
            raise
        return [link for link in taken if link in self.busy]

    def claim(self, links: list[Link], parked: Parked | None = None) -> bool:
        """Take just these workers, if all of them are there, and the run that is `parked`."""
        with self.lock:
            lost = parked is not None and self.parked is not parked
            if lost or not all(link in self.idle for link in links):
                return False
            self.parked = None if parked is not None else self.parked
            for link in links:
                self.idle.remove(link)
            self.busy.update(links)
        return True

    def park(self, run: Parked | None) -> Parked | None:
        """Keep a run that is over, for one like it; return the one that was kept before."""
        with self.lock:
            before, self.parked = self.parked, run
        return before

    def start(self) -> Link:
        """Return a new worker, which may not be up yet; OSError when there is no room for it."""
        with self.lock:
            if not self.free and self.used == SLOTS:
                raise OSError(f"there are {SLOTS} workers already")
            if not self.free:
                self.free.append(self.used)
                self.used += 1
            number = heapq.heappop(self.free)
        try:
            sock, popen = self.starter.start(number)
        except BaseException:
            with self.lock:
                heapq.heappush(self.free, number)
            raise
        link = Link(number, sock, WorkerProcess(number, popen), self)
        link.slot.reset()
        with self.lock:
            self.busy.add(link)
        return link

    def give_back(self, link: Link) -> None:
        """Keep a worker that has nothing to do for another run."""
        with self.lock:
            kept = not (self.retired or link.outbox)
            if kept:
                self.busy.discard(link)
                self.idle.append(link)
        if not kept:
            self.bury(link)

    def bury(self, link: Link) -> None:
        """Let go of a worker that is dead, or shall be."""
        link.close()
        with self.lock:
            if link in self.busy:
                self.busy.remove(link)
                heapq.heappush(self.free, link.number)
        self._rest()

    def retire(self) -> None:
        """End the idle workers now, and the others when they are given back."""
        with self.lock:
            self.retired = True
            idle, self.idle = self.idle, []
        parked = self.park(None)
        if parked is not None:
            parked.dissolve()
        for link in idle:
            link.close()
        self._rest()

    def _rest(self) -> None:
        with self.lock:
            over = self.retired and not self.busy
            self.retired = self.retired and not over
        if over:
            self.starter.close()

    def abandon(self) -> None:
        """End the workers of runs that another thread or a forgotten iterator holds.

        Each run still lets go of its workers itself, if it comes to that.
        """
        with self.lock:
            busy = tuple(self.busy)
            self.busy.clear()
        for link in busy:
            link.process.kill()
        for link in busy:
            link.process.ended(_END)
            if threading.active_count() == 1:  # else a run may wait on it, in another thread
                link.close()

    def forget(self) -> None:
        """In a forked copy of the process: close what belongs to the original."""
        self.lock = threading.Lock()  # a thread that is not here may have held it
        self.parked = None
        for link in (*self.idle, *self.busy):
            link.sock.close()
            link.process.forget()
            link.slot = link.duty.slot = (
                Slot.apart()
            )  # the original's worker reads what is written on the board
        self.starter.forget()


_lock = threading.Lock()
_current: tuple[tuple[object, object], Pool] | None = None
_over = False  # the interpreter ends


def pool() -> Pool:
    """Return the pool whose workers are what they would be if they were started now."""
    global _current
    leave_at_exit()
    starter = default()
    key = (starter, streams())  # workers print there, so it is part of what they are
    with _lock:
        if _current is not None and _current[0] == key and _current[1].starter.alive():
            return _current[1]
        old, _current = _current, (key, Pool(starter()))
    if old is not None:
        old[1].retire()
    return _current[1]


def parked() -> Parked | None:
    """Return the run that `pool()` keeps, if there is a pool and we print where it does.

    How workers are to be started is part of a run's surroundings, which its next caller compares.
    """
    leave_at_exit()
    now = _current
    return None if now is None or now[0][1] != streams() else now[1].parked


def warmth() -> tuple[bool, int]:
    """Return whether workers can be forked at once, and how many are up already."""
    return _current is not None, len(_current[1].idle) if _current else 0


def shut() -> None:
    """End every worker, and all it takes to start one.  The next run starts anew."""
    global _current
    with _lock:
        old, _current = _current, None
    if old is not None:
        old[1].retire()
    discard()
    arenas.shut()
    parcels.kept.shut()


def leave_at_exit() -> None:
    """End this thread, without a word, if it still maps while the interpreter ends.

    It is a daemon's, then, for others are waited for; its workers are being ended, which is no
    error of its items.
    """
    if _over and threading.current_thread() is not threading.main_thread():
        raise SystemExit


def _shut_at_exit() -> None:
    global _over
    _over = True
    if _current is None:
        return
    with contextlib.suppress(OSError), _undisturbed():
        _current[1].abandon()
        shut()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Take no notice of Ctrl-C in the block, which takes milliseconds."""
    before = None
    with contextlib.suppress(ValueError):  # another interpreter than the main one
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def _forget() -> None:
    global _current, _lock, _over
    _lock, _over = threading.Lock(), False
    if _current is not None:
        _current[1].forget()
        _current = None


atexit.register(_shut_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
