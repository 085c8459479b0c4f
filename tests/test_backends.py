"""Every promise on every backend that needs no other package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, resource_tracker
from typing import Any

import pytest
from everywhere import PROMISES, Place

NAMED = {
    "serial": Place("serial", inside=True),
    "processes": Place("processes", timed=True),
    "threads": Place("threads", inside=True),
}


def processes() -> Executor:
    return ProcessPoolExecutor(2, get_context("spawn"))


def threads() -> Executor:
    return ThreadPoolExecutor(2)


@pytest.fixture(scope="module", autouse=True)
def tracker() -> None:
    """Have the process there that a pool of the standard library starts and leaves."""
    resource_tracker.ensure_running()


@contextmanager
def place(name: str) -> Iterator[Place]:
    if name in NAMED:
        yield NAMED[name]
    elif name == "a function that makes executors":
        yield Place(processes)
    else:
        make: Callable[[], Any] = {"a thread pool": threads, "a process pool": processes}[name]
        with make() as executor:
            yield Place(executor, inside=name == "a thread pool")


@pytest.mark.parametrize("promise", PROMISES)
@pytest.mark.parametrize(
    "name", [*NAMED, "a thread pool", "a process pool", "a function that makes executors"]
)
def test_a_promise_is_kept(name, promise):
    with place(name) as there:
        check = PROMISES[promise]
        check(there)
