"""A worker holds what it lent for two chunks; elsewhere nothing is held."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from parallelkit import lending, pmap, share


class Thing:
    """Something that can be seen to go."""


@pytest.fixture(autouse=True)
def nothing_held() -> Iterator[None]:
    """Leave no loans behind."""
    yield
    lending.end()


def lent() -> weakref.ref[Thing]:
    thing = Thing()
    lending.lend(thing)
    return weakref.ref(thing)


def test_nothing_is_held_outside_a_chunk() -> None:
    assert lent()() is None


def test_loans_last_for_two_chunks() -> None:
    lending.turn()
    first = lent()
    lending.turn()
    assert first() is not None
    lending.turn()
    assert first() is None


def test_the_end_of_the_run_ends_all_loans() -> None:
    lending.turn()
    loan = lent()
    lending.end()
    assert loan() is None
    assert lent()() is None


def test_shared_arrays_that_a_worker_makes_arrive() -> None:
    tables = pmap(lambda x: share(np.full(10, x)), range(300), workers=2, chunksize=3)
    assert [int(table[7]) for table in tables] == list(range(300))
