"""How much, asked of ledgers in a given state."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelkit.chunking import QUEUED, Pace
from parallelkit.folding import fold
from parallelkit.ledgers import Home, Input, Limits, Output, Staff
from parallelkit.portions import MANY, READ_AHEAD, READ_AT_MOST, Portions
from parallelkit.stealing import Stealing


def portions(limits: Limits, pulled: int, workers: int = 0, item: float | None = None) -> Portions:
    """Return the view of a run on a list, whose workers have nothing yet."""
    stock, staff = Input(), Staff(limits.workers, starting=workers, hired=bool(workers))
    stock.begin(pulled, pulled)
    for worker in range(workers):
        staff.join(worker + 1)
    pace = Pace(item=item)
    output, stealing = Output(limits.ordered), Stealing(pace, staff)
    return Portions(limits, pace, stock, staff, Home(), output, stealing)


def test_a_chunk_is_what_the_user_says_but_an_item_where_each_has_its_timeout():
    assert portions(Limits(2, chunksize=7), 100).size() == 7
    assert portions(Limits(2, chunksize=7, timeout=1.0), 100).size() == 1
    assert portions(Limits(2), 100).size() == 1
    assert portions(Limits(2), 1_000_000, item=1e-6).size() == Pace(item=1e-6).chunk(1_000_000, 1)


@pytest.mark.parametrize(("chunksize", "size"), [(None, 34), (20, 20)])
def test_what_was_taken_back_is_shared_by_those_it_was_taken_for(chunksize, size):
    view = portions(Limits(8, chunksize=chunksize, stealing=True), 100, workers=8, item=1e-6)
    view.stealing.served = 3
    assert view.size() == size


@given(st.integers(0, 5000), st.integers(1, 10**6), st.sampled_from([1e-6, 1e-4, 1e-2]))
def test_chunks_that_are_folded_end_where_blocks_do_if_these_are_heavy(done, left, item):
    whole = portions(Limits(2), done + left, workers=2, item=item)
    aligned = portions(Limits(2, folded=True), done + left, workers=2, item=item)
    for view in whole, aligned:
        if done:
            view.stock.take_waiting(done)
        assert view.size() == whole.size()
        view.pace.weigh(0, 1e6)
    size, most = aligned.size(), whole.size()
    assert 1 <= size <= most
    if most < left:
        assert (done + size) % (1 << (most.bit_length() - 1)) == 0
        assert len(fold(operator.add, done, range(size))) <= size.bit_length()


def test_what_the_caller_runs_itself():
    view = portions(Limits(2), 100, item=1e-3)
    size, budget = view.own()
    assert size == view.pace.turn(budget) == view.pace.turn(view.pace.budget())
    view.stock.asked = 1.0
    assert view.own()[0] == 0
    view.home.bind(range(100, 101))
    assert view.own()[0] == size
    assert portions(Limits(2), 100, workers=2, item=1e-3).own()[0] == 0


def test_only_what_is_short_waits_behind_another():
    view = portions(Limits(2), 100, item=1e-3)
    assert view.short(4)
    assert not view.short(5)
    assert view.short(MANY)
    assert not portions(Limits(2), 100).short(1)


def test_what_can_be_taken_back_may_wait_the_longer_the_fewer_workers_there_are():
    few, many, lent = (portions(Limits(n), 10_000, workers=n, item=1e-3) for n in (2, 1024, 2))
    few.pace.queue = many.pace.queue = QUEUED
    assert few.short(MANY - 1)
    for view in (many, lent):
        assert view.short(4)
        assert not view.short(5)


def test_under_a_timeout_nothing_waits_behind_another():
    assert not portions(Limits(2, timeout=1.0), 100, item=1e-3).short(1)


def test_there_are_as_many_workers_as_items_unless_these_are_done_before():
    assert portions(Limits(8), 3).missing() == 3
    assert portions(Limits(8), 100, workers=2, item=1.0).missing() == 6
    assert portions(Limits(8), 100, workers=2, item=1e-4).missing() == 0


@pytest.mark.parametrize(
    ("home", "again", "workers", "missing"),
    [(False, 0, 0, 1), (False, 0, 1, 0), (True, 0, 0, 0), (True, 1, 0, 1), (True, 1, 1, 0)],
)
def test_a_strain_starts_only_whom_nobody_can_stand_in_for(home, again, workers, missing):
    view = portions(Limits(8, home=home), 100, workers, item=1.0)
    view.staff.strained = True
    for position in view.stock.take_waiting(again) if again else ():
        view.stock.repeat(position)
    assert view.missing() == missing


def test_what_was_admitted_once_stays_admitted():
    view = portions(Limits(1, chunksize=2, ahead=2), 100)
    assert view.admitted(9, 2) == 4
    view.stock.put_back(view.stock.take(4)[1:])
    assert view.admitted(9, 2) == 3
    assert view.single()
    view.stock.take(3)
    assert view.admitted(9, 2) == 0
    assert not view.single()
    view.output.taken = 1
    assert view.single()
    assert portions(Limits(1), 100).admitted(9, 2) == 9


def test_nobody_is_handed_what_is_not_there():
    assert not portions(Limits(1), 0).single()


def test_an_unknown_input_is_asked_for_one_item():
    view = portions(Limits(2), 0, workers=2)
    assert view.ask() == 1
    view.stock.price = 0.0
    assert view.ask() == 2
    view.stock.price = 1.0
    assert view.ask() == 1


def test_busy_workers_are_read_for_in_advance():
    view = portions(Limits(2, chunksize=5), 10, workers=2)
    view.stock.price = 0.0
    for worker in 1, 2:
        view.staff.idle.pop(worker)
        view.staff.send(worker, view.stock.take(5), now=0.0)
    assert view.ask() == READ_AHEAD * 5 * 2
    view.limits = Limits(2, chunksize=5, ahead=3)
    assert view.ask() == 20
    view.limits = Limits(2, chunksize=READ_AT_MOST)
    assert view.ask() == READ_AT_MOST


def test_a_caller_alone_reads_for_itself_between_two_turns():
    view = portions(Limits(2), 0)
    view.stock.price = 0.0
    assert view.ask() == 4
    view.home.chunk = range(1)
    assert view.ask() == 0


def test_where_a_worker_holds_one_chunk_none_waits_behind_another():
    view = portions(Limits(2), 100, item=1e-6)
    assert view.short(10)
    view.pace.queue = 0
    assert not view.short(10)


def test_a_place_that_grew_has_more_room():
    view = portions(Limits(2, ahead=3, chunksize=1), 99)
    assert view.admitted(99, 1) == 6
    view.staff.allowed = 5
    assert view.admitted(99, 1) == 15


def test_a_strain_reads_one_item_when_nobody_has_any():
    view = portions(Limits(2), 1, workers=1)
    view.stock.price = 0.0
    view.staff.strained = True
    assert view.ask() == 0
    view.home.chunk = view.stock.take(1)
    assert view.busy()
    assert view.ask() == 0
    view.home.chunk = None
    assert view.ask() == 1


def test_the_caller_helps_while_workers_are_on_their_way():
    view = portions(Limits(2), 100, item=0.01)
    assert view.alone()
    assert not view.helps(1e-3)
    view.staff.starting, view.staff.hired = 1, True
    assert not view.alone()
    assert view.helps(1e-3)
    view.pace.launch = 1e-3
    assert not view.helps(1e-3)
