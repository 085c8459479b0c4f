"""`Pool`: what `multiprocessing.Pool` is, over an `Executor`.

What hangs there is an error here: a worker that dies, a result or an exception that cannot be
pickled, `sys.exit` in a task, waiting for a pool that was terminated.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from types import TracebackType
from typing import Any, NoReturn, Self

from .executor import Executor
from .results import AsyncResult, Results, Then, failure
from .tasks import call_each

_SHARES = 4  # chunks per worker that a map is cut into, as `multiprocessing.Pool` does
_FEW = 1000  # tasks that are handed in at once; more are fed by a thread, as room allows
_AHEAD = 64  # tasks that may wait for each worker before that thread waits for room

_RUNNING, _CLOSED, _TERMINATED = "RUN", "CLOSE", "TERMINATE"


class _Hasty(Executor):
    """An executor that, when it is forgotten, does not finish first."""

    _hasty = True


class Pool:
    """Runs calls in worker processes, with the methods of `multiprocessing.Pool`.

    Lambdas and functions of the script itself will do, and a script needs no `__main__` guard.
    Leaving a `with` block terminates the pool, as there; so does forgetting it.

    Args:
        processes: How many worker processes at most; by default one for each CPU.
        initializer: Called in each worker before its first task.
        initargs: The arguments of `initializer`.
        maxtasksperchild: How many tasks a worker runs until another takes its place.
        context: Taken and not used: there is one way to start a worker.

    Example:
        >>> with Pool(2) as pool:
        ...     print(pool.map(abs, [-1, 2, -3]), pool.apply(divmod, (7, 2)))
        [1, 2, 3] (3, 1)
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
    ) -> None:
        if processes is not None and processes < 1:  # these words, and more below, are the model's
            raise ValueError("Number of processes must be at least 1")
        most: object = maxtasksperchild
        if most is not None and not (isinstance(most, int) and most > 0):
            raise ValueError("maxtasksperchild must be a positive int or None")
        self._executor = _Hasty(
            processes, context, initializer, tuple(initargs), max_tasks_per_child=maxtasksperchild
        )
        self._processes = self._executor._max_workers  # noqa: SLF001  read by everybody
        self._state = _RUNNING
        self._feeders: set[threading.Thread] = set()

    # One call.

    def apply(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] | None = None,
    ) -> Any:
        """Return `func(*args, **kwds)`, called in a worker."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] | None = None,
        callback: Then = None,
        error_callback: Then = None,
    ) -> AsyncResult:
        """Have `func(*args, **kwds)` called in a worker.

        Args:
            func: What to call.
            args: Its arguments.
            kwds: Its arguments by keyword.
            callback: Called here, in a thread of the pool, with the result.
            error_callback: Called so with the exception, if there is one.
        """
        self._check_running()
        result = AsyncResult(1, lambda values: values[0], callback, error_callback)
        result.expect(0, self._executor.submit(func, *args, **(kwds or {})))
        return result

    # Many calls, one list.

    def map(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[Any]:
        """Return `[func(x) for x in iterable]`.

        The list is cut into tasks of `chunksize` items; by default there are four for each worker.
        """
        return self.map_async(func, iterable, chunksize).get()  # type: ignore[no-any-return]

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Then = None,
        error_callback: Then = None,
    ) -> AsyncResult:
        """Do as `map`, and return the list to come."""
        return self._mapped(func, [(x,) for x in iterable], chunksize, callback, error_callback)

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
    ) -> list[Any]:
        """Return `[func(*args) for args in iterable]`, cut as by `map`."""
        return self.starmap_async(func, iterable, chunksize).get()  # type: ignore[no-any-return]

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Then = None,
        error_callback: Then = None,
    ) -> AsyncResult:
        """Do as `starmap`, and return the list to come."""
        rows = [tuple(args) for args in iterable]
        return self._mapped(func, rows, chunksize, callback, error_callback)

    def _mapped(
        self,
        func: Callable[..., Any],
        rows: list[tuple[Any, ...]],
        chunksize: int | None,
        callback: Then,
        error_callback: Then,
    ) -> AsyncResult:
        self._check_running()
        if chunksize is None:
            chunksize = -(-len(rows) // (self._processes * _SHARES))
        elif chunksize < 1:
            _refuse_chunksize(chunksize)
        chunks = [rows[at : at + chunksize] for at in range(0, len(rows), max(1, chunksize))]
        result = AsyncResult(len(chunks), _joined, callback, error_callback)
        for number, chunk in enumerate(chunks):
            result.expect(number, self._executor.submit(call_each, func, chunk))
        return result

    # Many calls, result by result.

    def imap(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> Iterator[Any]:
        """Return an iterator of the results, in order; its `next(timeout)` waits so long at most.

        The items are read in a thread of the pool, ahead of the results, and may be endless.
        """
        return self._streamed(func, iterable, chunksize, ordered=True)

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> Iterator[Any]:
        """Do as `imap`, with the results as they come."""
        return self._streamed(func, iterable, chunksize, ordered=False)

    def _streamed(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int, ordered: bool
    ) -> Iterator[Any]:
        self._check_running()
        if chunksize < 1:
            _refuse_chunksize(chunksize)
        results = Results(ordered)
        rows = ((x,) for x in iterable)
        if chunksize == 1:
            calls: Iterator[tuple[Any, ...]] = ((func, *row) for row in rows)
        else:
            chunks = iter(lambda: list(itertools.islice(rows, chunksize)), [])
            calls = ((call_each, func, chunk) for chunk in chunks)
        room = threading.Semaphore(_AHEAD * self._processes)
        if isinstance(iterable, list | tuple | range) and len(iterable) <= _FEW:
            _feed(weakref.ref(self), calls, results, None)
        else:
            feed = (weakref.ref(self), calls, results, room)
            feeder = threading.Thread(target=_feed, args=feed, daemon=True)
            feeder.name = "parallelkit-feeder"
            self._feeders.add(feeder)
            feeder.start()
        return results if chunksize == 1 else itertools.chain.from_iterable(results)

    # Ends.

    def close(self) -> None:
        """Take nothing more; workers go when all is done."""
        if self._state == _RUNNING:
            self._state = _CLOSED
            self._settle()

    def _settle(self) -> None:
        """Let the executor go if no more tasks come."""
        self._feeders = {each for each in self._feeders if each.is_alive()}
        if self._state != _RUNNING and not self._feeders - {threading.current_thread()}:
            self._executor.shutdown(wait=False)

    def terminate(self) -> None:
        """End the workers now; what was not done raises an error where its result is asked for."""
        self._state = _TERMINATED
        self._executor.kill_workers()
        self._executor.shutdown(wait=True)

    def join(self) -> None:
        """Wait until all is done; the pool must have been closed or terminated.

        Raises:
            ValueError: It was not.
        """
        if self._state == _RUNNING:
            raise ValueError("Pool is still running")
        for feeder in tuple(self._feeders):
            if feeder is not threading.current_thread():
                feeder.join()
        self._executor.shutdown(wait=True)

    def _check_running(self) -> None:
        if self._state != _RUNNING:
            raise ValueError("Pool not running")

    def __enter__(self) -> Self:
        """Return the pool.

        Raises:
            ValueError: It was closed or terminated.
        """
        self._check_running()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Terminate the pool."""
        self.terminate()

    def __reduce__(self) -> NoReturn:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __repr__(self) -> str:
        return f"<parallelkit.Pool state={self._state} pool_size={self._processes}>"


def _feed(
    owner: weakref.ref[Pool],
    calls: Iterator[tuple[Any, ...]],
    results: Results,
    room: threading.Semaphore | None,
) -> None:
    """Hand in calls, where there is `room` for them, until there are no more."""
    count = 0
    try:
        for call in calls:
            if room is not None:
                room.acquire()
            pool = owner()
            if pool is None:
                break
            future = pool._executor.submit(*call)  # noqa: SLF001  the pool's own thread
            del pool
            future.add_done_callback(_putter(results, count, room))
            count += 1
    except BaseException as error:  # the iterable's, or the pool was terminated
        results.put(count, None, error)
        count += 1
    results.end(count)
    pool = owner()
    if pool is not None and room is not None:
        pool._settle()  # noqa: SLF001


def _putter(
    results: Results, number: int, room: threading.Semaphore | None
) -> Callable[[futures.Future[Any]], None]:
    def put(future: futures.Future[Any]) -> None:
        error = failure(future)
        results.put(number, None if error is not None else future.result(), error)
        if room is not None:
            room.release()

    return put


def _joined(chunks: list[list[Any]]) -> list[Any]:
    return list(itertools.chain.from_iterable(chunks))


def _refuse_chunksize(chunksize: int) -> NoReturn:
    raise ValueError(f"Chunksize must be 1+, not {chunksize}")
