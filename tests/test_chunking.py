"""What `Pace` learns, and what it then advises."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelkit.chunking import (
    FOLDING,
    HEAVY,
    JOURNEY,
    LOAD,
    LONGEST,
    LONGEST_SLICE,
    PARTS,
    PROBE,
    SHARES,
    SLICE,
    SPAN,
    Pace,
    split,
)


def measured(items: int, seconds: float, **prices: float) -> Pace:
    pace = Pace(**prices)
    pace.observe(items, seconds)
    return pace


def test_nothing_is_known_at_first():
    pace = Pace()
    assert pace.chunk(1000, 4) == 1
    assert pace.turn(PROBE) == 1
    assert pace.budget() == PROBE
    assert not pace.worthwhile(10**9, 64)


def test_a_price_is_the_mean_of_all_items():
    pace = measured(1, 3.0)
    pace.observe(3, 1.0)
    assert pace.item == 1.0


def test_an_item_faster_than_the_clock_has_a_price():
    assert measured(10, 0.0).item == 1e-9


@given(st.floats(1e-9, 1e3))
def test_a_remembered_price_counts_as_much_as_a_probe(item):
    pace = Pace(item=item, carriage=0.0)
    assert pace.seen * item >= PROBE  # or whoever takes over would probe again
    assert pace.seen * item <= PROBE + 2 * item
    assert pace.seconds >= PROBE
    assert pace.worthwhile(10**12, 4)


def test_one_interrupted_measurement_of_the_carriage_is_outweighed():
    pace = Pace(carriage=1e-6)
    pace.observe(1, 1.0, carriage=1.0)
    assert pace.carriage == pytest.approx(2.5e-6)


def test_work_pays_for_a_launch_or_not():
    # On two workers, the launch must be less than half of the work less the margin.
    assert not measured(1, 1e-3, launch=0.025).worthwhile(60, 2)
    assert measured(1, 1e-3, launch=0.025).worthwhile(70, 2)
    assert not measured(1, 1e-3, launch=150e-6).worthwhile(70, 1)
    assert not measured(1, 1.0, launch=0.0).worthwhile(1, 8)


def test_items_that_are_dearer_to_carry_than_to_run_stay():
    pace = measured(10_000, 1e-3, carriage=1e-6)
    assert not pace.worthwhile(10**9, 64)
    assert not pace.worthwhile(None, 64)


def test_without_a_length_a_launch_is_paid_for_by_what_was_spent():
    pace = measured(10, 0.02, launch=0.025)
    assert not pace.worthwhile(None, 2)
    pace.observe(10, 0.02)
    assert pace.worthwhile(None, 2)


def test_what_an_item_has_taken_so_far_speaks_for_the_others():
    pace = Pace(launch=0.025)
    assert not pace.stuck(0.003, 2, 2)
    assert pace.stuck(0.05, 2, 2)
    assert pace.stuck(0.003, 100, 2)
    assert pace.stuck(0.03, None, 2)


def test_turns_of_the_caller_grow_with_what_was_spent():
    assert measured(1, 0.002).budget() == SLICE
    assert measured(1, 0.02).budget() == 0.005
    assert measured(1, 10.0).budget() == LONGEST_SLICE


def test_a_turn_is_at_most_so_many_times_what_was_measured():
    assert measured(1, 1e-6).turn(1e-3) == 16
    assert measured(1, 1.0).turn(1e-3) == 1


@given(
    st.integers(1, 10**9),
    st.integers(1, 2048),
    st.floats(1e-9, 1e3),
    st.integers(1, 10**6),
    st.sampled_from([None, 1e-7, 1e-3]),
)
def test_a_chunk_is_never_more_than_was_measured_allows(left, workers, item, seen, carriage):
    pace = Pace(carriage=carriage)
    pace.observe(seen, seen * item)
    size = pace.chunk(left, workers)
    assert 1 <= size <= max(1, 16 * seen)
    assert size <= left


def test_chunks_are_as_long_as_their_journey_is_dear():
    near, far = Pace(), Pace(journey=100 * JOURNEY)
    for pace in (near, far):
        pace.observe(10**6, 10.0)

    assert near.chunk(10**5, 2) == LONGEST * JOURNEY / 1e-5
    assert near.chunk(10**5, 2, bold=True) == pytest.approx(SPAN * JOURNEY / 1e-5, abs=1)
    near.span = LONGEST
    assert near.chunk(10**5, 2, bold=True) == pytest.approx(LONGEST * JOURNEY / 1e-5, abs=1)
    assert near.chunk(1000, 2, bold=True) == pytest.approx(1000 / (PARTS * 2), abs=1)
    assert far.chunk(10**5, 2) == pytest.approx(10**5 / (SHARES * 2), abs=1)
    assert far.chunk(1000, 2) == pytest.approx(500, abs=1)


def test_workers_that_share_a_place_are_as_one():
    shared = Pace(depth=2)
    shared.observe(10**6, 10.0)

    assert shared.chunk(3000, 8) == measured(10**6, 10.0).chunk(3000, 4)


def test_heavy_items_go_a_few_at_a_time():
    pace = measured(1000, 0.001)
    many = pace.chunk(10_000, 2)

    pace.weigh(10, 10 * HEAVY // 4)
    assert pace.chunk(10_000, 2) == 4 < many
    pace.weigh(2, 10 * HEAVY)
    assert pace.chunk(10_000, 2) == 1


def test_a_heavier_item_counts_at_once_and_lighter_ones_slowly():
    pace = Pace()
    pace.weigh(1, 1000)
    pace.weigh(1, 10)
    assert pace.weight == 505
    pace.weigh(1, 4000)
    assert pace.weight == 4000


def test_what_is_folded_into_heavy_blocks_travels_in_few():
    light, heavy = (measured(1000, 0.5) for _ in range(2))
    heavy.weigh(0, 8e6)
    assert heavy.block == 8e6
    assert heavy.weight == 0
    assert heavy.trip == pytest.approx(8e6 * FOLDING)
    assert heavy.journey == light.trip == JOURNEY
    assert (light.chunk(64, 2, bold=True), heavy.chunk(64, 2, bold=True)) == (16, 32)
    # Not longer than others for that: memory and the first failure would wait for their ends.
    assert (light.chunk(1000, 2, bold=True), heavy.chunk(1000, 2, bold=True)) == (80, 95)
    heavy.weigh(0, 4e6)
    heavy.weigh(0, 4e6)
    assert heavy.trip == pytest.approx(5e6 * FOLDING)
    light.launch = heavy.launch = 0.0
    assert light.worthwhile(16, 2)
    assert not heavy.worthwhile(16, 2)


@given(st.integers(0, 50), st.integers(0, 50), st.data())
def test_split_leaves_out_the_holes_and_nothing_else(start, length, data):
    chunk = range(start, start + length)
    holes = data.draw(st.sets(st.sampled_from(chunk)) if length else st.just(set()))
    parts = list(split(chunk, tuple(holes)))
    assert [position for part in parts for position in part] == sorted(set(chunk) - holes)
    assert all(parts)
    assert all(a.stop < b.start for a, b in pairwise(parts))


def test_first_chunks_are_larger_where_they_can_be_taken_back():
    pace = Pace()
    assert pace.chunk(10**6, 2, bold=True) == 1
    assert pace.chunk(10**6, 64, bold=True) == 16
    assert pace.chunk(64 * 32, 64, bold=True) == 2
    assert pace.chunk(64, 64, bold=True) == 1
    assert pace.chunk(10**6, 64) == 1


@given(
    st.integers(1, 10**9),
    st.integers(1, 2048),
    st.floats(1e-9, 1e3),
    st.integers(1, 10**6),
    st.sampled_from([None, 1e-7, 1e-3]),
)
def test_bold_chunks_too_follow_what_was_measured(left, workers, item, seen, carriage):
    pace = Pace(carriage=carriage)
    pace.observe(seen, seen * item)
    size = pace.chunk(left, workers, bold=True)
    assert 1 <= size <= max(1, 16 * seen)
    assert size <= left
    pace.weigh(1, HEAVY)
    assert pace.chunk(left, workers, bold=True) == 1


def test_where_packing_is_what_takes_time_a_journey_carries_enough_of_it():
    pace = Pace(carriage=1e-7)
    pace.observe(10**6, 1.0)
    assert pace.chunk(10**9, 1024, bold=True) * pace.carriage / 2 == pytest.approx(LOAD, rel=0.01)
    assert pace.chunk(10, 1024, bold=True) == 10
