"""Every promise on every engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from shutil import which
from typing import Any

import everywhere
import pytest
from everywhere import PROMISES, Place

BIN = Path(sys.executable).parent


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_is_kept_by_dask(client, promise):
    check = PROMISES[promise]
    check(Place(client))


@pytest.fixture(scope="module")
def threaded() -> Iterator[Any]:
    """Give a client of a worker whose threads share what the process has."""
    from distributed import Client, LocalCluster

    cluster = LocalCluster(n_workers=1, threads_per_worker=3, dashboard_address=None)
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_is_kept_by_threads_of_dask(threaded, promise):
    check = PROMISES[promise]
    check(Place(threaded))


@pytest.fixture(scope="module")
def loky() -> Iterator[Executor]:
    """Give two processes of loky's."""
    executor = pytest.importorskip("loky").ProcessPoolExecutor(2)
    yield executor
    executor.shutdown(kill_workers=True)


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_is_kept_by_loky(loky, promise):
    check = PROMISES[promise]
    check(Place(loky))


def test_a_function_that_makes_lokys_executor_is_taken_again_and_again():
    make = pytest.importorskip("loky").get_reusable_executor

    for _ in range(2):
        assert everywhere.pmap(abs, range(10), backend=make) == list(range(10))


def test_all_promises_are_kept_by_mpi():
    pytest.importorskip("mpi4py")
    launcher = which("mpiexec", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    if launcher is None:
        pytest.skip("there is no MPI here: install mpich or openmpi")
    command = [launcher, "-n", "3", sys.executable, "-m", "mpi4py.futures", everywhere.__file__]

    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)

    assert run.stdout.split() == list(PROMISES), run.stderr
    assert run.returncode == 0
