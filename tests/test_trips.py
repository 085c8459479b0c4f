"""Tasks that travel together: each runs once, and waits behind none that takes long."""

from __future__ import annotations

import math
import sys
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelkit.desk import Desk, Future
from parallelkit.errors import WorkerDied
from parallelkit.pages import SIZE, Page
from parallelkit.trips import MOST, PATIENCE, Journeys, Trip, kind


@pytest.fixture(autouse=True)
def no_manager(monkeypatch):
    """Where someone has loaded managers, their key goes before each task."""
    monkeypatch.delitem(sys.modules, "multiprocessing.managers", raising=False)


def task(desk, *args, fn=abs):
    future = Future(desk, (fn, args, {}))
    desk.put(future)
    return future


@pytest.fixture
def desk():
    return Desk(hasty=False)


@pytest.fixture
def journeys(desk):
    journeys = Journeys(desk, workers=2, together=True)
    yield journeys
    journeys.bound.clear()  # or the test's frame would hold the pages
    journeys.pages = None


def price(journeys, seconds, fn=abs):
    """Have one task make a journey, which takes so long."""
    task(journeys.desk, -1, fn=fn)
    journeys.pull(1)
    journeys.load(1000, 1, 0.0)
    journeys.learn(1000, seconds)
    assert journeys.leave(1000).arrived(1) == []


def test_there_are_as_many_positions_as_tasks(desk, journeys):
    assert journeys.pull(5) == (0, False)
    task(desk, -1)
    task(desk, -2)
    assert journeys.pull(5) == (2, False)
    assert journeys.pull(5) == (0, False)

    desk.leave()
    assert journeys.load(0, 1, 0.0) == (abs, (-1,), {})
    assert journeys.load(1, 1, 0.0) == (abs, (-2,), {})
    assert journeys.pull(5) == (0, True)


def test_a_task_of_unknown_price_travels_alone(desk, journeys):
    for number in range(20):
        task(desk, -number)

    assert journeys.load(0, 1, 0.0) == (abs, (0,), {})
    assert journeys.words(0) == "abs(0)"


def test_short_ones_travel_together(desk, journeys):
    price(journeys, 1e-6)
    futures = [task(desk, -number) for number in range(20)]

    run, (_, fn, rows), _ = journeys.load(0, 1, 5.0)
    trip = journeys.bound[0]

    assert (fn, rows) == (abs, [((-number,), {}) for number in range(10)])
    assert trip.futures == futures[:10]
    assert trip.due == 5.0 + PATIENCE
    assert run.__name__ == "run"


@pytest.mark.parametrize("seconds", [1e-3, 1.0])
def test_long_ones_travel_alone(desk, journeys, seconds):
    price(journeys, seconds)
    for number in range(20):
        task(desk, -number)

    assert journeys.load(0, 1, 0.0) == (abs, (0,), {})


def test_only_calls_of_one_function_travel_together(desk, journeys):
    price(journeys, 1e-6)
    for number in range(4):
        task(desk, -number)
    task(desk, 5, fn=float)
    for number in range(20):
        task(desk, -number)

    _, (_, _, rows), _ = journeys.load(0, 1, 0.0)

    assert len(rows) == 4


def test_none_travel_together_where_each_is_promised_something(desk):
    journeys = Journeys(desk, workers=2, together=False)
    price(journeys, 1e-6)
    for number in range(20):
        task(desk, -number)

    assert journeys.load(0, 1, 0.0) == (abs, (0,), {})


def test_a_position_whose_tasks_went_with_others_travels_empty(desk, journeys):
    assert journeys.load(0, 1, 0.0) is None
    assert journeys.words(0) == "a task"
    assert journeys.leave(0).arrived(None) == []


def test_a_trip_goes_back_when_its_worker_went(desk, journeys):
    price(journeys, 1e-6)
    futures = [task(desk, -number) for number in range(9)]
    journeys.load(0, 1, 0.0)
    count = len(journeys.bound[0].futures)
    step(worker(journeys.bound[0].page), 0)
    journeys.gone(1)

    assert journeys.load(0, 2, 0.0) == (abs, (-1,), {})
    assert futures[0].result(0) == 0
    assert list(desk.queue) == futures[2:]
    assert count > 2


def test_the_end_waits_for_those_who_travel_together(desk, journeys):
    price(journeys, 1e-6)
    for number in range(4):
        task(desk, -number)
    journeys.pull(4)
    while desk.queue:
        journeys.load(len(journeys.bound), 1 + len(journeys.bound), 0.0)
    desk.leave()

    together = any(trip.page for trip in journeys.bound.values())
    assert together
    assert journeys.pull(1) == (0, False)


def test_what_has_no_outcome_is_found(desk, journeys):
    price(journeys, 1e-6)
    futures = [task(desk, -number) for number in range(6)]
    journeys.load(0, 1, 0.0)
    step(worker(journeys.bound[0].page), 0)

    assert [*journeys.rest(), *desk.queue] == futures[1:]


def test_prices_are_of_code(desk):
    def shift(x, by):
        return x + by

    def named(fn):
        return kind(Future(desk, (fn, (), {})))

    assert named(shift) is named(partial(shift, by=1)) is shift.__code__
    assert named(abs) is abs
    assert named(print) is print


# One trip, between a caller and a worker.


def worker(page):
    """Return the page as a worker sees it."""
    return Page(page.bytes, 0)


def step(page, number):
    """Run one call, as a worker would; return whether it might."""
    return page.may(number) and page.write(number, -number)


def trip_of(desk, count):
    futures = [task(desk, -number) for number in range(count)]
    list(desk.take())
    trip = Trip(futures, Page(memoryview(bytearray(SIZE)), 0), 0.0)
    trip.begin()
    trip.page.open(count)
    return trip, futures


def test_what_waits_behind_a_long_one_is_taken_back(desk):
    trip, futures = trip_of(desk, 4)
    there = worker(trip.page)
    step(there, 0)
    there.may(1)  # and there it stays

    assert trip.look_after(0.0) == []
    assert trip.look_after(1.0) == futures[2:]
    assert futures[0].result(0) == 0
    assert trip.due == math.inf
    assert there.write(1, "late")
    assert not there.may(2)
    assert trip.arrived((2, False, None)) == []
    assert futures[1].result(0) == "late"


def test_a_worker_that_went_on_is_looked_after_again(desk):
    trip, futures = trip_of(desk, 4)
    there = worker(trip.page)
    there.may(0)
    trip.look_after(0.0)
    there.may(1)  # it saw the word too late, or will stop: who can tell

    assert trip.look_after(1.0) == []
    assert trip.look_after(2.0) == futures[2:]


def test_an_error_is_of_the_task_that_was_begun(desk):
    trip, futures = trip_of(desk, 4)
    there = worker(trip.page)
    step(there, 0)
    there.may(1)

    assert trip.task() is futures[1]
    assert trip.failed(KeyError("no")) == futures[2:]
    assert futures[0].result(0) == 0
    assert isinstance(futures[1].exception(0), KeyError)


def test_what_cannot_travel_together_travels_alone(desk, journeys):
    trip, futures = trip_of(desk, 3)

    assert trip.failed(KeyError("no")) == futures
    assert all(future.alone for future in futures)


@pytest.mark.parametrize("doomed", [0, 1, 2])
def test_a_cancelled_task_ends_only_its_own(desk, doomed):
    trip, futures = trip_of(desk, 3)
    there = worker(trip.page)
    step(there, 0)
    there.may(1)
    futures[doomed].cancel(kill=True)

    assert trip.end(futures[doomed]) == (doomed == 1)
    if doomed == 1:
        assert trip.failed(WorkerDied("killed")) == futures[2:]
        assert futures[0].result(0) == 0
    else:
        assert there.write(1, "done")
        assert there.may(2) == (doomed == 0)


def test_an_end_on_purpose_is_nobody_else_s_fault(desk):
    trip, futures = trip_of(desk, 3)
    there = worker(trip.page)
    there.may(0)
    futures[0].cancel(kill=True)
    trip.end(futures[0])
    step(there, 0)
    there.may(1)  # it was quicker

    assert trip.failed(WorkerDied("killed")) == futures[1:]


class World:
    """Workers, played step by step, and a caller who sends, looks after and takes in."""

    def __init__(self, count):
        self.desk = Desk(hasty=False)
        self.journeys = Journeys(self.desk, workers=2, together=True)
        price(self.journeys, 1e-6)
        self.futures = [task(self.desk, -number) for number in range(count)]
        self.ran = []
        self.now = 0.0
        self.at = {}  # by worker: what is left of its work

    def send(self, who):
        if who in self.at:
            return
        load = self.journeys.load(1 + who, who, self.now)
        page = self.journeys.bound[1 + who].page
        if load is None:
            self.journeys.leave(1 + who)
        elif page is None:
            self.at[who] = self.single(load[1][0])
        else:
            self.at[who] = self.several(Page(page.bytes, 0), load[1][2])

    def single(self, argument):
        """Run a task by itself, step by step."""
        yield None
        self.ran.append(argument)
        yield abs(argument)

    def several(self, page, rows):
        """Run several as `pages.run` does."""
        for number, ((argument,), _) in enumerate(rows):
            if not page.may(number):
                yield number, False, None
            yield None
            self.ran.append(argument)
            yield None
            if number == len(rows) - 1:
                yield number, True, abs(argument)
            page.write(number, abs(argument))

    def work(self, who):
        """Go one step further."""
        value = next(self.at[who]) if who in self.at else None
        if value is not None:
            del self.at[who]
            self.journeys.again(self.journeys.leave(1 + who).arrived(value))

    def look(self):
        self.now += 1.0
        for trip in self.journeys.bound.values():
            if trip.due <= self.now:
                self.journeys.again(trip.look_after(self.now))

    def finish(self):
        while self.desk.queue or self.at:
            for who in (1, 2):
                self.send(who)
                self.work(who)


@given(
    st.integers(1, 40),
    st.lists(
        st.sampled_from(["send", "work", "look"]).flatmap(
            lambda act: st.tuples(st.just(act), st.sampled_from([1, 2]))
        )
    ),
)
def test_however_it_goes_each_task_runs_once_and_is_told_its_own(count, acts):
    world = World(count)
    for act, who in acts:
        world.look() if act == "look" else getattr(world, act)(who)
    world.finish()

    assert sorted(world.ran) == sorted(-number for number in range(count))
    assert [future.result(0) for future in world.futures] == list(range(count))


def test_there_is_a_most(desk, journeys):
    price(journeys, 1e-9)
    for number in range(10 * MOST):
        task(desk, -number)
    journeys.load(0, 1, 0.0)

    assert len(journeys.bound[0].futures) == MOST
