"""Locks, queues and numbers go to workers of every kind, and survive what happens there."""

from __future__ import annotations

import doctest
import importlib
import os
import signal

import pytest
from scripts import STARTS, script

from parallelkit import (
    Barrier,
    BoundedSemaphore,
    Condition,
    Counter,
    Event,
    Lock,
    Queue,
    RLock,
    Semaphore,
    SharedArray,
    Value,
    pmap,
)
from parallelkit.errors import WorkerDied

ROOMS = ["locks", "permits", "gates", "queues", "numerals"]


@pytest.fixture(params=STARTS)
def start(request, monkeypatch):
    monkeypatch.setenv("PARALLELKIT_START", request.param)


@pytest.mark.parametrize("room", ROOMS)
def test_the_examples_of_the_docstrings_run(room):
    module = importlib.import_module(f"parallelkit.sync.{room}")
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("kind", [Lock, RLock, Semaphore, BoundedSemaphore, Condition])
@pytest.mark.parametrize("way", ["captured", "passed"])
def test_one_at_a_time_in_all_workers(start, kind, way):
    guard, total = kind(), SharedArray(1, dtype="int64")

    def add(x, guard=guard):
        for _ in range(20):
            with guard:
                total[0] = total[0] + x
        return x

    if way == "captured":
        pmap(add, range(50), workers=2, chunksize=5)
    else:
        pmap(add, range(50), [guard] * 50, workers=2, chunksize=5)
    assert int(total[0]) == 20 * sum(range(50))


def test_counters_values_and_queues_lose_nothing(start):
    counter, value, results = Counter(), Value("d"), Queue()

    def work(x):
        counter.add(x)
        with value.get_lock():
            value.value += x
        results.put(x)

    pmap(work, range(200), workers=2, chunksize=10)
    assert counter.value == value.value == sum(range(200))
    assert sorted(results.get() for _ in range(200)) == list(range(200))
    assert results.empty()


def test_workers_meet_at_a_barrier_and_wait_for_an_event(start):
    barrier, event = Barrier(2), Event()

    def meet(x):
        number = barrier.wait(60)
        if x:
            event.set()
        return event.wait(60), number

    # With a timeout no item is sent to a worker before the one before it has ended.
    results = pmap(meet, range(2), workers=2, chunksize=1, timeout=60)
    assert sorted(results) == [(True, 0), (True, 1)]


@pytest.mark.parametrize("kind", [Lock, RLock])
def test_a_worker_killed_with_a_lock_leaves_it_to_the_next(start, kind):
    lock = kind()

    def work(x):
        with lock:
            if x == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return lock.abandoned

    results = pmap(work, range(6), workers=2, chunksize=1, on_error="return")
    assert [type(result) for result in results].count(WorkerDied) == 1
    with lock:
        told = lock.abandoned
    assert results.count(True) + told >= 1


def test_a_worker_killed_with_a_permit_gives_it_back(start):
    one = Semaphore(1)

    def work(x):
        with one:
            if x == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return x

    results = pmap(work, range(6), workers=2, chunksize=1, on_error="return")
    assert isinstance(results[3], WorkerDied)
    assert [x for x in results if x != results[3]] == [0, 1, 2, 4, 5]
    assert one.acquire(timeout=60)


def test_what_a_worker_makes_and_returns_can_be_used(start):
    def make(x):
        queue = Queue()
        queue.put(x)
        return queue, Lock(), Counter(x)

    for x, (queue, lock, counter) in enumerate(pmap(make, range(8), workers=2, chunksize=2)):
        assert queue.get() == x
        assert counter.add() == x + 1
        with lock:
            assert not lock.abandoned


def test_ctrl_c_ends_a_wait_and_leaves_nothing(tmp_path):
    source = """
        import os, signal, threading
        from parallelkit import Lock, Queue, pmap

        def wait(queue):
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                queue.get()
            except KeyboardInterrupt:
                return "interrupted"

        queue = Queue()
        print(wait(queue))
        queue.put(1)
        print(pmap(lambda x: queue.get(), [0], workers=1))
    """
    assert script(source, where=tmp_path) == "interrupted\n[1]\n"
