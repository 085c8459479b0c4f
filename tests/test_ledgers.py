"""The ledgers by themselves; how they work together is the property's in `test_scheduler.py`."""

from __future__ import annotations

from collections import deque

from parallelkit.ledgers import (
    IN_VAIN,
    UNSENT,
    Failures,
    Home,
    Input,
    Output,
    Staff,
    curtail,
    without,
)


def stocked(count: int) -> Input:
    stock = Input()
    stock.begin(count, count)
    return stock


def test_neighbours_are_one_block_again():
    stock = stocked(10)
    chunk = stock.take(6)
    stock.put_back(chunk[2:])
    assert list(stock.waiting) == [range(2, 10)]
    assert stock.queued == 8
    assert stock.reached == 6


def test_those_to_be_alone_come_first_and_alone():
    stock = stocked(3)
    assert stock.take(2) == range(2)
    stock.repeat(1)
    assert stock.take(5) == range(1, 2)
    assert stock.take(5) == range(2, 3)


def test_those_that_must_be_the_only_ones_come_before_all():
    stock = stocked(3)
    stock.take(2)
    stock.repeat(0)
    stock.isolate(1)
    assert stock.queued == 3
    assert [stock.take(5) for _ in range(3)] == [range(1, 2), range(1), range(2, 3)]
    assert stock.queued == 0


def test_those_that_rest_come_back_when_it_is_time():
    stock = stocked(3)
    stock.take(3)
    stock.rest(2, until=1.0)
    stock.rest(0, until=3.0)
    stock.rest(1, until=2.0)
    assert (stock.queued, stock.left(), stock.first()) == (0, 3, 0)
    stock.wake(2.0)
    assert list(stock.alone) == [2, 1]
    assert (stock.queued, stock.left(), stock.first()) == (2, 3, 0)


def test_the_earliest_still_comes_first_where_the_input_was_cut():
    stock = stocked(4)
    stock.take(4)
    for position, until in (3, 1.0), (0, 3.0), (1, 2.0):
        stock.rest(position, until)
    stock.cut(2)
    stock.wake(2.0)
    assert list(stock.alone) == [1]


def test_a_pause_doubles_up_to_a_minute():
    failures = Failures()
    pauses = []
    for _ in range(1100):  # more than a float can double
        failures.count(7, "raised", retries=2000)
        pauses.append(failures.pause(7, backoff=16.0))
    assert pauses[:4] == [16.0, 32.0, 60.0, 60.0]
    assert set(pauses[4:]) == {60.0}


def test_nothing_is_taken_back_from_where_the_input_was_cut():
    stock = stocked(10)
    stock.take(4)
    stock.repeat(3)
    stock.rest(3, until=1.0)
    stock.isolate(3)
    stock.cut(2)
    stock.put_back(range(4))
    stock.rest(2, until=1.0)
    stock.isolate(2)
    assert stock.again() == []
    stock.arrive(5, last=True, now=0.0)
    assert list(stock.waiting) == [range(2)]
    assert stock.left() == stock.queued == 2


def test_the_price_of_pulling_follows_the_newest():
    stock = Input()
    for count, seconds in (1, 1.0), (2, 1.0):
        stock.asked = 0.0
        stock.arrive(count, last=False, now=seconds)
    assert stock.price == 0.75


def test_the_order_of_the_input_is_kept():
    output = Output(ordered=True)
    assert list(output.add(range(2, 4))) == []
    assert list(output.add(range(2))) == [range(2), range(2, 4)]


def test_workers_are_busy_until_the_last_is_gone():
    staff = Staff(allowed=1, starting=1)
    assert not staff.busy()
    staff.join(1)
    assert not staff.busy()
    staff.idle.clear()
    staff.send(1, range(1), now=0.0)
    assert staff.busy()
    staff.leave(1)
    staff.dying.add(1)
    assert staff.busy()


def test_suspects_are_left_out_of_what_goes_back():
    assert without([range(5), range(5, 9)], range(2, 4)) == [range(5, 9), range(4, 5), range(2)]


def test_those_to_be_tried_one_by_one_come_first_and_may_be_anybodys():
    stock = stocked(9)
    stock.take(5)
    stock.scatter(range(2, 5))
    assert stock.queued == 7
    assert [stock.take_waiting(5) for _ in range(4)] == [
        range(2, 3),
        range(3, 4),
        range(4, 5),
        range(5, 9),
    ]
    stock.cut(3)
    stock.scatter(range(2, 5))
    assert list(stock.waiting) == [range(2, 3)]
    assert stock.queued == 1


def test_what_is_bound_for_home_is_in_order_and_in_one_piece_where_it_can_be():
    home = Home()
    for start, stop in (5, 6), (1, 2), (3, 3), (6, 8), (4, 5), (2, 3):
        home.bind(range(start, stop))
    assert home.bound == [range(1, 3), range(4, 8)]
    assert home.take(5) == range(1, 3)
    assert home.take(1) == range(4, 5)
    home.cut(6)
    assert home.bound == [range(5, 6)]


def test_workers_get_no_more_where_little_travels():
    home = Home()
    home.count(carried=0, unsent=UNSENT - 1, unreturned=IN_VAIN - 1)
    assert not home.closed
    home.count(carried=0, unsent=0, unreturned=1)
    assert home.closed
    home = Home()
    home.count(carried=UNSENT // 8, unsent=UNSENT, unreturned=0)
    assert not home.closed
    home.count(carried=0, unsent=1, unreturned=0)
    assert home.closed


def test_what_comes_from_a_position_on_is_taken_off_last_first():
    held = deque([range(30, 40), range(10)])
    assert curtail(held, None) == []
    assert curtail(held, 20) == []
    assert curtail(held, 4) == [range(4, 10)]
    assert curtail(held, 35) == [range(4), range(35, 40)]
    assert curtail(held, 30) == [range(30, 35)]
    assert not held


def test_a_worker_that_gave_all_it_had_is_idle():
    staff = Staff(allowed=1, starting=1)
    staff.join(1)
    staff.idle.clear()
    staff.send(1, range(5), now=0.0)
    staff.half.clear()
    assert staff.reclaim(1, 2) == [range(2, 5)]
    assert (set(staff.half), set(staff.idle)) == ({1}, set())
    assert staff.reclaim(1, 0) == [range(2)]
    assert (set(staff.half), set(staff.idle)) == (set(), {1})


def test_a_chunk_that_was_cut_is_over():
    staff = Staff(allowed=1, starting=1)
    staff.join(1)
    staff.idle.clear()
    staff.send(1, range(5), now=0.0)
    assert staff.finish(1, 2, now=1.0) == range(2)
    assert staff.finish(1, 4, now=2.0, cut=True) == range(2, 4)
    assert set(staff.idle) == {1}
