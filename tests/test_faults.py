"""A bad item costs that item, not the run: deaths, time limits, retries, and all else is right."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import faults
import pytest
from faults import DEATHS, STARTS, STUCK, act, act_once, hang, kill, leave_with_3, noted, spin

from parallelkit import imap, pmap, preduce
from parallelkit.errors import ItemTimeout, NoWorkers, WorkerDied

pytestmark = pytest.mark.slow

PLENTY = 3.0  # seconds no good item here can take, on a machine however busy
ADVICE = "; retries= and on_error= say what becomes of such an item"


@pytest.fixture(params=STARTS, autouse=True)
def start(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Do it with each way of starting workers, and not for ever."""
    monkeypatch.setenv("PARALLELKIT_START", request.param)
    with faults.limited():
        yield request.param


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(tmp_path / "log")


def mixed(bad: list[Any], count: int = 25) -> list[Any]:
    """Return numbers with the bad ones first, last, and spread evenly in between."""
    items: list[Any] = list(range(count))
    for number, each in enumerate(bad):
        items[number * (count - 1) // max(1, len(bad) - 1)] = each
    return items


# Deaths.


@pytest.mark.parametrize("chunksize", [1, 10])
@pytest.mark.parametrize("death", DEATHS, ids=lambda death: death.__name__)
def test_a_death_costs_the_item_alone(death: Any, chunksize: int, log: str) -> None:
    items = mixed([death, death, death])
    found = pmap(partial(act, log), items, workers=2, chunksize=chunksize, on_error="return")

    for position, (item, outcome) in enumerate(zip(items, found, strict=True)):
        if item is not death:
            assert outcome == -item
            continue
        assert type(outcome) is WorkerDied
        text = f"a worker {DEATHS[death]} while it ran item {position} ({item!r}){ADVICE}"
        # A stranger may have run out of memory a moment before, which then is a likely reason.
        assert re.sub(r" \(likely out of memory: [^)]*\)", "", str(outcome)) == text
        assert (outcome.index, outcome.item) == (position, death)


@pytest.mark.parametrize("chunksize", [1, 10])
def test_finished_items_run_again_only_as_often_as_a_worker_died(chunksize: int, log: str) -> None:
    pmap(
        partial(act, log),
        mixed([kill, kill, kill]),
        workers=2,
        chunksize=chunksize,
        on_error="skip",
    )

    runs = Counter(noted(log))
    deaths = runs.pop("kill")
    # One each, and one more where it was among several suspects, which are then tried alone.
    assert 3 <= deaths <= 6
    assert len(runs) == 22
    assert sum(runs.values()) - 22 <= deaths * (chunksize - 1)
    assert max(runs.values()) <= 1 + deaths


@pytest.mark.parametrize("position", [0, 12, 24])
def test_a_death_ends_the_call_with_all_that_is_known(position: int, log: str) -> None:
    items: list[Any] = list(range(25))
    items[position] = kill
    with pytest.raises(WorkerDied) as caught:
        pmap(partial(act, log), items, workers=2, chunksize=1)

    error: Any = caught.value
    assert (error.index, error.item) == (position, kill)
    assert "was killed by SIGKILL" in str(error)
    assert error.failures == {position: error}
    assert all(value == -items[at] for at, value in error.results.items())
    assert set(error.results) >= set(range(position))


def die_elsewhere(home: int, x: int) -> int:
    if os.getpid() != home and x == 1:
        kill()
    return -x


def test_an_item_can_be_replayed_here() -> None:
    with pytest.raises(WorkerDied) as caught:
        pmap(partial(die_elsewhere, os.getpid()), range(3), workers=1)

    assert caught.value.replay() == -1


@pytest.mark.parametrize(("retries", "runs"), [(0, 1), (1, 2), (7, 2)])
def test_two_deaths_end_an_item_whatever_retries(retries: int, runs: int, log: str) -> None:
    found = pmap(
        partial(act, log),
        [0, kill, 2],
        workers=2,
        chunksize=1,
        retries=retries,
        on_error="return",
    )

    assert found[::2] == [0, -2]
    assert type(found[1]) is WorkerDied
    assert noted(log).count("kill") == runs


def test_a_death_by_accident_is_mended(log: str) -> None:
    items = [0, *DEATHS, 9]
    found = pmap(partial(act_once, log), items, workers=2, chunksize=3, retries=1)

    assert found == [0, *(death.__name__ for death in DEATHS), -9]


def test_exit_is_an_error_of_the_item() -> None:
    found = pmap(sys.exit, [7, "bye"], workers=1, on_error="return")

    assert [type(each) for each in found] == [SystemExit, SystemExit]
    assert [each.code for each in found] == [7, "bye"]


def test_items_after_a_death_are_right_however_fast(log: str) -> None:
    items: list[Any] = list(range(3000))
    items[1700] = kill
    found = pmap(partial(act_quick, log), items, workers=2, on_error="return")

    assert type(found[1700]) is WorkerDied
    found[1700] = items[1700] = 0
    assert found == [-x for x in items]


def act_quick(log: str, item: Any) -> Any:
    return item() if callable(item) else -item


# Time limits.


def test_late_items_are_ended_wherever_they_are_and_tell(log: str) -> None:
    items = mixed(STUCK, 20)
    found = pmap(partial(act, log), items, workers=4, timeout=PLENTY, on_error="return")

    for position, (item, outcome) in enumerate(zip(items, found, strict=True)):
        if item not in STUCK:
            assert outcome == -item
            continue
        assert type(outcome) is ItemTimeout
        text = f"item {position} ({item!r}) ran longer than timeout={PLENTY} seconds, and was ended"
        assert str(outcome) == text
        assert (outcome.index, outcome.item) == (position, item)


def test_a_late_item_tells_its_stack(start: str, log: str) -> None:
    if start == "spawn" or not os.path.isdir("/proc/self/fd"):
        pytest.skip("a stack is told through /proc, by workers that may use Linux")
    stuck = STUCK[:3]  # one that is stopped can tell nothing
    found = pmap(partial(act, log), stuck, workers=3, timeout=0.5, on_error="return")

    for item, outcome in zip(stuck, found, strict=True):
        (words,) = outcome.__notes__
        lines = words.splitlines()
        assert lines[0] == "It was here (innermost call first):"
        assert lines[1].endswith(f" in {item.__name__}")
        assert lines[2].endswith(" in act")
        assert "parallelkit" not in lines[1] + lines[2] or "tests" in lines[1] + lines[2]


def test_a_late_item_may_be_tried_again(log: str) -> None:
    assert pmap(partial(act_once, log), [0, hang, 2], workers=2, timeout=PLENTY, retries=1) == [
        0,
        "hang",
        -2,
    ]


def test_a_late_item_ends_the_call(log: str) -> None:
    with pytest.raises(ItemTimeout) as caught:
        pmap(partial(act, log), [0, 1, spin, 3], workers=2, timeout=PLENTY)

    error: Any = caught.value
    assert error.index == 2
    assert isinstance(error, TimeoutError)
    assert error.failures == {2: error}
    assert error.results.items() >= {0: 0, 1: -1}.items()


class SlowToLoad:
    """Takes longer to arrive in a worker than any item may take."""

    def __setstate__(self, state: object) -> None:
        faults.pause(1.5)

    def __getstate__(self) -> object:
        return 1

    def __call__(self, x: int) -> int:
        return -x


def slow_state() -> int:
    faults.pause(1.5)
    return 3


def test_what_comes_before_an_item_is_not_its_time() -> None:
    pmap(abs, range(4), workers=2)  # so that workers are up already

    assert pmap(SlowToLoad(), range(4), workers=2, timeout=1.0) == [0, -1, -2, -3]
    state = {"worker_state": slow_state, "timeout": 1.0}
    assert pmap(add, range(4), workers=2, **state) == [3, 4, 5, 6]


# Errors, and what becomes of them.


def raise_once(log: str, item: int) -> int:
    if faults.note(log, item) == 1 and item % 3 == 1:
        raise ValueError(item)
    return -item


def raise_thirds(item: int) -> int:
    if item % 3 == 1:
        raise ValueError(item)
    return -item


@pytest.mark.parametrize("chunksize", [1, 4, None])
def test_an_item_that_raised_is_tried_again_and_no_other(chunksize: int | None, log: str) -> None:
    found = pmap(partial(raise_once, log), range(20), workers=2, chunksize=chunksize, retries=1)

    assert found == [-x for x in range(20)]
    assert Counter(noted(log)) == {str(x): 1 + (x % 3 == 1) for x in range(20)}


class Passing(ValueError):
    pass


def raise_by_turns(log: str, kind: type[Exception]) -> str:
    if faults.note(log, kind.__name__) < 3:
        raise kind
    return kind.__name__


def test_only_what_is_named_is_tried_again(log: str) -> None:
    kinds = [ValueError, KeyError, Passing, OSError]
    found = pmap(
        partial(raise_by_turns, log),
        kinds,
        workers=2,
        retries=2,
        retry_on=(ValueError, OSError),
        backoff=0.01,
        on_error="return",
    )

    assert (found[0], found[2:]) == ("ValueError", ["Passing", "OSError"])
    assert type(found[1]) is KeyError
    runs = {"ValueError": 3, "KeyError": 1, "Passing": 3, "OSError": 3}
    assert Counter(noted(log)) == runs


def test_deaths_are_tried_again_whatever_is_named(log: str) -> None:
    fn = partial(act_once, log)
    assert pmap(fn, [0, kill], workers=1, retries=1, retry_on=KeyError) == [0, "kill"]


def seen(results: Any) -> list[Any]:
    return [x if isinstance(x, int) else (type(x), x.args, x.index) for x in results]


def expected(count: int, on_error: str) -> list[Any]:
    outcomes = [(ValueError, (x,), x) if x % 3 == 1 else -x for x in range(count)]
    return [x for x in outcomes if on_error == "return" or isinstance(x, int)]


@pytest.mark.parametrize("on_error", ["return", "skip"])
@pytest.mark.parametrize("chunksize", [1, 4, None])
def test_errors_are_returned_or_skipped(on_error: Any, chunksize: int | None) -> None:
    options: dict[str, Any] = {"workers": 2, "chunksize": chunksize, "on_error": on_error}
    wanted = expected(40, on_error)

    assert seen(pmap(raise_thirds, range(40), **options)) == wanted
    assert seen(imap(raise_thirds, range(40), **options)) == wanted
    loose = seen(imap(raise_thirds, iter(range(40)), ordered=False, **options))
    assert sorted(loose, key=str) == sorted(wanted, key=str)


@pytest.mark.parametrize("ordered", [True, False])
def test_an_iterator_ends_with_the_error(ordered: bool) -> None:
    results = imap(raise_thirds, iter(range(4)), workers=1, ordered=ordered)

    assert next(results) == 0
    with pytest.raises(ValueError, match="1") as caught:
        next(results)
    assert caught.value.index == 1
    assert list(results) == []


def add(a: int, b: int) -> int:
    return a + b


def add_once(log: str, a: int, b: int) -> int:
    if a > 20 and faults.note(log, "add") == 1:
        kill()
    return a + b


def test_a_reduction_is_right_after_errors_and_deaths(log: str) -> None:
    total = preduce(add, range(20), map=partial(raise_once, log), workers=2, retries=1)
    assert total == -190

    assert preduce(add, [3, kill, 5], map=partial(act_lengths, log), workers=1, retries=1) == 12


def act_lengths(log: str, item: Any) -> int:
    if callable(item):
        if faults.note(log, "once") == 1:
            item()
        return 4
    return int(item)


def test_a_reduction_ends_with_the_error_of_an_item() -> None:
    with pytest.raises(ValueError, match="1") as caught:
        preduce(add, range(20), map=raise_thirds, workers=2)
    assert caught.value.index == 1

    with pytest.raises(WorkerDied) as died:
        preduce(add, [1, 2, kill], map=call, workers=1)
    assert died.value.index == 2


def call(item: Any) -> Any:
    return item() if callable(item) else item


def hang_or_raise(log: str, item: int) -> int:
    """Raise in item 3 once all the others hang."""
    if item != 3:
        faults.note(log, "hanging")
        hang()
    while len(noted(log)) < 3:
        pass
    raise ValueError(item)


@pytest.mark.parametrize("chunksize", [1, 10])
def test_the_end_does_not_wait_for_items_that_run(chunksize: int, log: str) -> None:
    items = [3, *range(10, 10 + 3 * chunksize)] if chunksize == 1 else [3] * 10 + [10] * 30
    with pytest.raises(ValueError, match="3"):
        pmap(partial(hang_or_raise, log), items, workers=4, chunksize=chunksize)


def test_the_pool_is_as_good_as_before_after_all_that(log: str) -> None:
    for _ in range(3):
        with pytest.raises(WorkerDied):
            pmap(partial(act, log), [0, kill, 2], workers=2, chunksize=1)
        assert pmap(abs, range(-50, 0), workers=2) == list(range(50, 0, -1))


def test_sigterm_ends_a_worker_like_any_death(log: str) -> None:
    found = pmap(partial(act, log), [0, terminate, 2], workers=1, chunksize=1, on_error="return")

    assert found[::2] == [0, -2]
    assert "was killed by SIGTERM" in str(found[1])


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()


def test_workers_that_die_at_their_start_say_how() -> None:
    for death in (leave_with_3, kill):
        with pytest.raises(NoWorkers) as caught:
            pmap(add, range(9), workers=2, worker_state=death)

        assert str(caught.value) == (
            "no worker process could be started, or none lived long enough to run an item: the "
            f"last of them {DEATHS[death]}; `python -m parallelkit` tells more, and "
            'backend="serial" needs none'
        )
