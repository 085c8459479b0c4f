"""The garbage collector's passes come later while results come in, and as before after that."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from parallelkit import imap, lull, pmap, preduce
from parallelkit.lull import CALM

BEFORE = (700, 10, 10)


@pytest.fixture(autouse=True)
def threshold() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*BEFORE)
    yield
    assert not lull.lasts()
    gc.set_threshold(*before)


def record(x: int) -> dict[str, Any]:
    return {"x": x, "list": [x]}


class Told:
    """A result that tells how often passes were due when it came in."""

    def __init__(self) -> None:
        self.threshold = 0

    def __setstate__(self, _: object) -> None:
        self.threshold = gc.get_threshold()[0]


def told(_: int) -> Told:
    return Told()


def picky(x: int) -> int:
    if x == 9_000:
        raise ValueError(x)
    return x


def test_passes_come_later_for_as_long_as_it_lasts():
    lull.begin()
    lull.begin()
    assert gc.get_threshold() == (CALM, 10, 10)
    assert lull.lasts()
    lull.end()
    assert gc.get_threshold() == BEFORE
    lull.end()
    assert gc.get_threshold() == BEFORE


def test_it_goes_on_for_another_thread():
    began, over = threading.Event(), threading.Event()

    def other() -> None:
        lull.begin()
        began.set()
        over.wait()
        lull.end()

    thread = threading.Thread(target=other)
    thread.start()
    began.wait()
    lull.begin()
    lull.end()
    during = gc.get_threshold()
    over.set()
    thread.join()

    assert during == (CALM, 10, 10)
    assert gc.get_threshold() == BEFORE


@pytest.mark.parametrize("set_by_user", [(0, 10, 10), (CALM, 5, 5), (CALM + 1, 10, 10)])
def test_who_wants_fewer_passes_or_none_has_them_so(set_by_user):
    gc.set_threshold(*set_by_user)
    lull.begin()
    assert gc.get_threshold() == set_by_user
    lull.end()
    assert gc.get_threshold() == set_by_user


def test_what_is_set_meanwhile_stays():
    lull.begin()
    gc.set_threshold(123, 4, 5)
    lull.end()
    assert gc.get_threshold() == (123, 4, 5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_copy_of_the_process_has_it_as_before():
    lull.begin()
    pid = os.fork()
    if not pid:
        os._exit(gc.get_threshold() != BEFORE or lull.lasts())
    lull.end()
    assert os.waitpid(pid, 0) == (pid, 0)


def test_many_results_come_in_a_lull_and_it_ends_with_the_call():
    thresholds = {each.threshold for each in pmap(told, range(20_000), workers=2)}

    assert CALM in thresholds
    assert gc.get_threshold() == BEFORE


def test_it_ends_however_the_call_does():
    with pytest.raises(ValueError, match="9000"):
        pmap(picky, range(20_000), workers=2)
    assert gc.get_threshold() == BEFORE
    assert preduce(max, range(20_000), workers=2) == 19_999
    assert gc.get_threshold() == BEFORE


def due() -> int:
    return gc.get_threshold()[0]


def watched(x: int, until: float) -> tuple[int, frozenset[int]]:
    """Return who ran this, and how often passes were due while it did."""
    seen = {due()}
    while time.monotonic() < until and x == 0:
        seen.add(due())
    return os.getpid(), frozenset(seen)


def test_the_callers_own_code_never_runs_in_one():
    def items() -> Iterator[int]:
        for x in range(20_000):
            assert due() == BEFORE[0]
            yield x

    for each in imap(record, items(), workers=2):
        assert due() == BEFORE[0]
        if each["x"] == 15_000:
            break


def test_nor_does_an_item_that_the_caller_runs():
    here, until = os.getpid(), time.monotonic() + 0.3  # others have the rest by then
    rows = pmap(watched, range(30_000), [until] * 30_000)

    assert rows[0] == (here, frozenset({BEFORE[0]}))
    assert {seen for pid, seen in rows if pid == here} == {frozenset({BEFORE[0]})}


def test_nor_what_combines_two_values():
    seen: set[int] = set()

    def op(a: list[int], b: list[int]) -> list[int]:
        seen.add(due())
        return max(a, b)

    assert preduce(op, [[x] for x in range(20_000)], workers=2) == [19_999]
    assert preduce(op, [[x] for x in range(20_000)]) == [19_999]
    assert seen == {BEFORE[0]}


class Deadly:
    """A result that ends whoever takes it in, if that is not a worker."""

    def __reduce__(self) -> Any:
        return end_here, ()


def end_here() -> None:
    raise SystemExit


def test_it_ends_where_a_result_ends_the_call():
    for _ in range(3):
        with contextlib.suppress(SystemExit):
            pmap(lambda x: Deadly() if x == 15_000 else [x], range(20_000), workers=2)
        assert gc.get_threshold() == BEFORE


@pytest.mark.parametrize("step", range(1, 30))
def test_an_interrupt_anywhere_is_mended_by_the_next_end(step):
    left = step

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != lull.__file__:
            return None
        left -= event == "line"
        if not left:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    with contextlib.suppress(KeyboardInterrupt):
        sys.settrace(trace)
        try:
            lull.begin()
            lull.end()
        finally:
            sys.settrace(before)
    lull.end()

    assert gc.get_threshold() == BEFORE


def test_what_a_thread_sets_again_later_is_known_for_ours():
    lull.begin()
    seen = gc.get_threshold()
    lull.end()
    gc.set_threshold(*seen)
    lull.begin()
    lull.end()

    assert gc.get_threshold() == BEFORE
