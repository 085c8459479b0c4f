"""Where an executor's callers and its helper thread meet: futures, and the queue of what waits.

Every thread may hand in tasks and cancel them; the helper thread alone takes them out, when a
worker is free for them, and so whatever waits here can still be cancelled.  Running them is
`service`'s.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import _base
from types import BuiltinFunctionType, FunctionType, ModuleType, NoneType
from typing import Any

from .tasks import Task, told

_CONSTANTS = {NoneType, bool, int, float, complex, str, bytes, range}


class Future(futures.Future[Any]):
    """The outcome of one task, as `concurrent.futures` has it, which can also end a running one.

    Example:
        >>> with Executor(max_workers=1) as executor:
        ...     future = executor.submit(pow, 2, 5)
        ...     future.result()
        32
    """

    # The standard class offers no way from RUNNING to CANCELLED, so its attributes are set here.
    # They are what they are since Python 3.2, and others build on them too.

    def __init__(self, desk: Desk, task: Task) -> None:
        super().__init__()
        self._desk = desk
        self._task: Task | None = task
        self.alone = not _pure(task)  # whether it must not travel with others

    def cancel(self, *, kill: bool = False) -> bool:
        """Cancel the task unless it runs already or is done; return whether it is cancelled.

        Args:
            kill: Cancel it also if it runs: its worker is ended, and another takes its place.
        """
        with self._condition:
            running = self._state == _base.RUNNING
            if self._state == _base.FINISHED or (running and not kill):
                return False
            if self.cancelled():
                return True
            # Those who wait are told now, and not when a worker would have been free.
            self._state = _base.CANCELLED_AND_NOTIFIED
            for waiter in self._waiters:
                waiter.add_cancelled(self)
            self._condition.notify_all()
        self._invoke_callbacks()  # type: ignore[attr-defined]  # typeshed leaves it out
        if running:
            self._desk.end(self)
        else:
            self._task = None
        return True

    def begin(self) -> Task | None:
        """Return the task, which from now on counts as running; None if it was cancelled."""
        with self._condition:
            if self._state == _base.PENDING:
                self._state = _base.RUNNING
            return self._task if self._state == _base.RUNNING else None

    def end(self, value: Any, error: BaseException | None) -> None:
        """Take the outcome, unless the task was cancelled meanwhile."""
        self._task = None
        self._desk.running.discard(self)
        try:
            if error is None:
                self.set_result(value)
            else:
                self.set_exception(error)
        except futures.InvalidStateError:
            return
        except BaseException:  # a callback's, which the helper thread must outlive
            _base.LOGGER.exception("exception calling callback for %r", self)

    def function(self) -> Callable[..., Any] | None:
        """Return what is called, None when that is over."""
        return None if self._task is None else self._task[0]

    def run(self) -> None:
        """Run the task here and now, where there are to be no workers."""
        task = self.begin()
        if task is None:
            return
        fn, args, kwargs = task
        try:
            value, error = fn(*args, **kwargs), None
        except Exception as raised:
            value, error = None, raised
        self.end(value, error)

    def words(self) -> str:
        """Return what was called, for a message."""
        return "a task" if self._task is None else told(self._task)


class Desk:
    """What waits, and what the helper thread is to hear of.

    `bell` wakes the helper thread.  A `hasty` desk does not finish what it has when nobody asks for
    it any more; then it is `abandoned`.
    """

    def __init__(self, hasty: bool) -> None:
        self.hasty = hasty
        self.gate = threading.Lock()
        self.queue: deque[Future] = deque()
        self.doomed: deque[Future] = deque()  # running ones that were cancelled
        self.closed = self.abandoned = False
        self.broken: BaseException | None = None
        self.waiting = False
        self.begun = 0  # tasks that were taken
        self.running: set[Future] = set()
        self.bell: Callable[[], None] = _silence

    # For all threads.

    def put(self, future: Future) -> None:
        """Take in a task; the caller has seen under `gate` that it may come."""
        self.queue.append(future)
        if self.waiting:
            self.waiting = False
            self.ring()

    def ring(self) -> None:
        """Wake the helper thread."""
        with contextlib.suppress(OSError):  # it went to bed for good in this moment
            self.bell()

    def end(self, future: Future) -> None:
        """Have a task ended that runs."""
        self.doomed.append(future)
        self.ring()

    def leave(self, at_once: bool = False) -> None:
        """Have the helper thread leave, as nobody is here any more; no lock, for finalizers."""
        self.closed = True
        self.abandoned = self.hasty or at_once
        self.ring()

    def cancel_all(self, spared: int = 0) -> None:
        """Cancel what waits, but for the first `spared`."""
        for future in tuple(self.queue.copy())[max(0, spared) :]:
            future.cancel()

    def kill_all(self) -> None:
        """Cancel what waits or runs."""
        self.cancel_all()
        for future in self.running.copy():
            future.cancel(kill=True)

    # For the helper thread.

    def quiet(self) -> None:
        """Ring no more."""
        self.bell = _silence

    def over(self) -> bool:
        """Return whether nothing waits, and nothing more will."""
        with self.gate:
            return self.closed and not self.queue

    def take(self, like: Future | None = None) -> Iterator[Future]:
        """Yield the tasks that wait, first come first, each of which now runs.

        With `like`, only as long as they call the same function and may travel with others.
        """
        fn = None if like is None else like.function()
        with contextlib.suppress(IndexError):
            while like is None or (self.queue[0].function() is fn and not self.queue[0].alone):
                future = self.queue.popleft()
                if future.begin() is not None:
                    self.begun += 1
                    self.running.add(future)
                    yield future

    def fail(self, error: BaseException) -> list[Future]:
        """Take in nothing more, because of `error`; return what waited."""
        with self.gate:
            self.broken = error
            left = list(self.queue)
            self.queue.clear()
        return left


def _pure(task: Task) -> bool:
    """Whether nothing in a task can change, so that others may have the same objects.

    What is pickled together shares what it names, and two tasks given one list would find in it
    what the other did.
    """
    fn, args, kwargs = task
    builtin = isinstance(fn, BuiltinFunctionType) and isinstance(fn.__self__, ModuleType)
    if not (builtin or isinstance(fn, FunctionType)):
        return False
    return all(map(_constant, args)) and (not kwargs or all(map(_constant, kwargs.values())))


def _constant(value: object) -> bool:
    kind = type(value)
    return kind in _CONSTANTS or (kind is tuple and all(map(_constant, value)))  # type: ignore[call-overload]


def _silence() -> None:
    pass
