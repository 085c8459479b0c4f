"""A short call like the one before needs no engine, and nobody can tell."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import threading
from time import perf_counter
from typing import Any

import faults
import pytest
import scripts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kept import ready

import parallelkit
from parallelkit import brief, options, pmap, wire
from parallelkit.backends import repeated, warm
from parallelkit.backends.repeated import Repeated
from parallelkit.errors import WorkerDied

PID = lambda _: os.getpid()
SAME = lambda x: x


class Refusing:
    """Goes out of a worker, and does not come in."""

    def __init__(self) -> None:
        self.attribute = 1

    def __setstate__(self, state: object) -> None:
        raise ValueError("cannot be loaded")


def made(size: int) -> Any:
    import numpy as np

    return np.ones(size) if size else Refusing()


@pytest.fixture(autouse=True)
def limit() -> Any:
    with faults.limited():
        yield


class Attempts:
    """Counts how calls ended that were begun without an engine."""

    def __init__(self) -> None:
        self.done = self.handed_over = 0


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Attempts:
    counted = Attempts()
    attempt = Repeated.attempt

    def watched(run: Repeated, column: Any, spans: list[range]) -> Any:
        results, begun = attempt(run, column, spans)
        counted.done += results is not None
        counted.handed_over += begun
        return results, begun

    monkeypatch.setattr(Repeated, "attempt", watched)
    return counted


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_results_are_those_of_the_loop(count: int, attempts: Attempts) -> None:
    ready(SAME, range(2), 2)
    for turn in range(20):
        items = [(turn, at) for at in range(count)]
        assert pmap(SAME, items, workers=2) == items
        assert pmap(SAME, tuple(items), workers=2) == items
        assert pmap(SAME, range(count), workers=2) == [*range(count)]
    assert attempts.done + attempts.handed_over > 0 or count > 2


def test_more_cheap_items_than_workers_go_straight_to_one_of_them(attempts: Attempts) -> None:
    for _ in range(1000):  # until a call has told that they are cheap
        pids = set(pmap(PID, range(10), workers=2))
        if attempts.done + attempts.handed_over:
            break

    assert attempts.done + attempts.handed_over > 0
    assert len(pids) == 1


def test_what_goes_on_is_the_same_workers(attempts: Attempts) -> None:
    (first,) = ready(PID, [0], 1)
    assert [pmap(PID, [0], workers=1) for _ in range(50)] == [[first]] * 50
    assert attempts.done + attempts.handed_over > 0


def test_an_item_that_fails_is_told_as_ever(attempts: Attempts) -> None:
    def inverse(x: int) -> float:
        return 1 / x

    for _ in range(3):
        assert ready(inverse, [1, 2], 2) == [1.0, 0.5]
        before = attempts.handed_over
        with pytest.raises(ZeroDivisionError) as caught:
            pmap(inverse, [4, 0], workers=2)
        assert attempts.handed_over > before
        error: Any = caught.value
        assert (error.index, error.item, error.results) == (1, 0, {0: 0.25})
        assert "parallelkit: raised by item 1 (0)" in error.__notes__


def test_a_worker_that_dies_is_blamed_on_its_item_as_ever(attempts: Attempts) -> None:
    def end(x: int) -> int:
        if x < 0:
            os._exit(3)
        return x

    for _ in range(2):
        assert ready(end, [1, 2], 2) == [1, 2]
        before = attempts.handed_over
        with pytest.raises(WorkerDied, match=r"ended with exit code 3 while it ran item 0 \(-1\)"):
            pmap(end, [-1, 5], workers=2)
        assert attempts.handed_over > before


def test_one_that_was_killed_while_it_waited_costs_nothing() -> None:
    for _ in range(5):
        (pid,) = ready(PID, [0], 1)
        os.kill(pid, signal.SIGKILL)
        (other,) = pmap(PID, [0], workers=1)
        assert other != pid


def test_a_long_item_has_an_engine_take_over(attempts: Attempts, tmp_path: Any) -> None:
    path = str(tmp_path / "go")
    os.mkfifo(path)

    def wait(x: Any) -> Any:
        if isinstance(x, str):
            open(x).close()
        return x

    ready(wait, [1, 2], 2)
    before, over = attempts.handed_over, threading.Event()

    def release() -> None:
        while attempts.handed_over == before and not over.wait(0.001):
            pass
        open(path, "w").close()

    helper = threading.Thread(target=release)
    helper.start()
    try:
        assert pmap(wait, [path, 2], workers=2) == [path, 2]
    finally:
        over.set()
        helper.join()
    assert attempts.handed_over > before


def test_large_results_and_odd_ones_come_as_ever() -> None:
    for _ in range(3):
        for size in 10, 100_000, 1_000_000:
            (array,) = pmap(made, [size], workers=1)
            assert array.sum() == size
        with pytest.raises(ValueError, match="cannot be loaded"):
            pmap(made, [0], workers=1)


def test_what_is_printed_is_there(capfd: pytest.CaptureFixture[str]) -> None:
    for turn in range(4):
        pmap(print, [turn], workers=1)
    assert capfd.readouterr().out == "0\n1\n2\n3\n"


def test_what_has_changed_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    look = lambda _: (os.getcwd(), os.environ.get("PARALLELKIT_TEST"), sys.argv[-1])
    for turn in "abc":
        (tmp_path / turn).mkdir()
        monkeypatch.chdir(tmp_path / turn)
        monkeypatch.setenv("PARALLELKIT_TEST", turn)
        monkeypatch.setattr(sys, "argv", ["x", turn])
        for _ in range(3):
            assert pmap(look, [0], workers=1) == [(os.getcwd(), turn, turn)]


def test_another_function_is_another() -> None:
    for turn in range(5):
        for _ in range(3):
            assert pmap(lambda x, turn=turn: x + turn, [1], workers=1) == [1 + turn]
            assert pmap(lambda x: -x, [1], workers=1) == [-1]


def test_a_backend_that_was_chosen_holds(attempts: Attempts) -> None:
    pmap(PID, [0], workers=1)
    pmap(PID, [0], workers=1)
    before = attempts.done + attempts.handed_over
    with parallelkit.backend("threads"):
        assert pmap(PID, [0], workers=1) == [os.getpid()]
    assert pmap(PID, [0], workers=1, backend="serial") == [os.getpid()]
    assert attempts.done + attempts.handed_over == before


def test_wrong_arguments_are_refused_as_ever() -> None:
    pmap(SAME, [0], workers=1)
    pmap(SAME, [0], workers=1)
    with pytest.raises(TypeError, match="workers"):
        pmap(SAME, [0], workers="1")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        pmap(SAME, 5, workers=1)  # type: ignore[arg-type]
    assert pmap(SAME, [], workers=1) == []
    assert pmap(SAME, iter([1]), workers=1) == [1]
    assert pmap(SAME, "a", workers=1) == ["a"]


def test_a_fork_of_the_caller_has_workers_of_its_own() -> None:
    (pid,) = pmap(PID, [0], workers=1)
    assert pmap(PID, [0], workers=1) == [pid]
    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if pmap(PID, [0], workers=1) != [pid] else 2
            warm.shut()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert pmap(PID, [0], workers=1) == [pid]


@pytest.mark.parametrize("place", ["send", "_soon", "_results", "_begin"])
def test_ctrl_c_within_it_ends_what_runs(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ready(PID, [0], 1)
    owner = repeated.Processes if place == "send" else Repeated
    step = getattr(owner, place)

    def interrupted(*arguments: Any) -> Any:
        step(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(owner, place, interrupted)
        with pytest.raises(KeyboardInterrupt):
            while True:  # an engine may have to take over before this step
                pmap(PID, [0], workers=1)
    after = pmap(PID, [0], workers=1)
    assert pmap(PID, [0], workers=1) == after
    assert place in {"_results", "_begin"} or after != before
    assert not warm.pool().busy


def begun_again(fn: Any, items: list[Any]) -> None:
    """Have a call of `fn` over `items` kept, so that the next goes straight to its workers."""
    while True:
        assert ready(fn, items, 2) == items
        run: Any = warm.parked()
        if run.call.price is not None:
            return


WAIT = lambda x: (threading.Event().wait(x), x)[1]


def test_ctrl_c_where_an_engine_takes_over_leaves_no_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    begun_again(WAIT, [0, 0])
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(options, "plan", interrupted)
        pmap(WAIT, [0, 0.1], workers=2)
    assert not warm.pool().busy
    assert pmap(WAIT, [0, 0.01], workers=2) == [0, 0.01]


@pytest.mark.parametrize("turns", [1, 2])
def test_ctrl_c_while_workers_are_given_back_leaves_none(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun_again(SAME, [0, 1])
    with faults.interrupted_at_return(turns, monkeypatch) as given:
        pmap(SAME, [0, 1], workers=2)
    pool = warm.pool()
    assert not pool.busy
    assert len(given) == len(pool.idle) == len(set(pool.idle)) == 2


def test_a_worker_that_writes_where_it_should_not_is_missed_at_once() -> None:
    def spoil(x: int) -> int:
        """Write into the socket to the caller, as a function does that takes it for its own."""
        for fd in range(3, 50) if x else ():
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(os.fstat(fd).st_mode):
                    os.write(fd, bytes(wire.HEADER.size))
        return x

    for items in ([0, 1], [1, 0], [1, 1]):
        begun_again(spoil, [0, 0])
        with pytest.raises(WorkerDied, match="wrote to a descriptor that is not its own"):
            pmap(spoil, items, workers=2)
    assert not warm.pool().busy


def test_what_a_worker_shares_is_there_until_it_has_arrived() -> None:
    def made(size: int) -> Any:
        import numpy as np

        if size < 0:
            threading.Event().wait(2e-3)
        return parallelkit.share(np.ones(size)) if size > 0 else size

    for _ in range(10):
        begun_again(made, [0, 0])
        shared, _ = pmap(made, [1 << 16, -1], workers=2)
        assert shared.array.sum() == 1 << 16


class Clearing:
    """Empties a list when it is pickled."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __reduce__(self) -> Any:
        self.items.clear()
        return float, ()


@pytest.mark.parametrize("others", [[0], [0.02]])
def test_a_list_that_pickling_changes_is_mapped_as_it_was(others: list[float]) -> None:
    for place in (0, len(others)):
        begun_again(WAIT, [0, 0])
        items: list[Any] = [*others]
        items.insert(place, Clearing(items))
        expected = [*others]
        expected.insert(place, 0)
        assert pmap(WAIT, items, workers=2) == expected
        assert not warm.pool().busy


def test_an_engine_takes_over_under_optimization_too(tmp_path: Any) -> None:
    source = """
        from parallelkit import pmap

        def wait(x):
            import time

            time.sleep(x)
            return x

        for _ in range(4):
            pmap(wait, [0, 0], workers=2)
        print(pmap(wait, [0, 0.05], workers=2))
    """
    line = [sys.executable, "-O", str(tmp_path / "script.py")]
    assert scripts.script(source, where=tmp_path, command=line) == "[0, 0.05]\n"


def test_items_that_turn_out_long_are_shared(attempts: Attempts) -> None:
    by = lambda x: (threading.Event().wait(x), os.getpid())[1] if x else x
    begun_again(by, [0, 0])
    before, turns = attempts.done, 0
    while attempts.done < before + 20 and (turns := turns + 1) < 1000:  # if all are together
        assert pmap(by, [0] * 8, workers=2) == [0] * 8
    assert len(set(pmap(by, [0.05] * 8, workers=2))) == 2


FUNCTIONS = [SAME, PID, lambda x: (x, x), lambda x: 1 // x]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([0.0, repeated.SOON]),
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 3), st.lists(st.integers(0, 2), max_size=4)),
        min_size=2,
        max_size=12,
    ),
)
def test_any_calls_one_after_the_other(soon: float, calls: list[Any]) -> None:
    before, repeated.SOON = repeated.SOON, soon
    try:
        for which, workers, items in calls:
            fn = FUNCTIONS[which]
            for _ in range(2):
                check(fn, workers, items)
    finally:
        repeated.SOON = before


def check(fn: Any, workers: int, items: list[int]) -> None:
    if fn is FUNCTIONS[3] and 0 in items:
        with pytest.raises(ZeroDivisionError) as caught:
            pmap(fn, items, workers=workers)
        assert caught.value.index == items.index(0)  # type: ignore[attr-defined]
    elif fn is PID:
        assert len(pmap(fn, items, workers=workers)) == len(items)
    else:
        assert pmap(fn, items, workers=workers) == [fn(item) for item in items]
    run = warm.parked()
    assert not isinstance(run, Repeated) or not run.under_way


def test_a_call_is_one_of_many_where_it_follows_at_once_and_both_are_quick() -> None:
    call = brief.Call(2)
    call.over = perf_counter()
    assert not call.rapid(1), "nobody knows yet how long an item takes"
    call.price = 1e-6
    call.over = perf_counter() + 60.0
    assert call.rapid(10)
    assert not call.rapid(1000)
    call.over = perf_counter() - 60.0
    assert not call.rapid(10)
