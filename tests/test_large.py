"""Large data through real workers: not copied more than once, right, and gone when it should be."""

from __future__ import annotations

import array
import gc
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripts import STARTS, script

from parallelkit import imap, pmap, preduce, share
from parallelkit.backends import warm
from parallelkit.freight import NO_ROOM
from parallelkit.wire import Outbox

LENGTH = 300_000  # of float64: well above what goes in the pickle


@pytest.fixture(params=STARTS)
def start(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each way of starting workers."""
    monkeypatch.setenv("PARALLELKIT_START", request.param)
    yield str(request.param)
    warm.shut()


def big(seed: int) -> np.ndarray[Any, Any]:
    """Return an array that only this seed gives."""
    return np.random.default_rng(seed).random(LENGTH)


def same(thing: Any) -> Any:
    """Return what was given."""
    return thing


def spoil(numbers: np.ndarray[Any, Any]) -> float:
    """Write into an argument, and return what was in it."""
    before = float(numbers.sum())
    numbers[:] = -1
    return before


@pytest.mark.usefixtures("start")
def test_arrays_arrive_as_they_were_both_ways() -> None:
    given = [
        big(0),
        np.asfortranarray(big(1).reshape(1000, -1)),
        big(2)[::-2],
        big(3).view("M8[s]"),
        np.broadcast_to(big(4)[:1000], (300, 1000)),
        big(5).astype(">f4"),
        np.ma.masked_less(big(6), 0.5),
        {"a": big(7), "b": [big(8), "text"]},
        array.array("d", big(9)),
        bytes(big(10)),
        bytearray(big(11)),
        np.array([big(12), None], dtype=object),
    ]
    for before, after in zip(given, pmap(same, given, workers=2), strict=True):
        assert type(after) is type(before)
        assert pickle.dumps(after) == pickle.dumps(before)


@pytest.mark.usefixtures("start")
def test_arguments_may_be_written_to_and_the_callers_never_change() -> None:
    own, shared = [big(i) for i in range(8)], big(9)
    sums = [float(each.sum()) for each in own]
    copies = [each.copy() for each in own]

    assert pmap(spoil, own, workers=2) == sums
    assert pmap(spoil, own, workers=2) == sums
    assert all((each == copy).all() for each, copy in zip(own, copies, strict=True))
    # One array that many items name: each chunk has it fresh.
    assert pmap(spoil, [shared] * 40, workers=2, chunksize=1) == [float(big(9).sum())] * 40
    assert (shared == big(9)).all()


@pytest.mark.usefixtures("start")
def test_what_a_function_holds_arrives_once_and_is_its_own() -> None:
    held = big(1)

    def at(position: int) -> tuple[float, bool]:
        value = float(held[position])
        return value, held.flags.writeable

    results = pmap(at, range(100), workers=2)
    assert results == [(float(held[i]), True) for i in range(100)]
    assert pmap(partial(np.array_equal, held), [held] * 6, workers=2) == [True] * 6


@pytest.mark.usefixtures("start")
def test_results_outlive_workers_and_change_alone() -> None:
    results = pmap(big, range(6), workers=2)
    views = [result[10:20] for result in results]
    warm.shut()
    results[0][:] = 0
    more = pmap(big, range(6, 12), workers=2)
    assert all((each == big(i)).all() for i, each in enumerate(results) if i)
    assert all((view == big(i)[10:20]).all() for i, view in enumerate(views) if i)
    assert all((each == big(i)).all() for i, each in enumerate(more, 6))


@pytest.mark.usefixtures("start")
def test_many_rounds_reuse_memory_and_never_mix_arrays() -> None:
    kept: list[np.ndarray[Any, Any]] = []
    for turn in range(20):
        results = pmap(same, [big(turn * 10 + i) for i in range(10)], workers=2)
        kept.append(results[turn % 10])
    for turn, each in enumerate(kept):
        assert (each == big(turn * 10 + turn % 10)).all()


def halves(numbers: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Return views of an argument."""
    return numbers[: LENGTH // 2], numbers[::-1]


@pytest.mark.usefixtures("start")
def test_a_result_may_be_a_view_of_an_argument() -> None:
    given = [big(i) for i in range(6)]
    for before, (first, backwards) in zip(given, pmap(halves, given, workers=2), strict=True):
        assert (first == before[: LENGTH // 2]).all()
        assert (backwards == before[::-1]).all()


_hoard: list[Any] = []


def hoard(numbers: np.ndarray[Any, Any]) -> float:
    """Keep every argument, and return what is in the first."""
    _hoard.append(numbers)
    return float(_hoard[0].sum())


@pytest.mark.usefixtures("start")
def test_a_function_may_keep_its_arguments() -> None:
    first = float(big(0).sum())
    assert pmap(hoard, [big(i) for i in range(20)], workers=1) == [first] * 20
    assert pmap(hoard, [big(i) for i in range(20)], workers=1) == [first] * 20


def die_at(position: int, numbers: np.ndarray[Any, Any]) -> float:
    """End this worker at one item."""
    if position == 7:
        os.kill(os.getpid(), 9)
    return float(numbers.sum())


@pytest.mark.usefixtures("start")
def test_a_dead_worker_costs_only_its_item() -> None:
    given = [big(i) for i in range(20)]
    results = pmap(die_at, range(20), given, workers=2, on_error="return")
    assert [i for i, each in enumerate(results) if isinstance(each, Exception)] == [7]
    assert all(results[i] == float(given[i].sum()) for i in range(20) if i != 7)


@pytest.mark.usefixtures("start")
def test_iterators_and_reductions() -> None:
    given = (big(i) for i in range(12))
    assert [each[5] for each in imap(same, given, workers=2)] == [big(i)[5] for i in range(12)]
    total = preduce(np.add, range(8), map=big, workers=2)
    serial = preduce(np.add, range(8), map=big, backend="serial")
    assert (total == serial).all()
    # Left unread: what is on its way goes with the workers.
    unread = imap(big, range(100), workers=2)
    next(unread)
    del unread


@pytest.mark.parametrize("kind", ["memfd", "file", "named"])
def test_each_kind_of_segment(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLELKIT_SEGMENTS", kind)
    warm.shut()
    try:
        given = [big(i) for i in range(10)]
        held = big(99)
        results = pmap(lambda x: x + held, given, workers=2)
        assert all((each == big(i) + held).all() for i, each in enumerate(results))
        del results
    finally:
        gc.collect()
        warm.shut()


def test_results_that_are_dropped_are_freed() -> None:
    results = pmap(big, range(10), workers=2)
    # Of both workers: one of them may have had all items.
    segments = [each for link in warm.pool().idle for each in link.berth.segments.values()]
    assert sum(segment[1 : 1 + 64].count(1) for segment in segments) > 0
    del results
    assert sum(segment[1 : 1 + 64].count(1) for segment in segments) == 0


def add_to(shared: Any, _: int) -> None:
    """Change what others see."""
    shared[0] += 1


def test_shared_arrays_go_as_handles_all_the_same() -> None:
    shared = share(np.zeros(LENGTH))
    pmap(partial(add_to, shared), range(10), workers=1)
    assert shared[0] == 10


FEW = """
    import resource, sys
    import numpy as np
    from parallelkit import pmap
    {limit}

    held = np.arange(300_000.0)
    given = [np.full(300_000, i, float) for i in range(30)]
    results = pmap(lambda x: x + held, given, workers=2)
    assert all((each == held + i).all() for i, each in enumerate(results))
    print("done")
"""
LIMITS = {
    "descriptors": "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
    "address space": "resource.setrlimit(resource.RLIMIT_AS, (700 << 20, 700 << 20))",
    "file size": "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))",
}


@pytest.mark.parametrize("limit", LIMITS)
def test_under_limits(tmp_path: Path, limit: str, start: str) -> None:
    source = FEW.format(limit=LIMITS[limit])
    assert script(source, where=tmp_path, PARALLELKIT_START=start) == "done\n"


def test_who_asks_is_told_that_there_is_no_room(tmp_path: Path, start: str) -> None:
    source = """
        import logging, resource
        import numpy as np
        from parallelkit import pmap

        logging.basicConfig(format="%(levelname)s %(message)s", filename="log", level="INFO")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        given = [np.full(300_000, i, float) for i in range(5)]
        assert pmap(len, given, workers=2) == pmap(len, given, workers=2) == [300_000] * 5
    """
    script(source, where=tmp_path, PARALLELKIT_START=start)

    assert (tmp_path / "log").read_text() == f"INFO {NO_ROOM}\n"
    assert NO_ROOM == (
        "large data travels in messages, several times slower, because there is no room for it in "
        "shared memory (memory, open files or a limit): python -m parallelkit tells more"
    )


Sum = Callable[[Any], float]


def test_an_array_that_many_name_is_written_once() -> None:
    named = big(3)
    before = named.copy()
    total: Sum = partial(np.sum)
    assert pmap(total, [named] * 1000, workers=2) == [float(before.sum())] * 1000
    assert pmap(die_at, [1] * 100, [named] * 100, workers=2) == [float(before.sum())] * 100


def written() -> int:
    """Return how many bytes this process has written to files, in memory or not."""
    with open("/proc/self/io") as file:
        return int(dict(line.split(": ") for line in file)["wchar"])


@pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that counts")
def test_ten_thousand_items_that_name_one_array_are_one_transport(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send, sent = Outbox._send, [0]

    def counted(outbox: Outbox) -> int:
        sent[0] += (count := send(outbox))
        return count

    monkeypatch.setattr(Outbox, "_send", counted)
    named = np.random.default_rng(0).random(1_250_000)  # 10 MB
    before = written()

    found = pmap(lambda array, x: array[x], [named] * 10_000, range(10_000), workers=2)

    assert found == named[:10_000].tolist()
    assert written() - before < 1.1 * named.nbytes
    assert sent[0] < 0.05 * named.nbytes


HELD = """
    import numpy as np
    from parallelkit import imap, pmap

    results = pmap(lambda i: np.full(300_000, i, float), range(4), workers=2)
    unread = imap(lambda array: array * 2, [results[0]] * 1000, workers=2)
    next(unread)

    class Late:
        def __del__(self):
            print(results[3][-1])

    late = Late()
    late.itself = late
"""


def test_the_interpreter_ends_quietly_while_results_and_an_iterator_are_held(
    tmp_path: Path, start: str
) -> None:
    said = script(HELD, where=tmp_path, PARALLELKIT_START=start, PYTHONDEVMODE="1")
    assert said == "3.0\n"
