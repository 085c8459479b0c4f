"""What two bare processes reach that are forked for the job and told beforehand who does what.

No library can do that: the costs are known.  It shows what a machine's CPUs give when all of them
work, which is less than the loop / workers promises, and how much of the rest is a library's.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace
from typing import Any

from benchmarks.versus.peers import WORKERS


def dealt(items: Sequence[int]) -> list[list[int]]:
    """Return the positions that each worker is to have; an item is what it costs.

    The dearest first, always to who has least (Graham 1969), or in turn where all cost the same.
    """
    if items.count(items[0]) == len(items):
        return [list(range(first, len(items), WORKERS)) for first in range(WORKERS)]
    shares: list[list[int]] = [[] for _ in range(WORKERS)]
    loads = [(0, worker) for worker in range(WORKERS)]
    heapify(loads)
    for position in sorted(range(len(items)), key=items.__getitem__, reverse=True):
        load, worker = loads[0]
        shares[worker].append(position)
        heapreplace(loads, (load + items[position], worker))
    return shares


def by_hand(fn: Callable[[Any], Any]) -> Callable[[Any, Any], list[Any]]:
    """Return a way to do a job whose items are their costs in bare processes."""

    def run(_: Any, items: Sequence[int]) -> list[Any]:
        shares = dealt(items)
        started = [begun(fn, [items[position] for position in share]) for share in shares]
        results: list[Any] = [None] * len(items)
        for share, (pid, ending) in zip(shares, started, strict=True):
            with os.fdopen(ending, "rb") as pipe:
                for position, result in zip(share, pickle.load(pipe), strict=True):
                    results[position] = result
            os.waitpid(pid, 0)
        return results

    return run


def begun(fn: Callable[[Any], Any], items: list[Any]) -> tuple[int, int]:
    """Fork a process that maps over the items; return its number and where its results come."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid:
        os.close(theirs)
        return pid, ours
    try:
        with os.fdopen(theirs, "wb") as pipe:
            pickle.dump([fn(item) for item in items], pipe)
    finally:
        os._exit(0)
