"""What a `Pool` gives before there is a result: one to come, or many that come one by one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import _base
from multiprocessing import TimeoutError as Late
from typing import Any, Self

from .errors import ParallelError

Then = Callable[[Any], object] | None


class AsyncResult:
    """A result to come, as `Pool`'s methods with `_async` in their name return it."""

    def __init__(
        self,
        count: int,
        join: Callable[[list[Any]], Any],
        callback: Then,
        error_callback: Then,
    ) -> None:
        self._values: list[Any] = [None] * count
        self._missing = count
        self._join = join
        self._thens = callback, error_callback
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._done = threading.Event()
        if not count:
            self._finish()

    def expect(self, number: int, future: futures.Future[Any]) -> None:
        """Take the outcome of `future`, one of as many as were announced."""
        future.add_done_callback(lambda done: self._take(number, done))

    def _take(self, number: int, future: futures.Future[Any]) -> None:
        error = failure(future)
        with self._lock:
            if error is None:
                self._values[number] = future.result()
            elif self._error is None:
                self._error = error
            self._missing -= 1
            if self._missing:
                return
        self._finish()

    def _finish(self) -> None:
        then = self._thens[0 if self._error is None else 1]
        value = self._values = self._join(self._values) if self._error is None else []
        try:
            if then is not None:
                then(value if self._error is None else self._error)
        except Exception:  # there it would hang; here the result is there all the same
            _base.LOGGER.exception("exception calling callback for %r", self)
        finally:
            self._done.set()

    def get(self, timeout: float | None = None) -> Any:
        """Return the result, or raise what the call raised.

        Raises:
            multiprocessing.TimeoutError: It is not there in `timeout` seconds.
        """
        if not self._done.wait(timeout):
            raise Late
        if self._error is not None:
            raise self._error
        return self._values

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the result, `timeout` seconds at most."""
        self._done.wait(timeout)

    def ready(self) -> bool:
        """Return whether the result is there."""
        return self._done.is_set()

    def successful(self) -> bool:
        """Return whether the call raised nothing.

        Raises:
            ValueError: The result is not there yet.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._error is None


class Results:
    """The results of an `imap`, as they come."""

    def __init__(self, ordered: bool) -> None:
        self._ordered = ordered
        self._news = threading.Condition()
        self._ready: deque[tuple[Any, BaseException | None]] = deque()
        self._early: dict[int, tuple[Any, BaseException | None]] = {}
        self._arrived = 0  # results that came, or in order: that lie in `_ready` or were read
        self._count: int | None = None  # how many there are, when that is known

    def put(self, number: int, value: Any, error: BaseException | None) -> None:
        """Take the outcome of one task."""
        with self._news:
            if not self._ordered:
                self._ready.append((value, error))
                self._arrived += 1
            else:
                self._early[number] = value, error
                while self._arrived in self._early:
                    self._ready.append(self._early.pop(self._arrived))
                    self._arrived += 1
            self._news.notify_all()

    def end(self, count: int) -> None:
        """Say how many tasks there are."""
        with self._news:
            self._count = count
            self._news.notify_all()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result.

        Raises:
            multiprocessing.TimeoutError: It is not there in `timeout` seconds.
            StopIteration: There is none.
        """
        with self._news:
            if not self._news.wait_for(self._tellable, timeout):
                raise Late
            if not self._ready:
                raise StopIteration
            value, error = self._ready.popleft()
        if error is not None:
            raise error
        return value

    def _tellable(self) -> bool:
        return bool(self._ready) or self._arrived == self._count


def failure(future: futures.Future[Any]) -> BaseException | None:
    """Return what a future that is done failed with, None if it did not."""
    if future.cancelled():
        return ParallelError("the pool was terminated before this was done")
    return future.exception()
