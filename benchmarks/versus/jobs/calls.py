"""Jobs that are many calls of next to nothing: what a call costs when workers are up."""

from __future__ import annotations

from typing import Any

import parallelkit
from benchmarks.versus.jobs.job import Job
from benchmarks.versus.peers import NEWCOMER, WORKERS
from benchmarks.versus.work import burn, nothing

OTHERS = ("Pool", "futures", "joblib", "loky", "mpire", "pathos", "Dask", "Ray")


def repeated(length: int, loops: int = 0) -> Any:
    """Return what makes the inputs: a list for each call."""
    fixed = lambda speed: int(loops * speed) or 1  # noqa: E731
    return lambda count, speed: [[fixed(speed)] * length] * count


def mapping(way: str, fn: Any) -> Any:
    """Return a way that makes all calls, one after the other."""

    def run(peer: Any, calls: list[list[int]]) -> Any:
        mapped = peer.newcomer if way == NEWCOMER else peer.map
        return [mapped(fn, items) for items in calls]

    return run


def mapped_by(fn: Any) -> dict[str, Any]:
    return {
        f"{peer}/{way}": mapping(way, fn)
        for peer in ("parallelkit", *OTHERS)
        for way in (NEWCOMER, "well")
    } | {"serial": lambda _, calls: [[fn(item) for item in items] for items in calls]}


# One call of one function, submitted and waited for, as each library does that best.


def executor(peer: Any, calls: list[list[int]]) -> Any:
    if not hasattr(peer, "kept_executor"):
        peer.kept_executor = peer.stack.enter_context(parallelkit.Executor(WORKERS))
    return [[peer.kept_executor.submit(nothing, items[0]).result()] for items in calls]


def dask_submit(peer: Any, calls: list[list[int]]) -> Any:
    submit = peer.client.submit
    return [[submit(nothing, items[0], pure=False).result()] for items in calls]


def ray_actor(peer: Any, calls: list[list[int]]) -> Any:
    remote, get = peer.remote(nothing), peer.ray.get
    return [[get(remote.remote(items[0]))] for items in calls]


SUBMITTED = {
    "parallelkit/Executor": executor,
    "Pool/well": lambda peer, calls: [[peer.pool.apply(nothing, items)] for items in calls],
    "futures/well": lambda peer, calls: [
        [peer.pool.submit(nothing, *items).result()] for items in calls
    ],
    "loky/well": lambda peer, calls: [
        [peer.executor(max_workers=WORKERS).submit(nothing, *items).result()] for items in calls
    ],
    "mpire/well": lambda peer, calls: [[peer.pool.apply(nothing, items)] for items in calls],
    "Dask/well": dask_submit,
    "Ray/well": ray_actor,
}

JOBS = [
    Job(
        "call", "one call and wait, workers up", 400, repeated(1), nothing,
        limit="pipe", each=True, ways=mapped_by(nothing) | SUBMITTED,
    ),
    Job(
        "pair", "a map of two items, workers up", 400, repeated(2), nothing,
        limit="pipe", each=True, ways=mapped_by(nothing),
    ),
    Job(
        "tiny", "a map of ten items of 1 us, workers up", 400, repeated(10, 1), burn,
        limit="loop", each=True, ways=mapped_by(burn),
    ),
]  # fmt: skip
