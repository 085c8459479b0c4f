"""Threads as a backend: as many as are asked for, nothing copied, nothing left."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from parallelkit import amap, imap, pmap


def test_items_are_the_callers_own():
    lists = [[x] for x in range(20)]

    same = pmap(lambda x: x, lists, backend="threads")

    assert all(a is b for a, b in zip(same, lists, strict=True))


def test_so_many_run_at_once_as_are_asked_for():
    meeting = threading.Barrier(5)

    assert sorted(pmap(lambda _: meeting.wait(30), range(5), workers=5, backend="threads")) == [
        *range(5)
    ]


def test_a_map_in_a_thread_may_use_threads():
    found = pmap(lambda n: pmap(abs, range(n), backend="threads"), range(9), backend="threads")

    assert found == [list(range(n)) for n in range(9)]


def test_the_first_failure_ends_the_run_though_another_item_goes_on():
    gate, begun = threading.Event(), []

    def fn(x):
        begun.append(x)
        if x == 1:
            raise ValueError("no")
        gate.wait(30)
        return x

    with pytest.raises(ValueError, match=r"^no\b"):
        pmap(fn, range(50), workers=2, chunksize=1, backend="threads")
    gate.set()

    assert len(begun) < 50


def test_an_iterator_that_is_left_begins_nothing_more():
    begun = []
    results = imap(begun.append, range(10_000), chunksize=10, workers=2, backend="threads")
    next(results)
    results.close()

    assert len(begun) < 10_000


def test_a_seeded_map_within_a_seeded_map_ends_with_the_same_numbers():
    def row(_):
        return pmap(lambda _: random.random(), range(3), seed=1, backend="threads"), random.random()

    async def arow():
        return await amap(lambda _: random.random(), range(3), seed=1, backend="threads")

    assert pmap(row, range(4), seed=2, backend="threads") == pmap(
        row, range(4), seed=2, backend="serial"
    )
    assert pmap(lambda _: asyncio.run(arow()), range(2), seed=2, backend="threads") == [
        row(0)[0],
        row(0)[0],
    ]


@pytest.mark.parametrize("own", [False, True])
def test_items_calculate_as_the_caller_does(own):
    def third(x):
        context = decimal.getcontext()
        found = str(decimal.Decimal(1) / 3)
        context.prec = 3 + x  # which is nobody else's
        return found, name.get()

    name = contextvars.ContextVar("name", default="none")
    with decimal.localcontext(prec=40), ThreadPoolExecutor(2) as executor:
        name.set("mine")
        backend = executor if own else "threads"
        found = pmap(third, range(4), chunksize=1, workers=1, backend=backend)

        assert found == [("0." + "3" * 40, "mine")] * 4
        assert decimal.getcontext().prec == 40
