"""MPI by name: the ranks that `mpiexec` started beside this one.

A script that is run by `mpiexec -n 9 python -m mpi4py.futures script.py` has eight workers.  MPI
ends all ranks when one dies, this process with them, so no item can be blamed and nothing saved.
"""

from __future__ import annotations

import threading
from typing import Any

from mpi4py import MPI
from mpi4py.futures import MPIPoolExecutor

from ..errors import NoWorkers
from .executor import ExecutorVenue


class _Pools:
    """The pool of this process, made when it is first asked for, and kept for the next call."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pool: Any = None

    def get(self, workers: int | None) -> Any:
        """Return the pool.

        Raises:
            NoWorkers: There are no other ranks.  MPI could start some, but not everywhere, and it
                says nothing where it cannot.
        """
        with self.lock:
            if self.pool is None:
                if MPI.COMM_WORLD.Get_size() == 1:
                    raise NoWorkers(
                        "there are no ranks of MPI but this one: start the script with "
                        "`mpiexec -n 9 python -m mpi4py.futures script.py`, for 8 workers"
                    )
                self.pool = MPIPoolExecutor(workers)
            return self.pool

    def leave(self) -> None:
        """Shut the pool down."""
        with self.lock:
            pool, self.pool = self.pool, None
        if pool is not None:
            pool.shutdown()


_pools = _Pools()


def venue(given: Any, workers: int | None) -> ExecutorVenue:
    """Return an executor of MPI's, for a name the one of this process."""
    return ExecutorVenue(_pools.get(workers) if isinstance(given, str) else given)


def leave(_: str) -> None:
    """Shut down what was started for the name."""
    _pools.leave()
