"""What a job is: inputs, a function, how each library does it best, and its limit."""

from __future__ import annotations

import hashlib
import heapq
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.versus.peers import NEWCOMER, WELL, WORKERS, Peer

LOOP = "loop"  # the one way of serial
OPTIONS = "workers=N"  # how parallelkit's second way is called: the number is all that is given

# What a limit is called where it is told.
LIMITS = {
    "cores": "the loop / workers",
    "loop": "the loop",
    "list": "list scheduling of the items as measured",
    "copies": "copying the bytes once",
    "pipe": "a pipe's round trip",
}

Way = Callable[[Any, Any], Any]  # of a peer and what the job made; returns the result


@dataclass(frozen=True)
class Job:
    """One job.  `make(count, loops)` gives its inputs; `loops` of `work.burn` take a microsecond.

    `ways` says what a library does in place of its plain map, by `name/way`, or by `name` for all
    its ways; a further way gets a name of its own.  With `one_by_one` results are read from an
    iterator.  `whole` jobs mean nothing with fewer items; of others, a library that is very slow is
    given fewer, and what it takes is scaled.
    """

    name: str
    title: str
    count: int
    make: Callable[[int, float], Any]
    fn: Callable[..., Any]
    size: int | None = None  # of a chunk, for those who are told
    limit: str = "cores"
    ways: dict[str, Way] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # by `name/way`: the reason
    one_by_one: bool = False
    whole: bool = False
    fewer: int = 0  # items for a first look, if not a share of them, or all with less work each
    each: bool = False  # whether what is told is the time of one of `count` calls

    def names(self, peer: str) -> list[str]:
        """Return the ways in which a library does this job."""
        further = [key.partition("/")[2] for key in self.ways if key.startswith(f"{peer}/")]
        if peer == "serial":
            return [LOOP, *further]
        ways = dict.fromkeys([NEWCOMER, WELL, *further])
        return [way for way in ways if f"{peer}/{way}" not in self.left_out]

    def run(self, peer: Peer, way: str, given: Any) -> Any:
        """Do the job in one way, and return what comes of it."""
        special = self.ways.get(f"{peer.name}/{way}") or self.ways.get(peer.name)
        if special:
            return special(peer, given)
        if self.one_by_one:
            kept = (
                peer.imap(self.fn, given, self.size)
                if way == WELL
                else peer.newcomer_imap(self.fn, given)
            )
            return list(kept)
        if way == WELL:
            return peer.map(self.fn, given, self.size)
        return peer.newcomer(self.fn, given)

    def bound(self, given: Any) -> float:
        """Return the seconds that nobody can beat, where that is not told by the loop's."""
        if self.limit == "list":
            return listed(self.fn, given)
        if self.limit == "copies":
            return copied(given)
        if self.limit == "pipe":
            return piped(self.count)
        raise ValueError(self.limit)

    @staticmethod
    def digest(result: Any) -> str:
        """Return a short text that is equal for equal results."""
        return hashlib.sha1(repr(plain(result)).encode()).hexdigest()[:12]


def plain(result: Any) -> Any:
    """Return the result with each array replaced by what tells it from others."""
    if isinstance(result, np.ndarray):
        first, last = (result.flat[0], result.flat[-1]) if result.size else (0, 0)
        return result.shape, float(result.sum()), float(first), float(last)
    if isinstance(result, dict):
        return sorted(result.items())
    if isinstance(result, list) and result and isinstance(result[0], np.ndarray):
        return [plain(each) for each in result]
    return result


def scheduled(costs: Sequence[float], workers: int) -> float:
    """Return the time at which all is done where whoever is free takes the next item at no cost."""
    free = [0.0] * workers
    for cost in costs:
        heapq.heapreplace(free, free[0] + cost)
    return max(free)


def listed(fn: Callable[[Any], Any], items: Sequence[Any]) -> float:
    """Run the items here, and return what list scheduling makes of their times (Graham 1966)."""
    costs = []
    for item in items:
        began = perf_counter()
        fn(item)
        costs.append(perf_counter() - began)
    return scheduled(costs, WORKERS)


_places: list[Any] = []  # warm memory to copy into


def copied(given: Any) -> float:
    """Copy as many arrays of 8 MB as there are items, each to a place that is warm."""
    count = len(given)
    while len(_places) < 2 * count:
        _places.append(np.ones(10**6))
    began = perf_counter()
    for target, source in zip(_places[:count], _places[count : 2 * count], strict=True):
        np.copyto(target, source)
    return perf_counter() - began


def piped(count: int) -> float:
    """Send a byte to another process and back, `count` times."""
    ours, theirs = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        while os.read(ours[0], 1) == b"x":
            os.write(theirs[1], b"x")
        os._exit(0)
    began = perf_counter()
    for _ in range(count):
        os.write(ours[1], b"x")
        os.read(theirs[0], 1)
    seconds = perf_counter() - began
    os.write(ours[1], b"e")
    os.waitpid(child, 0)
    for descriptor in ours + theirs:
        os.close(descriptor)
    return seconds
