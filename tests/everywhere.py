"""What holds on every backend: each promise is a function that checks it on one.

`test_backends.py` has them kept by what needs no other package, `engines/` by the engines.  Run as
a script under `mpiexec`, this has them kept by MPI ranks.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import operator
import os
import random
import tempfile
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import parallelkit
from parallelkit import Executor, amap, arun, imap, pmap, preduce


class Place(NamedTuple):
    """A backend.  `inside` are those that share this process, so that nothing has to travel."""

    backend: Any
    inside: bool = False
    timed: bool = False  # whether it ends what runs too long


SIZE = 4_000_000  # bytes of a large result

PROMISES: dict[str, Callable[[Place], None]] = {}


def promise(check: Callable[[Place], None]) -> Callable[[Place], None]:
    PROMISES[check.__name__] = check
    return check


class Point:
    """A class whose instances travel."""

    def __init__(self, x: float) -> None:
        self.x = x


def square(x: Any) -> Any:
    return x * x


def picky(x: int) -> int:
    if x % 10 == 7:
        raise ValueError(f"not {x}")
    return x


def draw(_: int) -> tuple[float, float]:
    return random.random(), float(np.random.random())


def no_travel(x: int) -> Any:
    return threading.Lock() if x == 3 else x


def flaky(folder: str, x: int) -> int:
    """Raise at the first try of every third item."""
    mark = Path(folder, str(x))
    if x % 3 == 0 and not mark.exists():
        mark.touch()
        raise OSError("try again")
    return x


def state() -> dict[str, int]:
    return {"calls": 0}


def count_calls(kept: dict[str, int], _: int) -> tuple[int, int, int]:
    kept["calls"] += 1
    return os.getpid(), threading.get_ident(), kept["calls"]


def span(_: int) -> tuple[float, float]:
    began = time.monotonic()
    while time.monotonic() < began + 0.02:
        pass
    return began, time.monotonic()


def nested(x: int) -> list[int]:
    return pmap(square, range(x))


async def counted(stop: int) -> AsyncIterator[int]:
    for x in range(stop):
        yield x


@promise
def results_come_in_order(place: Place) -> None:
    assert pmap(square, range(1000), backend=place.backend) == [x * x for x in range(1000)]
    assert pmap(pow, [2, 3, 4], [5, 2], backend=place.backend) == [32, 9]
    assert pmap(square, [], backend=place.backend) == []
    assert pmap(square, iter(range(50)), chunksize=7, backend=place.backend) == [
        x * x for x in range(50)
    ]


@promise
def what_has_no_name_travels(place: Place) -> None:
    base = 3

    class Local(Point):
        pass

    points = pmap(lambda x: Local(x + base), range(20), backend=place.backend)

    assert [point.x for point in points] == list(range(3, 23))
    assert {type(point) for point in points} == {Local}


@promise
def arrays_travel(place: Place) -> None:
    table = np.arange(500_000.0)

    sums = pmap(lambda x: float(table[x] + x.sum()), list(np.arange(30)), backend=place.backend)
    halves = pmap(np.negative, [table, table[::2]], backend=place.backend)

    assert sums == [2.0 * x for x in range(30)]
    assert (halves[0] == -table).all()
    assert (halves[1] == -table[::2]).all()


@promise
def a_result_is_freed_with_its_last_name(place: Place) -> None:
    def kept() -> int:
        return tracemalloc.get_traced_memory()[0] - before

    pmap(bytes, [1, 2], chunksize=1, backend=place.backend)  # which imports whatever it needs
    gc.disable()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        results = pmap(bytes, [SIZE] * 8, chunksize=1, backend=place.backend)
        assert [len(each) for each in results] == [SIZE] * 8
        del results
        for result in imap(bytes, [SIZE] * 8, chunksize=1, backend=place.backend):
            assert len(result) == SIZE
        del result
        deadline = time.monotonic() + 10.0
        while kept() > SIZE and time.monotonic() < deadline:
            time.sleep(0.0)  # a thread of the engine's may be about to let go of one
        assert kept() < SIZE
    finally:
        tracemalloc.stop()
        gc.enable()


@promise
def an_exception_is_the_users_own(place: Place) -> None:
    with pytest.raises(ValueError, match=r"^not 7\b") as caught:
        pmap(picky, range(100), backend=place.backend)

    error: Any = caught.value
    assert (error.index, error.item) == (7, 7)
    assert "parallelkit: raised by item 7 (7)" in error.__notes__
    assert {x: error.results[x] for x in range(7)} == {x: x for x in range(7)}
    with pytest.raises(ValueError, match=r"^not 7\b"):
        error.replay()


@promise
def failures_can_be_returned_or_skipped(place: Place) -> None:
    returned = pmap(picky, range(40), on_error="return", backend=place.backend)
    skipped = pmap(picky, range(40), on_error="skip", backend=place.backend)

    assert [x for x, each in enumerate(returned) if isinstance(each, ValueError)] == [7, 17, 27, 37]
    assert skipped == [x for x in range(40) if x % 10 != 7]


@promise
def whatever_is_raised_is_the_items(place: Place) -> None:
    if place.backend == "serial":  # there it is the caller's
        return

    def leave(x: int) -> int:
        if x == 3:
            raise SystemExit(4)
        if x == 5:
            raise StopIteration("early")
        return x

    outcomes = pmap(leave, range(8), on_error="return", backend=place.backend)

    assert [type(each) for each in outcomes[3:6:2]] == [SystemExit, StopIteration]
    assert [outcomes[x] for x in (0, 1, 2, 4, 6, 7)] == [0, 1, 2, 4, 6, 7]


@promise
def what_cannot_travel_is_told(place: Place) -> None:
    items = [1, 2, threading.Lock(), 4]

    outcomes = pmap(type, items, on_error="return", backend=place.backend)
    results = pmap(no_travel, range(6), on_error="return", backend=place.backend)

    assert [outcomes[x] for x in (0, 1, 3)] == [int, int, int]
    assert [results[x] for x in (0, 1, 2, 4, 5)] == [0, 1, 2, 4, 5]
    if place.inside:
        assert outcomes[2] is type(items[2])
    else:
        assert "cannot pickle '_thread.lock' object" in str(outcomes[2])
        assert "cannot pickle '_thread.lock' object" in str(results[3])


@promise
def retries_are_retries(place: Place) -> None:
    with tempfile.TemporaryDirectory() as folder:
        results = pmap(
            partial(flaky, folder), range(12), retries=1, retry_on=OSError, backend=place.backend
        )

    assert results == list(range(12))
    with pytest.raises(ValueError, match=r"^not 7\b"):
        pmap(picky, range(10), retries=2, retry_on=OSError, backend=place.backend)


@promise
def random_numbers_belong_to_items(place: Place) -> None:
    expected = pmap(draw, range(60), seed=5, backend="serial")

    drawn = pmap(draw, range(60), seed=5, backend=place.backend)
    in_pairs = pmap(draw, range(60), seed=5, chunksize=2, backend=place.backend)

    assert drawn == in_pairs == expected


@promise
def a_state_is_made_once_in_each_worker(place: Place) -> None:
    calls = pmap(count_calls, range(200), worker_state=state, chunksize=5, backend=place.backend)

    by_worker: dict[Any, list[int]] = {}
    for pid, thread, number in calls:
        by_worker.setdefault((pid, thread) if place.inside else pid, []).append(number)
    assert len(calls) == 200
    for numbers in by_worker.values():
        assert sorted(numbers) == list(range(1, len(numbers) + 1))


@promise
def a_reduction_has_one_value(place: Place) -> None:
    numbers = [0.1 * x for x in range(5000)]
    expected = preduce(operator.add, numbers, map=square, backend="serial")

    total = preduce(operator.add, numbers, map=square, backend=place.backend)
    in_chunks = preduce(operator.add, numbers, map=square, chunksize=33, backend=place.backend)

    assert total == in_chunks == expected
    assert preduce(operator.add, [], initial=3, backend=place.backend) == 3


@promise
def an_endless_input_is_read_a_little_ahead(place: Place) -> None:
    pulled = 0

    def numbers() -> Iterator[int]:
        nonlocal pulled
        for x in itertools.count():
            pulled = x + 1
            yield x

    results = imap(square, numbers(), chunksize=2, backend=place.backend)
    first = list(itertools.islice(results, 30))
    results.close()  # type: ignore[attr-defined]

    workers = max(2, os.cpu_count() or 1)
    assert first == [x * x for x in range(30)]
    assert pulled <= 30 + 8 * 2 * 2 * 2 * workers

    unordered = imap(square, range(100), ordered=False, backend=place.backend)
    assert sorted(unordered) == [x * x for x in range(100)]


@promise
def workers_is_a_limit(place: Place) -> None:
    spans = pmap(span, range(10), workers=1, backend=place.backend)

    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(sorted(spans)))


@promise
def a_timeout_is_kept_or_refused(place: Place) -> None:
    if place.timed:
        with pytest.raises(parallelkit.errors.ItemTimeout, match=r"^item 1 "):
            pmap(time.sleep, [0, 60, 0], timeout=0.3, backend=place.backend)
        return
    for option in ({"timeout": 1.0}, {"max_memory": 1 << 30}):
        (name,) = option
        with pytest.raises(ValueError, match=rf"^{name} needs "):
            pmap(square, range(3), backend=place.backend, **option)


@promise
def a_map_within_a_map_ends(place: Place) -> None:
    expected = [[x * x for x in range(n)] for n in range(12)]

    assert pmap(nested, range(12), chunksize=1, backend=place.backend) == expected
    with parallelkit.backend(place.backend):
        assert pmap(nested, range(12)) == expected


@promise
def async_callers_are_served(place: Place) -> None:
    async def main() -> None:
        assert await amap(square, range(200), backend=place.backend) == [x * x for x in range(200)]
        got = [y async for y in amap(square, counted(50), backend=place.backend)]
        assert got == [x * x for x in range(50)]
        with pytest.raises(ValueError, match=r"^not 7\b") as caught:
            await amap(picky, range(50), backend=place.backend)
        assert caught.value.index == 7  # type: ignore[attr-defined]
        with parallelkit.backend(place.backend):
            assert await arun(pow, 2, 5) == 32

    asyncio.run(main())


@promise
def an_executor_runs_its_tasks(place: Place) -> None:
    with Executor(2, backend=place.backend) as executor:
        future = executor.submit(picky, 17)
        assert list(executor.map(square, range(60))) == [x * x for x in range(60)]
        with pytest.raises(ValueError, match=r"^not 17\b"):
            future.result()


@promise
def it_can_be_chosen_for_a_while(place: Place) -> None:
    with parallelkit.backend(place.backend):
        chosen = pmap(lambda _: (os.getpid(), threading.get_ident()), range(30))
    named = pmap(lambda _: (os.getpid(), threading.get_ident()), range(30), backend="serial")

    assert set(named) == {(os.getpid(), threading.get_ident())}
    if place.backend not in ("serial", "processes"):  # where the caller may work too
        assert not set(chosen) & set(named)


def main() -> None:
    """Keep all promises on the ranks of MPI."""
    from mpi4py.futures import MPIPoolExecutor

    with MPIPoolExecutor() as executor:
        for name, check in PROMISES.items():
            check(Place(executor))
            print(name, flush=True)


if __name__ == "__main__":
    main()
