"""Where `Executor` is better than the standard one: faults, time limits, travelling together."""

from __future__ import annotations

import os
import signal
import threading
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import Manager

import numpy as np
import pytest
from errands import SECONDS, die, meet, square, stuck

from parallelkit import Executor
from parallelkit.errors import ItemTimeout, WorkerDied


@pytest.fixture
def executor():
    with Executor(2) as executor:
        yield executor


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return str(path)


def test_a_worker_that_dies_fails_one_future(executor):
    pair = [executor.submit(die, "x"), executor.submit(square, 3)]
    error = pair[0].exception(SECONDS)

    assert isinstance(error, BrokenProcessPool)
    assert isinstance(error, WorkerDied)
    assert str(error) == (
        "a worker was killed by SIGKILL while it ran die('x'); the executor goes on"
    )
    assert pair[1].result(SECONDS) == 9
    assert executor.submit(square, 4).result(SECONDS) == 16


def test_many_deaths_do_not_break_it(executor):
    group = [executor.submit(die if x % 2 else square, x) for x in range(20)]

    assert [future.exception(SECONDS) is None for future in group] == [True, False] * 10


def test_a_killed_task_makes_room_for_others():
    with Executor(1) as executor:
        blocked = stuck(executor)
        pending = executor.submit(square, 3)

        assert blocked.cancel(kill=True)
        assert pending.result(SECONDS) == 9
        with pytest.raises(futures.CancelledError):
            blocked.result(0)


def test_a_task_that_takes_too_long_fails():
    with Executor(2, timeout=0.25) as executor:
        late, quick = executor.submit(signal.pause), executor.submit(pow, 3, 2)

        assert quick.result(SECONDS) == 9
        error = late.exception(SECONDS)

    assert isinstance(error, ItemTimeout)
    assert str(error) == "pause() ran longer than timeout=0.25 seconds, and was ended"


def once(path):
    """Fail the first time."""
    try:
        os.mkdir(path)
    except FileExistsError:
        return "second"
    raise ConnectionError


def die_once(path):
    """Die the first time."""
    try:
        os.mkdir(path)
    except FileExistsError:
        return "second"
    return die()


@pytest.mark.parametrize("fn", [once, die_once])
def test_a_task_can_be_tried_again(tmp_path, fn):
    with Executor(2, retries=1) as executor:
        assert executor.submit(fn, str(tmp_path / "tried")).result(SECONDS) == "second"


def test_idle_workers_that_are_killed_are_replaced(executor):
    for _ in range(8):
        pid = executor.submit(os.getpid).result(SECONDS)
        os.kill(pid, signal.SIGKILL)

    assert executor.submit(square, 3).exception(SECONDS) is None


def test_a_manager_s_objects_can_be_passed(executor):
    with Manager() as manager:
        shared = manager.list()
        executor.submit(shared.append, 5).result(SECONDS)

        assert list(shared) == [5]


def test_an_array_is_sent_as_it_is_each_time(executor):
    array = np.zeros(1 << 20)
    sums = []
    for _ in range(5):
        sums.append(executor.submit(np.sum, array).result(SECONDS))
        array += 1

    assert sums == [number * array.size for number in range(5)]


def test_an_executor_in_a_task_works(executor):
    def inner(x):
        with Executor(1) as nested:
            return nested.submit(square, x).result(SECONDS)

    assert executor.submit(inner, 3).result(SECONDS) == 9


# Short tasks travel together, which nobody may notice.


class Odd:
    """Goes by plain pickle in neither direction."""

    def __reduce__(self):
        raise KeyError("odd")


def quick(order):
    """Do what a short function does, but for some orders."""
    match order:
        case int():
            return order
        case "die":
            return die()
        case "odd":
            return Odd()
        case "large":
            return bytes(1 << 20)
        case "local":
            return type("Local", (), {"order": order})()
        case ("meet", path, mode):
            return meet(path, mode)
        case "pause":
            return signal.pause()
        case _:
            raise ValueError(order)


@pytest.fixture
def known(executor):
    """Return an executor that has found `quick` to be short."""
    assert list(executor.map(quick, range(300))) == list(range(300))
    return executor


def submitted(executor, *orders):
    """Return the futures of orders that lie far apart, with short ones around them."""
    every = [*range(30), *(each for order in orders for each in (order, *range(30)))]
    group = [executor.submit(quick, order) for order in every]
    for future, order in zip(group, every, strict=True):
        if isinstance(order, int):
            assert future.result(SECONDS) == order
    return [future for future, order in zip(group, every, strict=True) if order in orders]


def test_a_task_that_proves_long_holds_up_nobody(known):
    (blocked,) = submitted(known, "pause")

    assert not blocked.done()
    assert blocked.cancel(kill=True)
    assert submitted(known) == []


def test_tasks_that_prove_to_wait_for_each_other_meet(known, fifo):
    pair = [known.submit(quick, ("meet", fifo, mode)) for mode in ("r", "w")]
    group = [known.submit(quick, x) for x in range(30)]

    assert [future.result(SECONDS) for future in pair] == ["r", "w"]
    assert [future.result(SECONDS) for future in group] == list(range(30))


def test_among_many_only_the_failing_fail(known):
    died, raised, again = submitted(known, "die", "raise", "die")

    assert isinstance(died.exception(SECONDS), WorkerDied)
    assert isinstance(again.exception(SECONDS), WorkerDied)
    assert isinstance(raised.exception(SECONDS), ValueError)
    assert "quick('raise')" in raised.exception().__notes__[-1]


def test_among_many_results_go_as_they_can(known):
    odd, large, local = submitted(known, "odd", "large", "local")

    assert "KeyError: 'odd'" in str(odd.exception(SECONDS))
    assert len(large.result(SECONDS)) == 1 << 20
    assert local.result(SECONDS).order == "local"


def test_among_many_arguments_go_as_they_can(known):
    lock = threading.Lock()
    (failed,) = submitted(known, lock)

    assert "lock" in str(failed.exception(SECONDS))
