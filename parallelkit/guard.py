"""A helper thread that watches the calling thread while that runs items itself.

The caller works too until workers are up, and nobody may wait for it: when one of its items takes
longer than its turn should, the guard tells the run, starts workers, and keeps them supplied.  What
only the caller's thread may do (pull from the caller's iterator, hand over results) it leaves in
line.

Whoever holds `acting` may touch the engine: the calling thread, but for its turns.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from time import perf_counter
from typing import Protocol

from .backends import Backend
from .events import Command, Event, Fail, Finish, Give, Pull, Tick, Work
from .scheduler import Run

_CALLERS = (Give, Fail, Finish, Pull, Work)
"""Commands that only the caller's own thread carries out."""

_CALLED = ("SIGHUP", "SIGINT", "SIGTERM", "SIGALRM", "SIGCHLD", "SIGUSR1", "SIGUSR2", "SIGWINCH")
_SIGNALS = tuple(getattr(signal, name) for name in _CALLED if hasattr(signal, name))
"""What the helper threads leave to the caller's thread.  The system gives a signal to any thread
that takes it; only in the one that runs Python's handlers does it interrupt a long system call."""

# The first thread of a process costs 90 us, any later one 9 (measured): one that is over at once,
# now, so that the first call has no more to pay than the others.
_thread.start_new_thread(int, ())


class Engine(Protocol):
    """What the guard asks of the engine that it stands in for."""

    run: Run
    backend: Backend | None
    events: deque[Event]
    todo: deque[Command]

    def step(self) -> None:
        """Pass one event to the run, waiting for one if there is none."""

    def obey(self, command: Command) -> None:
        """Carry out a command."""


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
        self.deadline = self.engine.run.deadline
        self.turn += 1
        backend = self.engine.backend
        with contextlib.suppress(RuntimeError):  # no room for a thread: go without
            if backend is not None:
                backend.wakeable()
                self._take_over()
            elif self.deadline is not None:
                self._have_watched()
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
        engine = self.engine
        try:
            while turn == self.turn and (engine.backend is not None or self._alarmed()):
                with self.acting:
                    if turn == self.turn:
                        self._act()
        except BaseException as error:  # it is the caller's to hear
            self.error = error

    def _alarmed(self) -> bool:
        """Wait for the run's deadline; return False when there is none, or all is over."""
        deadline = self.engine.run.deadline
        if deadline is None:
            return False
        return not self.alarm.acquire(True, max(0.0, deadline - perf_counter()))

    def _act(self) -> None:
        engine = self.engine
        if engine.backend is None:
            engine.events.append(Tick())
        engine.step()
        kept = []
        while engine.todo:
            command = engine.todo.popleft()
            if isinstance(command, _CALLERS):
                kept.append(command)
            else:
                engine.obey(command)
                if engine.backend is not None:
                    engine.backend.wakeable()
        engine.todo.extend(kept)


def quietly(start: Callable[[], object]) -> None:
    """Start a thread that leaves signals to others."""
    if not hasattr(signal, "pthread_sigmask"):  # where no signal interrupts anything
        start()
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
