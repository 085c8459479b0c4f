"""Semaphores: never too many at once, and a killed process gives back what it had."""

from __future__ import annotations

import os
import pickle

import pytest
from forks import Fork, killed_at_each_step
from hypothesis import given
from hypothesis import strategies as st

from parallelkit.sync import permits
from parallelkit.sync.permits import BoundedSemaphore, Semaphore

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the tests fork")
both = pytest.mark.parametrize("kind", [Semaphore, BoundedSemaphore])


@given(
    value=st.integers(0, 3),
    steps=st.lists(st.sampled_from(["acquire", "release"])),
    bounded=st.booleans(),
)
def test_a_semaphore_counts(value, steps, bounded):
    semaphore = (BoundedSemaphore if bounded else Semaphore)(value)
    left = value
    for step in steps:
        if step == "acquire":
            assert semaphore.acquire(block=False) == (left > 0)
            left = max(left - 1, 0)
        elif bounded and left == value:
            with pytest.raises(ValueError, match=r"^a BoundedSemaphore cannot be released more"):
                semaphore.release()
        else:
            semaphore.release()
            left += 1
        assert semaphore.get_value() == left


def test_a_value_below_zero_is_refused():
    with pytest.raises(ValueError, match=r"^value must be at least 0, got -1$"):
        Semaphore(-1)


@both
def test_a_copy_is_the_same_semaphore(kind):
    semaphore = kind(2)
    semaphore.acquire()
    again = pickle.loads(pickle.dumps(semaphore))
    again.release()
    assert semaphore.get_value() == 2
    assert repr(semaphore) == f"<{kind.__name__}(value=2)>"


@both
def test_who_waits_gets_what_another_process_releases(kind):
    semaphore = kind(1)
    semaphore.acquire()
    assert not semaphore.acquire(timeout=0.01)
    with Fork(lambda: semaphore.acquire(timeout=60)) as waiter:
        semaphore.release()
        assert waiter.result() is True
        assert not semaphore.acquire(block=False)


@both
def test_the_permits_of_the_killed_come_back(kind):
    semaphore = kind(3)
    with Fork(lambda: [semaphore.acquire() for _ in range(3)]) as holder:
        holder.result()
        with Fork(lambda: [semaphore.acquire(timeout=60) for _ in range(2)]) as waiter:
            holder.kill()
            assert waiter.result() == [True, True]
            assert semaphore.acquire(block=False)
            assert not semaphore.acquire(block=False)
    for _ in range(2):
        assert semaphore.acquire(timeout=60)
    assert not semaphore.acquire(block=False)


def test_what_others_released_does_not_come_back_twice():
    semaphore = Semaphore(1)
    with Fork(semaphore.acquire) as taker:
        taker.result()
        semaphore.release()
        with Fork(semaphore.acquire) as other:
            other.result()
            taker.kill()
            assert not semaphore.acquire(block=False)


def test_a_semaphore_that_begins_with_nothing_gets_nothing_from_the_dead():
    semaphore = Semaphore(0)
    with Fork(semaphore.acquire) as consumer:
        semaphore.release()
        consumer.result()
    assert not semaphore.acquire(block=False)


@both
@pytest.mark.slow
def test_a_process_killed_anywhere_loses_and_makes_no_permits(kind):
    semaphore = kind(2)

    def use():
        with semaphore:
            pass

    for _ in killed_at_each_step(use):
        assert [semaphore.acquire(block=False) for _ in range(3)] == [True, True, False]
        semaphore.release()
        semaphore.release()


def test_more_processes_than_places_still_count(monkeypatch):
    monkeypatch.setattr(permits, "_NOWHERE", permits.END + permits._WIDTH)
    semaphore = Semaphore(3)
    with Fork(semaphore.acquire) as first:
        first.result()
        with Fork(semaphore.acquire) as second:
            second.result()
            assert semaphore.get_value() == 1
            first.kill()
        assert semaphore.acquire()
        assert semaphore.acquire(), "the first one's came back"


def test_births_tell_the_living_from_the_dead():
    assert permits._born(os.getpid()) == permits._born(os.getpid()) > 0
    with Fork(os.getpid) as other:
        pid = other.result()
        assert permits._born(pid) > 0
        other.kill()
        assert permits._born(pid) == 0


def test_births_are_known_without_proc():
    assert permits._born_elsewhere(os.getpid()) > 1
    with Fork(os.getpid) as other:
        pid = other.result()
        other.kill()
    assert permits._born_elsewhere(pid) == 0
