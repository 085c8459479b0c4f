"""Operators: on shared arrays they give what they give on numpy's own."""

from __future__ import annotations

import operator
import warnings

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parallelkit.operators import ALONE, COMBINED, COMPARED
from parallelkit.shared import share

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
DTYPES = st.sampled_from(["i1", "u2", ">i4", "i8", "f4", "f8", "c16", "?"])


@st.composite
def arrays(draw, shape):
    array = draw(hnp.arrays("i8", shape, elements=st.sampled_from([0, 1, 2, 5])))
    return array.astype(draw(DTYPES), order=draw(st.sampled_from("CF")))


def outcome(operation, *operands):
    """Return what an operation gives, as bytes and dtype, or what it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of division by zero
        try:
            result = operation(*operands)
        except (TypeError, ValueError, ZeroDivisionError) as error:
            return type(error), None
    results = result if isinstance(result, tuple) else (result,)
    return [(np.asarray(each).dtype, np.asarray(each).tobytes()) for each in results], result


@given(st.sampled_from([*COMPARED, *COMBINED, "divmod"]), st.data())
def test_operators_of_two_give_what_numpy_gives(name, data):
    operation = divmod if name == "divmod" else getattr(operator, f"__{name}__")
    shape = data.draw(SHAPES)
    one, two = data.draw(arrays(shape)), data.draw(arrays(shape) | arrays(()))
    expected, _ = outcome(operation, one, two)
    for pair in ((share(one), two), (one, share(two)), (share(one), share(two))):
        assert outcome(operation, *pair)[0] == expected


@given(st.sampled_from(COMBINED), st.data())
def test_operators_in_place_write_what_numpy_writes(name, data):
    operation = getattr(operator, f"__i{name}__")
    shape = data.draw(SHAPES)
    one, two = data.draw(arrays(shape)), data.draw(arrays(shape) | arrays(()))
    shared = share(one)
    expected, plain = outcome(operation, one, two)
    found, result = outcome(operation, shared, two)
    assert found == expected
    assert shared.array.tobytes() == one.tobytes()
    assert (result is shared) == (plain is one)


@given(st.sampled_from(ALONE), st.data())
def test_operators_of_one_give_what_numpy_gives(name, data):
    operation = getattr(operator, f"__{name}__")
    one = data.draw(SHAPES.flatmap(arrays))
    assert outcome(operation, share(one))[0] == outcome(operation, one)[0]


def test_operators_are_those_of_the_array():
    plain = np.array([[1, 2], [3, 4]])
    array, other = share(plain), share(plain + 1)
    operations = [
        (lambda a, b: [a + b, a - b, a * b, a / b, a // b, a % b, a**b, a @ b, divmod(a, b)]),
        (lambda a, b: [a < b, a <= b, a == b, a != b, a > b, a >= b, a & b, a | b, a ^ b]),
        (lambda a, b: [a << b, a >> b, -a, +a, abs(a), ~a]),
    ]
    for operation in operations:
        expected = operation(plain, plain + 1)
        for pair in [(array, other), (array, plain + 1), (plain, other)]:
            assert str(operation(*pair)) == str(expected)
    assert (10 - array).tolist() == [[9, 8], [7, 6]]
    assert type(array + 1) is np.ndarray
