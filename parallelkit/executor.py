"""`Executor`: what `concurrent.futures.ProcessPoolExecutor` is, over this library's workers."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from types import TracebackType
from typing import Any, TypeVar

from .desk import Desk, Future
from .errors import shortened
from .guard import quietly
from .options import Exceptions, Options, Plan, plan
from .service import Terms, attend
from .tasks import Initial, call_each

T = TypeVar("T")


class Executor(futures.Executor):
    """Runs calls in worker processes and gives a future for each.

    Everything that works with a `concurrent.futures.ProcessPoolExecutor` works with this: `submit`,
    `map`, `wait`, `as_completed`, `loop.run_in_executor`.  Lambdas and functions of the script
    itself will do, and a script needs no `__main__` guard.  A worker that dies costs the one task
    that it was on, not the executor.  With `backend="serial"`, `submit` itself runs the task, for
    debugging.

    Args:
        max_workers: How many processes at most; by default one for each CPU.  They are started as
            they are needed.
        mp_context: Taken and not used: there is one way to start a worker, which is safe in a
            program with threads.
        initializer: Called in each worker before its first task.  If it raises, the executor is
            broken, and every task fails.
        initargs: The arguments of `initializer`.
        max_tasks_per_child: How many tasks a worker runs until another takes its place.
        backend: Where tasks are run, as for `pmap`.
        timeout: Seconds that one task may take, from when a worker starts it (importing what it
            needs counts); then its worker is ended and its future fails with `ItemTimeout`.
        retries: How many times a task is tried again that raised, ran out of time, or lost its
            worker.  Two lost workers end it in any case.
        retry_on: The exceptions for which that is so; a class or a tuple of them.
        backoff: Seconds before the first of these retries; each further one waits twice as long.
        max_memory: Bytes that the tasks may take in each worker; more is a MemoryError (Linux).

    Example:
        >>> with Executor() as executor:
        ...     future = executor.submit(lambda x: x * x, 7)
        ...     print(future.result(), list(executor.map(abs, [-1, 2, -3])))
        49 [1, 2, 3]
    """

    _hasty = _parts = False

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        backend: Any = None,
        timeout: float | None = None,
        retries: int = 0,
        retry_on: Exceptions = Exception,
        backoff: float = 0.0,
        max_memory: int | None = None,
    ) -> None:
        if max_workers is not None and max_workers <= 0:  # the words of the standard one
            raise ValueError("max_workers must be greater than 0")
        _check(initializer, max_tasks_per_child)
        options = Options(
            workers=max_workers,
            backend=backend,
            timeout=timeout,
            retries=retries,
            retry_on=retry_on,
            backoff=backoff,
            max_memory=max_memory,
        )
        del mp_context
        initial = Initial(initializer, initargs)
        checked = _checked(options, max_tasks_per_child)
        self._terms = Terms(checked, initial, max_tasks_per_child, self._parts)
        self._max_workers = self._terms.most()
        self._desk = Desk(hasty=self._hasty)
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> futures.Future[T]:
        """Have `fn(*args, **kwargs)` called in a worker; return its future.

        The future's `cancel(kill=True)` ends the task even if it runs.

        Raises:
            RuntimeError: The executor was shut down, or the interpreter is about to end.
            BrokenProcessPool: The initializer failed, or no worker can be started.
        """
        desk = self._desk
        future = Future(desk, (fn, args, kwargs))
        if self._pid != os.getpid():
            raise RuntimeError(FORKED)
        with desk.gate:
            self._check_open()
            serial = self._terms.plan.serial
            if not serial:
                desk.put(future)
            if self._thread is None and not serial:
                self._thread = _started(self, desk, self._terms)
        if serial:
            self._run_here(future)
        return future

    def _run_here(self, future: Future) -> None:
        if not self._desk.begun:
            self._desk.begun = 1
            self._terms.initial()
        future.run()

    def _check_open(self) -> None:
        desk = self._desk
        if desk.broken is not None:
            raise type(desk.broken)(*desk.broken.args) from desk.broken.__cause__
        if _exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        if desk.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Return an iterator of `fn(*row)` for each row of `zip(*iterables)`, in order.

        Args:
            fn: Called in the workers.
            *iterables: Read at once and whole, unless there is a `buffersize`.
            timeout: Seconds from this call after which the next result is a TimeoutError.
            chunksize: How many calls travel as one task.
            buffersize: How many tasks may be submitted whose results were not read; the iterables
                are read as the results are.

        Raises:
            ValueError: `chunksize` or `buffersize` is less than 1.
        """
        _check_map(chunksize, buffersize)
        end = None if timeout is None else time.monotonic() + timeout
        rows = zip(*iterables, strict=False)
        if chunksize == 1:
            calls: Iterator[tuple[Any, ...]] = ((fn, *row) for row in rows)
        else:
            chunks = iter(lambda: list(itertools.islice(rows, chunksize)), [])
            calls = ((call_each, fn, chunk) for chunk in chunks)
        sent = deque(self.submit(*each) for each in itertools.islice(calls, buffersize))
        me = weakref.ref(self)  # an iterator that is kept does not keep the executor
        results = _results(me, sent, calls if buffersize is not None else iter(()), end)
        return results if chunksize == 1 else itertools.chain.from_iterable(results)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks, and let the workers go when those there are are done.

        Args:
            wait: Return when that is so; otherwise at once.
            cancel_futures: Cancel what no worker has begun.
        """
        if self._pid != os.getpid():
            return
        desk = self._desk
        with desk.gate:
            desk.closed = True
            thread = self._thread
        if cancel_futures:
            # As many as there are workers count as begun, though these may only be starting.
            desk.cancel_all(spared=self._max_workers - desk.begun)
        desk.ring()
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def kill_workers(self) -> None:
        """Cancel everything, end the workers now, and take no more tasks."""
        self.shutdown(wait=False, cancel_futures=True)
        self._desk.kill_all()

    terminate_workers = kill_workers

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Shut down and wait; on Ctrl-C and the like, for nothing that runs or waits."""
        if kind is not None and not issubclass(kind, Exception):
            self.kill_workers()
        self.shutdown(wait=True)
        return None


FORKED = (
    "this executor belongs to the process that made it, of which this one is a forked copy: "
    "make an executor here"
)


def _check(initializer: object, max_tasks_per_child: object) -> None:
    """Raise what the standard executor raises, in its words."""
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    if max_tasks_per_child is None:
        return
    if not isinstance(max_tasks_per_child, int):
        raise TypeError("max_tasks_per_child must be an integer")
    if max_tasks_per_child <= 0:
        raise ValueError("max_tasks_per_child must be >= 1")


def _checked(options: Options, max_tasks_per_child: int | None) -> Plan:
    checked = plan(options)
    venue = checked.backend.venue
    if max_tasks_per_child is not None and venue is not None:
        raise ValueError(
            "max_tasks_per_child needs workers of parallelkit's own, not those of "
            f'{venue.name}: leave it out, or use backend="processes"'
        )
    return checked


def _check_map(chunksize: int, buffersize: object) -> None:
    if chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    if buffersize is None:
        return
    if not isinstance(buffersize, int):
        raise TypeError(f"buffersize must be an integer or None, got {shortened(buffersize)}")
    if buffersize < 1:
        raise ValueError("buffersize must be None or > 0")


def _results(
    executor: weakref.ref[Executor],
    sent: deque[futures.Future[Any]],
    calls: Iterator[tuple[Any, ...]],
    end: float | None,
) -> Iterator[Any]:
    """Yield the results of what was sent, and send another call for each that was read."""
    try:
        while sent:
            yield _outcome(sent.popleft(), end)
            owner = executor()
            call = None if owner is None else next(calls, None)
            if owner is not None and call is not None:
                sent.append(owner.submit(*call))
            del owner, call
    finally:
        while sent:
            sent.pop().cancel()


def _outcome(future: futures.Future[Any], end: float | None) -> Any:
    """Return the result, of which nothing here keeps a reference."""
    try:
        return future.result(None if end is None else end - time.monotonic())
    finally:
        future.cancel()
        del future  # a traceback that is kept does not keep it


# The helper threads, and how they end.

_exiting = False
_attending: dict[threading.Thread, tuple[Desk, weakref.ref[Executor]]] = {}


def _started(executor: Executor, desk: Desk, terms: Terms) -> threading.Thread:
    """Start the helper thread, which leaves when the executor is forgotten."""
    thread = threading.Thread(target=_attend, args=(desk, terms), name="parallelkit-executor")
    _attending[thread] = desk, weakref.ref(executor, lambda _: desk.leave())
    try:
        quietly(thread.start)
    except BaseException:
        del _attending[thread]
        raise
    return thread


def _attend(desk: Desk, terms: Terms) -> None:
    try:
        attend(desk, terms)
    finally:
        _attending.pop(threading.current_thread(), None)


def _finish() -> None:
    """At the interpreter's end: finish what was submitted, unless Ctrl-C is what ended it."""
    global _exiting
    _exiting = True
    waiting = tuple(_attending.copy().items())
    for _, (desk, _) in waiting:
        desk.leave(at_once=_interrupted())
    try:
        for thread, _ in waiting:
            thread.join()
    except KeyboardInterrupt:
        for _, (desk, _) in waiting:
            desk.leave(at_once=True)
        raise


def _interrupted() -> bool:
    """Whether the script ended with the traceback of a Ctrl-C, which no worker takes for itself."""
    at_a_prompt = hasattr(sys, "ps1")  # where the last traceback may be an old one
    return not at_a_prompt and isinstance(getattr(sys, "last_value", None), KeyboardInterrupt)


def _forget() -> None:
    """In a forked copy of the process: there are no threads to wait for."""
    _attending.clear()


# As the standard executors do: plain atexit functions run when threads have been waited for.
threading._register_atexit(_finish)  # type: ignore[attr-defined]  # noqa: SLF001
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
