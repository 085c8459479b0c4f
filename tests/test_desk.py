"""Futures, and the queue between those who submit and the helper thread."""

from __future__ import annotations

import logging
from concurrent import futures
from functools import partial

import pytest

from parallelkit.desk import Desk, Future
from parallelkit.tasks import told


def task(desk, *args):
    return Future(desk, (max, args, {}))


@pytest.fixture
def desk():
    return Desk(hasty=False)


def test_what_waits_is_taken_in_order(desk):
    first, second = task(desk, 1), task(desk, 2)
    desk.put(first)
    desk.put(second)

    assert list(desk.take()) == [first, second]
    assert first.running()
    assert desk.running == {first, second}


def test_what_was_cancelled_is_not_taken(desk):
    first, second = task(desk, 1), task(desk, 2)
    desk.put(first)
    desk.put(second)

    assert first.cancel()
    assert first.cancel()  # again
    assert list(desk.take()) == [second]
    assert not futures.wait([first], timeout=0).not_done


def test_a_running_task_is_cancelled_only_if_it_is_to_be_killed(desk):
    future = task(desk, 1)
    desk.put(future)
    next(desk.take())

    assert not future.cancel()
    assert future.cancel(kill=True)
    assert list(desk.doomed) == [future]
    assert future.begin() is None  # a retry is none

    future.end(5, None)

    with pytest.raises(futures.CancelledError):
        future.result()


def test_a_future_that_is_done_stays_so(desk):
    future = task(desk, 1)
    desk.put(future)
    next(desk.take()).end(5, None)

    assert not future.cancel(kill=True)
    assert future.result() == 5
    assert desk.running == set()


def test_cancelling_calls_back_and_wakes_those_who_wait(desk):
    future, seen = task(desk, 1), []
    future.add_done_callback(seen.append)

    future.cancel()

    assert seen == [future]
    assert list(futures.as_completed([future], timeout=0)) == [future]


def test_the_arguments_are_let_go_when_a_task_is_done(desk):
    done, cancelled = task(desk, 1), task(desk, 2)

    done.end(5, None)
    cancelled.cancel()

    assert done.words() == cancelled.words() == "a task"


def test_a_callback_that_ends_its_thread_is_logged_instead(desk, caplog):
    future = task(desk, 1)

    def leave(_):
        raise SystemExit

    future.add_done_callback(leave)
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        future.end(5, None)

    assert future.result() == 5
    assert "exception calling callback" in caplog.text


def test_the_bell_is_rung_when_the_helper_waits(desk):
    rung = []
    desk.bell = lambda: rung.append(len(desk.queue))

    desk.put(task(desk, 1))
    desk.waiting = True
    desk.put(task(desk, 2))
    desk.put(task(desk, 3))  # it is on its way already

    assert rung == [2]


def test_a_bell_that_is_gone_does_not_matter(desk):
    def closed():
        raise OSError

    desk.bell = closed
    desk.ring()
    desk.quiet()
    desk.ring()

    assert not desk.over()


def test_a_desk_is_over_when_it_is_closed_and_empty(desk):
    desk.put(task(desk, 1))
    desk.leave()

    assert not desk.over()
    next(desk.take())
    assert desk.over()
    assert not desk.abandoned
    hasty = Desk(hasty=True)
    hasty.leave()
    assert hasty.abandoned


def test_cancelling_all_spares_as_many_as_it_is_told(desk):
    waiting = [task(desk, number) for number in range(4)]
    for future in waiting:
        desk.put(future)

    desk.cancel_all(spared=1)
    assert [future.cancelled() for future in waiting] == [False, True, True, True]

    desk.kill_all()
    assert waiting[0].cancelled()


def test_a_broken_desk_returns_what_waited(desk):
    future = task(desk, 1)
    desk.put(future)

    assert desk.fail(OSError("no")) == [future]
    assert isinstance(desk.broken, OSError)
    assert not desk.queue


@pytest.mark.parametrize(
    ("task", "alone"),
    [
        ((abs, (1,), {}), False),
        ((pow, (2, 3), {"mod": 5}), False),
        ((str, ((1, "a", (None, b"c")),), {}), True),  # a class may keep what it makes
        ((told, ((1, "a", (None, b"c")),), {}), False),
        ((told, ([1],), {}), True),
        ((told, ((1, [2]),), {}), True),
        ((told, (1,), {"x": {}}), True),
        (([].append, (1,), {}), True),
        ((partial(abs), (1,), {}), True),
    ],
    ids=repr,
)
def test_only_what_cannot_change_travels_with_others(task, alone):
    assert Future(Desk(hasty=False), task).alone == alone
