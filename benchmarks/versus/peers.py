"""The libraries, each behind the same few methods: used well, and as a newcomer would.

Used well: workers that stay up, chunks of the size that the job's author found best (`size`; None
leaves it to the library), results one by one where it can.  As a newcomer: the first example of the
library's own documentation, with no option but the number of workers.
A job that a library has a better way for names it itself (`jobs`).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from itertools import islice
from typing import Any

import parallelkit

WORKERS = int(os.environ.get("VERSUS_WORKERS", "0")) or parallelkit.cpu_count()
WELL, NEWCOMER = "well", "newcomer"

Fn = Callable[..., Any]
Items = Sequence[Any]


def even(items: Items) -> int:
    """Return the chunk size of `Pool.map`, which several libraries advise and do not choose."""
    return max(1, -(-len(items) // (4 * WORKERS)))


def batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def run_batch(batch: list[Any], fn: Fn) -> list[Any]:
    """What Dask and Ray advise where tasks are short: many items in one task."""
    return [fn(item) for item in batch]


class Peer:
    """One library.  Its workers start when they are first needed, and end with `close`."""

    name = "serial"
    module = "parallelkit"  # without which it is left out
    fresh = False  # whether a newcomer's call starts its workers anew

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.begin()

    def begin(self) -> None:
        """Start what stays."""

    def close(self) -> None:
        self.stack.close()

    def map(self, fn: Fn, items: Items, size: int | None = None) -> list[Any]:
        """Map, used well."""
        raise NotImplementedError

    def newcomer(self, fn: Fn, items: Items) -> list[Any]:
        """Map as the first example does."""
        raise NotImplementedError

    def imap(self, fn: Fn, items: Iterable[Any], size: int | None = None) -> Iterator[Any]:
        """Map an iterator, used well, and give results one by one."""
        raise NotImplementedError

    def newcomer_imap(self, fn: Fn, items: Iterable[Any]) -> Iterator[Any]:
        """Do the same without options."""
        return self.imap(fn, items)


class Serial(Peer):
    """The loop."""

    def map(self, fn: Fn, items: Items, size: int | None = None) -> list[Any]:  # noqa: ARG002
        return [fn(item) for item in items]

    def newcomer(self, fn: Fn, items: Items) -> list[Any]:
        return [fn(item) for item in items]

    def imap(self, fn: Fn, items: Iterable[Any], size: int | None = None) -> Iterator[Any]:  # noqa: ARG002
        return map(fn, items)


class Ours(Peer):
    """The newcomer gives no option; used well, the number of workers is given.

    No sizes: to find them is the library's business.
    """

    name = "parallelkit"

    def map(self, fn: Fn, items: Items, size: int | None = None) -> list[Any]:  # noqa: ARG002
        return parallelkit.pmap(fn, items, workers=WORKERS)

    def newcomer(self, fn: Fn, items: Items) -> list[Any]:
        return parallelkit.pmap(fn, items)

    def imap(self, fn: Fn, items: Iterable[Any], size: int | None = None) -> Iterator[Any]:  # noqa: ARG002
        return parallelkit.imap(fn, items, workers=WORKERS)

    def newcomer_imap(self, fn: Fn, items: Iterable[Any]) -> Iterator[Any]:
        return parallelkit.imap(fn, items)


class StandardPool(Peer):
    name = "Pool"
    module = "multiprocessing"
    fresh = True

    def begin(self) -> None:
        self.pool = self.stack.enter_context(multiprocessing.get_context("fork").Pool(WORKERS))

    def map(self, fn: Fn, items: Items, size: int | None = None) -> list[Any]:
        return self.pool.map(fn, items, size)

    def newcomer(self, fn: Fn, items: Items) -> list[Any]:
        with multiprocessing.Pool(WORKERS) as pool:
            return pool.map(fn, items)

    def imap(self, fn: Fn, items: Iterable[Any], size: int | None = None) -> Iterator[Any]:
        return self.pool.imap(fn, items, size or 1)

    def newcomer_imap(self, fn: Fn, items: Iterable[Any]) -> Iterator[Any]:
        with multiprocessing.Pool(WORKERS) as pool:
            yield from pool.imap(fn, items)


class Futures(Peer):
    name = "futures"
    module = "concurrent.futures"
    fresh = True

    def begin(self) -> None:
        context = multiprocessing.get_context("fork")
        self.pool = self.stack.enter_context(ProcessPoolExecutor(WORKERS, context))

    def map(self, fn: Fn, items: Items, size: int | None = None) -> list[Any]:
        return list(self.pool.map(fn, items, chunksize=size or even(items)))

    def newcomer(self, fn: Fn, items: Items) -> list[Any]:
        with ProcessPoolExecutor(WORKERS) as pool:
            return list(pool.map(fn, items))

    def imap(self, fn: Fn, items: Iterable[Any], size: int | None = None) -> Iterator[Any]:
        return self.pool.map(fn, items, chunksize=size or 1)

    def newcomer_imap(self, fn: Fn, items: Iterable[Any]) -> Iterator[Any]:
        with ProcessPoolExecutor(WORKERS) as pool:
            yield from pool.map(fn, items)


class Joblib(Peer):
    name = "joblib"
    module = "joblib"

    def begin(self) -> None:
        from joblib import Parallel, delayed

        self.delayed = delayed
        self.parallel = partial(Parallel, WORKERS)
        # Its documentation has `with` where calls follow each other.
        self.kept = self.stack.enter_context(Parallel(WORKERS))

    def map(self, fn: Fn, items: Items, size: int | None = None) -> list[Any]:
        self.kept.batch_size = size or "auto"
        return self.kept(self.delayed(fn)(item) for item in items)

    def newcomer(self, fn: Fn, items: Items) -> list[Any]:
        return self.parallel()(self.delayed(fn)(item) for item in items)

    def imap(self, fn: Fn, items: Iterable[Any], size: int | None = None) -> Iterator[Any]:
        lazy = self.parallel(return_as="generator", batch_size=size or "auto")
        return lazy(self.delayed(fn)(item) for item in items)

    def newcomer_imap(self, fn: Fn, items: Iterable[Any]) -> Iterator[Any]:
        return self.parallel(return_as="generator")(self.delayed(fn)(item) for item in items)


class Loky(Peer):
    name = "loky"
    module = "loky"

    def begin(self) -> None:
        from loky import get_reusable_executor

        self.executor = get_reusable_executor
        self.stack.callback(lambda: self.executor().shutdown(kill_workers=True))

    def map(self, fn: Fn, items: Items, size: int | None = None) -> list[Any]:
        pool = self.executor(max_workers=WORKERS)
        return list(pool.map(fn, items, chunksize=size or even(items)))

    def newcomer(self, fn: Fn, items: Items) -> list[Any]:
        return list(self.executor(max_workers=WORKERS).map(fn, items))

    def imap(self, fn: Fn, items: Iterable[Any], size: int | None = None) -> Iterator[Any]:
        return self.executor(max_workers=WORKERS).map(fn, items, chunksize=size or 1)


class Mpire(Peer):
    """It unpacks tuples, lists and dicts, so that items of these kinds are given inside a tuple."""

    name = "mpire"
    module = "mpire"
    fresh = True

    def begin(self) -> None:
        from mpire import WorkerPool

        self.kind = WorkerPool
        self.pool = self.stack.enter_context(WorkerPool(WORKERS, keep_alive=True))

    @staticmethod
    def wrapped(items: Iterable[Any]) -> Iterable[Any]:
        if isinstance(items, Sequence) and isinstance(items[0], dict | tuple | list):
            return [(item,) for item in items]
        return items

    def map(self, fn: Fn, items: Items, size: int | None = None) -> list[Any]:
        given = self.wrapped(items)
        chunk = size or even(items)
        return self.pool.map(fn, given, chunk_size=chunk, concatenate_numpy_output=False)

    def newcomer(self, fn: Fn, items: Items) -> list[Any]:
        with self.kind(n_jobs=WORKERS) as pool:
            return pool.map(fn, self.wrapped(items), concatenate_numpy_output=False)

    def imap(self, fn: Fn, items: Iterable[Any], size: int | None = None) -> Iterator[Any]:
        return self.pool.imap(fn, items, chunk_size=size or 1)

    def newcomer_imap(self, fn: Fn, items: Iterable[Any]) -> Iterator[Any]:
        with self.kind(n_jobs=WORKERS) as pool:
            yield from pool.imap(fn, items)


class Pathos(Peer):
    """Its pools are kept by the library itself, by their kind and size."""

    name = "pathos"
    module = "pathos"

    def begin(self) -> None:
        from pathos.pools import ProcessPool

        self.pool = ProcessPool(WORKERS)
        self.stack.callback(self.pool.clear)

    def map(self, fn: Fn, items: Items, size: int | None = None) -> list[Any]:
        return self.pool.map(fn, items, chunksize=size or even(items))

    def newcomer(self, fn: Fn, items: Items) -> list[Any]:
        return self.pool.map(fn, items)

    def imap(self, fn: Fn, items: Iterable[Any], size: int | None = None) -> Iterator[Any]:
        return self.pool.imap(fn, items, chunksize=size or 1)


class Windowed(Peer):
    """What Dask and Ray share: batches made by hand, and a window of tasks for iterators."""

    def submit(self, batch: list[Any], fn: Any) -> Any:
        raise NotImplementedError

    def fetch(self, tasks: list[Any]) -> list[Any]:
        raise NotImplementedError

    def put(self, thing: Any) -> Any:
        """Return what stands for `thing` in tasks, sent to workers once."""
        raise NotImplementedError

    def map(self, fn: Fn, items: Items, size: int | None = None) -> list[Any]:
        # A function that captures nothing is sent once anyway.
        tasks = [self.submit(batch, fn) for batch in batches(items, size or even(items))]
        return [result for batch in self.fetch(tasks) for result in batch]

    def imap(self, fn: Fn, items: Iterable[Any], size: int | None = None) -> Iterator[Any]:
        window: list[Any] = []
        for batch in batches(items, size or 1):
            window.append(self.submit(batch, fn))
            if len(window) >= 4 * WORKERS:
                yield from self.fetch([window.pop(0)])[0]
        for batch in self.fetch(window):
            yield from batch


class Dask(Windowed):
    name = "Dask"
    module = "distributed"

    def begin(self) -> None:
        from distributed import Client, LocalCluster

        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        warnings.simplefilter("ignore")
        cluster = LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None
        )
        self.cluster = self.stack.enter_context(cluster)
        self.client = self.stack.enter_context(Client(cluster))

    def submit(self, batch: list[Any], fn: Any) -> Any:
        return self.client.submit(run_batch, batch, fn, pure=False)

    def fetch(self, tasks: list[Any]) -> list[Any]:
        return self.client.gather(tasks)

    def put(self, thing: Any) -> Any:
        return self.client.scatter(thing, broadcast=True, hash=False)

    def newcomer(self, fn: Fn, items: Items) -> list[Any]:
        # pure=False, or a second call would find the results of the first.
        return self.client.gather(self.client.map(fn, items, pure=False))


class Ray(Windowed):
    name = "Ray"
    module = "ray"

    def begin(self) -> None:
        os.environ["RAY_DEDUP_LOGS"] = "0"
        import ray

        self.ray = ray
        ray.init(
            "local",  # not another's cluster that is up on this machine
            num_cpus=WORKERS,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=3 * 10**9,
        )
        self.stack.callback(ray.shutdown)
        self.task = ray.remote(run_batch)
        self.remotes: dict[Any, Any] = {}

    def submit(self, batch: list[Any], fn: Any) -> Any:
        return self.task.remote(batch, fn)

    def fetch(self, tasks: list[Any]) -> list[Any]:
        return self.ray.get(tasks)

    def put(self, thing: Any) -> Any:
        return self.ray.put(thing)

    def remote(self, fn: Fn) -> Any:
        """Return the function as its decorator would make it, once."""
        if fn not in self.remotes:
            self.remotes[fn] = self.ray.remote(fn)
        return self.remotes[fn]

    def newcomer(self, fn: Fn, items: Items) -> list[Any]:
        remote = self.remote(fn)
        return self.ray.get([remote.remote(item) for item in items])


KINDS: dict[str, type[Peer]] = {
    kind.name: kind
    for kind in (
        Serial, Ours, StandardPool, Futures, Joblib, Loky, Mpire, Pathos, Dask, Ray,
    )
}  # fmt: skip


def installed(name: str) -> bool:
    return find_spec(KINDS[name].module) is not None
