"""Any `concurrent.futures.Executor` as the place where a run's chunks are run.

Its workers may be processes of this machine, MPI ranks or threads.  It is the user's: it is neither
shut down nor changed here.  One that breaks for good when a worker dies can only be replaced by
whoever knows how: a function that makes executors is taken in place of one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent import futures
from concurrent.futures.thread import BrokenThreadPool
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

from ..errors import NoWorkers, shortened
from .slots import Verdict

_JOURNEYS = {
    "ThreadPoolExecutor": 30e-6,
    "ProcessPoolExecutor": 100e-6,
    "MPIPoolExecutor": 200e-6,
}
"""Seconds that a task costs the executors we know (measured on 2 cores); others are measured."""

_SAMPLE = 8  # tasks that are run to measure what one costs

_measured: WeakKeyDictionary[futures.Executor, float] = WeakKeyDictionary()


class ExecutorVenue:
    """An executor, or what makes one."""

    ends = False

    def __init__(self, given: futures.Executor | Callable[[], futures.Executor]) -> None:
        self.make = None if isinstance(given, futures.Executor) else given
        self.executor = given if isinstance(given, futures.Executor) else self._made()
        names = [cls.__name__ for cls in type(self.executor).__mro__]
        self.name = type(self.executor).__name__
        threads = isinstance(self.executor, futures.ThreadPoolExecutor)
        self.inside = threads and "InterpreterPoolExecutor" not in names
        known = [_JOURNEYS[name] for name in names if name in _JOURNEYS]
        self.journey = known[0] if known and (self.inside or not threads) else self._measure()

    def _made(self) -> futures.Executor:
        assert self.make is not None
        executor = self.make()
        if not isinstance(executor, futures.Executor):
            raise TypeError(
                "a function given as backend must return a concurrent.futures.Executor, "
                f"got {shortened(executor)}"
            )
        return executor

    def _measure(self) -> float:
        """Return the seconds that a task costs, without those that the first ones take to start."""
        if self.executor not in _measured:
            with self._told():
                futures.wait([self.executor.submit(int) for _ in range(self.capacity())])
                began = perf_counter()
                for future in [self.executor.submit(int) for _ in range(_SAMPLE)]:
                    future.result()
                _measured[self.executor] = (perf_counter() - began) / _SAMPLE
        return _measured[self.executor]

    @contextlib.contextmanager
    def _told(self) -> Any:
        """Raise what goes wrong in the block as `NoWorkers`."""
        try:
            yield
        except Exception as error:
            raise NoWorkers(self.judge(error).words) from error

    def capacity(self) -> int:
        """Return how many workers the executor has, or will have."""
        for name in ("_max_workers", "num_workers"):
            count = getattr(self.executor, name, None)
            if isinstance(count, int) and count > 0:
                return count
        return os.cpu_count() or 1

    def greet(self) -> tuple[str, ...]:
        """Workers come from here, so they have what is here."""
        return ()

    def submit(self, fn: Callable[..., Any], *args: Any) -> futures.Future[Any]:
        """Have a worker call `fn(*args)`."""
        return self.executor.submit(fn, *args)

    def reserve(self) -> None:
        """An executor has no places that are kept for one."""

    def judge(self, error: BaseException) -> Verdict:
        """Say what an error means that `submit` or a future raised."""
        if not isinstance(error, futures.BrokenExecutor):
            if isinstance(error, futures.CancelledError):
                return Verdict("over", f"the {self.name} given as backend was shut down")
            return self._unable(error)
        if isinstance(error, BrokenThreadPool):  # threads do not die: they could not be made ready
            return self._unable(error)
        if self.make is None:
            return Verdict(
                "over",
                f"the {self.name} given as backend is broken, as one of its workers died: "
                "make a new one, or give as backend a function that makes one",
            )
        if self._broken():  # else it was replaced when another of its tasks fell
            self.executor.shutdown(wait=False)
            self.executor = self._made()
        return Verdict("fell", f"of the {self.name} died")

    def _unable(self, error: BaseException) -> Verdict:
        what = f"the {self.name} given as backend cannot run tasks"
        return Verdict("over", f"{what}: {type(error).__name__}: {error}")

    def _broken(self) -> bool:
        with contextlib.suppress(futures.BrokenExecutor):
            self.executor.submit(int).cancel()  # refused at once
            return False
        return True

    def put(self, _: bytes) -> None:
        """An executor has no way but its tasks."""

    def drop(self, run: str, handles: list[Any]) -> None:
        """Nothing was put anywhere."""

    def kill(self, future: Any) -> None:
        """End what runs for `future`, if it has not begun."""
        future.cancel()

    def close(self) -> None:
        """Shut down an executor that was made here."""
        if self.make is not None:
            # What was not begun is cancelled by now; not every executor has an option for it.
            self.executor.shutdown(wait=True)


def venue(given: Any, _: int | None) -> ExecutorVenue:
    """Return an executor, or what a function that makes them makes."""
    return ExecutorVenue(given)
