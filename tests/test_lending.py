"""A worker holds what it lent for two chunks, and what it borrowed while the lender has it."""

from __future__ import annotations

import socket
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from leaks import not_a_worker
from scripts import STARTS, script

from parallelkit import lending, pmap, share
from parallelkit.board import Slot
from parallelkit.worker import TIRED, Worker


class Thing:
    """Something that can be seen to go."""


@pytest.fixture(autouse=True)
def nothing_held() -> Iterator[None]:
    """Leave no loans behind."""
    yield
    not_a_worker()


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


def borrowed(wanted: list[bool]) -> weakref.ref[Thing]:
    """Borrow a thing, which is wanted while the list has no False in it."""
    thing = Thing()
    lending.borrow(thing, lambda: all(wanted))
    return weakref.ref(thing)


def test_nothing_is_kept_where_no_run_began() -> None:
    assert borrowed([])() is None
    assert not lending.review()


def test_what_is_borrowed_is_kept_while_its_lender_has_it() -> None:
    lending.begin()
    wanted = [True]
    one, other = borrowed(wanted), borrowed([])
    lending.end()
    lending.begin()
    assert one() is not None
    wanted[0] = False
    assert lending.review()
    assert one() is None
    lending.begin(keep=False)
    assert other() is None
    assert borrowed([])() is None


def test_few_things_are_kept_those_used_last() -> None:
    lending.begin()
    things = [Thing() for _ in range(lending._KEPT + 1)]
    for thing in [*things[:-1], things[0], things[-1]]:
        lending.borrow(thing, lambda: True)
    seen = [weakref.ref(thing) for thing in things]
    del thing, things
    assert [each() is None for each in seen] == [False, True] + [False] * (lending._KEPT - 1)


def test_a_worker_that_borrowed_looks_sooner() -> None:
    ours, other = socket.socketpair()
    with ours, other:
        worker = Worker(ours, cast("Slot", None))
        lending.begin()
        wanted = [True]
        seen = borrowed(wanted)
        worker.nap(0.0)
        assert ours.gettimeout() == lending.NAP
        wanted[0] = False
        worker.nap(lending.NAP)
        assert (ours.gettimeout(), seen()) == (TIRED, None)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("start", STARTS)
def test_a_worker_keeps_an_array_mapped_from_call_to_call(tmp_path: Path, start: str) -> None:
    source = """
        import os
        import numpy as np
        from parallelkit import pmap, share

        table, others = share(np.ones(1 << 20)), [share(np.ones(1 << 20)) for _ in range(2)]

        def mapped(name):
            with open(f"/proc/{pid}/maps") as file:
                return name in file.read()

        (pid,) = set(pmap(lambda x: (table[x], os.getpid())[1], range(4), workers=1))
        name = table.array.base.handle().token
        assert mapped(name)
        pmap(lambda x: os.getpid(), range(2), workers=1)
        assert mapped(name)
        pmap(lambda x: others[0][x], range(2), workers=1, max_memory=1 << 30)
        assert not mapped(name)
        pmap(lambda x: table[x], range(2), workers=1)
        assert mapped(name)
        table.close()
        assert {pid} == set(pmap(lambda x: os.getpid(), range(2), workers=1))
        print(mapped(name))
    """
    assert script(source, where=tmp_path, PARALLELKIT_START=start) == "False\n"
