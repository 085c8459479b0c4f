"""joblib's backend: what runs on joblib, as scikit-learn does, runs on this library's workers.

    import joblib, parallelkit.joblib

    parallelkit.joblib.register()
    with joblib.parallel_config("parallelkit"):
        ...

joblib reads the tasks, keeps `pre_dispatch` and the order, and watches the time; this says how many
tasks go together, and has an `Executor` run them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent import futures
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from time import perf_counter
from typing import Any

import joblib
from joblib.parallel import FallbackToBackend, ParallelBackendBase

from .chunking import GROWTH
from .executor import Executor
from .failures import note
from .machine import WORKERS, cpu_count
from .options import Options, plan
from .tasks import RAISED, Errand, told

NAME = "parallelkit"

_BATCH = 10e-3
"""Seconds of work that go as one batch: one costs joblib and us 0.1 ms (two 2.5 GHz cores,
`batch_size=1`; three times that if they are busy), so that is 1 to 3 %.  joblib's own 0.2 s are
for workers that are dearer to reach."""

_CARRIAGE = 5e-6  # seconds for joblib to make a task, and for us to carry it and its result


def register() -> None:
    """Make the backend "parallelkit" known to joblib.

    Example:
        >>> import joblib, parallelkit.joblib
        >>> parallelkit.joblib.register()
        >>> with joblib.parallel_config("parallelkit", n_jobs=2):
        ...     joblib.Parallel()(joblib.delayed(abs)(x) for x in [-1, 2, -3])
        [1, 2, 3]
    """
    joblib.register_parallel_backend(NAME, ParallelkitBackend)


class ParallelkitBackend(ParallelBackendBase):  # type: ignore[misc]  # joblib is not typed
    """Runs joblib's tasks in worker processes that stay warm between its calls.

    Args:
        nesting_level: How many parallel calls this one is in; joblib says it.
        inner_max_num_threads: How many threads a numerical library may use in a worker; by default
            the CPUs divided by the workers.
        initializer: Called in each worker before its first task.
        initargs: The arguments of `initializer`.
    """

    supports_retrieve_callback = True  # and so timeouts and generators
    supports_inner_max_num_threads = True
    default_n_jobs = -1  # who names the backend wants to see it used

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        super().__init__(nesting_level, inner_max_num_threads)
        self.parallel: joblib.Parallel | None = None
        self._initial = initializer, initargs
        self._workers: Executor | None = None
        self._price: float | None = None  # seconds of a task, as last measured
        self._batch = 1

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many workers `n_jobs` means; -1 is one for each CPU, -2 one less, and so on.

        Raises:
            ValueError: `n_jobs` is 0.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")  # joblib's words
        if plan(Options()).serial:
            return 1
        wanted = self.default_n_jobs if n_jobs is None else n_jobs
        return wanted if wanted > 0 else max(1, _cpus() + 1 + wanted)

    def configure(
        self,
        n_jobs: int | None = 1,
        parallel: joblib.Parallel | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        **_: Any,
    ) -> int:
        """Return the number of workers for the calls to come; 1 is joblib's own loop.

        What else there is concerns joblib's memory maps and has no meaning here: arrays travel
        through shared memory of our own.
        """
        if self.parallel is not parallel:  # another's too, if it is that of a `parallel_config`
            initial = self._initial if initializer is None else (initializer, initargs)
            mine = type(self)(self.nesting_level, self.inner_max_num_threads, *initial)
            mine.parallel = parallel
            raise FallbackToBackend(mine)
        count = self.effective_n_jobs(n_jobs)
        self._end()
        self._workers = self._new(count)
        return count

    def _new(self, count: int) -> Executor:
        """Return workers for one call, of which none is started yet.

        One call, because an array that several tasks name is sent as it was at first, and between
        two calls the user may change it.  The processes stay warm all the same.
        """
        self._price, self._batch = None, 1
        initializer, initargs = self._initial
        return _Workers(count, None, initializer, initargs)

    def submit(
        self, func: Callable[[], Any], callback: Callable[[Any], object] | None = None
    ) -> futures.Future[Any]:
        """Have a batch of tasks run; `callback` gets the future when it is over.

        Never raises: this is called where joblib would wait for ever.
        """
        future: futures.Future[Any]
        workers = self._workers
        if workers is None:  # the call was ended in this moment, and nobody listens
            future = futures.Future()
            future.cancel()
            return future
        try:
            future = workers.submit(_Batch(func, self.inner_max_num_threads))
        except Exception as error:
            future = futures.Future()
            future.set_exception(error)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    apply_async = submit
    """Its name before joblib 1.5."""

    def retrieve_result_callback(self, out: futures.Future[Any]) -> list[Any]:
        """Return the results of a batch, or raise what it raised."""
        seconds, results = out.result()
        self._learn(len(results), seconds)
        return list(results)

    def _learn(self, tasks: int, seconds: float) -> None:
        """Choose the size of the next batches, from what one took that came back."""
        price = max(seconds / max(1, tasks), _CARRIAGE)
        self._price = price if self._price is None else (self._price + price) / 2
        best = int(_BATCH / self._price)
        if best < self._batch or tasks == self._batch:  # no leap from one smaller than it might be
            self._batch = max(1, min(GROWTH * self._batch, best))

    def compute_batch_size(self) -> int:
        """Return how many tasks go together next, where the user leaves it to joblib."""
        return self._batch

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End what runs now, and return when it is gone."""
        del ensure_ready
        self.stop_call()

    def stop_call(self) -> None:
        """Be ready for another call; what may still run, nobody asks for."""
        if self._workers is not None:
            count = self._workers._max_workers  # noqa: SLF001  as everybody reads it
            self._end()
            self._workers = self._new(count)

    def terminate(self) -> None:
        """Let the workers go, to stay warm for others."""
        self._end()

    def _end(self) -> None:
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.kill_workers()
            workers.shutdown()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.nesting_level, self.inner_max_num_threads, *self._initial)


class _Workers(Executor):
    """The executor of one call."""

    _hasty = _parts = True


def _cpus() -> int:
    """Return how many CPUs `n_jobs=-1` means."""
    here = cpu_count()
    # joblib's count knows its own variables, LOKY_MAX_CPU_COUNT above all.
    return here if WORKERS in os.environ else min(here, joblib.cpu_count())


class _Batch(Errand):
    """Some tasks of joblib's on their way to a worker, which says how long they took."""

    def __init__(self, tasks: Any, threads: int | None) -> None:
        self.tasks = tasks
        self.threads = threads

    def __call__(self) -> tuple[float, list[Any]]:
        """Return the seconds that the tasks took, and their results."""
        register()  # what runs here may name the backend too
        self.tasks.items = [(_run, task, {}) for task in self.tasks.items]
        with _limited(self.threads):
            began = perf_counter()
            results = self.tasks()
            return perf_counter() - began, results

    def words(self) -> str:
        """Return words for the tasks, for a message."""
        first, *others = self.tasks.items
        text = told(first)
        return f"{len(others) + 1} tasks, the first {text}" if others else text


def _run(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return fn(*args, **kwargs)
    except BaseException as error:
        note(error, RAISED + told((fn, args, kwargs)))
        raise


def _limited(threads: int | None) -> AbstractContextManager[Any]:
    """Have numerical libraries use so many threads in the block; None leaves it to the share."""
    if threads is None:
        return nullcontext()
    # For what is loaded from now on; the worker gets its own environment back when the run ends.
    os.environ.update(dict.fromkeys(ParallelBackendBase.MAX_NUM_THREADS_VARS, str(threads)))
    try:
        threadpool_limits = import_module("threadpoolctl").threadpool_limits
    except ImportError:  # then nothing reaches what a warm worker has loaded before
        return nullcontext()
    limits: AbstractContextManager[Any] = threadpool_limits(threads)
    return limits
