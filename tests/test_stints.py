"""A chunk's calls in somebody else's thread: outcomes, early ends, and what is left as it was."""

from __future__ import annotations

import random
import threading
from contextvars import copy_context

import numpy as np
import pytest

from parallelkit import stints
from parallelkit.guests import lodged
from parallelkit.seeding import Kept, reset
from parallelkit.stints import Stint, seeded


def run(fn, items, **how):
    stint = Stint()
    stint.run(fn, iter(items), len(items), single=True, **how)
    return stint


def test_all_calls_are_made_and_failures_have_offsets():
    stint = run(lambda x: 6 // x, [1, 0, 2, 0, 3])

    assert stint.values == [6, None, 3, None, 2]
    assert {at: type(error) for at, error in stint.failures.items()} == {
        1: ZeroDivisionError,
        3: ZeroDivisionError,
    }
    assert stint.seconds > 0


def test_several_arguments_are_passed_on():
    stint = Stint()
    stint.run(pow, iter([(2, 3), (3, 2)]), 2, single=False)

    assert stint.values == [8, 9]


def test_an_urgent_failure_ends_it():
    stint = run(lambda x: 6 // x, [1, 0, 2, 3], urgent=True)

    assert (stint.values, list(stint.failures)) == ([6, None], [1])


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, StopIteration])
def test_whatever_is_raised_is_the_items(error):
    def fn(x):
        if x == 1:
            raise error
        return x

    stint = run(fn, range(3))

    assert (stint.values, type(stint.failures[1])) == ([0, None, 2], error)


def test_it_ends_when_its_time_is_over(monkeypatch):
    monkeypatch.setattr(stints, "SPELL", 1e-9)

    assert len(run(abs, range(100)).values) == 1


def test_it_ends_when_nobody_waits():
    begun = []

    def fn(x):
        begun.append(x)
        return x

    assert run(fn, range(100), over=lambda: len(begun) > 5).values == begun
    assert len(begun) < 100


def test_arguments_that_run_out_are_failures():
    stint = Stint()
    stint.run(abs, iter([1]), 3, single=True)

    assert [type(each) for each in stint.failures.values()] == [RuntimeError, RuntimeError]


def test_its_calls_know_where_they_are():
    assert run(lambda _: lodged.get(), [1]).values == [True]
    assert not lodged.get()


def test_numbers_are_drawn_as_for_the_item_and_the_generators_are_left_as_they_were():
    with Kept():
        reset(5, 3)
        expected = random.random(), np.random.random()
        before = random.getstate()
        calls, surroundings = seeded([0, 0], 5, 2)
        stint = Stint()
        with surroundings:
            stint.run(lambda _: (random.random(), np.random.random()), calls, 2, single=True)

        assert stint.values[1] == expected
        assert random.getstate() == before


def test_threads_that_work_for_an_item_have_its_turn():
    def draw() -> float:
        calls, surroundings = seeded([0], 7, 0)
        stint = Stint()
        with surroundings:
            stint.run(lambda _: random.random(), calls, 1, single=True)
        return stint.values[0]

    alone = draw()
    drawn = []
    _, surroundings = seeded([0], 5, 0)
    with surroundings:
        thread = threading.Thread(
            target=copy_context().run, args=(lambda: drawn.append(draw()),), daemon=True
        )
        thread.start()
        thread.join(30)  # it would wait for ever

    assert drawn == [alone]
