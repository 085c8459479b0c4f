"""Jobs whose items are numbers: from nothing to do up to a tenth of a second, even and uneven."""

from __future__ import annotations

import random
from operator import add
from typing import Any

import parallelkit
from benchmarks.versus.jobs.hand import by_hand
from benchmarks.versus.jobs.job import Job
from benchmarks.versus.peers import WORKERS
from benchmarks.versus.work import blocks, burn, nothing, reduced, rest

SLOW = "a task for each of so many items would take minutes"


def even(microseconds: float) -> Any:
    return lambda count, loops: [int(microseconds * loops)] * count


def log_normal(count: int, loops: float) -> list[int]:
    chance = random.Random(5)
    return [int(chance.lognormvariate(0, 1) * 3_000 * loops) for _ in range(count)]


def descending(count: int, loops: float) -> list[int]:
    return [int((count - position) * 10_000 / count * loops) for position in range(count)]


def giant(count: int, loops: float) -> list[int]:
    """Return items of 2 ms, the last of which takes as long as half of the others together."""
    return [int(2_000 * loops)] * (count - 1) + [int((count - 1) * 1_000 * loops)]


# Whoever reduces by hand cuts the range into blocks, reduces each in a worker, and then these.


def cut(count: int) -> list[tuple[int, int]]:
    return [(each.start, each.stop) for each in blocks(count, 4 * WORKERS)]


def in_blocks(peer: Any, numbers: range) -> int:
    return sum(peer.map(reduced, cut(len(numbers)), 1))


def by_newcomer(peer: Any, numbers: range) -> int:
    return sum(peer.newcomer(rest, numbers))


BARE = {"serial/split by hand": by_hand(burn)}

JOBS = [
    Job(
        "noop",
        "1,000,000 items with nothing to do",
        1_000_000,
        lambda count, _: range(count),
        nothing,
        limit="loop",
    ),
    Job("5us", "200,000 items of 5 us", 200_000, even(5), burn, ways=BARE),
    Job("1ms", "1,000 items of 1 ms", 1_000, even(1_000), burn, ways=BARE),
    Job("100ms", "16 items of 100 ms", 16, even(100_000), burn, size=1, whole=True, ways=BARE),
    Job("even", "400 even items of 5 ms", 400, even(5_000), burn, size=5, whole=True, ways=BARE),
    Job(
        "log-normal", "400 log-normal items, 5 ms on average", 400, log_normal, burn,
        size=1, limit="list", whole=True, ways=BARE,
    ),
    Job(
        "descending", "400 items, from 10 ms down to nothing", 400, descending, burn,
        size=1, limit="list", whole=True, ways=BARE,
    ),
    Job(
        "giant", "400 items of 2 ms, the last of 400 ms", 400, giant, burn,
        size=1, limit="list", whole=True, ways=BARE,
    ),
    Job(
        "reduce-numbers",
        "5,000,000 numbers reduced to one",
        5_000_000,
        lambda count, _: range(count),
        rest,
        ways={
            "serial": lambda _, numbers: reduced((0, len(numbers))),
            "parallelkit/newcomer": lambda _, numbers: parallelkit.preduce(add, numbers, map=rest),
            "parallelkit/well": lambda _, numbers: parallelkit.preduce(
                add, numbers, map=rest, workers=WORKERS
            ),
        }
        | {
            f"{peer}/{way}": how
            for peer in ("Pool", "futures", "joblib", "loky", "mpire", "pathos", "Dask", "Ray")
            for way, how in (("newcomer", by_newcomer), ("well", in_blocks))
        },
    ),
]  # fmt: skip
