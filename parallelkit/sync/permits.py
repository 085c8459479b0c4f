"""Semaphore and BoundedSemaphore: at most so many at a time, in all processes.

Beside the number of permits a cell holds who has how many of them, so that those of a killed
process come back.  A process is known by its number and the time when it was started.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from types import TracebackType

from . import cells
from .cells import FREE
from .lines import END, Line

_VALUE, _INITIAL = FREE, FREE + 1

_PLACES = 300
"""Processes whose permits are counted, three words each; those of further ones do not come back."""

_PID, _BORN, _BALANCE = range(3)
_WIDTH = 3
_NOWHERE = END + _WIDTH * _PLACES  # behind the last: where those are counted that have no place

_UNKNOWN = 1  # the birth of a process about which the system tells nothing


def _born(pid: int) -> int:
    """Return when a process was started, in a unit of the system's; 0 if it is dead."""
    if sys.platform != "linux":
        return _born_elsewhere(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    except OSError:  # /proc is not shown to us
        return _UNKNOWN
    return 0 if fields[0] in {b"Z", b"X"} else int(fields[19])


def _born_elsewhere(pid: int) -> int:
    import psutil

    try:
        process = psutil.Process(pid)
        dead = process.status() == psutil.STATUS_ZOMBIE
        return 0 if dead else int(process.create_time() * 1000)
    except psutil.NoSuchProcess:
        return 0
    except psutil.Error:
        return _UNKNOWN


@lru_cache(maxsize=1)  # a fork asks with another number
def _my_birth(pid: int) -> int:
    return _born(pid)


class Semaphore:
    """Permits that processes take and give back, and that a killed process gives back.

    It has the methods of `multiprocessing.Semaphore`, and may be captured by a function or passed
    as an argument.  What a killed process has taken more often than released comes back, as long
    as no more permits are then there, or with living processes, than in the beginning.  So
    permits that one process releases for others to take are not made twice.

    Taking and releasing costs about 6 us while there are permits.  Who waits is woken in the order
    in which he came (see `Condition`), but one who comes just then may be faster.

    Args:
        value: How many permits there are in the beginning.

    Example:
        >>> from parallelkit import pmap
        >>> two_at_a_time = Semaphore(2)
        >>> def fetch(x):
        ...     with two_at_a_time:
        ...         return -x
        >>> pmap(fetch, range(3), workers=2)
        [0, -1, -2]
    """

    def __init__(self, value: int = 1) -> None:
        if value < 0:
            raise ValueError(f"value must be at least 0, got {value!r}")
        self._cell = cells.create()
        self._place = _NOWHERE  # of this process; whoever unpickles it finds his own
        self._cell.words[_VALUE] = self._cell.words[_INITIAL] = value

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take a permit and return True, or False if none was to be had in `timeout` seconds."""
        return Line(self._cell).wait(self._take, block, timeout) is not None

    def release(self) -> None:
        """Give a permit back, or add one."""
        self._cell.within(self._give)

    def get_value(self) -> int:
        """Return how many permits can be taken now."""
        return int(self._cell.words[_VALUE])

    def _check_release(self) -> None:
        """Raise if there are too many permits already."""

    def _take(self) -> bool | None:
        words = self._cell.words
        if words[_VALUE] <= 0 and not self._reclaim():
            return None
        self._note(1)
        words[_VALUE] -= 1
        return True

    def _give(self) -> None:
        self._check_release()
        self._cell.words[_VALUE] += 1  # before the balance: if we die between, `_reclaim` is right
        self._note(-1)
        Line(self._cell).wake(1)

    def _note(self, change: int) -> None:
        """Note that this process has more or fewer permits."""
        words, pid = self._cell.words, self._cell.pid
        place, born = self._place, _my_birth(pid)
        if words[place + _PID] != pid or words[place + _BORN] != born:
            place = self._place = self._found(pid, born)
        words[place + _BALANCE] += change

    def _found(self, pid: int, born: int) -> int:
        """Return where this process's permits are counted."""
        words = self._cell.words
        pids = words[END:_NOWHERE:_WIDTH].tolist()
        if pid in pids:
            place = END + _WIDTH * pids.index(pid)
            if words[place + _BORN] == born:
                return place
        if pid in pids or 0 not in pids:  # a dead one had this number, or takes the room
            self._reclaim()
            pids = words[END:_NOWHERE:_WIDTH].tolist()
        if 0 not in pids:
            return _NOWHERE
        place = END + _WIDTH * pids.index(0)
        words[place + _BALANCE] = 0
        words[place + _BORN] = born
        words[place + _PID] = pid
        return place

    def _reclaim(self) -> bool:
        """Take back what dead processes had, and return whether there is a permit now."""
        words = self._cell.words
        living = dead = 0
        gone = []
        for place in range(END, _NOWHERE, _WIDTH):
            pid, born, balance = words[place : place + _WIDTH].tolist()
            if not pid:
                continue
            if born == (_my_birth(pid) if pid == self._cell.pid else _born(pid)):
                living += max(balance, 0)
            else:
                dead += max(balance, 0)
                gone.append(place)
        value = words[_VALUE]
        words[_VALUE] = max(value, min(value + dead, words[_INITIAL] - living))
        for place in gone:
            words[place + _PID] = 0
        back = words[_VALUE] - value
        if back > 1:
            Line(self._cell).wake(back - 1)
        return bool(words[_VALUE] > 0)

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
        return f"<{type(self).__name__}(value={self.get_value()})>"


class BoundedSemaphore(Semaphore):
    """A `Semaphore` that refuses to have more permits than in the beginning.

    Example:
        >>> seats = BoundedSemaphore(2)
        >>> with seats:
        ...     seats.get_value()
        1
    """

    def _check_release(self) -> None:
        words = self._cell.words
        if words[_VALUE] >= words[_INITIAL]:
            raise ValueError("a BoundedSemaphore cannot be released more often than acquired")
