"""Work is taken back from workers that are real, and every item is run exactly once."""

from __future__ import annotations

from collections import Counter
from operator import add
from pathlib import Path

import numpy as np
import pytest
from noted import SIZE, Work

from parallelkit import imap, pmap, preduce
from parallelkit.errors import WorkerDied


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """The function, with nothing noted yet."""
    return Work(tmp_path / "ran")


def check_shared(work: Work, count: int) -> None:
    """Check that each item was run once, and those of the slow chunk by more than one worker."""
    ran = work.ran()
    assert sorted(item for item, _ in ran) == list(range(count))
    assert len({pid for item, pid in ran if item < SIZE}) > 1, "nothing was taken back"


def test_a_slow_chunk_is_shared_and_nothing_is_run_twice(work: Work) -> None:
    assert pmap(work, range(2 * SIZE), workers=2, chunksize=SIZE) == [
        3 * x for x in range(2 * SIZE)
    ]
    check_shared(work, 2 * SIZE)


def test_among_four(work: Work) -> None:
    assert pmap(work, range(4 * SIZE), workers=4, chunksize=SIZE) == [
        3 * x for x in range(4 * SIZE)
    ]
    check_shared(work, 4 * SIZE)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_stream(work: Work, ordered: bool) -> None:
    items = iter(range(2 * SIZE))
    results = list(imap(work, items, workers=2, chunksize=SIZE, ordered=ordered))
    assert (results if ordered else sorted(results)) == [3 * x for x in range(2 * SIZE)]
    check_shared(work, 2 * SIZE)


def test_a_reduction(work: Work) -> None:
    total = preduce(add, range(2 * SIZE), map=work, workers=2, chunksize=SIZE)
    assert total == sum(3 * x for x in range(2 * SIZE))
    check_shared(work, 2 * SIZE)


def test_streams_of_random_numbers_depend_on_positions_alone(work: Work) -> None:
    def draw(x: int) -> float:
        if x < SIZE:
            work.linger()
        return float(np.random.random())

    shared = pmap(draw, range(2 * SIZE), workers=2, chunksize=SIZE, seed=7)
    assert shared == pmap(draw, range(2 * SIZE), workers=2, chunksize=1, seed=7)


def test_arrays_that_were_sent_for_nothing(work: Work) -> None:
    arrays = [np.full(200_000, x) for x in range(2 * SIZE)]

    def run(array: np.ndarray) -> np.ndarray:
        work(int(array[0]))
        return array + 1

    results = pmap(run, arrays, workers=2, chunksize=SIZE)
    assert all((result == x + 1).all() for x, result in enumerate(results))
    assert sorted(item for item, _ in work.ran()) == list(range(2 * SIZE))


@pytest.mark.parametrize("mortal", [2, SIZE // 2, SIZE - 1])
def test_a_worker_that_is_killed_costs_the_item_it_was_on(work: Work, mortal: int) -> None:
    work.mortal = (mortal,)
    results = pmap(work, range(2 * SIZE), workers=2, chunksize=SIZE, on_error="return")
    died = [at for at, result in enumerate(results) if isinstance(result, WorkerDied)]
    assert died == [mortal]
    assert [each for at, each in enumerate(results) if at != mortal] == [
        3 * x for x in range(2 * SIZE) if x != mortal
    ]
    # Once more, and alone, if it was fast items among which it was; but never a third time.
    assert Counter(item for item, _ in work.ran())[mortal] <= 2


def test_victim_and_thief_are_killed(work: Work) -> None:
    work.mortal = (1, SIZE - 1)
    results = pmap(work, range(2 * SIZE), workers=2, chunksize=SIZE, on_error="return", retries=1)
    died = [at for at, result in enumerate(results) if isinstance(result, WorkerDied)]
    assert died == [1, SIZE - 1]


def test_a_failure_in_the_part_that_was_taken(work: Work) -> None:
    def run(x: int) -> int:
        work(x)
        if x == SIZE - 1:
            raise ValueError(x)
        return x

    with pytest.raises(ValueError, match=str(SIZE - 1)) as caught:
        pmap(run, range(2 * SIZE), workers=2, chunksize=SIZE)
    assert caught.value.index == SIZE - 1
    counts = Counter(item for item, _ in work.ran())
    assert set(counts.values()) == {1}


def test_items_behind_one_that_takes_long_do_not_wait_for_it(work: Work) -> None:
    def run(x: int) -> int:
        work(x)
        if x == 0:
            work.wait_for(range(1, SIZE))
        return x

    work.slow = 0.0
    # The victim keeps half of what it has not begun each time that it is asked: all but a few go.
    assert pmap(run, range(2 * SIZE), workers=2, chunksize=SIZE) == list(range(2 * SIZE))
    assert set(Counter(item for item, _ in work.ran()).values()) == {1}
