"""A call remembers what its function costs, and asks for no more than it needs."""

from __future__ import annotations

import operator
import os
import pickle
import random
import threading
import time
from functools import partial
from typing import Any

import faults
import pytest

from parallelkit import calls, imap, learned, outcomes, pmap, preduce
from parallelkit.errors import AloneWarning
from parallelkit.options import Options, plan
from parallelkit.outcomes import Work
from parallelkit.source import source


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    monkeypatch.setattr(learned, "costs", {})


def double(x):
    return 2 * x


class Thing:
    def double(self, x):
        return 2 * x

    def __call__(self, x):
        return 2 * x


class Endless:
    """Has every attribute, each of its own kind, as a recorder of calls would."""

    def __getattr__(self, name):
        return Endless()

    def __call__(self, x):
        return 2 * x


def key(fn):
    return learned.key(fn, int)


@pytest.mark.parametrize(
    "fn", [double, partial(double), partial(partial(double)), Thing().double], ids=repr
)
def test_a_function_is_known_again(fn):
    assert key(fn) in ((double.__code__, int, None), (Thing.double.__code__, int, None))


@pytest.mark.parametrize("fn", [abs, Thing(), Endless(), partial(Endless()), type], ids=repr)
def test_what_has_no_code_of_its_own_is_not_known(fn):
    assert key(fn) is None


def test_a_closure_made_anew_is_the_same_function():
    def make(n):
        return lambda x: x + n

    assert key(make(1)) == key(make(2))


def test_the_same_function_of_other_items_is_another():
    assert key(double) != learned.key(double, source((["a"],)).kind)


def test_the_cost_of_a_function_is_kept_for_the_next_call():
    assert pmap(double, range(1000)) == [2 * x for x in range(1000)]
    item, _, _ = learned.costs[double.__code__, int, None]

    engine = begun(double, range(10))

    assert engine.run.pace.item == item


def test_the_oldest_costs_are_forgotten(monkeypatch):
    monkeypatch.setattr(learned, "REMEMBERED", 2)
    keys = [(compile(str(number), "test", "eval"), int) for number in range(3)]
    for each in (*keys[:2], keys[0], keys[2]):
        learned.remember(each, (1.0, None, 0.0))

    assert list(learned.costs) == [keys[0], keys[2]]


def begun(fn, items, **options):
    checked = plan(Options(**options))
    return calls.begin(checked, Work(fn), source((items,)))


def test_a_small_input_needs_few_workers_to_be_launched():
    many = begun(double, range(1000), workers=100).run.pace.launch
    few = begun(double, range(2), workers=100).run.pace.launch

    assert few < many


def test_serial_makes_the_state_once():
    made = []

    def state():
        made.append("state")
        return made

    def fn(state, x):
        return len(state), x

    assert pmap(fn, range(5), worker_state=state, backend="serial") == [(1, x) for x in range(5)]


def test_what_a_run_failed_with_is_raised_when_it_concludes():
    def fail(x):
        raise KeyError(x)

    engine = begun(fail, range(3), backend="serial")
    assert not [value for block in engine.results() for value in block.values]

    with pytest.raises(KeyError) as caught:
        calls.conclude(engine, [])
    assert caught.value.args == (0,)


# What does not travel, where the caller may run items itself.


class Guarded:
    """Cannot be pickled, and cannot be told by its looks."""

    def __init__(self, x: int) -> None:
        self.x = x
        self.lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Guarded({self.x})"


class Fragile:
    """Can be pickled, but put together again only where it was made."""

    def __init__(self, x: int) -> None:
        self.x = x
        self.home = os.getpid()

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__dict__.update(state)
        if os.getpid() != self.home:
            raise OSError("too far from home")

    def __repr__(self) -> str:
        return f"Fragile({self.x})"


def number(item: Any) -> int:
    """Return the number in an item, after some time that makes workers worth while."""
    began = time.perf_counter()
    while time.perf_counter() < began + 0.002:
        pass
    return getattr(item, "x", item)


def where(caller: int, item: Any) -> tuple[int, bool]:
    return number(item), os.getpid() == caller


def guarded(x: int) -> Guarded:
    return Guarded(number(x))


def fragile(x: int) -> Fragile:
    return Fragile(number(x))


def joined(left: Guarded, right: Guarded) -> Guarded:
    return Guarded(left.x + right.x)


KINDS = [Guarded, Fragile]


@pytest.fixture
def eager(monkeypatch):
    """Every call finds its price known, so that workers are asked for at once; there are two."""
    monkeypatch.setenv("PARALLELKIT_WORKERS", "2")
    for fn in where, guarded, fragile, number, draw, fail:
        for kind in int, Guarded, Fragile:
            learned.remember(learned.key(fn, kind), (0.002, 1e-6, 0.0))
    pmap(abs, range(4), workers=2)
    with faults.limited():
        yield


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lazy", [False, True])
def test_items_that_do_not_travel_run_in_the_caller_and_others_do_not(eager, kind, lazy):
    items = [kind(x) if x in (0, 1, 2, 57) else x for x in range(200)]
    with pytest.warns(AloneWarning) as caught:
        found = pmap(partial(where, os.getpid()), iter(items) if lazy else items)

    assert [x for x, _ in found] == list(range(200))
    assert all(found[x][1] for x in (0, 1, 2, 57))
    assert not all(here for _, here in found)
    (warning,) = caught
    assert warning.filename == __file__
    text = str(warning.message)
    assert " ran in the calling thread, for want of a way to a worker and back: " in text
    assert f"({kind.__name__}(" in text


def test_the_warning_names_the_first_and_what_keeps_it():
    strays = outcomes.Strays()
    strays.add(7, "item {}".format, OSError("too far"))
    strays.add(3, "item {}".format, pickle.PicklingError("no way"))
    strays.add(5, "item {}".format, OSError("too far"))
    here = "ran in the calling thread, for want of a way to a worker and back"
    assert calls._astray(strays, closed=False) == f"item 3 and 2 others {here}: no way"
    assert calls._astray(strays, closed=True) == f"item 3 and all that was left {here}: no way"
    strays = outcomes.Strays()
    strays.add(7, "item {}".format, OSError("too far"))
    assert calls._astray(strays, closed=False) == f"item 7 {here}: OSError: too far"


@pytest.mark.parametrize("make", [guarded, fragile])
def test_results_that_do_not_travel_are_made_in_the_caller(eager, make):
    with pytest.warns(AloneWarning):
        found = pmap(make, range(100))
    assert [each.x for each in found] == list(range(100))


@pytest.mark.parametrize("ordered", [True, False])
def test_an_iterator_goes_on_with_what_does_not_travel(eager, ordered):
    items = [Guarded(x) if x % 9 == 4 else x for x in range(100)]
    with pytest.warns(AloneWarning):
        found = list(imap(number, iter(items), ordered=ordered))
    assert (found if ordered else sorted(found)) == list(range(100))


def test_a_reduction_of_what_does_not_travel_is_the_same(eager):
    with pytest.warns(AloneWarning):
        total = preduce(joined, range(100), map=guarded)
    assert total.x == sum(range(100))
    items = [Guarded(x) if x == 50 else x for x in range(100)]
    with pytest.warns(AloneWarning):
        assert preduce(operator.add, items, map=number) == sum(range(100))


def draw(item: Any) -> float:
    number(item)
    return random.random()


def test_an_item_draws_the_same_wherever_it_runs(eager):
    items = [Guarded(x) if x % 9 == 4 else x for x in range(60)]
    with pytest.warns(AloneWarning):
        found = pmap(draw, items, seed=3)
    assert found == pmap(draw, range(60), seed=3, workers=2)


def fail(item: Any) -> int:
    if number(item) == 40:
        raise KeyError(item)
    return number(item)


def test_what_the_function_raises_in_the_caller_is_raised(eager):
    items = [Guarded(x) if x in (3, 40) else x for x in range(100)]
    with pytest.warns(AloneWarning), pytest.raises(KeyError) as caught:
        pmap(fail, items)
    assert caught.value.args == (items[40],)
    assert caught.value.index == 40


class Homely:
    """A function that can be put together again only where it was made."""

    def __init__(self, home: int) -> None:
        if home != os.getpid():
            raise OSError("too far from home")
        self.home = home

    def __reduce__(self) -> Any:
        return Homely, (self.home,)

    def __call__(self, item: int) -> int:
        return number(item)


def test_what_workers_cannot_load_runs_in_the_caller(eager):
    with pytest.warns(AloneWarning) as caught:
        assert pmap(Homely(os.getpid()), range(300)) == list(range(300))
    (warning,) = caught
    assert str(warning.message) == (
        "every item ran in the calling thread, since workers cannot have the function: "
        "OSError: too far from home"
    )
    with pytest.raises(OSError, match="too far from home"):
        pmap(Homely(os.getpid()), range(300), workers=2)


@pytest.mark.parametrize("options", [{"workers": 2}, {"retries": 1}, {"on_error": "return"}])
def test_named_workers_run_what_they_can_and_the_rest_fails(options):
    items = [0, Guarded(1), 2]
    if "on_error" in options:
        found = pmap(number, items, **options)
        assert (found[0], type(found[1]), found[2]) == (0, pickle.PicklingError, 2)
        return
    with pytest.raises(pickle.PicklingError, match="item of type Guarded cannot be sent"):
        pmap(number, items, **options)


@pytest.mark.parametrize(("count", "first"), [(2, 1), (8, 1), (9, 2), (None, 2)])
def test_few_items_to_fold_do_not_wait_behind_each_other(count, first):
    items = iter([0]) if count is None else range(count)
    checked = plan(Options())._replace(workers=2)
    _, pace = calls.terms(checked, Work(double, op=operator.add), source((items,)))
    assert pace.first == first
