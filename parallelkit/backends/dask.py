"""Dask as the place where a run's chunks are run: a client of a cluster, or an address of one.

A chunk is one task with opaque bytes in it, so that Dask has no graph to walk; what all chunks need
is scattered to all workers once.  Dask itself runs a task again whose worker died, up to
`distributed.scheduler.allowed-failures` times.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import uuid
from collections.abc import Callable
from concurrent import futures
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

import distributed

from .. import remote
from ..errors import NoWorkers, shortened
from ..machine import cpu_count
from . import greeting
from .slots import Verdict

JOURNEY = 1.5e-3  # seconds of scheduler and client that a task costs (measured on 2 cores)

BULKY = 1 << 22  # bytes of a chunk from which it goes straight to a worker, past the scheduler

_distributed: Any = distributed  # it has annotations, but not everywhere

_greeted: WeakKeyDictionary[Any, dict[Any, tuple[str, ...]]] = WeakKeyDictionary()


class DaskFuture:
    """A task, and a future of this process that has its result when that is here.

    That future has this one as what to call, and is let go of with its result, or the result would
    stay until a collection finds that circle.
    """

    def __init__(self, client: Any, task: Any, bulk: Any) -> None:
        self.task = task
        self.bulk = bulk  # a chunk that was scattered, which Dask keeps as long as we do
        landing = client.gather(task, asynchronous=True)
        loop = client.loop.asyncio_loop
        self.landed: Any = asyncio.run_coroutine_threadsafe(_awaited(landing), loop)

    def add_done_callback(self, fn: Callable[[Any], Any]) -> None:
        """Have `fn` called with this future when the result is here."""
        self.landed.add_done_callback(lambda _: fn(self))

    def result(self) -> Any:
        """Return the result, once, and have Dask forget it."""
        landed, self.landed = self.landed, None
        try:
            return landed.result()
        finally:
            self.release()

    def cancel(self) -> None:
        """Have Dask drop the task, unless it runs: then its result is dropped."""
        self.release()  # which wakes up who waits for it

    def release(self) -> None:
        """Have Dask forget the task, without waiting for that."""
        _release([self.task] if self.bulk is None else [self.task, self.bulk])


def _release(handles: list[Any]) -> None:
    """Have Dask forget what these stand for, if there still is a connection."""
    for handle in handles:
        with suppress(Exception):  # it went with the client
            handle.release()


async def _awaited(landing: Any) -> Any:
    return await landing


class DaskVenue:
    """A client of a cluster."""

    name = "Dask"
    journey = JOURNEY
    inside = False
    ends = False

    def __init__(self, client: Any) -> None:
        if client.asynchronous:
            raise ValueError(
                "backend must be a client of Dask that is not asynchronous: "
                "make it without asynchronous=True"
            )
        self.client = client
        self.threads = 0  # as the call began
        if client.status == "running":
            with self._told():
                self.threads = sum(client.nthreads().values())
        self._check()

    def _told(self) -> _Told:
        return _Told(self)

    def _check(self) -> None:
        if self.client.status not in ("running", "connecting"):
            raise NoWorkers(self._gone())

    def _gone(self) -> str:
        address = getattr(self.client.scheduler, "address", "its address")
        return (
            f"the client of Dask given as backend is {self.client.status}, or its scheduler at "
            f"{address} ended: connect anew, with a scheduler that runs"
        )

    def capacity(self) -> int:
        """Return how many threads the workers have, as the scheduler last told."""
        self._check()
        told = getattr(self.client, "_scheduler_identity", None) or {}
        count = told.get("total_threads")
        if count is None:  # older versions tell of each worker
            count = sum(each.get("nthreads", 1) for each in told.get("workers", {}).values())
        return max(1, self.threads, int(count), _adaptive(self.client))

    def greet(self) -> tuple[str, ...]:
        """See that the workers have what they need; waits for the first, if there is none yet."""
        modules = greeting.homemade()
        with self._told():
            workers = frozenset(self.client.nthreads())
            known = _greeted.setdefault(self.client, {})
            if (workers, modules) not in known:
                reports = self._reports(greeting.inquiry(modules))
                known[workers, modules] = greeting.accept(reports, "workers of Dask's")
            return known[workers, modules]

    def _reports(self, inquire: Callable[[], tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        reports = list(self.client.run(inquire).values())
        if not reports:
            task = self.client.submit(inquire, pure=False, key=f"parallelkit-{uuid.uuid4().hex}")
            try:
                reports = [task.result()]
            finally:
                task.release()
        return reports

    def put(self, blob: bytes) -> Any:
        """Scatter what all workers need."""
        with suppress(Exception):  # then it goes with the chunks of workers that ask for it
            return self._scatter(blob, broadcast=True)
        return None

    def _scatter(self, blob: bytes, broadcast: bool = False) -> Any:
        import numpy as np

        # As an array it is copied less often, and as a list it is no list of Dask's.
        return self.client.scatter([np.frombuffer(blob, "u1")], broadcast=broadcast, hash=False)[0]

    def drop(self, run: str, handles: list[Any]) -> None:
        """Release what was scattered, and have workers forget a run that was large."""
        _release(handles)
        if handles and self.client.status == "running":
            with suppress(Exception):
                self.client.run(remote.forget, run, on_error="ignore")

    def submit(self, fn: Callable[..., Any], *args: Any) -> DaskFuture:
        """Have a worker call `fn(*args)`."""
        header, body, *further = args
        bulk = None
        if len(body) >= BULKY:
            body = bulk = self._scatter(body)
        key = f"parallelkit-{uuid.uuid4().hex}"
        # Not pure: Dask would take two calls with equal arguments for one.
        task = self.client.submit(fn, header, body, *further, key=key, pure=False, retries=0)
        return DaskFuture(self.client, task, bulk)

    def reserve(self) -> None:
        """Dask has no places that are kept for one."""

    def judge(self, error: BaseException) -> Verdict:
        """Say what an error means that `submit` or a future raised."""
        if isinstance(error, distributed.scheduler.KilledWorker):
            return Verdict("fell", _told_killed(error))
        if self.client.status not in ("running", "connecting"):
            return Verdict("over", self._gone())
        lost = (futures.CancelledError, asyncio.CancelledError, OSError)
        if isinstance(error, lost):  # the only worker that had it died, or the connection broke
            return Verdict("strayed", "of Dask's, or the scheduler, was lost again and again")
        what = f"Dask cannot run a chunk: {type(error).__name__}: {shortened(str(error), 300)}"
        return Verdict("over", what)

    def kill(self, future: DaskFuture) -> None:
        """Drop what has not begun."""
        future.cancel()

    def close(self) -> None:
        """The client stays: it is the user's, or serves the next call."""


class _Told:
    """A block in which what goes wrong with the connection is raised as `NoWorkers`."""

    def __init__(self, venue: DaskVenue) -> None:
        self.venue = venue

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, NoWorkers) or not isinstance(error, Exception):
            return
        raise NoWorkers(self.venue.judge(error).words) from error


def _told_killed(error: Any) -> str:
    address = getattr(error.last_worker, "address", error.last_worker)
    count = int(error.allowed_failures) + 1
    return f"of Dask's died ({count} in all, the last at {address})"


def _adaptive(client: Any) -> int:
    """Return how many workers a cluster that grows on demand may have, as far as is known here."""
    adaptive = getattr(client.cluster, "_adaptive", None)
    most = getattr(adaptive, "maximum", 0)
    return int(most) if most and most != float("inf") else 0


# Connections by address, and the cluster of this machine.


class _Connections:
    """What was opened here, to be used again and closed at the end."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.clients: dict[str, Any] = {}
        self.clusters: dict[str, Any] = {}

    def client(self, given: str) -> Any:
        with self.lock:
            client = self.clients.get(given)
            if client is None or client.status not in ("running", "connecting"):
                self.close(given)
                client = self.clients[given] = self._opened(given)
            return client

    def _opened(self, given: str) -> Any:
        if given != "dask":
            return _connected(given.replace("dask://", "tcp://"))
        cluster = self.clusters[given] = _cluster()
        return _distributed.Client(cluster, set_as_default=False)

    def close(self, given: str) -> None:
        """Close the connection to an address, and the cluster if that was started here."""
        with self.lock:
            for opened in (self.clients.pop(given, None), self.clusters.pop(given, None)):
                if opened is not None:
                    with suppress(Exception):
                        opened.close()

    def close_all(self) -> None:
        for given in tuple(self.clients):
            self.close(given)


_connections = _Connections()
atexit.register(_connections.close_all)


def _forget() -> None:
    """In a forked copy of the process: they are the original's."""
    _connections.lock = threading.RLock()
    _connections.clients, _connections.clusters = {}, {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _connected(address: str) -> Any:
    try:
        return _distributed.Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise NoWorkers(
            f"no scheduler of Dask answers at {address}: start one with `dask scheduler`, "
            "or correct the address"
        ) from error


def _cluster() -> Any:
    """Start a scheduler and a worker for each CPU on this machine, reachable from it alone."""
    options: dict[str, Any] = {
        "host": "127.0.0.1",
        "n_workers": cpu_count(),
        "threads_per_worker": 1,
    }
    if os.name == "nt":
        return _distributed.LocalCluster(dashboard_address=None, **options)
    # In processes of their own: those of a LocalCluster would import the user's script again.
    from distributed.deploy.subprocess import SubprocessCluster

    return SubprocessCluster(
        dashboard_address="127.0.0.1:0", worker_kwargs={"dashboard": False}, **options
    )


def venue(given: Any, _: int | None) -> DaskVenue:
    """Return a client, that of an executor, that at an address, or for "dask" the one there is.

    Where there is none for "dask", a cluster of this machine is started.
    """
    if isinstance(given, str):
        if given == "dask":
            with suppress(ValueError):
                return DaskVenue(_distributed.default_client())
        return DaskVenue(_connections.client(given))
    client = getattr(given, "_client", given)  # an executor's
    if not isinstance(client, distributed.Client):
        raise TypeError(f"backend must be a client of Dask, got {shortened(given)}")
    return DaskVenue(client)


def leave(given: str) -> None:
    """Close what was opened for a name or address."""
    _connections.close(given)
