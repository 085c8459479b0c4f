"""The page by which a worker and its caller follow short calls that travel together."""

from __future__ import annotations

import pickle
import threading

import pytest

from parallelkit.pages import SIZE, Page, Pages, _seen, run


@pytest.fixture
def pages():
    pages = Pages(2)
    yield pages
    vars(pages).clear()  # or pytest, which keeps it for a while, would keep the segment
    _seen.clear()


def told(page, end=100):
    return [pickle.loads(blob) for blob in page.results(end)]


def test_results_are_read_once_and_in_order():
    memory = memoryview(bytearray(2 * SIZE))
    caller, worker = Page(memory, 1), Page(memory, 1)
    caller.open(3)

    assert caller.begun == -1
    assert worker.may(0)
    assert worker.write(0, "a")
    assert told(caller) == ["a"]
    assert worker.may(1)
    assert caller.begun == 1
    assert worker.write(1, [2])
    assert told(caller, end=1) == []
    assert told(caller) == [[2]]
    assert told(caller) == []


def test_a_worker_stops_where_it_is_told_to():
    memory = memoryview(bytearray(SIZE))
    caller, worker = Page(memory, 0), Page(memory, 0)
    caller.open(3)
    caller.end = 1

    assert worker.may(0)
    assert not worker.may(1)


@pytest.mark.parametrize("value", [threading.Lock(), bytes(SIZE), lambda: 0])
def test_what_does_not_fit_is_for_another_way(value):
    page = Page(memoryview(bytearray(SIZE)), 0)
    page.open(2)

    assert not page.write(0, value)
    assert told(page) == []


def test_calls_go_on_until_the_last(pages):
    page = pages.of(7, ())
    page.open(3)

    rows = [((7, 2), {}), ((9, 4), {}), ((5, 5), {})]
    assert run(pages.place(page), divmod, rows) == (2, True, (1, 0))
    assert told(page) == [(3, 1), (2, 1)]


def test_calls_end_at_one_that_raises(pages):
    page = pages.of(7, ())
    page.open(2)

    with pytest.raises(ZeroDivisionError):
        run(pages.place(page), divmod, [((7, 2), {}), ((1, 0), {})])
    assert page.begun == 1
    assert told(page) == [(3, 1)]


def test_calls_end_at_a_result_that_needs_room(pages):
    page = pages.of(7, ())
    page.open(2)

    assert run(pages.place(page), bytes, [((SIZE,), {}), ((1,), {})]) == (0, True, bytes(SIZE))


def test_calls_end_where_they_are_taken_back(pages):
    page = pages.of(7, ())
    page.open(2)
    page.end = 1

    assert run(pages.place(page), pow, [((7, 2), {}), ((1, 1), {})]) == (1, False, None)
    assert told(page) == [49]


def test_each_worker_has_a_page_and_leaves_it_to_another(pages):
    first, second = pages.of(1, ()), pages.of(2, ())

    assert first is pages.of(1, ())
    assert first.number != second.number
    with pytest.raises(LookupError):
        pages.of(3, ())
    pages.leave(1)
    pages.leave(8)  # which has none
    with pytest.raises(LookupError):
        pages.of(3, {first.number})
    assert pages.of(3, {second.number}).number == first.number
