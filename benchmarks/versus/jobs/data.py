"""Jobs in which data travels: large arrays, records, lines, streams."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import parallelkit
from benchmarks.versus.jobs.job import Job
from benchmarks.versus.peers import WORKERS
from benchmarks.versus.work import (
    LENGTH,
    MEGABYTE,
    added,
    added_block,
    billed,
    blocks,
    filled,
    line,
    parsed,
    record,
    row,
    total,
)

OTHERS = ("Pool", "futures", "joblib", "loky", "mpire", "pathos", "Dask", "Ray")


def arrays(count: int, _: float) -> list[Any]:
    return [np.full(LENGTH, float(number)) for number in range(count)]


def numbers(count: int, _: float) -> range:
    return range(count)


# A large array that the function captures.  The array is the same in every round, but for a number
# that no item reads: who keeps what was sent, and never looks again, would win a race that users
# do not run.


def large(count: int, _: float) -> tuple[Any, range]:
    return np.ones(count * MEGABYTE), range(count)


def captured(way: Any) -> Any:
    """Return a way to map over the numbers with a function that holds the array."""

    def run(peer: Any, given: tuple[Any, range]) -> Any:
        big, items = given
        big[1] += 1.0
        return way(peer, big, items)

    return run


def partly(method: str) -> Any:
    return captured(lambda peer, big, items: getattr(peer, method)(partial(row, big), items))


_inherited: list[Any] = []


def row_of_inherited(number: int) -> float:
    return row(_inherited[0], number)


def forked(peer: Any, big: Any, items: range) -> list[float]:
    """Map by workers that inherit the array, being forked for this call."""
    _inherited[:] = [big]
    return peer.newcomer(row_of_inherited, items)


def shared_objects(peer: Any, big: Any, items: range) -> list[float]:
    with peer.kind(WORKERS, shared_objects=big) as pool:
        return pool.map(row, items, chunk_size=25)


def of_batch(numbers: list[int], big: Any) -> list[float]:
    return [row(big, number) for number in numbers]


def scattered(peer: Any, big: Any, items: range) -> list[float]:
    there = peer.put(big)
    tasks = [peer.client.submit(of_batch, list(part), there, pure=False) for part in parts(items)]
    return joined(peer.fetch(tasks))


def put(peer: Any, big: Any, items: range) -> list[float]:
    there = peer.put(big)
    return joined(peer.fetch([peer.remote(of_batch).remote(list(p), there) for p in parts(items)]))


def newcomer_of_ray(peer: Any, big: Any, items: range) -> list[float]:
    """As its first page on objects has it: the array is an argument of each task."""
    there = peer.put(big)
    return peer.fetch([peer.remote(row).remote(there, number) for number in items])


def parts(items: range) -> Iterator[range]:
    return (items[each.start : each.stop] for each in blocks(len(items), 4 * WORKERS))


def joined(results: list[list[Any]]) -> list[Any]:
    return [result for part in results for result in part]


# Arrays added up: given by the caller, or made in workers.


def added_here(peer: Any, items: Any) -> Any:
    return added(peer.newcomer(filled, items))


def added_there(peer: Any, items: Any) -> Any:
    """Add in workers, by blocks cut by hand, and then the blocks here."""
    return added(peer.map(added_block, [list(part) for part in parts(items)], 1))


def reduce_given(peer: Any, given: list[Any]) -> Any:
    """Send blocks of the arrays, each added in a worker."""
    cut = [given[each.start : each.stop] for each in blocks(len(given), 4 * WORKERS)]
    return added(peer.map(added, cut, 1))


def reduce_given_naively(peer: Any, given: list[Any]) -> Any:
    cut = [given[each.start : each.stop] for each in blocks(len(given), 4 * WORKERS)]
    return added(peer.newcomer(added, cut))


# A stream that comes from a generator, and is read one by one.


def stream(count: int, loops: float) -> Any:
    return lambda: (int(200 * loops) for _ in range(count))


def read(method: str, *size: int) -> Any:
    def run(peer: Any, given: Any) -> Any:
        from benchmarks.versus.work import burn

        return sum(getattr(peer, method)(burn, given(), *size))

    return run


JOBS = [
    Job(
        "array-arguments", "32 arrays of 8 MB as arguments, all read", 32, arrays, total,
        size=1, limit="copies",
    ),
    Job(
        "array-results", "32 arrays of 8 MB as results", 32, numbers, filled,
        size=1, limit="copies",
    ),
    Job(
        "captured", "200 items of a function that captures 200 MB", 200, large, row,
        limit="loop",
        whole=True,
        fewer=20,
        ways={
            "serial": captured(lambda _, big, items: [row(big, number) for number in items]),
            "parallelkit/newcomer": partly("newcomer"),
            "parallelkit/well": partly("map"),
            "Pool/newcomer": partly("newcomer"),
            "Pool/well": captured(forked),
            "futures/newcomer": partly("newcomer"),
            "futures/well": captured(forked),
            "joblib/newcomer": partly("newcomer"),
            "joblib/well": partly("map"),
            "loky/newcomer": partly("newcomer"),
            "loky/well": partly("map"),
            "mpire/newcomer": partly("newcomer"),
            "mpire/well": captured(shared_objects),
            "pathos/newcomer": partly("newcomer"),
            "pathos/well": partly("map"),
            "Dask/newcomer": partly("newcomer"),
            "Dask/well": captured(scattered),
            "Ray/newcomer": captured(newcomer_of_ray),
            "Ray/well": captured(put),
        },
        left_out={
            "futures/newcomer": "it sends the array with each of 200 items: 40 GB",
            "loky/newcomer": "it sends the array with each of 200 items: 40 GB",
            "Dask/newcomer": "its documentation forbids it: functions over 100 MB",
        },
    ),
    Job(
        "records", "200,000 small dicts both ways, light work", 200_000,
        lambda count, _: [record(number) for number in range(count)], billed, limit="loop",
    ),
    Job(
        "lines", "200,000 lines of text, parsed", 200_000,
        lambda count, _: [line(number) for number in range(count)], parsed, limit="loop",
    ),
    Job(
        "reduce-arrays", "64 arrays of 8 MB, made and added up", 64, numbers, filled,
        ways={
            "serial": lambda _, items: added(map(filled, items)),
            "parallelkit/newcomer": lambda _, items: parallelkit.preduce(
                operator.add, items, map=filled
            ),
            "parallelkit/well": lambda _, items: parallelkit.preduce(
                operator.iadd, items, map=filled, workers=WORKERS
            ),
        }
        | {f"{peer}/newcomer": added_here for peer in OTHERS}
        | {f"{peer}/well": added_there for peer in OTHERS},
    ),
    Job(
        "reduce-given", "64 arrays of 8 MB of the caller, added up", 64, arrays, total,
        ways={
            "serial": lambda _, given: added(given),
            "parallelkit/newcomer": lambda _, given: parallelkit.preduce(operator.add, given),
            "parallelkit/well": lambda _, given: parallelkit.preduce(
                operator.add, given, workers=WORKERS
            ),
        }
        | {f"{peer}/newcomer": reduce_given_naively for peer in OTHERS}
        | {f"{peer}/well": reduce_given for peer in OTHERS},
    ),
    Job(
        "stream", "5,000 items of 200 us from a generator, read one by one", 5_000, stream, total,
        ways={
            "serial": read("imap"),
            "parallelkit/newcomer": read("newcomer_imap"),
            "parallelkit/well": read("imap"),
        }
        | {f"{peer}/newcomer": read("newcomer_imap") for peer in OTHERS}
        | {f"{peer}/well": read("imap", 25) for peer in OTHERS},
    ),
]  # fmt: skip
