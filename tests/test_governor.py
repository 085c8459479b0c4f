"""The governor looks now and then, and says when memory runs short and when that is over."""

from __future__ import annotations

import math
import sys
import warnings
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelkit.errors import MemoryShortage
from parallelkit.events import Strained
from parallelkit.governor import PERIOD, Governor
from parallelkit.machine import Memory

GIB = 1 << 30


def seen(available: float, total: int = 100 * GIB, limit: int | None = None) -> Memory:
    return Memory(total, limit, int(available), "the test")


class Looks:
    """Gives one look after another, and counts them."""

    def __init__(self, *looks: Memory) -> None:
        self.looks = list(looks)
        self.count = 0

    def __call__(self) -> Memory:
        self.count += 1
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]


def test_it_does_not_look_before_there_are_workers() -> None:
    looks = Looks(seen(0))
    governor = Governor(looks)

    assert governor.due == math.inf
    assert governor.check(1e9) is None
    assert looks.count == 0


def test_it_looks_once_in_a_period() -> None:
    looks = Looks(seen(50 * GIB))
    governor = Governor(looks)
    governor.begin(10.0)
    governor.begin(10.1)  # more workers change nothing

    assert governor.due == 10.0 + PERIOD
    for tick in range(100):
        assert governor.check(10.0 + tick * PERIOD / 10) is None
    assert looks.count == 9


def test_shortage_is_told_once_and_so_is_its_end() -> None:
    looks = [seen(share * GIB) for share in (50, 5, 5, 8, 11.9, 12, 50, 6, 5.9)]
    governor = Governor(Looks(*looks))
    governor.begin(0.0)
    with pytest.warns(MemoryShortage) as caught:
        told = [governor.check(turn * PERIOD) for turn in range(1, len(looks) + 1)]

    short, eased = Strained(True), Strained(False)
    assert told == [None, short, None, None, None, eased, None, None, short]
    assert len(caught) == 2
    assert str(caught[0].message) == (
        "memory runs short (5.00 of 100.00 GiB are left, by the test): "
        "items now run one at a time, until there is more"
    )


def test_a_limit_below_the_machines_memory_counts() -> None:
    governor = Governor(Looks(seen(1 * GIB, limit=4 * GIB)))
    governor.begin(0.0)
    assert governor.check(1.0) is None

    governor = Governor(Looks(seen(0.1 * GIB, limit=4 * GIB)))
    governor.begin(0.0)
    with pytest.warns(MemoryShortage, match=r"0\.10 of 4\.00 GiB"):
        assert governor.check(1.0) == Strained(True)


def test_unknown_memory_is_no_shortage() -> None:
    governor = Governor(Looks(seen(sys.maxsize, sys.maxsize)))
    governor.begin(0.0)
    assert governor.check(1.0) is None


def test_a_shortage_that_comes_again_lasts_longer_each_time() -> None:
    governor = Governor(Looks(*[seen(share * GIB) for share in (5, 50) * 100]))
    governor.begin(0.0)
    lasted, since, now = [], 0.0, 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MemoryShortage)
        for _ in range(8):
            while (news := governor.check(now)) != Strained(True):
                assert news is None
                now += PERIOD
            since = now
            governor.look = Looks(seen(50 * GIB))
            while (news := governor.check(now)) != Strained(False):
                assert news is None
                now += PERIOD
            governor.look = Looks(seen(5 * GIB))
            lasted.append(now - since)

    assert lasted == [PERIOD, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


@given(st.lists(st.floats(0, 100), max_size=30))
def test_the_news_alternate(shares: list[float]) -> None:
    governor = Governor(Looks(*[seen(share * GIB) for share in shares], seen(50 * GIB)))
    governor.begin(0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MemoryShortage)
        news = [governor.check((turn + 1) * PERIOD) for turn in range(len(shares))]
        news.append(governor.check(1e9))

    told = [each for each in news if each is not None]
    assert all(a != b for a, b in pairwise(told))
    assert not governor.strained


def test_a_look_that_cannot_be_taken_is_no_news() -> None:
    def blind() -> Memory:
        raise OSError("too many open files")

    governor = Governor(blind)
    governor.begin(0.0)
    assert governor.check(PERIOD) is None
    assert governor.due == 2 * PERIOD
