"""`pmap` and `imap`: the same results, order and exceptions as the loop."""

from __future__ import annotations

import gc
import inspect
import itertools
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelkit import imap, parallel_map, pmap, preduce

PLACES: list[dict[str, Any]] = [{"backend": "serial"}, {}, {"workers": 1}, {"workers": 3}]


def square(x: int) -> int:
    return x * x


@pytest.fixture(params=PLACES, ids=str)
def place(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Everywhere that items can run."""
    return dict(request.param)


@settings(max_examples=60)
@given(
    st.lists(st.integers(), max_size=60),
    st.sampled_from(PLACES),
    st.one_of(st.none(), st.integers(1, 70)),
)
def test_the_loop_is_what_you_get(
    items: list[int], place: dict[str, Any], size: int | None
) -> None:
    assert pmap(square, items, chunksize=size, **place) == [square(x) for x in items]
    assert list(imap(square, iter(items), chunksize=size, **place)) == [square(x) for x in items]


def test_several_iterables_end_with_the_shortest(place: dict[str, Any]) -> None:
    assert pmap(pow, [2, 3, 4], itertools.count(1), **place) == [2, 9, 64]
    assert pmap(lambda *xs: xs, "abc", range(9), [None] * 4, **place) == [
        ("a", 0, None),
        ("b", 1, None),
        ("c", 2, None),
    ]


def test_items_are_not_unpacked(place: dict[str, Any]) -> None:
    assert pmap(lambda pair: pair, [(1, 2)], **place) == [(1, 2)]


def test_rows_of_an_array(place: dict[str, Any]) -> None:
    table = np.arange(600).reshape(200, 3)
    rows = pmap(lambda row: row * 2, table, **place)
    assert all((row == 2 * expected).all() for row, expected in zip(rows, table, strict=True))


def boom(x: int) -> int:
    if x >= 7:
        raise ValueError(f"no {x}")
    return x


def test_the_first_failure_is_raised_with_its_item(place: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^no 7") as caught:
        pmap(boom, range(200), **place)
    notes = "\n".join(caught.value.__notes__)
    assert "item 7 (7)" in notes


def test_imap_gives_what_comes_before_a_failure(place: dict[str, Any]) -> None:
    results = imap(boom, range(200), **place)
    assert list(itertools.islice(results, 7)) == list(range(7))
    with pytest.raises(ValueError, match=r"^no 7"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_failures_can_be_returned_or_skipped(place: dict[str, Any]) -> None:
    returned = pmap(boom, range(10), on_error="return", **place)
    assert returned[:7] == list(range(7))
    assert [str(error) for error in returned[7:]] == ["no 7", "no 8", "no 9"]  # type: ignore[comparison-overlap]
    assert pmap(boom, range(10), on_error="skip", **place) == list(range(7))
    assert list(imap(boom, range(10), on_error="skip", **place)) == list(range(7))


def test_stop_iteration_is_an_error_like_any_other(place: dict[str, Any]) -> None:
    def stop(x: int) -> int:
        if x == 5:
            raise StopIteration(x)
        return x

    with pytest.raises(StopIteration):
        pmap(stop, range(20), **place)
    kept = pmap(stop, range(20), on_error="return", **place)
    assert len(kept) == 20
    assert isinstance(kept[5], StopIteration)


def test_an_input_that_fails_gives_what_came_before(place: dict[str, Any]) -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise KeyError("input")

    results = imap(square, items(), **place)
    assert list(itertools.islice(results, 5)) == [0, 1, 4, 9, 16]
    with pytest.raises(KeyError, match="input"):
        next(results)
    with pytest.raises(KeyError, match="input"):
        pmap(square, items(), **place)


def draw(_: int) -> tuple[float, float]:
    import random

    return random.random(), float(np.random.random())


def test_seeds_belong_to_positions(place: dict[str, Any]) -> None:
    state = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    expected = pmap(draw, range(30), seed=3, backend="serial")
    assert pmap(draw, range(30), seed=3, chunksize=4, **place) == expected
    assert len(set(expected)) == 30
    assert pmap(draw, range(30), seed=4, **place) != expected
    assert (np.random.get_state()[1] == state).all()  # type: ignore[index]


def test_worker_state_is_made_once_in_each_worker() -> None:
    def make() -> dict[str, int]:
        return {"pid": os.getpid(), "calls": 0}

    def use(state: dict[str, int], _: int) -> tuple[int, int, int]:
        state["calls"] += 1
        return state["pid"], os.getpid(), state["calls"]

    seen = pmap(use, range(100), workers=2, worker_state=make, chunksize=3)
    assert all(made == used for made, used, _ in seen)
    for pid in {pid for pid, _, _ in seen}:
        calls = [count for made, _, count in seen if made == pid]
        assert sorted(calls) == list(range(1, len(calls) + 1))
    assert [n for _, _, n in pmap(use, range(3), worker_state=make, backend="serial")] == [1, 2, 3]


def test_worker_state_that_fails_is_raised() -> None:
    def make() -> None:
        raise OSError("no model here")

    with pytest.raises(OSError, match="no model here"):
        pmap(lambda state, x: x, range(10), worker_state=make, workers=2)


@pytest.mark.parametrize("ordered", [True, False])
def test_imap_reads_no_further_than_it_must(ordered: bool) -> None:
    pulled = itertools.count()
    results = imap(square, pulled, workers=2, ordered=ordered, chunksize=1)
    for _ in range(100):
        next(results)
    # 8 chunks of 1 for each of 2 workers, the 100 read, and the one that was asked last.
    assert next(pulled) <= 100 + 16 + 1
    results.close()  # type: ignore[attr-defined]


def test_imap_ends_its_work_when_it_is_forgotten() -> None:
    results = imap(lambda x: threading.Event().wait(), range(10), workers=2)
    unread = imap(square, itertools.count(), workers=2)
    assert next(unread) == 0
    del results, unread
    gc.collect()
    assert pmap(square, range(5), workers=2) == [0, 1, 4, 9, 16]


def test_abandoned_while_workers_are_busy() -> None:
    blocked = imap(lambda x: x or threading.Event().wait(), [1, 0], workers=2)
    assert next(blocked) == 1
    blocked.close()  # type: ignore[attr-defined]
    assert pmap(square, range(5), workers=2) == [0, 1, 4, 9, 16]


def test_unordered_gives_everything_once(place: dict[str, Any]) -> None:
    assert sorted(imap(square, range(500), ordered=False, **place)) == [x * x for x in range(500)]


def test_a_worker_that_dies_names_the_item() -> None:
    from parallelkit.errors import WorkerDied

    def die(x: int) -> int:
        if x == 11:
            os._exit(3)
        return x

    with pytest.raises(WorkerDied, match=r"ended with exit code 3 while it ran item 11 \(11\)"):
        pmap(die, range(40), workers=2)
    kept = pmap(die, range(40), workers=2, on_error="return")
    assert [x for x in kept if not isinstance(x, Exception)] == [x for x in range(40) if x != 11]
    assert isinstance(kept[11], WorkerDied)


def test_a_function_that_a_worker_cannot_load() -> None:
    class Unloadable:
        def __reduce__(self) -> tuple[Any, ...]:
            return int, ("not a number",)

        def __call__(self, x: int) -> int:
            return x

    with pytest.raises(ValueError, match="not a number"):
        pmap(Unloadable(), range(10), workers=2)


def test_items_and_results_that_cannot_be_pickled() -> None:
    lock = threading.Lock()
    with pytest.raises(Exception, match="lock"):
        pmap(lambda x: 1, [1, lock, 3], workers=2)
    with pytest.raises(Exception, match="lock"):
        pmap(lambda x: threading.Lock() if x == 2 else x, range(5), workers=2)
    kept = pmap(lambda x: threading.Lock() if x == 2 else x, range(5), workers=2, on_error="return")
    assert [kept[i] for i in (0, 1, 3, 4)] == [0, 1, 3, 4]
    assert isinstance(kept[2], Exception)


def test_large_chunks_both_ways_do_not_deadlock() -> None:
    items = [os.urandom(1 << 20) for _ in range(40)]
    assert pmap(lambda block: block[::-1], items, workers=2, chunksize=5) == [
        x[::-1] for x in items
    ]


def test_a_thousand_calls_in_a_row() -> None:
    for turn in range(1000):
        assert pmap(square, [turn, turn + 1], workers=2) == [turn * turn, (turn + 1) ** 2]


def test_the_faces_agree_on_their_options() -> None:
    assert parallel_map is pmap
    faces = [inspect.signature(face).parameters for face in (pmap, imap, preduce)]
    for first, second in itertools.combinations(faces, 2):
        for name in first.keys() & second.keys():
            if first[name].kind is inspect.Parameter.KEYWORD_ONLY:
                assert first[name] == second[name], name


class Touchy:
    """Travels well, but will not be unpickled if it is the seventh."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __setstate__(self, state: dict[str, int]) -> None:
        if state["number"] == 7:
            raise RuntimeError("not me")
        self.__dict__.update(state)


@pytest.mark.parametrize("chunksize", [1, 10])
def test_an_item_or_result_that_cannot_be_unpickled_costs_itself_alone(chunksize: int) -> None:
    items = [Touchy(number) for number in range(20)]
    options: dict[str, Any] = {"workers": 2, "chunksize": chunksize, "on_error": "return"}
    sent = pmap(lambda item: item.number, items, **options)
    got = pmap(Touchy, range(20), **options)
    for outcomes in (sent, [each.number if isinstance(each, Touchy) else each for each in got]):
        assert [each for each in outcomes if isinstance(each, int)] == [*range(7), *range(8, 20)]
        assert "item 7 " in "".join(outcomes[7].__notes__)
