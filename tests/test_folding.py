"""The value of a reduction depends on positions alone: any cut gives the same tree."""

from __future__ import annotations

import gc
import struct
import weakref
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelkit.folding import Block, Eager, Tree, fold


def written(left, right):
    """Combine two texts so that the result shows the tree."""
    return f"({left} {right})"


def naive(op, values):
    """Fold by definition: cut off the largest block that begins the rest, fold its halves."""
    size = 1 << (len(values).bit_length() - 1)
    if size == len(values):
        if size == 1:
            return values[0]
        size //= 2
    return op(naive(op, values[:size]), naive(op, values[size:]))


def total(op, values, cuts=()):
    """Fold `values` cut at `cuts`, each part by itself."""
    tree = Tree(op)
    bounds = [0, *sorted({cut for cut in cuts if 0 < cut < len(values)}), len(values)]
    for start, stop in pairwise(bounds):
        tree.add(fold(op, start, values[start:stop]))
    return tree.total()


CUTS = st.lists(st.integers(1, 200), max_size=20)


@given(st.integers(1, 200), CUTS)
def test_any_cut_gives_the_tree_of_the_definition(length, cuts):
    names = [str(number) for number in range(length)]

    assert total(written, names, cuts) == naive(written, names)


def test_pieces_make_the_same_tree(monkeypatch):
    names = [str(number) for number in range(300)]
    expected = total(written, names, [7])
    monkeypatch.setattr("parallelkit.folding._PIECE", 4)

    assert total(written, names, [7]) == expected == naive(written, names)


@given(st.lists(st.floats(width=64), min_size=1, max_size=200), CUTS)
def test_sums_of_floats_are_the_same_bit_for_bit(values, cuts):
    def add(left, right):
        return left + right

    assert struct.pack("<d", total(add, values, cuts)) == struct.pack("<d", naive(add, values))


@given(st.integers(1, 100), CUTS, st.integers(0, 2**32 - 1))
def test_sums_of_arrays_are_the_same_bit_for_bit(length, cuts, seed):
    values = list(np.random.default_rng(seed).normal(size=(length, 3)))

    assert total(np.add, values, cuts).tobytes() == naive(np.add, values).tobytes()


def test_the_small_trees():
    shapes = [naive(written, "abcdefg"[:length]) for length in range(1, 8)]

    assert shapes == [total(written, list("abcdefg"[:length])) for length in range(1, 8)]
    assert shapes[2:] == [
        "((a b) c)",
        "((a b) (c d))",
        "(((a b) (c d)) e)",
        "(((a b) (c d)) (e f))",
        "(((a b) (c d)) ((e f) g))",
    ]


@given(st.integers(0, 2**40), st.integers(0, 70))
def test_blocks_are_aligned_cover_everything_and_are_few(start, length):
    blocks = fold(written, start, [str(number) for number in range(length)])

    assert all(block.start % block.size == 0 for block in blocks)
    assert all(block.size & (block.size - 1) == 0 for block in blocks)
    stops = [start, *(block.start + block.size for block in blocks)]
    assert [block.start for block in blocks] == stops[:-1]
    assert stops[-1] == start + length
    assert len(blocks) <= 2 * max(1, length).bit_length()


def test_a_block_is_called_once_for_each_pair():
    calls = []

    def add(left, right):
        calls.append((left, right))
        return left + right

    assert total(add, list(range(1000)), [1, 77, 500]) == 499500
    assert len(calls) == 999


@pytest.mark.parametrize("error", [StopIteration, ValueError])
def test_what_the_operation_raises_arrives(error):
    def refuse(left, right):
        raise error(left, right)

    with pytest.raises(error):
        fold(refuse, 0, [1, 2])
    tree = Tree(refuse)
    tree.add([Block(0, 1, "a")])
    with pytest.raises(error):
        tree.add([Block(1, 1, "b")])


def test_an_operation_that_stops_once_is_called_once_for_each_pair():
    calls = []

    def once(left, right):
        calls.append((left, right))
        if (left, right) == (2, 3):
            raise StopIteration
        return left + right

    with pytest.raises(StopIteration):
        fold(once, 0, list(range(8)))
    assert calls.count((0, 1)) == 1


def test_a_size_that_cannot_be_told_does_not_matter():
    class Secretive(list):
        def __sizeof__(self):
            raise RuntimeError

        def __add__(self, other):
            return Secretive([*self, *other])

    (block,) = fold(lambda left, right: left + right, 0, [Secretive([at]) for at in range(8)])
    assert block.value == [*range(8)]


@given(st.integers(0, 2**20), st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=20))
def test_what_is_folded_as_it_comes_is_the_same(start, parts):
    eager, values, names = Eager(written, start), [], []
    for length, large in parts:
        new = [f"{len(names) + at}{'.' * 20_000 * large}" for at in range(length)]
        names += new
        values += new
        eager.take(values)

    assert eager.count + len(values) == len(names)
    assert eager.blocks(values) == fold(written, start, names)


def test_of_large_values_few_are_held_at_a_time():
    eager, values = Eager(np.add, 0), []
    for number in range(100):
        values.append(np.full(10_000, float(number)))
        eager.take(values)
        assert len(eager.tree.blocks) <= 7
        assert not values
    assert [block.size for block in eager.blocks(values)] == [64, 32, 4]


def test_what_the_operation_raises_is_kept_until_it_is_asked_for():
    def refuse(left, right):
        raise ValueError(len(left))

    eager, values = Eager(refuse, 0), [b"." * 20_000] * 2
    eager.take(values)
    values.append(b"." * 20_000)
    eager.take(values)
    with pytest.raises(ValueError, match="20000"):
        eager.blocks(values)


def test_many_small_values_are_folded_once_there_are_enough(monkeypatch):
    monkeypatch.setattr("parallelkit.folding._PIECE", 8)
    eager, values = Eager(written, 3), []
    for number in range(20):
        values.append(str(number))
        eager.take(values)
        assert eager.count == max(0, (3 + number + 1) // 8 * 8 - 3)
    assert eager.blocks(values) == fold(written, 3, [str(number) for number in range(20)])


def test_values_go_with_the_error_that_they_caused():
    class Value:
        def __sizeof__(self):
            return 1 << 20

    def refuse(left, right):
        raise ValueError(1)

    eager, values = Eager(refuse, 0), [Value(), Value()]
    seen = [weakref.ref(value) for value in values]
    gc.disable()
    try:
        eager.take(values)
        with pytest.raises(ValueError, match="1"):
            eager.blocks(values)
        del eager, values
        assert [ref() for ref in seen] == [None, None]
    finally:
        gc.enable()


def test_a_value_that_cannot_tell_its_size_fails_its_part_alone():
    class Odd:
        def __sizeof__(self):
            raise SystemExit(3)

    eager, values = Eager(written, 0), [Odd()]
    eager.take(values)
    with pytest.raises(SystemExit):
        eager.blocks(values)
