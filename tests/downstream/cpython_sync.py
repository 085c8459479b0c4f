"""CPython's own tests of locks, queues and the like, turned on ours; names those that fail.

    python tests/downstream/cpython_sync.py START

START is how the children are started that share them: fork, spawn or forkserver; or threads, for
threads of one process, with which the tests of `threading` and `queue` run as well.
The interpreter must have its `test` package.
"""

from __future__ import annotations

import importlib
import multiprocessing
import queue
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cpython_faces
import test._test_multiprocessing as of_multiprocessing
from test import lock_tests as of_threading
from test import test_queue

import parallelkit

OURS = {
    name: getattr(parallelkit, name)
    for name in (
        *("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier"),
        *("Queue", "Value"),
    )
}
ENDLESS = {"test_multirelease", "test_shutdown"}
"""Beginnings of the names of tests that wait for ever: of `release(n)` and `shutdown`, which only
the namesakes in `threading` and `queue` have."""

SHARED = ("Lock", "Semaphore", "Condition", "Event", "Barrier", "Queue", "Value", "SimpleQueue")

# Some tests, and all that they start, ask the package itself.
for name, face in OURS.items():
    setattr(multiprocessing, name, face)
multiprocessing.JoinableQueue = multiprocessing.SimpleQueue = parallelkit.Queue


class Processes(of_multiprocessing.ProcessesMixin):
    """What CPython's tests take from `multiprocessing`, with what we have in place of theirs."""

    locals().update({name: staticmethod(face) for name, face in OURS.items()})
    JoinableQueue = staticmethod(parallelkit.Queue)


class Threads(of_multiprocessing.ThreadsMixin):
    """The same for threads."""

    locals().update({name: staticmethod(face) for name, face in OURS.items()})
    JoinableQueue = staticmethod(parallelkit.Queue)


def made(mixin: type) -> list[type]:
    """Return the tests of `multiprocessing` with what `mixin` has, each a class of this module."""
    kinds = []
    for subject in SHARED:
        tests = vars(of_multiprocessing).get(f"_Test{subject}")
        if tests is None or mixin.TYPE not in tests.ALLOWED_TYPES:
            continue
        name = f"{mixin.__name__}{subject}Test"
        kind = type(name, (mixin, tests, unittest.TestCase), {"__module__": "cpython_sync"})
        globals()[name] = kind  # by this name a child finds it
        kinds.append(kind)
    return kinds


of_multiprocessing._TestCondition.check_invariant = lambda *_: None  # looks at private attributes
of_processes, of_threads = made(Processes), made(Threads)


class SimpleQueueTest(of_multiprocessing.TestSimpleQueue):
    """The queue that does less."""


class LockTest(of_threading.LockTests):
    """Locks of threads."""

    locktype = staticmethod(parallelkit.Lock)


class RLockTest(of_threading.RLockTests):
    """Locks that the same thread may take again."""

    locktype = staticmethod(parallelkit.RLock)


class EventTest(of_threading.EventTests):
    """Events."""

    eventtype = staticmethod(parallelkit.Event)


class ConditionTest(of_threading.ConditionTests):
    """Conditions."""

    condtype = staticmethod(parallelkit.Condition)


class ConditionAsRLockTest(of_threading.RLockTests):
    """Conditions used as locks."""

    locktype = staticmethod(parallelkit.Condition)


class SemaphoreTest(of_threading.SemaphoreTests):
    """Semaphores."""

    semtype = staticmethod(parallelkit.Semaphore)


class BoundedSemaphoreTest(of_threading.BoundedSemaphoreTests):
    """Semaphores with a limit."""

    semtype = staticmethod(parallelkit.BoundedSemaphore)


class BarrierTest(of_threading.BarrierTests):
    """Barriers."""

    barriertype = staticmethod(parallelkit.Barrier)


class QueueTest(test_queue.BaseQueueTestMixin, unittest.TestCase):
    """Queues of threads, which have no others."""

    type2test = parallelkit.Queue

    def setUp(self) -> None:
        """As theirs, whose queues come from a module."""
        super().setUp()
        self.queue = queue


class SimpleQueueOfThreadsTest(test_queue.BaseSimpleQueueTest, unittest.TestCase):
    """Queues of threads that do less."""

    type2test = parallelkit.Queue
    queue = queue

    def setUp(self) -> None:
        """As theirs."""
        super().setUp()
        self.q = self.type2test()


OF_THREADING = [
    *(LockTest, RLockTest, EventTest, ConditionTest, ConditionAsRLockTest, SemaphoreTest),
    *(BoundedSemaphoreTest, BarrierTest, QueueTest, SimpleQueueOfThreadsTest),
]


def tests(kind: type) -> unittest.TestSuite:
    """Return the tests of a class, but for those that would wait for ever."""
    names = unittest.defaultTestLoader.getTestCaseNames(kind)
    return unittest.TestSuite(kind(name) for name in names if not name.startswith(tuple(ENDLESS)))


def main(start: str) -> None:
    """Run them, and print how many ran and the names of those that failed."""
    kinds = of_threads + OF_THREADING
    if start != "threads":
        multiprocessing.set_start_method(start, force=True)
        kinds = [*of_processes, SimpleQueueTest]
    cpython_faces.tell(unittest.TestSuite(tests(each) for each in kinds))


if __name__ == "__main__":
    # Not from here: a child imports it by this name.
    importlib.import_module("cpython_sync").main(sys.argv[1])
