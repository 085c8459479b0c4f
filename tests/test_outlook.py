"""How far a run is, what it waits for, whether it is sound: asked of ledgers in a given state."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from parallelkit.chunking import Pace
from parallelkit.ledgers import Failures, Home, Input, Limits, Output, Staff
from parallelkit.outlook import Outlook
from parallelkit.stealing import Stealing


def outlook(pulled: int = 9, taken: int = 0, home: Home | None = None, **limits: Any) -> Outlook:
    """Return the view of a run on a list, of which a worker has the first `taken` items."""
    stock, staff = Input(), Staff(allowed=2, starting=1)
    stock.begin(pulled, pulled)
    staff.join(1)
    if taken:
        del staff.idle[1]
        staff.send(1, stock.take(taken), now=0.0)
    bounds = Limits(2, **limits)
    output, stealing = Output(bounds.ordered), Stealing(Pace(), staff)
    return Outlook(bounds, stock, staff, home or Home(), output, stealing, Failures())


def test_the_lowest_that_somebody_holds():
    assert outlook(taken=3).lowest_held() == 0
    assert outlook(home=Home(range(5, 6))).lowest_held() == 5
    assert outlook().lowest_held() is None


def test_the_first_that_was_not_given():
    view = outlook(taken=3, ordered=False)
    assert view.first() == 0
    view.staff.leave(1)
    assert view.first() == 3
    view.home.bind(range(1, 2))
    assert view.first() == 1
    view = outlook()
    view.output.given = 7
    assert view.first() == 7


def test_a_failure_is_told_when_nothing_before_it_is_left():
    view = outlook(taken=9)
    assert view.settled(0, 0.0)
    assert not view.settled(1, 0.0)
    view.failures.until = 1.0
    assert view.settled(1, 1.0)
    view = outlook(pulled=0)
    assert view.settled(1, 0.0)
    view.home.bind(range(1))
    assert not view.settled(1, 0.0)


def test_the_deadline_is_the_earliest():
    view = outlook(taken=3)
    assert view.deadline() is None
    view.stock.rest(4, until=3.0)
    view.failures.until = 2.0
    assert view.deadline() == 2.0
    view.home.watch = 1.0
    assert view.deadline() == 1.0
    view.stealing.asked[1] = 0.5
    assert view.deadline() == 0.5
    view.stealing.due = 0.25
    assert view.deadline() == 0.25


def test_whoever_has_an_item_is_waited_for():
    assert not outlook().awaits()
    assert outlook(taken=1).awaits()
    assert outlook(home=Home(range(1))).awaits()


def test_an_audit_tells_what_is_wrong():
    outlook().audit()
    with pytest.raises(AssertionError, match="a position is in two places"):
        outlook(home=Home(range(1))).audit()
    with pytest.raises(AssertionError, match="a position is in two places"):
        outlook(home=Home(bound=[range(8, 9)])).audit()
    view = outlook()
    view.limits = Limits(2, home=False)
    view.home.bind(view.stock.take(1))
    with pytest.raises(AssertionError, match="the caller is left what it may not run"):
        view.audit()
    view = outlook(taken=1)
    view.home.chunk, view.staff.lone = view.stock.take(1), True
    with pytest.raises(AssertionError, match="a lone item has company"):
        view.audit()
    view = outlook()
    view.staff.chunks[2] = deque()
    with pytest.raises(AssertionError, match="idle"):
        view.audit()


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"begun": True}, "work is taken where it cannot be"),
        ({"asked": {1: 0.0}}, "an answer is due from nobody"),
        ({"owed": {2: 1}, "promised": 1}, "the idle owe work"),
        ({"promised": 1}, "what is owed is miscounted"),
        ({"owed": {1: 1}, "promised": 1, "ends": {1: (1.0, 0.0)}}, "a worker is asked while"),
        ({"ends": {2: (1.0, 0.0)}}, "the idle are expected to be busy"),
    ],
)
def test_an_audit_tells_what_is_wrong_about_stealing(change: dict[str, Any], wrong: str):
    view = outlook(taken=2)
    for name, value in change.items():
        setattr(view.stealing, name, value)
    if 1 in view.stealing.owed:
        del view.staff.half[1]  # it gets nothing while it owes an answer
    with pytest.raises(AssertionError, match=wrong):
        view.audit()
