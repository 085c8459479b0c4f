"""What another engine's worker runs for us: one chunk of some run, in a process that is not ours.

Chunks come in any order, of several runs, in several threads at once.  Each names its run, of which
the process keeps what it has learned.  Nothing tells when a run is over, so the oldest runs are
forgotten.  The surroundings are the engine's and are left as they are.
"""

from __future__ import annotations

import pickle
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

from .codec import Replica
from .failures import pack_error
from .guests import lodged
from .job import Job, Settings
from .leases import Berth
from .stints import Stint, seeded
from .worker import flush_output

DONE, DOUBTFUL, NEEDY, BROKEN = range(4)
"""Kinds of answers: outcomes; the items must come one by one; a definition lacks; none will do."""

_RUNS = 4  # that are kept besides those at work: they may hold much, and none says good-bye

Answer = tuple[int, int, int, float, bytes]
"""Its kind, the position before which it ends, failures, seconds, and a body as `worker` sends."""


class Order(NamedTuple):
    """What goes with a chunk: of which run it is, and how it is to be run.

    `blobs` are the definition stream, in order.  For each there is itself, the index of the further
    argument that it is, or None where it is believed to be here.
    """

    run: str
    start: int
    length: int
    seed: int | None
    urgent: bool
    blobs: tuple[bytes | int | None, ...]


class _Shared(Replica):
    """A replica that several threads use."""

    def __init__(self) -> None:
        super().__init__(None, Berth())
        self.lock = threading.RLock()  # pickling runs the user's code

    def dumps(self, obj: object) -> bytes:
        """Return `obj` as a frame."""
        with self.lock:
            return super().dumps(obj)

    def dumps_values(self, values: list[Any]) -> tuple[bytes, dict[int, bytes]]:
        """Return `values` as a frame, and the errors of those that cannot be in it."""
        with self.lock:
            return super().dumps_values(values)


class Lodger(Job):
    """One run, as a process of another engine sees it."""

    def __init__(self) -> None:
        super().__init__(Settings(), None, Berth())  # how it is to be run, each order says
        self.replica: _Shared = _Shared()
        self.gaps: frozenset[int] = frozenset()
        self.learned = 0
        self.users = 0  # threads that are at work on it

    def learn(self, blob: bytes | bytearray | memoryview) -> None:
        """Take in a definition; the first is the function, with what goes with it."""
        self.adopt(self.replica.learn(blob))

    def catch_up(self, blobs: tuple[bytes | int | None, ...], further: tuple[Any, ...]) -> bool:
        """Take in all definitions that are not known yet; return whether they were there."""
        with self.replica.lock:
            for blob in blobs[self.learned :]:
                if blob is None:
                    return False
                self.learn(blob if isinstance(blob, bytes) else memoryview(further[blob]))
                self.learned += 1
        return True

    def calls(self, columns: tuple[Any, ...], start: int) -> Iterator[Any]:
        """Return the arguments of each call.  Gaps are kept: other threads have theirs."""
        with self.replica.lock:
            before = self.gaps
            items = super().calls(columns, start)
            self.gaps |= before
            return items


_lock = threading.Lock()
_runs: OrderedDict[str, Lodger] = OrderedDict()


def serve(header: bytes, body: Any, *further: Any) -> Answer:
    """Run one chunk, and return its outcomes; this raises nothing.

    Args:
        header: An `Order`, pickled as a tuple.
        body: The chunk's columns, as a frame.
        *further: Those definitions that travel by ways of the engine's own.
    """
    order = Order(*pickle.loads(header))
    lodger = _enter(order)
    marked = lodged.set(True)
    try:
        return _served(lodger, order, body, further)
    finally:
        lodged.reset(marked)
        with _lock:
            lodger.users -= 1
        flush_output()


def forget(run: str) -> None:
    """Keep nothing of a run."""
    with _lock:
        _runs.pop(run, None)


def _enter(order: Order) -> Lodger:
    with _lock:
        lodger = _runs.get(order.run)
        if lodger is None:
            lodger = _runs[order.run] = Lodger()
        _runs.move_to_end(order.run)
        lodger.users += 1
        for run in [run for run, each in _runs.items() if not each.users][:-_RUNS]:
            del _runs[run]
    return lodger


def _served(lodger: Lodger, order: Order, body: Any, further: tuple[Any, ...]) -> Answer:
    start, count = order.start, order.length
    stop = start + count
    if lodger.broken is not None:
        return BROKEN, stop, count, 0.0, lodger.broken
    try:
        if not lodger.catch_up(order.blobs, further):
            return NEEDY, start, 0, 0.0, b""
    except BaseException as error:  # importing the user's modules can raise anything
        lodger.broken = pack_error(error, lodger.replica)
        return BROKEN, stop, count, 0.0, lodger.broken
    try:
        columns = lodger.replica.loads(body)
    except BaseException as error:  # an item's own __setstate__ can raise anything
        if count > 1:
            return DOUBTFUL, stop, 0, 0.0, b""
        failed = lodger.pack_failed(1, pack_error(error, lodger.replica), unsent=(0,))
        return DONE, stop, 1, 0.0, failed
    return _worked(lodger, order, columns)


def _worked(lodger: Lodger, order: Order, columns: tuple[Any, ...]) -> Answer:
    start = order.start
    calls, surroundings = seeded(lodger.calls(columns, start), order.seed, start)
    stint = Stint()
    with surroundings:
        stint.run(lodger.fn, calls, order.length, len(columns) == 1, order.urgent)
    values = stint.values
    failures = {at: pack_error(error, lodger.replica) for at, error in stint.failures.items()}
    try:
        packed, failed = lodger.pack(start, values, failures)
    except BaseException as error:  # the reduction's operation raised
        failed = len(values)
        packed = lodger.pack_failed(failed, pack_error(error, lodger.replica))
    return DONE, start + len(values), failed, stint.seconds, packed
