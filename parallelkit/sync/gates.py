"""Event and Barrier: processes that wait until something is so, or until all have come."""

from __future__ import annotations

from collections.abc import Callable
from threading import BrokenBarrierError
from typing import Literal

from . import cells
from .cells import FREE
from .lines import Line


class Event:
    """A flag that processes set, clear and wait for.

    It has the methods of `multiprocessing.Event`.  Asking costs 0.1 us and setting 2 us, besides
    10 us for each process that waits; all who wait when it is set go on, even if it is cleared at
    once.

    Example:
        >>> from parallelkit import pmap
        >>> stop = Event()
        >>> stop.set()
        >>> pmap(lambda x: stop.is_set(), range(2), workers=2)
        [True, True]
    """

    _FLAG, _SETS = FREE, FREE + 1

    def __init__(self) -> None:
        self._cell = cells.create()

    def is_set(self) -> bool:
        """Return whether it is set."""
        return bool(self._cell.words[self._FLAG])

    def set(self) -> None:
        """Set it, and wake all who wait."""
        self._cell.within(self._raise)

    def clear(self) -> None:
        """Set it back."""
        self._cell.words[self._FLAG] = 0

    def wait(self, timeout: float | None = None) -> bool:
        """Return True once it is set, False if it is not within `timeout` seconds."""
        words = self._cell.words
        if words[self._FLAG]:
            return True
        before = words[self._SETS]

        def look() -> Literal[True] | None:
            return True if words[self._FLAG] or words[self._SETS] != before else None

        return Line(self._cell).wait(look, True, timeout) is not None

    def _raise(self) -> None:
        words = self._cell.words
        words[self._SETS] += 1
        words[self._FLAG] = 1
        Line(self._cell).wake()

    def __repr__(self) -> str:
        return f"<Event at {id(self):#x} {'set' if self.is_set() else 'unset'}>"


class Barrier:
    """Lets a number of processes wait for each other.

    It has the methods of `multiprocessing.Barrier`.  A process that is killed while it waits has
    come all the same; if it is killed before, the others wait until their timeout breaks the
    barrier.  Items that meet need a worker each: name as many `workers` as parties, and a
    `timeout`, with which no item is sent to a worker that is still busy.

    Args:
        parties: How many must come before all go on.
        action: Called by the last to come, before the others go on.
        timeout: For each `wait` that names none, in seconds.

    Raises:
        ValueError: `parties` is below 1.

    Example:
        >>> from parallelkit import pmap
        >>> start = Barrier(2)
        >>> sorted(pmap(lambda x: start.wait(60), range(2), workers=2, timeout=60))
        [0, 1]
    """

    # Two words: the round and how many have come to it, together so that no kill comes between
    # them; and whether nobody can pass.  Behind them, which of the latest rounds were reset.
    _STATE, _BROKEN, _RESETS = FREE, FREE + 1, FREE + 2
    _REMEMBERED = 8  # rounds: who is that late will be told that he passed
    _ROUND = 1 << 20  # more parties than any machine has processes

    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
    ) -> None:
        if parties < 1:
            raise ValueError(f"parties must be at least 1, got {parties!r}")
        self._cell = cells.create()
        self._parties = parties
        self._action = action
        self._timeout = timeout

    @property
    def parties(self) -> int:
        """How many must come."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """How many have come and wait."""
        return int(self._cell.words[self._STATE] % self._ROUND)

    @property
    def broken(self) -> bool:
        """Whether nobody can pass until `reset`."""
        return bool(self._cell.words[self._BROKEN])

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the others, and return a number from 0 to `parties - 1`, to each another.

        Raises:
            threading.BrokenBarrierError: Someone's timeout was over, the action raised, or the
                barrier was broken or reset.
        """
        words = self._cell.words
        limit = self._timeout if timeout is None else timeout
        turn, came = self._cell.within(self._come)
        if came + 1 == self._parties:
            return came

        def look() -> Literal[True] | None:
            over = words[self._BROKEN] or words[self._STATE] // self._ROUND != turn
            return True if over else None

        try:
            in_time = Line(self._cell).wait(look, True, limit)
        except BaseException:  # Ctrl-C: this one is not there any more
            self.abort()
            raise
        if in_time is None:
            self._cell.within(lambda: self._break(turn))
        if words[self._STATE] // self._ROUND == turn or self._was_reset(turn):
            raise BrokenBarrierError
        return came

    def reset(self) -> None:
        """Make it as new; who waits gets a `threading.BrokenBarrierError`."""
        self._cell.within(self._start_anew)

    def abort(self) -> None:
        """Break it: who waits, and who comes until `reset`, gets a `BrokenBarrierError`."""
        self._cell.within(self._break)

    def _come(self) -> tuple[int, int]:
        """Note that one more has come; return the round, and how many had come before."""
        words = self._cell.words
        if words[self._BROKEN]:
            raise BrokenBarrierError
        turn, came = divmod(int(words[self._STATE]), self._ROUND)
        if came + 1 == self._parties:
            self._pass(turn)
        else:
            words[self._STATE] += 1
        return turn, came

    def _pass(self, turn: int) -> None:
        words = self._cell.words
        try:
            if self._action is not None:
                self._action()
        except BaseException:
            self._break()
            raise
        words[self._STATE] = (turn + 1) * self._ROUND
        Line(self._cell).wake()

    def _break(self, turn: int | None = None) -> None:
        """Break it, unless the round is over in which someone waited too long."""
        words = self._cell.words
        if turn in {None, words[self._STATE] // self._ROUND}:
            words[self._BROKEN] = 1
            Line(self._cell).wake()

    def _start_anew(self) -> None:
        words = self._cell.words
        turn, came = divmod(int(words[self._STATE]), self._ROUND)
        if came:
            words[self._RESETS + turn % self._REMEMBERED] = turn + 1
            words[self._STATE] = (turn + 1) * self._ROUND
        words[self._BROKEN] = 0
        Line(self._cell).wake()

    def _was_reset(self, turn: int) -> bool:
        return bool(self._cell.words[self._RESETS + turn % self._REMEMBERED] == turn + 1)

    def __repr__(self) -> str:
        return f"<Barrier(parties={self.parties}), waiting: {self.n_waiting}>"
