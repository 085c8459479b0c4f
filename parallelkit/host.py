"""The one thread of a process that serves all runs which async callers wait for.

It starts with the first visit and ends with the last.  In each round it waits for all workers, for
callers and for the clock at once, lets each visit that has news go as far as it can, and then sees
who may have a worker, as `rota` says.  No more than `ADMITTED` visits take turns; the others wait
until one of those is over, with nothing pickled and no memory shared meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from selectors import EVENT_READ
from time import perf_counter
from typing import Any

from .branches import Branch, Trunk
from .guard import quietly
from .machine import cpu_count
from .rota import Lease, Rota
from .visits import Lodging, Visit

ADMITTED = 64
"""Runs that take turns: what each has shared with its workers stays in memory while it waits."""

_LONG = 3600.0  # seconds to wait at a time: systems have their own idea of the longest


class Host:
    """Serves visits, as long as there are any."""

    def __init__(self) -> None:
        self.gate = threading.RLock()  # a finalizer may run while its own thread holds it
        self.inbox: deque[tuple[Visit, Callable[..., None], tuple[Any, ...]]] = deque()
        self.waiting: dict[int, Visit] = {}
        self.thread: threading.Thread | None = None
        self.waker: socket.socket | None = None
        self.awake = False
        self.exiting = False

    def enter(self, visit: Visit) -> None:
        """Serve a visit from now on.

        Raises:
            RuntimeError: The interpreter is about to end.
        """
        with self.gate:
            if self.exiting:
                raise RuntimeError("cannot begin to map while the interpreter ends")
            self.waiting[visit.number] = visit
            if self.thread is None:
                self._begin()
            else:
                self.wake()

    def post(self, visit: Visit, act: Callable[..., None], *args: Any) -> None:
        """Have a method of a visit called in the thread, unless that visit is over."""
        # No lock: this is for finalizers too.  A visit that is not over keeps the thread here.
        self.inbox.append((visit, act, args))
        self.wake()

    def wake(self) -> None:
        """Have the thread look at what is new."""
        waker = self.waker
        if waker is not None and not self.awake:
            self.awake = True
            with contextlib.suppress(OSError):  # it left in this moment
                waker.send(b"\0")

    def end(self) -> None:
        """End all visits now, for ever, and wait for the thread."""
        with self.gate:
            self.exiting = True
            thread = self.thread
        self.wake()
        if thread is not None:
            thread.join()

    def _begin(self) -> None:
        end, self.waker = socket.socketpair()
        self.awake = False
        self.thread = threading.Thread(target=self._serve, args=(end,), name="parallelkit-host")
        try:
            quietly(self.thread.start)
        except BaseException:
            end.close()
            self._retire()
            raise

    def _retire(self) -> None:
        waker, self.waker, self.thread = self.waker, None, None
        self.inbox.clear()
        if waker is not None:
            waker.close()

    def _serve(self, end: socket.socket) -> None:
        shift = Shift(self, end)
        try:
            while not self._done(shift):
                shift.round()
        finally:
            shift.close()
            end.close()

    def _done(self, shift: Shift) -> bool:
        """Return whether nobody is here, and if so, do not count on the thread any more."""
        with self.gate:
            done = not (shift.visits or self.waiting)
            if done:
                self._retire()
            return done


class Shift:
    """The thread's work, from when it starts until it ends."""

    def __init__(self, host: Host, end: socket.socket) -> None:
        self.host = host
        self.end = end
        self.trunk = Trunk()
        self.bell = Branch(self.trunk, 0)
        self.bell.register(end, EVENT_READ)
        self.cpus = cpu_count()
        self.rota = Rota(self.cpus)
        self.visits: dict[int, Visit] = {}
        self.stirred: set[int] = set()

    def round(self) -> None:
        """Wait for news, and do all that follows from them."""
        self._hear()
        self._admit()
        now = perf_counter()
        self.stirred.update(number for number, visit in self.visits.items() if visit.due <= now)
        while self.stirred:
            self._advance(self.stirred.pop())
        self._share_out()

    def close(self) -> None:
        """Let go of everything."""
        self.bell.close()
        self.trunk.close()

    def _hear(self) -> None:
        due = min((visit.due for visit in self.visits.values()), default=0.0)
        due = min(due, self.rota.due) - perf_counter()
        self.stirred.update(self.trunk.wait(0.0 if self.stirred else max(0.0, min(due, _LONG))))
        if self.bell.select():
            self.end.recv(64)
        host = self.host
        host.awake = False
        while host.inbox:
            visit, act, args = host.inbox.popleft()
            if visit.number in self.visits:
                act(*args)
                self.stirred.add(visit.number)
            elif act == visit.leave and visit.number in host.waiting:
                del host.waiting[visit.number]
                visit.finish()
        if host.exiting:
            for visit in (*self.visits.values(), *host.waiting.values()):
                visit.leave(0.0)
                self.stirred.add(visit.number)

    def _admit(self) -> None:
        """Let those who wait outside in, who came first first."""
        waiting = self.host.waiting
        while waiting and (len(self.visits) < ADMITTED or self.host.exiting):
            with self.host.gate:
                number = next(iter(waiting))
                self.visits[number] = visit = waiting.pop(number)
            visit.lodge(self.trunk, self.rota, partial(self.host.post, visit, visit.hear))
            self.stirred.add(number)
            self.rota.most = max(self.rota.most, _named(visit))

    def _advance(self, number: int) -> None:
        visit = self.visits.get(number)
        if visit is None:
            return
        self._have(visit, visit.advance)
        if visit.leaving is not None:
            self.rota.give_up(number)
        if visit.over:
            del self.visits[number]
            self.rota.forget(number)
            self.rota.most = max([self.cpus, *map(_named, self.visits.values())])
        elif visit.wanted:
            self.rota.ask(number, visit.wanted)
            visit.wanted = 0

    def _share_out(self) -> None:
        """Grant workers, and call back those that others should have."""
        for number in self.rota.grants():
            visit = self.visits[number]
            self._have(visit, visit.granted)
            self.stirred.add(number)
        for lease in self.rota.recalls(perf_counter(), self._idle):
            lodging = self.visits[lease.run].backend
            assert isinstance(lodging, Lodging)
            lodging.recalled.add(lease.worker)
            self.stirred.add(lease.run)

    def _idle(self, lease: Lease) -> bool:
        lodging = self.visits[lease.run].backend
        return isinstance(lodging, Lodging) and lodging.idle(lease.worker)

    @staticmethod
    def _have(visit: Visit, act: Callable[[], None]) -> None:
        if visit.over:
            return
        try:
            visit.context.run(act)
        except BaseException as error:  # the visit's caller is to hear it, and nobody else
            visit.fail(error)


def _named(visit: Visit) -> int:
    """Return how many workers a visit asks for by number."""
    ours = visit.checked.backend.venue is None
    return visit.checked.workers if visit.checked.asked and ours else 0


_host = Host()


def host() -> Host:
    """Return the host of this process."""
    return _host


def _finish() -> None:
    """At the interpreter's end: whoever still waits has left."""
    _host.end()


def _forget() -> None:
    """In a forked copy of the process: the thread is not here, the visits are the original's."""
    global _host
    old, _host = _host, Host()
    if old.waker is not None:
        old.waker.close()


# As the standard executors do: plain atexit functions run when threads have been waited for.
threading._register_atexit(_finish)  # type: ignore[attr-defined]  # noqa: SLF001
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
