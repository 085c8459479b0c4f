"""A reduction has one value, whoever computes it in whatever portions."""

from __future__ import annotations

import functools
import gc
import operator
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelkit import preduce
from parallelkit.backends import warm
from parallelkit.folding import Tree, fold

PLACES = [{"backend": "serial"}, *({"workers": count} for count in (1, 2, 3)), {}]
each_place = pytest.mark.parametrize("place", PLACES, ids=str)
SIZES = [None, *range(1, 12), 16, 17, 31, 32, 33, 49, 50]


def tree(op, values):
    whole = Tree(op)
    whole.add(fold(op, 0, values))
    return whole.total()


def written(left, right):
    return f"({left} {right})"


def merged(left, right):
    return np.concatenate([left, right])[::-1].copy()  # neither commutes nor associates


@given(st.lists(st.floats(width=64, allow_nan=False), min_size=1, max_size=60), st.integers(1, 50))
def test_any_floats_in_this_process(values, size):
    got = preduce(operator.add, values, chunksize=size, backend="serial")

    assert repr(got) == repr(tree(operator.add, values))


@each_place
@pytest.mark.parametrize("length", [1, 2, 3, 100])
def test_the_tree_is_the_same_for_every_chunk_size(place, length):
    names = [str(number) for number in range(length)]
    generator = random.Random(length)
    floats = [generator.gauss(0, 10.0 ** generator.randint(-9, 9)) for _ in range(length)]
    expected = tree(written, names), tree(operator.add, floats)

    for size in SIZES:
        assert preduce(written, names, chunksize=size, **place) == expected[0]
        assert (
            preduce(operator.add, iter(floats), chunksize=size, **place).hex() == expected[1].hex()
        )


@each_place
@pytest.mark.parametrize("size", [None, 1, 7, 50])
def test_arrays_are_the_same_bit_for_bit(place, size):
    rows = np.random.default_rng(1).normal(size=(61, 40))

    got = preduce(np.add, rows, chunksize=size, **place)

    assert got.tobytes() == tree(np.add, list(rows)).tobytes()


@each_place
def test_large_arrays(place):
    rows = [np.full(100_000, number, float) for number in range(20)]

    got = preduce(merged, rows, chunksize=3, **place)

    assert got.tobytes() == tree(merged, rows).tobytes()
    assert got.flags.writeable


@each_place
def test_map_and_initial(place):
    def length(word):
        return len(word)

    assert preduce(max, ["a", "ccc", "bb"], map=length, **place) == 3
    assert preduce(max, ["a", "ccc", "bb"], map=length, initial=9, **place) == 9
    assert preduce(written, "abc", initial=None, **place) == "(None ((a b) c))"
    assert preduce(written, "abc", initial="z", map=str.upper, **place) == "(z ((A B) C))"


@each_place
@pytest.mark.parametrize("make", [list, iter], ids=["list", "iterator"])
def test_nothing_to_reduce(place, make):
    with pytest.raises(TypeError) as caught:
        preduce(operator.add, make([]), **place)

    assert (
        str(caught.value) == "preduce() of an empty iterable needs an initial value: give initial="
    )
    assert preduce(operator.add, make([]), initial=None, **place) is None


@each_place
def test_one_item_needs_no_operation(place):
    def never(left, right):
        raise AssertionError

    assert preduce(never, iter(["only"]), **place) == "only"


@each_place
@pytest.mark.parametrize("error", [KeyError, StopIteration])
def test_a_map_that_raises_arrives_with_its_item(place, error):
    def fail(x):
        if x == 40:
            raise error(x)
        return x

    with pytest.raises(error) as caught:
        preduce(operator.add, range(100), map=fail, chunksize=7, **place)

    assert caught.value.args == (40,)
    assert caught.value.__notes__[-1] == "parallelkit: raised by item 40 (40)"


@each_place
@pytest.mark.parametrize("size", [1, 8, 100])
def test_an_operation_that_raises_arrives(place, size):
    def picky(left, right):
        raise KeyError("no")

    with pytest.raises(KeyError) as caught:
        preduce(picky, range(100), chunksize=size, **place)

    assert caught.value.args == ("no",)


def test_workers_are_free_again_when_the_operation_raises_in_the_caller():
    def picky(left, right):
        raise KeyError("no")

    with pytest.raises(KeyError):
        preduce(picky, range(1000), chunksize=1, workers=2)

    assert not warm.pool().busy  # though the traceback still holds the call


@each_place
def test_the_state_of_a_worker_comes_first(place):
    def state():
        return 10

    def add(ten, x):
        return ten + x

    assert preduce(operator.add, range(20), map=add, worker_state=state, **place) == 390
    assert preduce(operator.add, range(20), worker_state=state, **place) == 190


@each_place
def test_seeds_belong_to_positions(place):
    def draw(_):
        return random.random()

    whole = preduce(written, range(50), map=draw, seed=3, backend="serial")

    assert preduce(written, range(50), map=draw, seed=3, chunksize=4, **place) == whole


@each_place
def test_an_operation_may_change_what_map_has_made(place):
    def made(number):
        return np.full(100_000, float(number))

    for _ in range(2):
        total = preduce(operator.iadd, range(50), map=made, **place)
        assert total.tolist() == [1225.0] * 100_000
    given = [made(number) for number in range(3)]
    assert preduce(operator.iadd, range(50), map=made, initial=given[0], **place)[0] == 1225
    assert [each[0] for each in given[1:]] == [1, 2]


def test_operands_are_not_changed():
    lists = [[number] for number in range(50)]

    total = preduce(operator.add, lists, backend="serial")

    assert total == list(range(50))
    assert lists == [[number] for number in range(50)]
    gc.collect()


def test_it_agrees_with_functools():
    words = [chr(97 + number % 26) for number in range(1000)]

    assert preduce(operator.add, words, workers=2) == functools.reduce(operator.add, words)
