"""A helper thread that watches the calling thread while that runs items itself.

The caller works too until workers are up, and nobody may wait for it: when one of its items takes
longer than its turn should, the guard tells the run, starts workers, and keeps them supplied.  What
only the caller's thread may do (pull from the caller's iterator, hand over results) it leaves in
line.

Whoever holds `acting` may touch the engine: the calling thread, but for its turns.
"""

from __future__ import annotations

import _thread
import sys
from contextvars import copy_context
from time import perf_counter

TYPE_CHECKING = False  # type checkers take it for true, and importing `typing` costs 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from .backends import Backend

    class Engine(Protocol):
        """What the guard asks of the engine that it stands in for."""

        @property
        def backend(self) -> Backend | None:
            """Where workers are, if there are any."""

        @property
        def deadline(self) -> float | None:
            """The time from which on `act` has something to do."""

        def act(self) -> None:
            """Do what there is to do while the caller is in its turn."""


_CALLED = ("SIGHUP", "SIGINT", "SIGTERM", "SIGALRM", "SIGCHLD", "SIGUSR1", "SIGUSR2", "SIGWINCH")
"""What the helper threads leave to the caller's thread.  The system gives a signal to any thread
that takes it; only in the one that runs Python's handlers does it interrupt a long system call."""

# The first thread of a process costs 90 us, any later one 9 (measured): one that is over at once,
# now, so that the first call has no more to pay than the others.
_thread.start_new_thread(int, ())


class Guard:
    """Stands by for one engine.  Each turn of the caller is a `with` block.

    What goes wrong in the helper thread is raised at the block's end, in the caller's thread.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.turn = 0  # odd while the caller is in one
        self.deadline: float | None = None
        self.watching = False
        self.over = False
        self.gate = _thread.allocate_lock()  # for `watching`
        self.alarm = _thread.allocate_lock()  # let go of when all is over
        self.acting = _thread.allocate_lock()
        self.error: BaseException | None = None
        self.context = copy_context()  # the caller's: how it calculates with decimals, say
        self.alarm.acquire()
        self.acting.acquire()

    def __enter__(self) -> None:
        self.deadline = self.engine.deadline
        self.turn += 1
        backend = self.engine.backend
        try:
            if backend is not None:
                backend.wakeable()
                self._take_over()
            elif self.deadline is not None:
                self._have_watched()
        except RuntimeError:  # no room for a thread: go without
            pass
        self.acting.release()

    def __exit__(self, *_: object) -> None:
        self.turn += 1
        if self.engine.backend is not None:
            self.engine.backend.wake()
        try:
            self.acting.acquire()
        except KeyboardInterrupt:  # impatient: nobody may touch the engine beside us all the same
            self.acting.acquire()
            raise
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """End the helper thread, if there is one."""
        self.over = True
        self.turn += 2  # one that an interrupted `__enter__` began is over
        if self.acting.locked():
            self.acting.release()
        if self.alarm.locked():
            self.alarm.release()

    def _have_watched(self) -> None:
        with self.gate:
            if self.watching:
                return
            self.watching = True
        # A bare thread costs 9 us to start (measured), threading.Thread 40, and most runs end
        # before it has to do anything but wait.  It serves all turns of the run.
        quietly(lambda: _thread.start_new_thread(self._watch, ()))

    def _watch(self) -> None:
        """Wait until the caller overruns its deadline in some turn, or all is over."""
        while True:
            turn, deadline = self.turn, self.deadline
            timeout = 0.0 if deadline is None else max(0.0, deadline - perf_counter())
            if self.alarm.acquire(True, timeout):
                self.alarm.release()
                return
            with self.gate:
                stuck = turn == self.turn and turn % 2 == 1 and deadline is not None
                if stuck or self.turn % 2 == 0 or self.deadline is None:
                    self.watching = False  # the next turn will have another
                    break
        if stuck:
            self._take_over()

    def _take_over(self) -> None:
        # From here on, what runs may be the user's (pickling does), who may ask which thread it is
        # in: a bare one would then leave a stand-in among the known threads.
        import threading

        run = self.context.copy().run  # a copy, since one of an earlier turn may not be over yet
        thread = threading.Thread(target=run, args=(self._attend, self.turn), daemon=True)
        thread.name = "parallelkit-guard"
        quietly(thread.start)

    def _attend(self, turn: int) -> None:
        try:
            while turn == self.turn and (self.engine.backend is not None or self._alarmed()):
                with self.acting:
                    if turn == self.turn:
                        self.engine.act()
        except BaseException as error:  # it is the caller's to hear
            self.error = error

    def _alarmed(self) -> bool:
        """Wait for the run's deadline; return False when there is none, or all is over."""
        deadline = self.engine.deadline
        if deadline is None:
            return False
        return not self.alarm.acquire(True, max(0.0, deadline - perf_counter()))


def quietly(start: Callable[[], object]) -> None:
    """Start a thread that leaves signals to others."""
    mask = _mask()
    if mask is None:  # where no signal interrupts anything
        start()
        return
    before = mask.change(mask.block, mask.numbers)
    try:
        start()
    finally:
        mask.change(mask.set, before)


class _Mask:
    """How this thread is told which signals to take."""

    def __init__(self) -> None:
        # Not `signal`, which makes an enum member of each number: 10 us instead of 1 for a change.
        import _signal as signal  # type: ignore[import-not-found]

        self.change = signal.pthread_sigmask
        self.block, self.set = signal.SIG_BLOCK, signal.SIG_SETMASK
        self.numbers = {getattr(signal, name) for name in _CALLED if hasattr(signal, name)}


_masks: list[_Mask] = []


def _mask() -> _Mask | None:
    if sys.platform == "win32":
        return None
    if not _masks:
        _masks.append(_Mask())
    return _masks[0]
