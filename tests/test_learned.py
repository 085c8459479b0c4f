"""What calls have taught is kept, by the function's code and the kind of its items."""

from __future__ import annotations

import operator
from functools import partial
from typing import Any

import numpy as np
import pytest

from parallelkit import learned


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: Any) -> None:
    monkeypatch.setattr(learned, "costs", {})
    monkeypatch.setattr(learned, "_almanac", [None])


def double(x: int) -> int:
    return 2 * x


def test_a_function_is_known_by_its_code_and_the_kind_of_its_items() -> None:
    made = [learned.key(lambda x: x, int) for _ in range(2)]
    assert made[0] == made[1]
    assert learned.key(partial(partial(double)), int) == (double.__code__, int, None)
    assert learned.key(double, int) != learned.key(double, str)
    assert learned.key(abs, int) is None


def test_a_reduction_is_known_by_its_operation_too() -> None:
    known = [None, operator.add, operator.mul, max, lambda a, b: a, double, object()]
    keys = [learned.key(double, int, op) for op in known]
    assert len(set(keys)) == len(keys)
    assert learned.key(double, int, operator.add) == learned.key(double, int, operator.add)


def test_an_operation_may_answer_anything_that_it_is_asked() -> None:
    class Odd:
        def __getattr__(self, name: str) -> object:
            raise ValueError(name)

    class Vague:
        __code__ = __name__ = np.zeros(2)

    assert learned.key(double, int, Odd()) == learned.key(double, int, Vague())


def test_what_has_no_code_is_not_remembered() -> None:
    learned.remember(None, (1.0, None, 0.0))
    assert learned.recall(None) is None
    assert not learned.costs


def test_what_is_remembered_is_recalled() -> None:
    key = learned.key(double, int)
    assert learned.recall(key) is None
    learned.remember(key, (1.0, 2.0, 3.0))
    assert learned.recall(key) == (1.0, 2.0, 3.0)


def test_the_one_that_was_not_used_for_longest_is_forgotten(monkeypatch: Any) -> None:
    monkeypatch.setattr(learned, "REMEMBERED", 2)
    keys = [(compile(str(number), "test", "eval"), int, None) for number in range(3)]
    for each in (*keys[:2], keys[0], keys[2]):
        learned.remember(each, (1.0, None, 0.0))
    assert list(learned.costs) == [keys[0], keys[2]]


def test_more_workers_take_longer() -> None:
    assert learned.launch(2) < learned.launch(20)


def test_workers_that_take_long_to_come_are_expected_later(monkeypatch: Any) -> None:
    monkeypatch.setattr(learned, "_fork", learned.FORK)
    for _ in range(20):
        learned.forked(0.02)
    assert learned.fork() == pytest.approx(0.02, rel=0.01)


@pytest.mark.parametrize(("seconds", "believed"), [(1e3, 50e-3), (0.0, 0.5e-3)])
def test_what_cannot_be_is_not_believed(seconds: float, believed: float, monkeypatch: Any) -> None:
    monkeypatch.setattr(learned, "_fork", learned.FORK)
    for _ in range(20):
        learned.forked(seconds)
    assert learned.fork() == pytest.approx(believed, rel=0.01)
