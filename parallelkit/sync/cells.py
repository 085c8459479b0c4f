"""Cells: a little memory that several processes see, and a lock over it that the kernel releases.

Every process opens the file behind the memory for itself and locks it with `flock`, so the kernel
unlocks it when that process ends, however it ends.  Threads of one process, who share the file,
exclude each other by a lock of their own.  A process that was forked holds nothing: it closes what
it has inherited and opens the file again when it first needs it.

What the words mean is left to others, save the first; how to wait for more than the lock
is left to `lines`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import weakref
from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

from .. import segments

SIZE = 16384
"""Bytes of a cell: room for two lines of 512 seats, the size of the largest machines."""

HOLDER, TICKETS, SEATED, FREE = 0, 1, 2, 4
"""Words: which process holds the lock, what `lines` counts, and the first that others may use.

A process that dies with the lock leaves its number in the first."""

_SHORTEST, _LONGEST = 0.0002, 0.01
"""Seconds between looks at a lock that is waited for with a timeout, for which the kernel has no
call.  The first is what a short hold takes, the last costs 0.1 % of a CPU (10 us a look)."""

GONE = (
    "this lock, queue or number is gone: the process that passed it on dropped it or ended "
    "before it was received here\nkeep it there until it has arrived"
)

if sys.platform == "win32":
    import msvcrt

    LOCK_EX, LOCK_NB, LOCK_UN = 2, 4, 8

    def flock(descriptor: int, operation: int) -> None:
        """Do what `fcntl.flock` does."""
        if descriptor < 0:
            raise ValueError
        os.lseek(descriptor, 0, os.SEEK_SET)
        while True:
            try:
                unlock = operation == LOCK_UN
                msvcrt.locking(descriptor, msvcrt.LK_UNLCK if unlock else msvcrt.LK_NBLCK, 1)
            except OSError as error:
                if operation & LOCK_NB:
                    raise BlockingIOError from error
                sleep(_LONGEST)
            else:
                return

else:
    from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock

_NOW = LOCK_EX | LOCK_NB


_Result = TypeVar("_Result")


class Cell:
    """A little memory and its lock, the same object wherever in this process it is unpickled.

    Two ways lead in: `within`, for what this package does briefly itself, and `acquire` and
    `release`, for what a user holds, which also note who has it.

    Attributes:
        words: The memory as 64-bit integers.
        threads: Keeps the threads of this process apart.
        pid: This process.
        owner: The thread that holds it, for locks that the same thread may take again.
        depth: How often that thread has taken it.
        abandoned: Whether the holder before this one died with the lock.
        bells: Sockets on which threads of this process wait, so that a fork can close its copies.
    """

    def __init__(self, segment: segments.Segment) -> None:
        self.segment = segment
        self.words = memoryview(segment)[:SIZE].cast("q")
        self.threads = threading.Lock()
        self.file = -1
        self.pid = os.getpid()
        self.owner = 0
        self.depth = 0
        self.abandoned = False
        self.bells: set[socket.socket] = set()

    def __reduce__(self) -> tuple[Callable[..., Cell], tuple[object, ...]]:
        return attach, tuple(self.segment.handle())

    def within(self, action: Callable[[], _Result]) -> _Result:
        """Return what `action` returns, called while nobody else holds the cell.

        Ctrl-C leaves nothing locked.  Python looks for signals when a function begins and when a
        call has returned, so what is undone must stand in this one function, and the threads' lock
        be taken by `with`, which is one step.
        """
        with self.threads:
            if self.file < 0:
                self.open()
            try:
                flock(self.file, LOCK_EX)
                return action()
            finally:
                flock(self.file, LOCK_UN)

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take the lock for a user; False if it could not be had in time."""
        if self.threads.acquire(False):
            try:
                flock(self.file, _NOW)
                words = self.words
                if words[HOLDER]:
                    self.abandoned = True
                words[HOLDER] = self.pid
                return True
            except (BlockingIOError, ValueError):  # another has it, or it is not open yet
                self.threads.release()
            except BaseException:  # Ctrl-C
                self._undo()
                raise
        return self._acquire_late(None if block and timeout is None else (timeout or 0.0) * block)

    def _acquire_late(self, timeout: float | None) -> bool:
        until = None if timeout is None else monotonic() + timeout
        if not self.threads.acquire(True, -1 if timeout is None else _bounded(timeout)):
            return False
        try:
            if self.file < 0:
                self.open()
            if not self._lock(until):
                self.threads.release()
                return False
            self.abandoned = bool(self.words[HOLDER])
            self.words[HOLDER] = self.pid
        except BaseException:
            self._undo()
            raise
        return True

    def _lock(self, until: float | None) -> bool:
        if until is None:
            flock(self.file, LOCK_EX)
            return True
        pause = _SHORTEST
        while True:
            try:
                flock(self.file, _NOW)
            except BlockingIOError:
                left = until - monotonic()
                if left <= 0:
                    return False
                sleep(min(pause, left))
                pause = min(2 * pause, _LONGEST)
            else:
                return True

    def _undo(self) -> None:
        """Give back what an interrupted `acquire` may have got."""
        if self.words[HOLDER] == self.pid:
            self.words[HOLDER] = 0
        if self.file >= 0:
            flock(self.file, LOCK_UN)
        self.threads.release()

    def release(self) -> None:
        """Give back the lock that a user took.

        Raises:
            ValueError: This process does not hold it.
        """
        words = self.words
        if words[HOLDER] != self.pid or not self.threads.locked():
            raise ValueError("this lock cannot be released: this process does not hold it")
        words[HOLDER] = 0
        try:
            if self.abandoned:
                self.abandoned = False
            flock(self.file, LOCK_UN)
        finally:
            self.threads.release()

    def held(self) -> bool:
        """Whether a thread of this process holds it for a user."""
        return bool(self.words[HOLDER] == self.pid) and self.threads.locked()

    def locked(self) -> bool:
        """Whether anyone holds it."""
        if not self.threads.acquire(False):
            return True
        try:
            if self.file < 0:
                self.open()
            flock(self.file, _NOW)
            flock(self.file, LOCK_UN)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            self.threads.release()

    def open(self) -> None:
        """Open the file for this process, unless it is open.

        Raises:
            FileNotFoundError: It has lost its name, and this process, a fork, cannot find it.
        """
        if self.file < 0:
            self.file = _opened(self.segment.handle())

    def forked(self) -> None:
        """Be, in a fresh copy of the process, one that holds nothing and waits for nothing."""
        if self.file >= 0:
            os.close(self.file)
        for bell in self.bells:
            bell.close()
        self.threads = threading.Lock()
        self.file = -1
        self.pid = os.getpid()
        self.owner = self.depth = 0
        self.abandoned = False
        self.bells = set()

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if getattr(self, "file", -1) >= 0:
            with contextlib.suppress(OSError):  # a program that became a daemon closed them all
                close(self.file)


def _bounded(timeout: float) -> float:
    return min(max(timeout, 0.0), threading.TIMEOUT_MAX)


def _opened(handle: segments.Handle) -> int:
    if sys.platform == "win32":
        import tempfile

        # Memory has a tag there but no file behind it, so the lock gets one, which goes with the
        # last process that has it open.
        path = os.path.join(tempfile.gettempdir(), f"parallelkit-{handle.token}")
        modes = os.O_RDWR | os.O_CREAT | os.O_TEMPORARY | os.O_BINARY | os.O_NOINHERIT
        return os.open(path, modes, 0o600)
    return os.open(handle.place, os.O_RDWR)


class _Cells:
    """The cells of this process by the tokens of their segments."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # reentrant: garbage collected under it may unpickle
        self.known: weakref.WeakValueDictionary[str, Cell] = weakref.WeakValueDictionary()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forked)

    def forked(self) -> None:
        self.lock = threading.RLock()
        for cell in list(self.known.values()):
            cell.forked()


_cells = _Cells()


def create() -> Cell:
    """Make a cell of zeros.

    Raises:
        MemoryError: There is no room for it.
    """
    segment = segments.create(SIZE)
    with _cells.lock:
        cell = _cells.known[segment.handle().token] = Cell(segment)
    return cell


def attach(*handle: object) -> Cell:
    """Return the cell that was pickled.

    Raises:
        FileNotFoundError: Whoever pickled it has let go of it before.
    """
    place = segments.Handle(*handle)  # type: ignore[arg-type]
    with _cells.lock:
        cell = _cells.known.get(place.token)
        if cell is None:
            try:
                segment = segments.attach(place)
            except FileNotFoundError as error:
                raise FileNotFoundError(GONE) from error
            cell = _cells.known[place.token] = Cell(segment)
            cell.open()  # now, while it certainly can be
    return cell
