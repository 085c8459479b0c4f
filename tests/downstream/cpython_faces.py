"""CPython's own tests of pools and executors, turned on ours; names those that fail.

    python tests/downstream/cpython_faces.py

The interpreter must have its `test` package; those of executors are used as they are since 3.12.
"""

from __future__ import annotations

import importlib
import io
import multiprocessing
import multiprocessing.pool
import sys
import unittest
from concurrent import futures
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import test._test_multiprocessing as of_multiprocessing
from test import support

import parallelkit

ROOMS = ("as_completed", "wait", "shutdown", "init", "process_pool", "deadlock")


class ProcessPoolExecutor(parallelkit.Executor):
    """Ours, under the name that the tests look for, and with the one private name they poll."""

    @property
    def _broken(self):
        return self._desk.broken


class Face:
    """What CPython's mixins take from `multiprocessing`."""

    TYPE = "processes"
    Pool = staticmethod(parallelkit.Pool)
    Process = multiprocessing.Process
    TimeoutError = multiprocessing.TimeoutError


class PoolTest(of_multiprocessing._TestPool, Face, unittest.TestCase):
    """The methods."""


class LifetimeTest(of_multiprocessing._TestPoolWorkerLifetime, Face, unittest.TestCase):
    """Workers that are replaced."""


class ErrorsTest(of_multiprocessing._TestPoolWorkerErrors, Face, unittest.TestCase):
    """What cannot be pickled."""


def of_executors() -> list[type]:
    """Return the tests of executors, if they are here."""
    try:
        of_futures = importlib.import_module("test.test_concurrent_futures.util")
    except ImportError:
        return []
    futures.ProcessPoolExecutor = ProcessPoolExecutor
    of_futures.ProcessPoolSpawnMixin.executor_type = ProcessPoolExecutor
    kinds: list[type] = []
    for room in ROOMS:
        module = importlib.import_module(f"test.test_concurrent_futures.test_{room}")
        # One of the three start methods: ours is the same under each.
        kinds += [
            each
            for name, each in vars(module).items()
            if name.startswith("ProcessPoolSpawn") and name.endswith("Test")
        ]
    return kinds


def tell(suite: unittest.TestSuite) -> None:
    """Run tests, and print how many ran and the names of those that failed.

    As CPython's own runner does, those that failed run once more by themselves: some are about a
    tenth of a second, which a busy machine may not have.
    """
    support.use_resources, support.verbose = ["walltime"], 0
    runner = unittest.TextTestRunner(io.StringIO())
    result = runner.run(suite)
    again = [type(case)(case._testMethodName) for case, _ in [*result.errors, *result.failures]]
    second = runner.run(unittest.TestSuite(again))
    failed = [case.id() for case, _ in [*second.errors, *second.failures]]
    print(result.testsRun, *sorted({".".join(name.split(".")[-2:]) for name in failed}))


def main() -> None:
    """Do so with all tests of both faces."""
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    kinds = [PoolTest, LifetimeTest, ErrorsTest, *of_executors()]
    tell(unittest.TestSuite(load(each) for each in kinds))


if __name__ == "__main__":
    # Not from here: what is in `__main__` goes to workers by value, with all it knows.
    importlib.import_module("cpython_faces").main()
