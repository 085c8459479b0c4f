"""A run like the one before begins where that ended, and nobody can tell."""

from __future__ import annotations

import importlib
import os
import signal
from typing import Any

import cloudpickle
import faults
import pytest

from parallelkit import imap, pmap
from parallelkit.backends import warm
from parallelkit.backends.processes import Processes
from parallelkit.backends.repeated import Repeated


@pytest.fixture(autouse=True)
def limit() -> Any:
    with faults.limited():
        yield


def kept() -> Any:
    return warm.pool().parked


PID = lambda _: os.getpid()


def test_workers_and_what_they_know_are_used_again() -> None:
    warm.shut()
    for _ in range(100):
        before = kept()
        workers = {link.process.pid for link in before.links.values()} if before else set()
        ran = set(pmap(PID, range(2), workers=2, chunksize=1))
        # One that comes up while the other works may take from it, and then neither is kept.
        if before is not None and kept() is before:
            break
    assert isinstance(before, Repeated)
    assert kept() is before
    assert ran <= workers
    assert set(before.links.values()) == set(warm.pool().idle)


def test_another_function_has_workers_told() -> None:
    for x in range(4):
        assert pmap(lambda y, x=x: (x, y), range(2), workers=2) == [(x, 0), (x, 1)]
        assert pmap(lambda y: -y, range(2), workers=2) == [0, -1]


def test_more_or_fewer_workers_may_be_asked_for() -> None:
    for workers in 1, 2, 1, 3, 2, 2:
        assert pmap(lambda x: x, range(3), workers=workers, chunksize=1) == [0, 1, 2]
        assert pmap(lambda x: x, range(workers), workers=3, chunksize=1) == [*range(workers)]


def test_what_a_function_did_to_its_worker_is_undone_between_runs(tmp_path: Any) -> None:
    def move(to: str) -> tuple[str, str | None]:
        before = os.getcwd(), os.environ.get("PARALLELKIT_TEST")
        os.chdir(to)
        os.environ["PARALLELKIT_TEST"] = to
        return before

    here = os.getcwd()
    for _ in range(3):
        assert pmap(move, [str(tmp_path)], workers=1) == [(here, None)]


def test_surroundings_that_changed_are_seen(monkeypatch: Any) -> None:
    for value in "abc":
        monkeypatch.setenv("PARALLELKIT_TEST", value)
        assert pmap(lambda _: os.environ["PARALLELKIT_TEST"], [0], workers=1) == [value]


def test_what_a_function_counts_is_counted_anew() -> None:
    def counter() -> Any:
        count = 0

        def f(_: int) -> int:
            nonlocal count
            count += 1
            return count

        return f

    f = counter()
    for _ in range(3):
        assert pmap(f, range(4), workers=1) == [1, 2, 3, 4]


def test_a_variable_that_has_no_value_yet_is_none_that_is_needed() -> None:
    def f(x: int) -> int:
        return later if x < 0 else x

    assert pmap(f, range(4), workers=2) == [0, 1, 2, 3]
    later = 5
    assert pmap(f, [-1], workers=2) == [5]


def test_a_worker_that_died_meanwhile_is_replaced() -> None:
    (pid,) = pmap(PID, [0], workers=1)
    os.kill(pid, signal.SIGKILL)
    (link,) = kept().links.values()
    link.process.ended(30)
    (other,) = pmap(PID, [0], workers=1)
    assert other != pid


def test_a_run_that_failed_is_not_gone_on_with() -> None:
    def fail(x: int) -> int:
        return 1 // x

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            pmap(fail, [0], workers=1)
        assert pmap(fail, [1], workers=1) == [1]


@pytest.mark.parametrize("turns", [1, 2])
def test_ctrl_c_while_workers_are_given_back_gives_none_twice(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    while kept() is None:
        pmap(PID, range(2), workers=2, chunksize=1)
    with faults.interrupted_at_return(turns, monkeypatch) as given:
        pmap(PID, range(2), workers=2, chunksize=1)
    idle = warm.pool().idle
    assert len(given) == len(idle) == len(set(idle)) == 2
    assert set(pmap(PID, range(2), workers=2, chunksize=1)) <= {each.process.pid for each in idle}


def interrupt_within(name: str, patched: pytest.MonkeyPatch) -> None:
    """Have Ctrl-C come when a step of the next run has begun, and is not done."""
    step = getattr(Processes, name)

    def interrupted(run: Any, *arguments: Any) -> Any:
        patched.undo()
        step(run, *arguments)
        raise KeyboardInterrupt

    patched.setattr(Processes, name, interrupted)


@pytest.mark.parametrize(("step", "workers"), [("start", 1), ("send", 2), ("wait", 2)])
def test_a_run_that_ctrl_c_ended_is_not_gone_on_with(
    step: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    while kept() is None:
        pmap(PID, range(2), workers=2, chunksize=1)
    with monkeypatch.context() as patched:
        interrupt_within(step, patched)
        with pytest.raises(KeyboardInterrupt):
            pmap(PID, range(2), workers=workers, chunksize=1)
    assert kept() is None
    assert len(pmap(PID, range(6), workers=2, chunksize=1)) == 6


def test_an_end_that_was_not_registered_yet_is_parted_with() -> None:
    run = Processes((PID, None, None), 1, 1)
    run.start(1)
    (link,) = run.links.values()
    run.selector.unregister(link.sock)  # as where Ctrl-C came before that was done
    run.close()
    assert not run.links


def test_two_at_a_time_do_not_share_workers() -> None:
    pmap(PID, range(2), workers=2, chunksize=1)
    for _ in range(3):
        one = imap(PID, range(4), workers=2, chunksize=1)
        first = next(one)
        assert first not in pmap(PID, range(2), workers=2, chunksize=1)
        assert len([first, *one]) == 4


def test_a_class_of_the_items_goes_as_it_is_now() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec("class C:\n    kind = 'a'", names)
    made = names["C"]
    import __main__

    __main__.C = made  # type: ignore[attr-defined]
    try:
        for kind in "abc":
            made.kind = kind
            assert pmap(lambda each: each.kind, [made()], workers=1) == [kind]
    finally:
        del __main__.C  # type: ignore[attr-defined]


def test_a_module_that_is_to_go_by_value_goes_so_from_then_on(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kinds_of_items.py").write_text("class C:\n    kind = 'a'\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("kinds_of_items")
    f = lambda each: each.kind
    for _ in range(2):
        assert pmap(f, [module.C()], workers=1) == ["a"]
    monkeypatch.setattr(module.C, "kind", "b")
    cloudpickle.register_pickle_by_value(module)
    try:
        assert pmap(f, [module.C()], workers=1) == ["b"]
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def test_an_array_that_was_changed_in_between_goes_as_it_is_now() -> None:
    import numpy as np

    array = np.zeros(1 << 18)
    for value in range(3):
        array[:] = value
        assert pmap(lambda each: float(each[0]), [array, array], workers=1) == [value, value]
