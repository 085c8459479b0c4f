"""Counter and Value: no addition is lost, and nobody who is killed leaves half of one."""

from __future__ import annotations

import ctypes
import os
import pickle

import pytest
from forks import Fork, interrupted_at_each_step, killed_at_each_step
from hypothesis import given
from hypothesis import strategies as st

from parallelkit.sync.locks import Lock, RLock
from parallelkit.sync.numerals import Counter, Value

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the tests fork")

TOP = 2**63 - 1


@given(start=st.integers(-TOP - 1, TOP), n=st.integers(-TOP - 1, TOP))
def test_a_counter_adds_what_fits(start, n):
    counter = Counter(start)
    if -TOP - 1 <= start + n <= TOP:
        assert counter.add(n) == start + n == counter.value
    else:
        with pytest.raises(OverflowError, match=rf"^a Counter holds 64 bits, got {start + n}$"):
            counter.add(n)
        assert counter.value == start


def test_a_counter_takes_integers():
    counter = Counter()
    with pytest.raises(TypeError):
        counter.add(0.5)
    counter.value = 7
    assert pickle.loads(pickle.dumps(counter)).add() == 8
    assert repr(counter) == "Counter(8)"


def test_no_addition_of_several_processes_is_lost():
    counter = Counter()
    adders = [Fork(lambda: [counter.add() for _ in range(500)]) for _ in range(3)]
    try:
        seen = [value for adder in adders for value in adder.result()]
    finally:
        for adder in adders:
            adder.__exit__()
    assert sorted(seen) == list(range(1, 1501))


def test_one_killed_while_it_adds_has_added_or_not():
    counter = Counter()
    before = 0
    for _ in killed_at_each_step(counter.add):
        assert counter.value in {before, before + 1}
        before = counter.add()


def test_one_interrupted_while_it_adds_has_added_or_not():
    counter = Counter()
    before = 0
    for _ in interrupted_at_each_step(counter.add):
        assert counter.value in {before, before + 1}
        with Fork(counter.add) as other:
            before = other.result()


TYPED = [("i", -5), ("d", 2.5), ("B", 255), ("q", -TOP), ("c", b"x"), ("u", "ä"), ("f", 0.5)]


@pytest.mark.parametrize(("code", "number"), [*TYPED, (ctypes.c_bool, True)])
def test_a_value_holds_a_number_of_its_type(code, number):
    value = Value(code, number)
    again = pickle.loads(pickle.dumps(value))
    assert again.value == number
    again.value = Value(code).value
    assert not value.value or value.value in {b"\0", "\0"}
    assert value.get_obj().value == value.value


@pytest.mark.parametrize("kind", ["x", ctypes.Structure, ctypes.c_void_p, int])
def test_other_types_are_refused(kind):
    with pytest.raises(TypeError, match=r"^type must be one of c, u, b, B, h, "):
        Value(kind)


def test_a_value_s_lock_keeps_others_from_setting_it():
    value = Value("i", 1)
    with value.get_lock(), value:
        value.value += 1
        with Fork(lambda: value.acquire(timeout=0.01)) as other:
            assert other.result() is False
    assert value.acquire()
    value.release()
    assert repr(value) == "Value(c_int, 2)"


def test_a_value_may_have_another_lock():
    lock = Lock()
    assert Value("i", lock=lock).get_lock() is lock
    assert isinstance(Value("i", lock=None).get_lock(), RLock)
    for wrong in ["no", 1]:
        with pytest.raises(
            AttributeError, match=rf"^lock must be True, False or a lock, got {wrong!r}$"
        ):
            Value("i", lock=wrong)


def test_a_value_without_a_lock_has_nothing_that_takes_one():
    bare = Value("i", 3, lock=False)
    bare.value = 4
    again = pickle.loads(pickle.dumps(bare))
    again.value += 1
    assert bare.value == 5
    assert repr(bare) == "Value(c_int, 5)"
    for name in ("get_lock", "get_obj", "acquire", "release"):
        assert not hasattr(bare, name)


def test_additions_under_the_lock_are_not_lost():
    value = Value("d")

    def add():
        for _ in range(300):
            with value.get_lock():
                value.value += 1

    adders = [Fork(add) for _ in range(2)]
    try:
        for adder in adders:
            adder.result()
    finally:
        for adder in adders:
            adder.__exit__()
    assert value.value == 600
