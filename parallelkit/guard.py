"""A helper thread for as long as the caller runs items that may be long.

The caller works too until workers are up, and nobody may wait for it: the guard tells the run when
an item takes longer than a probe should, starts workers, and keeps them supplied.  What only the
caller's thread may do (pull from the caller's iterator, hand over results) it leaves in line.
"""

from __future__ import annotations

import _thread
import contextlib
from collections import deque
from time import perf_counter
from typing import Protocol

from .backends import Backend
from .events import Command, Event, Fail, Finish, Give, Pull, Tick, Work
from .scheduler import Run

_CALLERS = (Give, Fail, Finish, Pull, Work)
"""Commands that only the caller's own thread carries out."""


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
    """A `with` block in which the engine goes on by itself.

    What goes wrong in the helper thread is raised at the block's end, in the caller's thread.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.over = False
        self.alarm = _thread.allocate_lock()
        self.acting = _thread.allocate_lock()  # held by whoever may touch the engine
        self.error: BaseException | None = None

    def __enter__(self) -> None:
        self.alarm.acquire()
        backend = self.engine.backend
        if backend is not None:
            backend.wakeable()
        with contextlib.suppress(RuntimeError):  # no room for a thread: go without
            if backend is None:
                # A bare thread costs 9 us to start (measured), threading.Thread 40, and most
                # calls end before it has to do anything but wait.
                _thread.start_new_thread(self._watch, ())
            else:
                self._take_over()

    def __exit__(self, *_: object) -> None:
        self.over = True
        self.alarm.release()
        if self.engine.backend is not None:
            self.engine.backend.wake()
        with self.acting:
            if self.error is not None:
                raise self.error

    def _watch(self) -> None:
        """Wait for the run's deadline, unless the caller is done before."""
        deadline = self.engine.run.deadline
        timeout = -1.0 if deadline is None else max(0.0, deadline - perf_counter())
        if not self.alarm.acquire(True, timeout):
            self._take_over()

    def _take_over(self) -> None:
        # From here on, what runs may be the user's (pickling does), who may ask which thread it is
        # in: a bare one would then leave a stand-in among the known threads.
        import threading

        threading.Thread(target=self._attend, name="parallelkit-guard", daemon=True).start()

    def _attend(self) -> None:
        engine = self.engine
        try:
            while engine.backend is not None or self._alarmed():
                with self.acting:
                    if self.over:
                        return
                    self._act()
        except BaseException as error:  # it is the caller's to hear
            self.error = error

    def _alarmed(self) -> bool:
        """Wait for the run's deadline; return False when the caller was done first."""
        deadline = self.engine.run.deadline
        timeout = -1.0 if deadline is None else max(0.0, deadline - perf_counter())
        return not self.alarm.acquire(True, timeout)

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
