"""Event and Barrier: all who wait go on, and nobody waits for the dead for ever."""

from __future__ import annotations

import os
import pickle
from threading import BrokenBarrierError

import pytest
from forks import Fork, killed_at_each_step

from parallelkit.sync import lines
from parallelkit.sync.gates import Barrier, Event
from parallelkit.sync.numerals import Counter

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the tests fork")


@pytest.fixture(params=["bells", "looks"])
def way(request, monkeypatch):
    monkeypatch.setattr(lines, "DOORBELLS", request.param == "bells")


def test_an_event_is_set_and_cleared_everywhere():
    event = Event()
    again = pickle.loads(pickle.dumps(event))
    assert not again.is_set()
    event.set()
    assert again.is_set()
    assert again.wait(0)
    assert repr(again) == f"<Event at {id(again):#x} set>"
    again.clear()
    assert not event.is_set()
    assert not event.wait(0.01)
    assert repr(event) == f"<Event at {id(event):#x} unset>"


def test_all_who_wait_for_an_event_go_on(way):
    event = Event()
    waiters = [Fork(lambda: event.wait(60)) for _ in range(3)]
    try:
        event.set()
        assert [waiter.result() for waiter in waiters] == [True] * 3
    finally:
        for waiter in waiters:
            waiter.__exit__()


def test_who_waits_sees_an_event_that_was_set_for_a_moment(way):
    event = Event()
    cell = event._cell

    def pulse():
        event.set()
        event.clear()

    with Fork(lambda: event.wait(60)) as waiter:
        while not cell.words[2]:  # until he sits
            assert os.waitpid(waiter.pid, os.WNOHANG) == (0, 0)
        pulse()
        assert waiter.result() is True


def test_a_process_killed_while_it_sets_an_event_wakes_them_or_not_but_it_can_be_set():
    event = Event()
    for _ in killed_at_each_step(event.set):
        event.set()
        assert event.wait(60)
        event.clear()


@pytest.mark.parametrize("parties", [1, 3])
def test_a_barrier_lets_all_go_when_the_last_has_come(way, parties):
    acted = Counter()
    made = Barrier(parties, acted.add, timeout=60)
    barrier = pickle.loads(pickle.dumps(made))
    assert barrier.parties == parties
    for turn in range(3):
        others = [Fork(barrier.wait) for _ in range(parties - 1)]
        try:
            numbers = [barrier.wait(), *(other.result() for other in others)]
        finally:
            for other in others:
                other.__exit__()
        assert sorted(numbers) == list(range(parties))
        assert acted.value == turn + 1
    assert (barrier.n_waiting, barrier.broken) == (0, False)
    assert repr(barrier) == f"<Barrier(parties={parties}), waiting: 0>"


def test_a_barrier_wants_a_party():
    with pytest.raises(ValueError, match=r"^parties must be at least 1, got 0$"):
        Barrier(0)


def test_a_timeout_breaks_a_barrier_until_it_is_reset():
    barrier = Barrier(2)
    with pytest.raises(BrokenBarrierError):
        barrier.wait(0.01)
    assert barrier.broken
    with pytest.raises(BrokenBarrierError):
        barrier.wait()
    barrier.reset()
    assert (barrier.broken, barrier.n_waiting) == (False, 0)
    with Fork(barrier.wait) as other:
        assert sorted([barrier.wait(60), other.result()]) == [0, 1]


@pytest.mark.parametrize("end", ["reset", "abort"])
def test_who_waits_learns_that_it_is_no_use(way, end):
    barrier = Barrier(2)
    with Fork(barrier.wait) as other:
        while not barrier.n_waiting:
            assert os.waitpid(other.pid, os.WNOHANG) == (0, 0)
        getattr(barrier, end)()
        with pytest.raises(BrokenBarrierError):
            other.result()
    assert barrier.broken == (end == "abort")


def test_an_action_that_raises_breaks_the_barrier():
    barrier = Barrier(1, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        barrier.wait()
    assert barrier.broken


def test_one_killed_while_it_waits_had_come():
    barrier = Barrier(2)
    with Fork(barrier.wait) as other:
        while not barrier.n_waiting:
            assert os.waitpid(other.pid, os.WNOHANG) == (0, 0)
        other.kill()
        assert barrier.wait(60) == 1
