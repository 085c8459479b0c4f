"""Errors that are also `concurrent.futures`' own, for `except` clauses written for that.

They are apart from `errors` because their base loads `multiprocessing`, and are loaded with the
first one that is raised.
"""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool

from .errors import ParallelError, WorkerDied

__all__ = ["BrokenExecutor", "TaskDied"]


class TaskDied(WorkerDied, BrokenProcessPool):
    """A worker died on a task; the executor goes on with all others.

    It is a `BrokenProcessPool` because that is what a program written for `ProcessPoolExecutor`
    looks for.
    """


class BrokenExecutor(ParallelError, BrokenProcessPool):
    """The executor can run nothing: its initializer failed, or no worker could be started."""
