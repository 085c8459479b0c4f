"""Ray as the place where a run's chunks are run: the session of this process, or a cluster.

A chunk is one task, which asks for one CPU and is never retried by Ray, so that retries mean here
what they mean everywhere.  What all chunks need is put into Ray's object store once.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic
from typing import Any

import ray

from ..errors import NoWorkers
from ..machine import cpu_count
from . import greeting
from .slots import Verdict

JOURNEY = 1e-3  # seconds of all processes together that a task costs (benchmarks.engines)

REACHED = 5.0
"""Seconds in which a cluster's address must accept a connection.  Ray itself would go on trying for
minutes, and tell of each try."""

PATIENCE = 30.0
"""Seconds that a cluster's head may be away, as when it is started anew.  After 60, Ray would end
this whole process."""

_ray: Any = ray  # parts of it have annotations

_DEAD = ("WorkerCrashedError", "RayActorError")
_LOST = ("ObjectLostError", "NodeDiedError", "TaskCancelledError", "ActorUnavailableError")
"""Errors that say nothing of the task itself, by name, since older versions lack some.  An actor
that cannot be reached is on a host that was cut off, or too busy to have told of its end yet."""


class RayFuture:
    """A task's result, as a future that Ray completes in a thread of its own.

    `end` ends the task, whose reference it is given; `leave` is called when it has returned.

    Ray's future keeps the reference, and so the result in the object store, and has this one as
    what to call: it is let go of with the reference, or the store would keep the result until a
    collection finds that circle.
    """

    def __init__(
        self, ref: Any, end: Callable[[Any], object], leave: Callable[[], object] = bool
    ) -> None:
        self.ref = ref
        self.landed: Any = ref.future()
        self.end = end
        self.leave = leave

    def add_done_callback(self, fn: Callable[[Any], Any]) -> None:
        """Have `fn` called with this future when the result is here."""
        self.landed.add_done_callback(lambda _: fn(self))

    def result(self) -> Any:
        """Return the result, once; the object store need not keep it any longer."""
        landed, self.ref, self.landed = self.landed, None, None
        result = landed.result()
        self.leave()
        return result

    def cancel(self) -> None:
        """End the task, whether it runs or not."""
        ref, self.ref, self.landed = self.ref, None, None
        if ref is not None and _ray.is_initialized():
            with suppress(Exception):  # of another session, or ended already
                self.end(ref)


class Seat:
    """What an actor does for a run: it calls what it is given, in a process of its own."""

    def call(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Return `fn(*args)`."""
        return fn(*args)


class RayVenue:
    """The session that this process has with Ray."""

    name = "Ray"
    journey = JOURNEY
    inside = False
    ends = True

    def __init__(self) -> None:
        self.task: Any = None
        self.session = _session()
        self.heard = monotonic()  # when the head last answered
        self.count = 1  # CPUs
        self.actors: list[Any] = []  # for this run alone
        self.idle: list[Any] = []  # those of them that run nothing

    def _check(self) -> None:
        if self.session is None or _session() != self.session:
            raise NoWorkers(_GONE)

    def capacity(self) -> int:
        """Return how many CPUs the cluster has, of which each task takes one."""
        self._check()
        now = monotonic()
        if _answers(self.session):
            try:
                self.count = max(1, int(_ray.cluster_resources().get("CPU", 1)))
            except Exception as error:  # the connection's, for which Ray has many
                raise NoWorkers(_GONE) from error
            self.heard = now
        elif now - self.heard > PATIENCE:
            raise NoWorkers(
                f"the head of the cluster of Ray has not answered for {PATIENCE:g} seconds: call "
                "ray.shutdown(), or Ray will end this process, and connect anew"
            )
        return self.count

    def greet(self) -> tuple[str, ...]:
        """See that every node has what workers need."""
        self._check()
        modules = greeting.homemade()
        with self._told():
            nodes = frozenset(node["NodeID"] for node in _ray.nodes() if node["Alive"])
            known = _sessions.greeted
            if (self.session, nodes, modules) not in known:
                reports = self._reports(nodes, greeting.inquiry(modules))
                known[self.session, nodes, modules] = greeting.accept(reports, "workers of Ray's")
            return known[self.session, nodes, modules]

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise what goes wrong in the block as `NoWorkers`."""
        try:
            yield
        except NoWorkers:
            raise
        except Exception as error:
            raise NoWorkers(self.judge(error).words) from error

    def _reports(
        self, nodes: Iterable[str], inquire: Callable[[], tuple[Any, ...]]
    ) -> list[tuple[Any, ...]]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # No CPU, or the question would wait for tasks of others to end.
        ask = _ray.remote(max_retries=0, num_cpus=0)(inquire)
        places = [NodeAffinitySchedulingStrategy(node, soft=True) for node in nodes]
        asked = [ask.options(scheduling_strategy=place).remote() for place in places]
        reports: list[tuple[Any, ...]] = _ray.get(asked)
        return reports

    def put(self, blob: bytes) -> Any:
        """Put what many tasks need into the object store, from where it is read in place."""
        import numpy as np

        _require()
        with suppress(Exception):  # a full store: then it goes with the chunks of who asks for it
            return _ray.put(np.frombuffer(blob, "u1"))
        return None

    def drop(self, _: str, handles: list[Any]) -> None:
        """Let the store forget what was put there."""
        handles.clear()

    def submit(self, fn: Callable[..., Any], *args: Any) -> RayFuture:
        """Have a worker call `fn(*args)`."""
        _require()
        if self.actors:
            return self._call(self.idle.pop(), fn, *args)
        if self.task is None:
            self.task = _ray.remote(max_retries=0, num_cpus=1)(fn)
        return RayFuture(self.task.remote(*args), partial(_ray.cancel, force=True))

    def reserve(self) -> RayFuture:
        """Have an actor for this run.

        A task would wait for a process to start, or for those of others to end, and that would
        count as an item's time.
        """
        seat = _ray.remote(num_cpus=1, max_restarts=0)(Seat).remote()
        self.actors.append(seat)
        return self._call(seat, int)

    def _call(self, seat: Any, fn: Callable[..., Any], *args: Any) -> RayFuture:
        ref = seat.call.remote(fn, *args)
        return RayFuture(ref, lambda _: _ray.kill(seat), partial(self.idle.append, seat))

    def judge(self, error: BaseException) -> Verdict:
        """Say what an error means that `submit` or a future raised."""
        if _session() != self.session:
            return Verdict("over", _GONE)
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if "OutOfMemoryError" in kinds:  # Ray ends the newest task of a node, whoever is large
            return Verdict("fell", "of Ray's was ended by Ray, as its node was out of memory,")
        deserted = "RayActorError" in kinds and "node has died" in str(error)
        if kinds.intersection(_LOST) or deserted:
            return Verdict("strayed", "of Ray's, or its node, was lost again and again")
        if kinds.intersection(_DEAD):
            return Verdict("died", "of Ray's died")
        return Verdict("over", f"Ray cannot run a chunk: {_reason(error)}")

    def kill(self, future: RayFuture) -> None:
        """End the worker that runs a task."""
        future.cancel()

    def close(self) -> None:
        """End this run's actors.  The session stays: it is the user's, or serves the next call."""
        for actor in self.actors if _session() == self.session else ():
            with suppress(Exception):  # a session that has ended has ended its actors
                _ray.kill(actor)
        self.actors.clear()
        self.idle.clear()


_GONE = "the session with Ray has ended, or its cluster has: connect anew with ray.init()"


def _require() -> None:
    """Raise unless there is a session: whatever is asked of Ray without one would begin one."""
    if not _ray.is_initialized():
        raise NoWorkers(_GONE)


def _session() -> tuple[str, str] | None:
    """Return what tells a session from others, None if there is none."""
    if not _ray.is_initialized():
        return None
    context = _ray.get_runtime_context()
    return context.gcs_address, context.get_job_id()


def _answers(session: tuple[str, str] | None) -> bool:
    """Return whether the head of a session's cluster can be reached.

    Ray would wait for it when asked, and end this process if that is in vain.
    """
    if session is None:
        return False
    if _ray.util.client.ray.is_connected():  # by way of a proxy, which tells itself
        return True
    with suppress(OSError):
        _reach(session[0])
        return True
    return False


class _Sessions:
    """Which session was begun here and for what, and what workers of it lack."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.begun: tuple[Any, str] | None = None
        self.greeted: dict[Any, tuple[str, ...]] = {}

    def ensure(self, given: str) -> None:
        """Have a session: the one there is, or one for a name or address."""
        with self.lock:
            if not _ray.is_initialized():
                self.greeted.clear()
                _connect(given)
                self.begun = (_session(), given)
            elif given != "ray" and self.begun != (_session(), given):
                context = _ray.get_runtime_context()
                raise ValueError(
                    f"backend={given!r} cannot be had beside the session with "
                    f'{context.gcs_address} that this process has: use backend="ray" for that '
                    "one, or end it with ray.shutdown()"
                )

    def leave(self, given: str) -> None:
        """End the session, if it was begun here for `given`."""
        with self.lock:
            if self.begun is not None and self.begun[1] == given:
                if self.begun[0] == _session():
                    _ray.shutdown()
                self.begun = None


_sessions = _Sessions()


def _connect(given: str) -> None:
    """Connect to a cluster, or start one of this machine that ends with this process."""
    address = os.environ.get("RAY_ADDRESS") or "local" if given == "ray" else given
    options: dict[str, Any] = {}
    if address == "local":
        options = {"num_cpus": cpu_count(), "include_dashboard": False}
    with _unreported():
        try:
            if address not in ("local", "auto"):
                _reach(address)
            try:
                _ray.init(address, logging_level="ERROR", **options)
            except ConnectionAbortedError:
                # A proxy forks a server for each client, in the midst of threads of its own, and
                # once in a while that one dies at its start: the next one lives.  Whatever else
                # may be meant by this error is told the second time.
                _ray.init(address, logging_level="ERROR", **options)
        except (OSError, RuntimeError, ValueError, ImportError) as error:
            raise NoWorkers(f"{_unreached(address)}: {_reason(error)}") from error


def _reach(address: str) -> None:
    host, _, port = address.rpartition("://")[2].rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), REACHED).close()


def _unreached(address: str) -> str:
    if address == "local":
        return "Ray cannot be started on this machine"
    return (
        f"no cluster of Ray can be reached at {address} (start one with `ray start --head`, "
        "or correct the address)"
    )


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    # What it says last is what happened; before that may come a traceback.
    return f"{type(error).__name__}: {str(error).strip().rpartition(chr(10))[2][:300]}"


@contextmanager
def _unreported() -> Iterator[None]:
    """Have a Ray that is started in the block tell nobody of it, unless the user wants that."""
    name = "RAY_USAGE_STATS_ENABLED"
    told = name in os.environ
    os.environ.setdefault(name, "0")
    try:
        yield
    finally:
        if not told:
            del os.environ[name]


def venue(given: Any, _: int | None) -> RayVenue:
    """Return the session there is, or one with the cluster at an address.

    Where there is none for "ray", and `RAY_ADDRESS` names none, Ray is started on this machine.
    """
    if isinstance(given, str):
        _sessions.ensure(given)
    return RayVenue()


def leave(given: str) -> None:
    """End the session that was begun for a name or address."""
    _sessions.leave(given)
