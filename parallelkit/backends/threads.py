"""Threads of this process: nothing is pickled, and everything is shared.

On a Python without a global lock (3.13t and later) they are as good as processes for any function;
else for those that wait, or compute in a library that lets go of the lock.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from ..machine import cpu_count
from .executor import ExecutorVenue


class ThreadsVenue(ExecutorVenue):
    """Threads for one run.  A map within a map thus never waits for the threads it is run by."""

    def __init__(self, workers: int | None = None) -> None:
        super().__init__(ThreadPoolExecutor(workers or cpu_count(), "parallelkit"))
        self.name = "threads"

    def close(self) -> None:
        """Have the threads end when they are done with what they run."""
        self.executor.shutdown(wait=False, cancel_futures=True)


def venue(_: object, workers: int | None) -> ThreadsVenue:
    """Return as many threads as there are CPUs, or `workers`."""
    return ThreadsVenue(workers)
