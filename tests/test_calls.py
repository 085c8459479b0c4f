"""A call remembers what its function costs, and asks for no more than it needs."""

from __future__ import annotations

from functools import partial

import pytest

from parallelkit import calls, pmap
from parallelkit.options import Options, plan
from parallelkit.outcomes import Work
from parallelkit.source import source


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    monkeypatch.setattr(calls, "_costs", type(calls._costs)())


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


@pytest.mark.parametrize(
    "fn", [double, partial(double), partial(partial(double)), Thing().double], ids=repr
)
def test_a_function_is_known_again(fn):
    assert calls._code(fn) in (double.__code__, Thing.double.__code__)


@pytest.mark.parametrize("fn", [abs, Thing(), Endless(), partial(Endless()), type], ids=repr)
def test_what_has_no_code_of_its_own_is_not_known(fn):
    assert calls._code(fn) is None


def test_a_closure_made_anew_is_the_same_function():
    def make(n):
        return lambda x: x + n

    assert calls._code(make(1)) is calls._code(make(2))


def test_the_cost_of_a_function_is_kept_for_the_next_call():
    assert pmap(double, range(1000)) == [2 * x for x in range(1000)]
    item, _ = calls._costs[double.__code__]

    engine = begun(double, range(10))

    assert engine.run.pace.item == item


def test_the_oldest_costs_are_forgotten(monkeypatch):
    monkeypatch.setattr(calls, "_REMEMBERED", 2)
    codes = [compile(str(number), "test", "eval") for number in range(3)]
    for code in (*codes[:2], codes[0], codes[2]):
        calls._remember(code, 1.0, None)

    assert list(calls._costs) == [codes[0], codes[2]]


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
