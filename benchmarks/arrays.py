"""What large arrays cost on their way to workers and back, here and in the peers.

    python -m benchmarks.arrays [--quick] [--only LETTERS] [--json FILE]

Two workers that are up; arrays of 8 MB unless said.  Rounds are interleaved; told are the medians
of a round's ratios, and of its seconds.  What `copies` counts is the time of copying the same bytes
once, in the same round, with `np.copyto` into warm memory: each array into a place of its own.

a: as arguments, of which the function reads one item or all.  "New" arrays were not sent before,
   "again" the same ones follow at once: joblib keeps its files by the array's identity, and would
   send what an array held before it was changed.
b: as results, all kept until the round is over.
c: as results that are added up.
d: one of 200 MB, captured by a function of 200 items: time, in a process for each measurement,
   beside copies into fresh memory, of `np.empty` (huge pages: fast, or slow where memory is in
   pieces) and of a memfd; and the growth of what all processes hold together (PSS).
e: one of 10 MB, named by 10,000 items.
f: 100 MB to the workers and back, round after round: what is held, and names in /dev/shm.
g: none: what small messages cost, to see what all this takes from those who send integers.

Linux only (PSS, memfd).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import operator
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import array_memory, machine_line, table
from benchmarks.array_memory import alone, timed
from benchmarks.array_peers import (
    LENGTH,
    NAMES,
    OURS,
    WORKERS,
    Array,
    Library,
    filled,
    first,
    installed,
    library,
    ready,
    total,
)
from parallelkit import pmap, preduce

COPIES = "copying alone, each to its own place"
Action = Callable[[], Any]
Figures = dict[str, Any]


class Arrays:
    """What the rows (a), (b) and (c) share: libraries that are up, and warm memory to copy into."""

    def __init__(self, libraries: Sequence[Library], items: int) -> None:
        self.libraries = libraries
        self.items = items
        self.targets = self.new()
        self.sources = self.new()

    def new(self) -> list[Array]:
        return [np.full(LENGTH, float(number)) for number in range(self.items)]

    def copied(self, arrays: Iterable[Array]) -> None:
        for target, array in zip(self.targets, arrays, strict=True):
            np.copyto(target, array)

    def copied_to_one(self, arrays: Iterable[Array]) -> None:
        for array in arrays:
            np.copyto(self.targets[0], array)

    def floor(self, arrays: Sequence[Array]) -> dict[str, Action]:
        """Return the copies that everything is compared with."""
        return {
            COPIES: partial(self.copied, arrays),
            "copying alone, all to one place": partial(self.copied_to_one, arrays),
        }

    def arguments(self, fn: Callable[[Array], float]) -> dict[str, Action]:
        """Return the actions of a round of (a)."""
        arrays = self.new()
        actions = self.floor(arrays) | {"loop": lambda: [fn(array) for array in arrays]}
        for each in self.libraries:
            actions[f"{each.name}, new"] = partial(each.map, fn, arrays)
            actions[f"{each.name}, again"] = partial(each.map, fn, arrays)
        return actions

    def results(self, fn: Callable[[int], Array]) -> dict[str, Action]:
        """Return the actions of a round of (b)."""
        actions = self.floor(self.sources)
        if fn is filled:  # else the caller would make what workers made beforehand
            actions["loop"] = lambda: [fn(number) for number in range(self.items)]
        for each in self.libraries:
            actions[each.name] = partial(each.map, fn, range(self.items))
        return actions

    def sums(self) -> dict[str, Action]:
        """Return the actions of a round of (c)."""
        numbers = range(self.items)
        actions = self.floor(self.sources)
        actions["loop"] = lambda: added(map(filled, numbers))
        for each in self.libraries:
            actions[f"{each.name}, list"] = partial(added_by, each.map, numbers)
            actions[f"{each.name}, iterator"] = partial(added_by, each.imap, numbers)
        actions[f"{OURS}, preduce"] = lambda: preduce(
            operator.add, numbers, map=filled, workers=WORKERS
        )
        return actions


def added(arrays: Iterable[Array]) -> Array:
    """Return the sum, taking no more memory than it needs."""
    result = np.zeros(LENGTH)
    for array in arrays:
        result += array
    return result


def added_by(mapped: Callable[..., Iterable[Array]], numbers: range) -> Array:
    return added(mapped(filled, numbers))


def interleaved(actions: Callable[[], dict[str, Action]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds that each action took in each round; an untold round warms everything.

    What all are compared with runs before each of them, and its median is what the round tells: a
    copy is so short that a neighbour on this machine doubles it.
    """
    taken: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        copies, chosen = [], actions()
        for name, action in chosen.items():
            if COPIES in chosen:
                copies.append(timed(chosen[COPIES]))
            seconds = timed(action)
            if number:
                taken.setdefault(name, []).append(seconds)
        if number and copies:
            taken[COPIES][-1] = median(copies)
    return taken


def ratio(taken: dict[str, list[float]], name: str, base: str) -> float:
    """Return the median of the rounds' ratios."""
    return median(a / b for a, b in zip(taken[name], taken[base], strict=True))


def told(title: str, taken: dict[str, list[float]]) -> Figures:
    """Print the table of a measurement, and return what it says."""
    figures = {
        name: {"ms": median(seconds) * 1e3, "copies": ratio(taken, name, COPIES)}
        for name, seconds in taken.items()
    }
    rows = [(name, f"{row['ms']:.0f}", f"{row['copies']:.1f}") for name, row in figures.items()]
    print(f"\n{table((title, 'ms', 'copies'), rows)}", flush=True)
    # What joblib sends again, it does not send.
    each = [name for name in figures if not name.endswith(", again")]
    theirs = [name for name in each if name.startswith(NAMES[1:])]
    ours = [name for name in each if name.startswith(OURS)]
    if theirs:
        peer, best = (
            min(names, key=lambda name: figures[name]["copies"]) for names in (theirs, ours)
        )
        times = ratio(taken, peer, best)
        print(f"\nThe best peer ({peer}) takes {times:.2f} times as long as {best}.")
        figures[best]["best peer / this"] = times
    return figures


def large(letters: str, few: bool) -> Figures:
    """Measure (a), (b) and (c)."""
    items, rounds, found = (16, 2, {}) if few else (64, 5, {})
    with ExitStack() as stack:
        libraries = [library(name, stack) for name in NAMES if installed(name)]
        arrays = Arrays(libraries, items)
        kinds: dict[str, Callable[[], dict[str, Action]]] = {
            f"a: {items} arguments, one item read": partial(arrays.arguments, first),
            f"a: {items} arguments, all read": partial(arrays.arguments, total),
            f"b: {items} results, made": partial(arrays.results, filled),
            f"b: {items} results, made beforehand": partial(arrays.results, ready),
            f"c: {items} results added up": arrays.sums,
        }
        for title, actions in kinds.items():
            if title[0] in letters:
                found[title] = told(title, interleaved(actions, rounds))
    return found


def capturing(few: bool) -> Figures:
    """Measure (d): the time, then the memory, each in a process of its own."""
    found, megabytes = {}, 200
    ways = [way for way in array_memory.capture_ways() if installed(way[0].partition(",")[0])]
    taken: dict[tuple[str, str], list[list[float]]] = {way: [] for way in ways}
    for _ in range(1 if few else 5):
        for way, shared in ways:
            seconds = alone(array_memory.capture_seconds, way, megabytes, shared, 3 if few else 6)
            taken[way, shared].append(seconds)
    for (way, shared), runs in taken.items():
        copy, memfd, work, begun, _ = (median(column) for column in zip(*runs, strict=True))
        before, during = alone(array_memory.capture_memory, way, megabytes, shared)
        found[way + (", share(array)" if shared == "shared" else "")] = {
            "copy ms": copy * 1e3,
            "memfd ms": memfd * 1e3,
            "work ms": work * 1e3,
            "first ms": begun * 1e3,
            "first, in copies": median(run[3] / run[0] for run in runs),
            "first, in memfds": median(run[3] / run[1] for run in runs),
            "first - work ms": median(run[3] - run[2] for run in runs) * 1e3,
            "later - work ms": median(run[4] - run[2] for run in runs) * 1e3,
            "PSS before MB": before / 1e6,
            "PSS growth MB": (during - before) / 1e6,
            "copies held": (during - before) / megabytes / 1e6,
        }
    shown(f"d: {megabytes} MB captured, {array_memory.ITEMS} items", found)
    return found


def naming(few: bool) -> Figures:
    """Measure (e)."""
    found, items = {}, 1_000 if few else 10_000
    for name in filter(installed, NAMES):
        runs = [alone(array_memory.one_array, name, items) for _ in range(1 if few else 3)]
        seconds, written, shared, held = (median(column) for column in zip(*runs, strict=True))
        found[name] = {
            "ms": seconds * 1e3,
            "MB written": written / 1e6,
            "shared MB more": shared / 1e6,
            "PSS MB more": held / 1e6,
        }
    shown(f"e: {items:,} items naming 10 MB", found)
    return found


def repeating(few: bool) -> Figures:
    """Measure (f)."""
    marks = (10, 25, 50) if few else (10, 100, 500, 1_000)
    numbers = alone(array_memory.rounds, 100, *marks)
    found = {
        f"round {round_:.0f}": {
            "caller PSS MB": caller / 1e6,
            "workers PSS MB": others / 1e6,
            "names in /dev/shm": int(names),
            "ms": seconds * 1e3,
        }
        for round_, caller, others, names, seconds in zip(*[iter(numbers)] * 5, strict=True)
    }
    shown("f: 100 MB there and back", found)
    return found


def small(few: bool) -> Figures:
    """Measure (g)."""
    many, once = range(100_000), range(1_000)
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
        taken = interleaved(
            lambda: {
                f"{OURS}, chunks of 1,000": lambda: pmap(abs, many, workers=2, chunksize=1_000),
                "Pool, chunks of 1,000": lambda: pool.map(abs, many, 1_000),
                f"{OURS}, chunks of 1": lambda: pmap(abs, once, workers=2, chunksize=1),
                "Pool, chunks of 1": lambda: pool.map(abs, once, 1),
                f"{OURS}, calls of 1": lambda: [pmap(abs, [1], workers=2) for _ in range(300)],
                "Pool, calls of 1": lambda: [pool.map(abs, [1]) for _ in range(300)],
            },
            5 if few else 31,
        )
    counts = {"1,000": 100, "1": 1_000, "calls": 300}
    found = {}
    for name, seconds in taken.items():
        count = counts["calls" if "calls" in name else name.split()[-1]]
        found[name] = {
            "median us": median(seconds) / count * 1e6,
            "least us": min(seconds) / count * 1e6,
        }
    shown("g: a chunk, or a call", found)
    return found


def shown(title: str, found: Figures) -> None:
    """Print a table of figures that all rows have."""
    heads = list(next(iter(found.values())))
    rows = [(name, *(written(row[head]) for head in heads)) for name, row in found.items()]
    print(f"\n{table((title, *heads), rows)}", flush=True)


def written(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:.{1 if abs(number) < 100 else 0}f}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repetitions, for a first look")
    parser.add_argument("--only", default="abcdefg", metavar="LETTERS", help="these rows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there as well")
    chosen = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each fresh process compiles everything
    missing = [name for name in NAMES if not installed(name)]
    print(machine_line())
    if missing:
        print(f"\nNot installed, and left out: {', '.join(missing)}.")
    found: Figures = {"machine": machine_line()}
    parts: dict[str, Callable[[bool], Figures]] = {
        "abc": partial(large, chosen.only),
        "d": capturing,
        "e": naming,
        "f": repeating,
        "g": small,
    }
    for letters, measure in parts.items():
        if set(letters) & set(chosen.only):
            found[letters] = measure(chosen.quick)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
