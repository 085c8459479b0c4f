"""Every promise on every backend that needs no other package."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context, resource_tracker
from threading import Barrier

import pytest
from everywhere import PROMISES, Place

NAMED = {
    "serial": Place("serial", inside=True),
    "processes": Place("processes", timed=True),
    "threads": Place("threads", inside=True),
}


@pytest.fixture(scope="module", params=[*NAMED, "a thread pool", "a process pool"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Give each backend, for all tests."""
    if request.param in NAMED:
        yield NAMED[request.param]
    elif request.param == "a thread pool":
        with ThreadPoolExecutor(2) as executor:
            meeting = Barrier(2)  # both of its threads are there before the first test
            assert sorted(executor.map(lambda _: meeting.wait(), range(2))) == [0, 1]
            yield Place(executor, inside=True)
    else:
        resource_tracker.ensure_running()  # the pool would start it, and leave it
        with ProcessPoolExecutor(2, get_context("spawn")) as executor:
            list(executor.map(int, range(8)))  # its processes are there before the first test
            yield Place(executor)


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_is_kept(place, promise):
    check = PROMISES[promise]
    check(place)
