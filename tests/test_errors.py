"""Errors are what a caller would expect to catch, and showing a value can do no harm."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelkit import errors
from parallelkit.errors import ParallelError, shortened

BUILT_IN = {
    "WorkerDied": RuntimeError,
    "ItemTimeout": TimeoutError,
    "RemoteError": RuntimeError,
    "NoWorkers": OSError,
    "InternalError": RuntimeError,
}


@pytest.mark.parametrize(("name", "base"), BUILT_IN.items())
def test_an_error_is_ours_and_a_built_in_one(name, base):
    kind = getattr(errors, name)

    assert issubclass(kind, ParallelError)
    assert issubclass(kind, base)
    copy = pickle.loads(pickle.dumps(kind("what happened")))
    assert (type(copy), str(copy)) == (kind, "what happened")


ANYTHING = st.recursive(
    st.none() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
)


@given(ANYTHING, st.integers(10, 200))
def test_no_text_is_longer_than_asked(value, limit):
    text = shortened(value, limit)

    assert len(text) <= limit
    assert len(text) == limit or not text.endswith("....")


@given(st.lists(st.integers(0, 9), max_size=6) | st.text("ab '\"\\\n", max_size=30) | st.floats())
def test_a_short_value_is_shown_as_it_is(value):
    assert shortened(value) == repr(value)


def test_a_dict_keeps_its_order():
    assert shortened({"b": 1, "a": {}}) == "{'b': 1, 'a': {}}"
    assert shortened(dict.fromkeys(range(9))) == "{0: None, 1: None, 2: None, 3: None, ...}"


class Counted:
    """Counts how often anyone looks at one of its kind."""

    looks = 0

    def __repr__(self):
        Counted.looks += 1
        return "counted"

    def __lt__(self, other):
        Counted.looks += 1
        return True


MANY = [
    lambda: [Counted() for _ in range(10**4)],
    lambda: tuple(Counted() for _ in range(10**4)),
    lambda: {Counted() for _ in range(10**4)},
    lambda: frozenset(Counted() for _ in range(10**4)),
    lambda: dict.fromkeys(Counted() for _ in range(10**4)),
]


@pytest.mark.parametrize("make", MANY)
def test_a_huge_container_is_not_looked_through(make):
    Counted.looks = 0
    assert len(shortened(make())) <= 80
    assert Counted.looks < 100


def test_a_container_of_itself_ends_soon():
    knot: list = []
    knot.extend([knot] * 6)
    Counted.looks = 0
    knot[0:0] = [Counted()]

    assert len(shortened(knot)) == 80
    assert Counted.looks < 100


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_long_bytes_are_cut_before_they_are_written_out(kind):
    assert len(shortened(kind(10**8))) == 80  # whose whole text would take 400 MB


def test_a_long_number_and_a_large_array():
    assert len(shortened(10**5000)) <= 80
    assert len(shortened(10**100)) <= 80
    assert shortened(np.zeros((1000, 1000))).startswith("array([[0., 0.")


class Hostile:
    def __init__(self, error):
        self.error = error

    def __repr__(self):
        if isinstance(self.error, BaseException):
            raise self.error
        return self.error


@pytest.mark.parametrize(
    "error", [ValueError("no"), RecursionError(), MemoryError(), 3, None, b"bytes"]
)
def test_a_repr_that_fails_leaves_the_type(error):
    assert shortened(Hostile(error)).startswith("<Hostile instance at 0x")


@pytest.mark.parametrize("error", [SystemExit(), GeneratorExit(), BaseException()])
def test_a_repr_that_would_end_the_program(error):
    text = f"<Hostile whose repr raised {type(error).__name__}>"

    assert shortened(Hostile(error)) == text
