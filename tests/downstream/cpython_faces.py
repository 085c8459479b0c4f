"""CPython's own tests, turned on our faces at run time; as a script, names those that fail.

    python tests/downstream/cpython_faces.py

The interpreter must have its `test` package, of 3.12 or newer.
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
import test.test_concurrent_futures.util as of_futures
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


def suite() -> unittest.TestSuite:
    """Return all tests of both faces."""
    futures.ProcessPoolExecutor = ProcessPoolExecutor
    of_futures.ProcessPoolSpawnMixin.executor_type = ProcessPoolExecutor
    kinds = [PoolTest, LifetimeTest, ErrorsTest]
    for room in ROOMS:
        module = importlib.import_module(f"test.test_concurrent_futures.test_{room}")
        # One of the three start methods: ours is the same under each.
        kinds += [
            each
            for name, each in vars(module).items()
            if name.startswith("ProcessPoolSpawn") and name.endswith("Test")
        ]
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    return unittest.TestSuite(load(each) for each in kinds)


def main() -> None:
    """Run them, and print how many ran and the names of those that failed."""
    support.use_resources, support.verbose = ["walltime"], 0
    result = unittest.TextTestRunner(io.StringIO()).run(suite())
    failed = [case.id() for case, _ in [*result.errors, *result.failures]]
    print(result.testsRun, *sorted({".".join(name.split(".")[-2:]) for name in failed}))


if __name__ == "__main__":
    # Not from here: what is in `__main__` goes to workers by value, with all it knows.
    importlib.import_module("cpython_faces").main()
