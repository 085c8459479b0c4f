"""Workers leave a processor that they share with their caller: when, and what that leaves."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelkit import pmap
from parallelkit.seat import Seat, move

QUICK = 30e-6  # seconds from an answer to the next call, and from there to its answer

several = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="there is no other processor to go to",
)


class World:
    """A worker that answers calls, on a processor that is shared or not."""

    def __init__(self, leaves: bool = True) -> None:
        self.now = 0.0
        self.shared = False
        self.leaves = leaves
        self.moves: list[float] = []
        self.looks: list[float] = []  # until when it was to look on, each time
        self.seat = Seat(self.watch, self.leave, lambda: self.now)

    def watch(self, look: Callable[[], object], crowded: Callable[[], float]) -> object:
        if self.shared:
            self.looks.append(crowded())
        return look()

    def leave(self) -> bool:
        self.moves.append(self.now)
        return self.leaves

    def call(self, shared: bool, pause: float = QUICK, took: float = QUICK) -> None:
        """Have a call `pause` seconds after the last answer, which is answered after `took`."""
        self.shared = shared
        began = self.now + pause
        self.now = began + took
        self.seat.attend(began, list)


def test_a_worker_that_shares_its_processor_with_quick_calls_leaves_it():
    world = World()
    for _ in range(4):
        world.call(shared=True)

    assert len(world.moves) == 1
    assert world.looks[:3] == [0.0, 0.0, 0.0]
    assert world.looks[3] > 0.0, "it is awake when the next call comes"


def test_it_sleeps_where_it_could_not_leave():
    world = World(leaves=False)
    for _ in range(10):
        world.call(shared=True)

    assert world.moves
    assert not any(world.looks)


@pytest.mark.parametrize(("pause", "took"), [(1e-3, QUICK), (QUICK, 1e-3)])
def test_it_stays_where_calls_are_seldom_or_long(pause, took):
    world = World()
    for _ in range(100):
        world.call(shared=True, pause=pause, took=took)

    assert not world.moves


def test_it_stays_where_the_processor_is_shared_now_and_then():
    world = World()
    for number in range(300):
        world.call(shared=number % 3 > 0)

    assert not world.moves


def test_it_leaves_ever_more_seldom_where_all_processors_are_busy():
    world = World()
    while world.now < 10.0:
        world.call(shared=True)

    assert len(world.moves) < 25
    assert world.now - world.moves[-1] < 1.1


def test_it_leaves_soon_again_after_a_move_that_was_good():
    world = World()
    while world.now < 10.0:
        world.call(shared=True)
    for _ in range(5):
        world.call(shared=False)
    before = len(world.moves)
    until = world.now + 3e-3
    while world.now < until:
        world.call(shared=True)

    assert len(world.moves) > before


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([QUICK, 1e-3])), max_size=300))
def test_moves_are_a_millisecond_apart_whatever_happens(calls):
    world = World()
    for shared, pause in calls:
        world.call(shared, pause)

    assert all(b - a >= 1e-3 for a, b in zip(world.moves, world.moves[1:], strict=False))


def in_a_thread(act: Callable[[], Any]) -> Any:
    """Return what `act` returns in a thread of its own, whose affinity is its own too."""
    found: list[Any] = []
    thread = Thread(target=lambda: found.append(act()))
    thread.start()
    thread.join()
    return found[0]


@several
def test_a_thread_that_moves_may_be_everywhere_again(monkeypatch):
    allowed = os.sched_getaffinity(0)
    asked: list[set[int]] = []
    really = os.sched_setaffinity

    def asking(pid: int, mask: set[int]) -> None:
        asked.append(set(mask))
        really(pid, mask)

    monkeypatch.setattr(os, "sched_setaffinity", asking)
    moved, after = in_a_thread(lambda: (move(), os.sched_getaffinity(0)))

    assert moved
    assert after == allowed
    assert len(asked) == 2
    assert len(allowed - asked[0]) == 1, "everywhere but where it was"
    assert asked[1] == allowed


@several
def test_a_thread_that_may_be_on_one_processor_stays(monkeypatch):
    one = {min(os.sched_getaffinity(0))}

    def confined() -> tuple[bool, set[int]]:
        os.sched_setaffinity(0, one)
        return move(), os.sched_getaffinity(0)

    assert in_a_thread(confined) == (False, one)


@several
@pytest.mark.parametrize("error", [PermissionError(1, "Operation not permitted"), RuntimeError()])
def test_a_thread_that_may_not_move_may_be_where_it_was(monkeypatch, error):
    allowed = os.sched_getaffinity(0)
    really = os.sched_setaffinity

    def refusing(pid: int, mask: set[int]) -> None:
        if mask != allowed:
            raise error
        really(pid, mask)

    monkeypatch.setattr(os, "sched_setaffinity", refusing)

    assert in_a_thread(lambda: (move(), os.sched_getaffinity(0))) == (False, allowed)


def test_it_stays_where_the_system_knows_nothing_of_that(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)

    assert move() is False


@several
def test_functions_see_the_affinity_of_their_caller_in_any_number_of_quick_calls():
    def allowed(_: int) -> set[int]:
        return os.sched_getaffinity(0)

    seen = [pmap(allowed, [number], workers=2)[0] for number in range(1000)]

    assert all(each == os.sched_getaffinity(0) for each in seen)
