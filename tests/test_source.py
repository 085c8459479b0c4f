"""Columns are what zip would give, for any iterables, chunks and order of dropping."""

from __future__ import annotations

import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from parallelkit import share
from parallelkit.source import Indexed, Pulled, source


class Lies:
    """Iterable whose length is an error."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)

    def __len__(self):
        raise ValueError("ask me later")


class Old:
    """Iterable the old way, by index until IndexError."""

    def __init__(self, items):
        self.items = list(items)

    def __getitem__(self, position):
        return self.items[position]


class Backwards(list):
    """A list whose slices are not what iterating gives."""

    def __getitem__(self, position):
        return list(self)[::-1][position]


KINDS = {
    "list": list,
    "tuple": tuple,
    "text": lambda items: "".join(chr(97 + item % 26) for item in items),
    "bytes": lambda items: bytes(item % 256 for item in items),
    "range": lambda items: range(3, 3 + 2 * len(items), 2),
    "array": np.array,
    "numbers": lambda items: array.array("l", items),
    "view": lambda items: memoryview(np.array(items, float)),
    "shared": lambda items: share(np.array(items)),
    "rows": lambda items: np.arange(3 * len(items)).reshape(-1, 3),
    "dict": lambda items: dict.fromkeys(range(len(items)), "value"),
    "generator": lambda items: (item for item in list(items)),
    "lies": Lies,
    "old": Old,
    "backwards": Backwards,
}
PULLED = ["dict", "generator", "lies", "old", "backwards"]
MADE = st.lists(
    st.tuples(st.sampled_from(sorted(KINDS)), st.lists(st.integers(0, 1000), max_size=30)),
    min_size=1,
    max_size=3,
)


def pulled(items, step):
    """Pull everything, `step` at a time, and return how many items there are."""
    count, last = items.at_hand, isinstance(items, Indexed)
    while not last:
        got, last = items.pull(step)
        assert got <= step
        count += got
    return count


@given(MADE, st.integers(1, 40), st.integers(1, 40))
def test_columns_are_what_zip_gives(made, step, size):
    rows = list(zip(*(KINDS[kind](items) for kind, items in made), strict=False))
    items = source(tuple(KINDS[kind](items) for kind, items in made))

    count = pulled(items, step)

    assert count == len(rows)
    assert items.length in (None, count)
    assert items.error is None
    got = []
    for start in range(0, count, size):
        columns = items.columns(range(start, min(count, start + size)))
        assert len(columns) == len(made)
        got += zip(*columns, strict=True)
    assert repr(got) == repr(rows)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in PULLED])
def test_sequences_are_not_pulled(kind):
    items = source((KINDS[kind]([1, 2, 3]), [1, 2]))

    assert isinstance(items, Indexed)
    assert (items.length, items.at_hand) == (2, 2)
    assert items.pull(5) == (0, True)


@pytest.mark.parametrize("kind", PULLED)
def test_everything_else_is_pulled(kind):
    items = source(([1, 2, 3], KINDS[kind]([1, 2])))

    assert isinstance(items, Pulled)
    assert items.at_hand == 0


def test_a_slice_of_an_array_is_a_view():
    rows = np.arange(1000)

    (column,) = source((rows,)).columns(range(10, 20))

    assert column.base is rows


def test_a_range_beyond_every_index():
    items = source((range(10**30),))

    assert items.length is None
    assert items.pull(3) == (3, False)
    assert items.columns(range(1, 3)) == ([1, 2],)


def test_an_array_without_dimensions_is_refused_as_by_the_loop():
    with pytest.raises(TypeError, match="iteration over a 0-d array"):
        source((np.array(3),))


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("error", [ValueError, StopAsyncIteration, ZeroDivisionError])
def test_an_input_that_fails_ends_there(several, error):
    def failing():
        yield from range(5)
        raise error("enough")

    items = source((failing(), range(100)) if several else (failing(),))

    assert items.pull(3) == (3, False)
    assert items.pull(3) == (2, True)
    assert isinstance(items.error, error)
    assert items.columns(range(5))[0] == list(range(5))


def test_nothing_is_pulled_beyond_what_is_asked():
    taken = []
    items = source(((taken.append(number) or number for number in range(100)),))

    items.pull(7)

    assert taken == list(range(7))


class Dropping(RuleBasedStateMachine):
    """Pull and drop at random; what is not dropped is there, what all is dropped is let go."""

    def __init__(self):
        super().__init__()
        self.items = Pulled((iter(range(10**6)),))
        self.count = 0
        self.wanted: set[int] = set()

    @rule(count=st.integers(1, 50))
    def pull(self, count):
        assert self.items.pull(count) == (count, False)
        self.wanted.update(range(self.count, self.count + count))
        self.count += count

    @precondition(lambda self: self.wanted)
    @rule(draw=st.data(), size=st.integers(1, 20))
    def drop(self, draw, size):
        start = draw.draw(st.sampled_from(sorted(self.wanted)))
        stop = start + 1
        while stop in self.wanted and stop - start < size:
            stop += 1
        self.items.drop(range(start, stop))
        self.wanted.difference_update(range(start, stop))

    @precondition(lambda self: self.wanted)
    @rule()
    def drop_oldest(self):
        start = min(self.wanted)
        self.items.drop(range(start, start + 1))
        self.wanted.remove(start)

    @invariant()
    def what_is_wanted_is_there(self):
        for position in self.wanted:
            assert self.items.columns(range(position, position + 1)) == ([position],)

    @invariant()
    def what_is_not_wanted_is_let_go(self):
        oldest = min(self.wanted, default=self.count)
        # As much again may still be kept: each removal moves what is left.
        assert len(self.items._kept) <= 2 * (self.count - oldest) + 1
        assert len(self.items._dropped) <= len(self.items._kept)


TestDropping = Dropping.TestCase


def test_a_long_input_is_let_go_as_it_is_used():
    items = Pulled((iter(range(10**5)),))
    for start in range(0, 10**5, 100):
        items.pull(100)
        items.drop(range(start, start + 100))

    assert len(items._kept) <= 200
