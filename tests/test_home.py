"""What the caller runs itself is what the loop would have done, up to the budget."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelkit import home
from parallelkit.backends import Block
from parallelkit.home import Home
from parallelkit.source import source

ENOUGH = 1e9  # seconds of budget that no test spends


def worker(fn, *iterables, seed=None, op=None):
    return Home(fn, source(iterables), seed, op)


@given(st.lists(st.integers(), min_size=1, max_size=300), st.integers(0, 299), st.integers(1, 64))
def test_a_chunk_is_the_loop(items, start, stride):
    start = min(start, len(items) - 1)
    caller = worker(lambda x: -x, items)
    caller.stride = stride

    turn = caller.work(range(start, len(items)), ENOUGH)

    assert turn.block.values == [-x for x in items[start:]]
    assert (turn.stop, turn.failed, turn.block.failures) == (len(items), (), {})


@pytest.mark.parametrize("budget", [0.0, -1.0])
def test_without_a_budget_one_item_is_run(budget):
    ran = []
    caller = worker(ran.append, range(10))

    assert [caller.work(range(at, 10), budget).stop for at in range(3)] == [1, 2, 3]
    assert ran == [0, 1, 2]


def test_the_stride_grows_with_fast_items_and_never_passes_the_chunk():
    caller = worker(lambda x: x, range(10**4))

    turn = caller.work(range(10**4), ENOUGH)

    assert turn.stop == 10**4
    assert caller.stride > 1
    assert caller.work(range(3), ENOUGH).block.values == [0, 1, 2]


FAILURES = [ValueError, StopIteration, StopAsyncIteration, RecursionError]


@pytest.mark.parametrize("error", FAILURES)
@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("failing", [3, 8, 9])
def test_a_failing_item_ends_the_turn_behind_it(error, seed, several, failing):
    def fn(*arguments):
        if arguments[0] == failing:
            raise error(failing)
        return arguments[0]

    caller = worker(fn, *[range(10)] * (1 + several), seed=seed)
    caller.stride = 4

    turn = caller.work(range(3, 10), ENOUGH)

    assert turn.stop == failing + 1
    assert turn.failed == (failing,)
    assert turn.block.values == [*range(3, failing), None]
    (offset,) = turn.block.failures
    assert offset == failing - 3
    assert type(turn.block.failures[offset]) is error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_loop_ends_the_turn(error):
    def fn(_):
        raise error

    with pytest.raises(error):
        worker(fn, [1]).work(range(1), ENOUGH)


def test_several_columns():
    caller = worker(lambda a, b, c: (a, b, c), "abcd", range(9), iter("wxyz"))
    caller.source.pull(9)

    assert caller.work(range(1, 3), ENOUGH).block.values == [("b", 1, "x"), ("c", 2, "y")]


@given(st.lists(st.integers(1, 9), max_size=9), st.integers(1, 8))
def test_an_item_draws_the_same_in_any_turn(sizes, stride):
    def draw(_):
        return random.random(), float(np.random.random())

    items = range(sum(sizes) + 5)
    before = random.getstate()
    whole = worker(draw, items, seed=7).work(range(len(items)), ENOUGH).block.values
    caller = worker(draw, items, seed=7)
    caller.stride = stride
    parts, start = [], 0
    for size in [*sizes, 5]:
        parts += caller.work(range(start, start + size), ENOUGH).block.values
        start += size

    assert parts == whole
    assert len(set(whole)) == len(whole)
    assert random.getstate() == before


def test_a_turn_of_a_reduction_is_folded():
    caller = worker(str, "abcdefgh", op=lambda left, right: f"({left}{right})")

    blocks = caller.work(range(1, 8), ENOUGH).block.values

    assert blocks == [(1, 1, "b"), (2, 2, "(cd)"), (4, 4, "((ef)(gh))")]


def weighed(fn, items, monkeypatch):
    """Return what carrying an item is said to cost, however short the turn was."""
    monkeypatch.setattr(home, "_WORTH_WEIGHING", 0.0)
    caller = worker(fn, items)
    return caller, caller.work(range(len(items)), ENOUGH).carriage


def test_carrying_is_priced_once(monkeypatch):
    caller, carriage = weighed(lambda x: x, list(range(100)), monkeypatch)

    assert carriage > 0
    assert caller.work(range(100), ENOUGH).carriage is None


def test_carrying_is_not_priced_before_it_matters(monkeypatch):
    monkeypatch.setattr(home, "_WORTH_WEIGHING", 1e9)

    assert worker(abs, [1]).work(range(1), ENOUGH).carriage is None


def test_what_cannot_be_pickled_has_no_price(monkeypatch):
    assert weighed(lambda x: lambda: x, [1, 2], monkeypatch)[1] is None


@pytest.mark.parametrize("error", [SystemError, SystemExit, GeneratorExit])
def test_an_empty_answer_to_pickle_has_no_price(error, monkeypatch):
    class Grudging:
        def __reduce__(self):
            raise error

    assert weighed(lambda _: Grudging(), [1, 2], monkeypatch)[1] is None


def test_large_arrays_are_priced_without_a_copy(monkeypatch):
    array = np.zeros(1 << 24, np.uint8)
    tracemalloc.start()
    try:
        _, carriage = weighed(lambda x: x, [array] * 3, monkeypatch)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < array.nbytes / 4
    assert carriage >= home._PER_BYTE * array.nbytes


def test_results_go_straight_into_a_sink_that_ends_where_the_turn_begins():
    sink = [0, 1]
    here = Home(lambda x: x * x, source((range(10),)), None, None)
    here.sink = sink
    turn = here.work(range(2, 10), 10.0)
    assert sink == [0, 1] + [x * x for x in range(2, 10)]
    assert (turn.block, turn.stop) == (Block([], {}), 10)


def test_a_sink_that_ends_elsewhere_is_left_alone():
    here = Home(lambda x: x * x, source((range(10),)), None, None)
    here.sink = [0]
    turn = here.work(range(2, 4), 10.0)
    assert here.sink == [0]
    assert turn.block.values == [4, 9]


def test_a_turn_that_fails_leaves_the_sink_as_it_was():
    def fail(x):
        if x == 5:
            raise ValueError(x)
        return x

    here = Home(fail, source((range(10),)), None, None)
    here.sink = [0, 1]
    turn = here.work(range(2, 10), 10.0)
    assert here.sink == [0, 1]
    assert turn.block.values == [2, 3, 4, None]
    assert (turn.stop, turn.failed) == (6, (5,))
