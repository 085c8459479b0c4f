"""Lists of numbers go as arrays and come back as the lists they were."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelkit import scalars


@given(
    kind=st.sampled_from([np.float64, np.float32, np.int8, np.uint64, np.bool_, np.complex64]),
    numbers=st.lists(st.integers(0, 100), min_size=8, max_size=40),
)
def test_many_numbers_travel_as_an_array_and_come_back_as_they_were(kind, numbers):
    values = [kind(number) for number in numbers]

    gathered = scalars.gathered(values)
    back = pickle.loads(pickle.dumps(gathered, 5))

    assert type(gathered) is scalars.Gathered
    assert type(back) is list
    assert back == values
    assert {type(value) for value in back} == {kind}


@pytest.mark.parametrize(
    "values",
    [
        [1.5] * 20,
        [np.float64(1)] * 7,
        [np.float64(1)] * 20 + [1.0],
        [np.float64(1)] * 20 + [np.float32(1)],
        [np.str_("a\0")] * 20,
        [np.datetime64("2020-01-01")] * 20,
        [np.ones(3)] * 20,
        [np.float64] * 20,
        tuple([np.float64(1)] * 20),
        [],
    ],
    ids=repr,
)
def test_what_is_no_list_of_equal_numbers_is_left_alone(values):
    assert scalars.gathered(values) is values
