"""Executors of others: how many places they have, how they break, and who makes a new one."""

from __future__ import annotations

import os
import signal
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context, resource_tracker

import pytest

from parallelkit import pmap
from parallelkit.backends.executor import ExecutorVenue
from parallelkit.errors import NoWorkers, WorkerDied


@pytest.fixture(scope="module", autouse=True)
def tracker() -> None:
    """Have the process there that a pool of the standard library starts and leaves."""
    resource_tracker.ensure_running()


def processes() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, get_context("spawn"))


def poisonous(x: int) -> int:
    if x == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


class Here(Executor):
    """Runs tasks where they are submitted; of its size it says nothing."""

    def submit(self, fn, /, *args, **kwargs):
        future: Future[object] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_places_are_workers():
    with ThreadPoolExecutor(3) as threads:
        assert ExecutorVenue(threads).capacity() == 3
    with processes() as pool:
        assert ExecutorVenue(pool).capacity() == 2
    assert ExecutorVenue(Here()).capacity() == os.cpu_count()


def test_what_a_task_costs_is_known_or_measured():
    with ThreadPoolExecutor(1) as threads:
        assert ExecutorVenue(threads).journey == 30e-6
    here = Here()
    assert ExecutorVenue(here).journey == ExecutorVenue(here).journey > 0


def test_any_executor_will_do():
    assert pmap(lambda x: x + 1, range(100), backend=Here()) == list(range(1, 101))


def test_a_pool_that_breaks_is_told():
    with processes() as pool, pytest.raises(NoWorkers) as caught:
        pmap(poisonous, range(20), backend=pool)

    assert str(caught.value) == (
        "the ProcessPoolExecutor given as backend is broken, as one of its workers died: "
        "make a new one, or give as backend a function that makes one"
    )
    assert all(x == result for x, result in caught.value.results.items())


def test_where_a_new_pool_can_be_made_the_item_is_named():
    outcomes = pmap(poisonous, range(16), on_error="return", backend=processes)

    assert [x for x, each in enumerate(outcomes) if isinstance(each, WorkerDied)] == [13]
    assert str(outcomes[13]).startswith(
        "a worker of the ProcessPoolExecutor died while it ran item 13 (13); "
    )


@pytest.mark.parametrize("make", [ThreadPoolExecutor, processes])
def test_one_that_was_shut_down_is_told(make):
    executor = make() if make is processes else make(1)
    executor.shutdown()

    with pytest.raises(NoWorkers) as caught:
        pmap(abs, [1], backend=executor)
    assert str(caught.value) == (
        f"the {type(executor).__name__} given as backend cannot run tasks: RuntimeError: "
        "cannot schedule new futures after shutdown"
    )


def test_a_function_that_makes_something_else_is_told():
    with pytest.raises(TypeError) as caught:
        pmap(abs, [1], backend=lambda: 3)

    assert str(caught.value) == (
        "a function given as backend must return a concurrent.futures.Executor, got 3"
    )


class Plain(ThreadPoolExecutor):
    """Has no `cancel_futures`, as executors of others may."""

    def shutdown(self, wait=True):
        super().shutdown(wait)


def test_an_executor_that_is_made_needs_no_more_than_the_usual_methods():
    assert pmap(abs, range(10), backend=lambda: Plain(2)) == list(range(10))


@pytest.mark.parametrize("made", [False, True])
def test_threads_that_cannot_be_made_ready_are_no_items_fault(made, caplog):
    def fail():
        raise OSError("no licence")

    def make():
        return ThreadPoolExecutor(1, initializer=fail)

    executor = make()
    with pytest.raises(NoWorkers) as caught:
        pmap(abs, range(10), backend=make if made else executor)
    executor.shutdown()

    assert str(caught.value) == (
        "the ThreadPoolExecutor given as backend cannot run tasks: BrokenThreadPool: "
        "A thread initializer failed, the thread pool is not usable anymore"
    )
    assert "no licence" in caplog.text


def test_what_was_made_here_is_shut_down():
    made = []

    def make() -> ThreadPoolExecutor:
        made.append(ThreadPoolExecutor(2))
        return made[-1]

    assert pmap(abs, range(10), backend=make) == list(range(10))
    (executor,) = made
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)
