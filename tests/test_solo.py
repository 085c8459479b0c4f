"""A call whose caller is alone is the loop, and an engine goes on where the caller is."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from typing import Any

import faults
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_engine import Threads

from parallelkit import learned, pmap, solo
from parallelkit.chunking import Pace
from parallelkit.engine import Engine
from parallelkit.home import Home
from parallelkit.outcomes import Work
from parallelkit.scheduler import Limits
from parallelkit.solo import Solo
from parallelkit.source import source

EVER = 1e9  # seconds that no test takes


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: Any) -> None:
    monkeypatch.setattr(learned, "costs", {})
    monkeypatch.setattr(learned, "_almanac", [None])


@pytest.fixture
def unhurried(monkeypatch: Any) -> None:
    """However busy the machine is, no item of the test is a long one."""
    monkeypatch.setattr(solo, "PATIENCE", EVER)
    monkeypatch.setattr(solo, "PROBE", EVER)


class Call:
    """A `Solo` whose engine, should it come to that, has threads for workers."""

    def __init__(self, fn: Any, *iterables: Any) -> None:
        self.fn = fn
        self.items = source(iterables)
        self.place = Threads(fn)
        self.solo = Solo(fn, self.items, self.open)
        self.engine: Engine | None = None

    def open(self, home: Home, _: bool) -> Engine:
        return Engine(
            Work(self.fn), self.items, Limits(3), Pace(launch=1e-4), lambda: self.place, home
        )

    def run(self) -> list[Any]:
        """Return the results; `engine` is then the one that was needed, if any."""
        self.engine = self.solo.run()
        if self.engine is not None:
            for block in self.engine.results():
                self.solo.results.extend(block.values)
            if self.engine.failure is not None:
                raise self.engine.failure
        return self.solo.results


def test_a_quick_call_needs_no_engine(unhurried: None) -> None:
    call = Call(lambda x: x + 1, range(100))
    assert call.run() == list(range(1, 101))
    assert call.engine is None


@given(st.lists(st.integers(), max_size=50), st.sampled_from([list, tuple, iter, dict.fromkeys]))
def test_it_is_the_loop(items: list[int], kind: Any) -> None:
    expected = list(map(str, kind(items)))
    assert Call(str, kind(items)).run() == expected


def test_several_iterables_end_with_the_shortest() -> None:
    assert Call(lambda a, b: (a, b), "abcd", iter(range(3))).run() == [("a", 0), ("b", 1), ("c", 2)]


def test_what_a_call_costs_is_remembered(unhurried: None) -> None:
    call = Call(lambda x: x, range(100))
    call.run()
    (item, carriage, weight) = learned.costs[call.fn.__code__, int, None]
    assert item > 0
    assert (carriage, weight) == (None, 0.0)


def test_what_was_known_of_carrying_is_not_forgotten(unhurried: None) -> None:
    call = Call(lambda x: x, range(100))
    learned.remember(call.solo.key, (1e-9, 2e-6, 7.0))
    call.run()
    assert learned.costs[call.solo.key][1:] == (2e-6, 7.0)  # type: ignore[index]


def busy(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


class Watched:
    """Counts how often each item is run, and by which thread."""

    def __init__(self, act: Any) -> None:
        self.act = act
        self.threads: dict[int, list[threading.Thread]] = {}

    def __call__(self, x: int) -> int:
        self.threads.setdefault(x, []).append(threading.current_thread())
        self.act(x)
        return -x

    def check(self, items: range) -> None:
        assert sorted(self.threads) == list(items)
        assert all(len(each) == 1 for each in self.threads.values()), "an item was run twice"


@pytest.mark.parametrize(("late", "last"), [(0, 1), (0, 19), (1, 40), (300, 9000)])
def test_a_long_item_holds_up_nobody(late: int, last: int) -> None:
    done = threading.Event()

    def act(x: int) -> None:
        if x == last:
            done.set()
        elif x == late:
            assert done.wait(timeout=30), "the others waited for it"

    fn = Watched(act)
    with faults.limited():
        assert Call(fn, range(last + 1)).run() == [-x for x in range(last + 1)]
    fn.check(range(last + 1))


@pytest.mark.parametrize("at", [1, 2, 4, 5, 6, 20, 38, 39])
@pytest.mark.parametrize("lazy", [False, True])
def test_who_takes_over_early_has_the_turn_end(at: int, lazy: bool, unhurried: None) -> None:
    """As where the caller got no CPU between the start of its watch and that of its turn."""

    def act(x: int) -> None:
        if x == at:
            thread = threading.Thread(target=call.solo.act)
            thread.start()
            thread.join()

    fn = Watched(act)
    call = Call(fn, iter(range(40)) if lazy else range(40))
    with faults.limited():
        assert call.run() == [-x for x in range(40)]
    fn.check(range(40))
    assert call.engine is not None
    assert not call.solo.home.halted
    assert lazy or call.engine.run.pace.seen == 40  # of an iterator there were brief turns before


def test_a_long_first_item_of_an_iterator_holds_up_a_few() -> None:
    done = threading.Event()

    def act(x: int) -> None:
        if x == 4:
            done.set()
        elif x == 0:
            assert done.wait(timeout=30), "the others waited for it"

    fn = Watched(act)
    with faults.limited():
        assert Call(fn, iter(range(100))).run() == [-x for x in range(100)]
    fn.check(range(100))


def test_work_that_pays_is_shared(monkeypatch: Any) -> None:
    monkeypatch.setattr(learned, "launch", lambda _: 1e-4)
    fn = Watched(lambda _: busy(2e-3))
    call = Call(fn, range(40))
    assert call.run() == [-x for x in range(40)]
    assert call.engine is not None
    assert call.place.threads
    fn.check(range(40))


def test_a_price_that_is_remembered_decides_at_once(monkeypatch: Any) -> None:
    monkeypatch.setattr(learned, "launch", lambda _: 1e-4)
    here = threading.current_thread()
    fn = Watched(lambda _: busy(1e-3))
    call = Call(fn, range(100))
    learned.remember((Watched.__call__.__code__, int, None), (1e-3, 1e-6, 0.0))
    call.solo.key = (Watched.__call__.__code__, int, None)
    engine = call.solo.run()
    assert engine is not None
    assert not fn.threads
    call.solo.results.extend(value for block in engine.results() for value in block.values)
    assert call.solo.results == [-x for x in range(100)]
    assert any(each != [here] for each in fn.threads.values())


def test_a_price_without_that_of_carrying_does_not_decide(monkeypatch: Any) -> None:
    monkeypatch.setattr(learned, "launch", lambda _: 1e-4)
    monkeypatch.setattr(Home, "weigh", lambda *_: 1.0)  # seconds, which nothing repays
    fn = Watched(lambda _: busy(1e-3))
    monkeypatch.setattr(solo, "PATIENCE", EVER)
    call = Call(fn, range(10))
    call.solo.key = (Watched.__call__.__code__, int, None)
    learned.remember(call.solo.key, (1e-3, None, 0.0))
    assert call.run() == [-x for x in range(10)]
    assert call.engine is None


@pytest.mark.parametrize("failing", [0, 1, 5, 40])
@pytest.mark.parametrize("error", [ValueError, StopIteration, RuntimeError])
@pytest.mark.parametrize("lazy", [False, True])
def test_the_error_tells_its_item(failing: int, error: type[Exception], lazy: bool) -> None:
    def fail(x: int) -> int:
        if x == failing:
            raise error(x)
        return -x

    call = Call(fail, iter(range(60)) if lazy else range(60))
    with pytest.raises(error) as caught:
        call.run()
    assert call.engine is not None
    assert caught.value.args == (failing,)
    assert vars(caught.value)["index"] == vars(caught.value)["item"] == failing
    assert caught.value.__notes__ == [f"parallelkit: raised by item {failing} ({failing})"]
    assert call.solo.results == [-x for x in range(failing)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_loop_ends_the_call(error: type[BaseException]) -> None:
    def fail(_: int) -> None:
        raise error

    with pytest.raises(error):
        Call(fail, range(9)).run()


def test_what_ends_the_loop_ends_the_workers_of_a_call_that_was_taken_over() -> None:
    begun = threading.Semaphore(0)

    def act(x: int) -> None:
        if x:
            begun.release()
        else:
            assert begun.acquire(timeout=30)
            raise KeyboardInterrupt

    call = Call(Watched(act), range(20))
    with faults.limited(), pytest.raises(KeyboardInterrupt):
        call.run()
    assert call.place.closed


def test_an_item_that_fails_is_no_dearer_than_the_others(unhurried: None) -> None:
    def fail(x: int) -> int:
        return 1 // (50 - x)

    call = Call(fail, range(60))
    with pytest.raises(ZeroDivisionError):
        call.run()
    assert call.engine is not None
    assert call.engine.run.pace.seen == 51


def test_items_of_an_iterator_are_let_go_after_others_took_over(unhurried: None) -> None:
    """Also those that came before, or none after them could be."""
    refs: list[weakref.ref[Any]] = []

    class Item:
        pass

    def items() -> Any:
        for _ in range(60):
            item = Item()
            refs.append(weakref.ref(item))
            yield item

    def act(_: Item) -> None:
        if len(call.solo.results) == 40:
            thread = threading.Thread(target=call.solo.act)
            thread.start()
            thread.join()

    call = Call(act, items())
    with faults.limited():
        assert call.run() == [None] * 60
    assert call.engine is not None
    assert not call.items._kept  # type: ignore[attr-defined]
    for thread in call.place.threads:  # each may have its last chunk still
        thread.join(timeout=30)
    gc.collect()
    assert not any(ref() for ref in refs)


def test_what_was_computed_goes_with_the_call(unhurried: None) -> None:
    """Also if the thread that stood by is not over yet."""

    class Result:
        pass

    def refs() -> list[weakref.ref[Any]]:
        fn = lambda _: Result()
        return [weakref.ref(each) for each in (*pmap(fn, range(20)), fn)]

    gc.disable()
    try:
        for _ in range(50):
            assert not any(ref() for ref in refs())
    finally:
        gc.enable()


def test_items_of_an_iterator_are_weighed_while_they_are_there(monkeypatch: Any) -> None:
    monkeypatch.setattr(learned, "launch", lambda _: 1e-4)
    monkeypatch.setattr(solo, "PATIENCE", EVER)
    weighed: list[tuple[list[int], list[int]]] = []

    def weigh(home: Home, position: int, values: list[int]) -> None:
        (column,) = home.source.columns(range(position, position + len(values)))
        weighed.append((list(column), [-value for value in values]))

    monkeypatch.setattr(Home, "weigh", weigh)

    def act(x: int) -> int:
        busy(3e-5)
        return -x

    Call(act, iter(range(300))).run()
    assert weighed
    assert all(column == items for column, items in weighed)


def test_workers_that_cannot_be_started_for_an_odd_reason_are_ended(unhurried: None) -> None:
    def start(_: int) -> None:
        raise AssertionError("odd")

    def act(_: int) -> None:
        call.solo.act()  # an engine takes over
        with pytest.raises(AssertionError, match="odd"):
            call.solo.act()  # which wants workers
        raise KeyboardInterrupt

    call = Call(act, range(9))
    call.place.start = start  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        call.run()
    assert call.place.closed


def test_an_input_that_raises_gives_what_came_before_it() -> None:
    ran: list[int] = []

    def items() -> Any:
        yield from range(5)
        raise OSError("torn")

    with pytest.raises(OSError, match="torn"):
        Call(ran.append, items()).run()
    assert ran == [0, 1, 2, 3, 4]


def test_a_list_that_grows_shorter_is_told() -> None:
    items = list(range(100))

    def shorten(_: int) -> None:
        del items[10:]

    with pytest.raises(RuntimeError, match="was made shorter while it was being mapped"):
        Call(shorten, items).run()


def test_few_items_of_a_slow_iterator_are_pulled_ahead(monkeypatch: Any) -> None:
    monkeypatch.setattr(solo, "PULLING", -1.0)  # any is slow
    pulled: list[int] = []
    most: list[int] = []

    def items() -> Any:
        for x in range(9):
            pulled.append(x)
            yield x

    Call(lambda x: most.append(len(pulled) - x), items()).run()
    assert most == [1] * 9


LIGHT = """
import os, sys
before = set(sys.modules)
from parallelkit import pmap, solo
solo.PATIENCE = solo.PROBE = 1e9  # however busy the machine is
assert pmap(lambda x: x + 1, range(10)) == list(range(1, 11))
assert pmap(str, (x for x in "abc")) == ["a", "b", "c"]
print(*sorted(set(sys.modules) - before))
"""


def test_a_small_call_loads_next_to_nothing() -> None:
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {sys.path}\n{LIGHT}"]
    run = subprocess.run(command, check=True, capture_output=True, text=True)

    assert set(run.stdout.split()) <= {
        *("__future__", "_contextvars", "_operator", "_signal", "contextvars", "itertools"),
        *("parallelkit", "parallelkit.guard", "parallelkit.guests", "parallelkit.home"),
        "parallelkit.learned",
        *("parallelkit.maps", "parallelkit.solo", "parallelkit.source"),
    }


def test_an_interrupted_item_is_not_a_dear_one() -> None:
    call = Call(abs, [-1])
    call.run()
    call.solo.home.seconds = 1e-6  # by the clock on the wall
    call.solo.began = EVER  # so that this thread has had less than no time
    assert call.solo._price() == 1e-9
    call.solo.home.seconds = 1.0  # which may have been spent waiting
    assert call.solo._price() == 1.0
