"""Lock, RLock and Condition: one at a time, in all processes.

A lock is a cell's own; what a condition's waiters wait for is told by its line.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from types import TracebackType
from typing import TypeVar

from . import cells
from .lines import Line, deadline, remaining

_Result = TypeVar("_Result")


class Lock:
    """A lock that processes share and that a killed process releases.

    It has the methods of `multiprocessing.Lock`, and may be captured by a function or passed as an
    argument.  When a process that holds it ends, in whatever way, the next one gets it, and reads
    in `abandoned` that what the lock guards may be half changed.

    Taking and releasing it costs about 1.5 us while nobody else wants it, and a hand-over to a
    process that waits some 100 us.  It is not fair: a process that takes it again at once is often
    faster than those who wait; of four that did nothing else, each got a quarter within a tenth.
    Who waits sleeps in the kernel; with a timeout he looks every 0.2 to 10 ms.

    Only the process that holds it can release it, by any of its threads.  A fork of the holder does
    not hold it.

    Example:
        >>> from parallelkit import SharedArray, pmap
        >>> total, lock = SharedArray(1, dtype="int64"), Lock()
        >>> def add(x):
        ...     with lock:
        ...         total[0] += x
        >>> _ = pmap(add, range(100), workers=2)
        >>> int(total[0])
        4950
    """

    def __init__(self) -> None:
        self._cell = cells.create()

    @property
    def abandoned(self) -> bool:
        """For the holder: whether the holder before died without releasing it."""
        return self._cell.abandoned

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take the lock and return True, or False if it was not to be had in `timeout` seconds."""
        return self._cell.acquire(block, timeout)

    def release(self) -> None:
        """Give the lock back.

        Raises:
            ValueError: This process does not hold it.
        """
        self._cell.release()

    def locked(self) -> bool:
        """Return whether any process holds it now."""
        return self._cell.locked()

    def __enter__(self) -> bool:
        return self._cell.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cell.release()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, {'locked' if self.locked() else 'unlocked'}>"


class RLock:
    """A `Lock` that the thread that holds it may take again.

    It has the methods of `multiprocessing.RLock`, and is free when it was released as often as it
    was taken, or when its process ends.  `abandoned`, cost and fairness are as for `Lock`.

    Example:
        >>> lock = RLock()
        >>> with lock, lock:
        ...     lock.abandoned
        False
    """

    def __init__(self) -> None:
        self._cell = cells.create()

    @staticmethod
    def _over(cell: cells.Cell) -> RLock:
        """Return the lock of a cell that holds something else as well."""
        lock = RLock.__new__(RLock)
        lock._cell = cell  # noqa: SLF001 -- beside `__init__`, where one is born
        return lock

    @property
    def abandoned(self) -> bool:
        """For the holder: whether the holder before died without releasing it."""
        return self._cell.abandoned

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take the lock and return True, or False if it was not to be had in `timeout` seconds."""
        cell, me = self._cell, get_ident()
        if cell.owner != me:
            if not cell.acquire(block, timeout):
                return False
            cell.owner = me
        cell.depth += 1
        return True

    def release(self) -> None:
        """Give the lock back, once for each time that it was taken.

        Raises:
            RuntimeError: This thread does not hold it.
        """
        cell = self._cell
        if cell.owner != get_ident():
            raise RuntimeError("this RLock cannot be released: this thread does not hold it")
        cell.depth -= 1
        if not cell.depth:
            cell.owner = 0
            cell.release()

    def locked(self) -> bool:
        """Return whether any process holds it now."""
        return self._cell.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, {'locked' if self.locked() else 'unlocked'}>"


class Condition:
    """Lets processes wait until another one says that something has changed.

    It has the methods of `multiprocessing.Condition`.  Whoever waits is woken in the order in which
    he came, within some 100 us where there are abstract Unix sockets (Linux) and 5 ms elsewhere.  A
    killed waiter is passed over.

    Args:
        lock: What is held around each use, a `Lock` or `RLock`; by default an `RLock` of its own.

    Example:
        >>> from parallelkit import Counter, pmap
        >>> changed, arrived = Condition(), Counter()
        >>> def meet(_):
        ...     with changed:
        ...         arrived.add()
        ...         changed.notify_all()
        ...         return changed.wait_for(lambda: arrived.value == 2, timeout=60)
        >>> pmap(meet, range(2), workers=2, timeout=60)
        [True, True]
    """

    def __init__(self, lock: Lock | RLock | None = None) -> None:
        self._lock = RLock() if lock is None else lock
        self._cell = cells.create()

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take the lock and return True, or False if it was not to be had in `timeout` seconds."""
        return self._lock.acquire(block, timeout)

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock until notified and take it again; return False after `timeout` seconds.

        Raises:
            RuntimeError: The lock is not held.
        """
        self._check_held("wait")
        line, until = Line(self._cell), deadline(timeout)
        seat = self._cell.within(line.join)
        held = self._lock._cell  # noqa: SLF001 -- a condition is a part of its lock
        owner, depth, held.owner, held.depth = held.owner, held.depth, 0, 0
        try:
            held.release()
            if not seat.place:  # more wait than there are seats: wake up for no reason, as one may
                seat.wait(remaining(until))
            while not seat.called() and remaining(until) > 0:
                seat.wait(remaining(until))
            return seat.called()
        finally:
            try:
                line.leave(seat)
            finally:
                held.acquire()
                held.owner, held.depth = owner, depth

    def wait_for(
        self, predicate: Callable[[], _Result], timeout: float | None = None
    ) -> _Result | bool:
        """Wait until `predicate` gives something true, and return what it gives in the end."""
        until = deadline(timeout)
        result = predicate()
        while not result and (until is None or remaining(until) > 0):
            self.wait(None if until is None else remaining(until))
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        """Wake those `n` who have waited longest, once the lock is released.

        Raises:
            RuntimeError: The lock is not held.
        """
        self._check_held("notify")
        self._cell.within(lambda: Line(self._cell).wake(n))

    def notify_all(self) -> None:
        """Wake all who wait, once the lock is released."""
        self._check_held("notify")
        self._cell.within(Line(self._cell).wake)

    def _check_held(self, verb: str) -> None:
        held = self._lock._cell  # noqa: SLF001 -- as in `wait`
        if not held.held() or held.owner not in {0, get_ident()}:
            raise RuntimeError(f"cannot {verb}: the condition's lock is not held")

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def __repr__(self) -> str:
        return f"<Condition on {self._lock!r}>"
