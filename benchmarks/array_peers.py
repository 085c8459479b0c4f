"""The libraries that `benchmarks.arrays` compares, each used well, and the functions they map.

Each is two workers that stay up, behind one way to map and one to iterate; one that is not
installed is left out.  Functions mapped lie here, not in the script, so that all send them by name.
What is measured, and against what, is the business of `arrays` and `array_memory`.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from parallelkit import imap, pmap

WORKERS = 2
LENGTH = 10**6  # of an array of 8 MB
MADE = 32  # arrays that a worker makes beforehand: with 64 items no chunk names one of them twice
OURS = "parallelkit"
NAMES = (OURS, "multiprocessing.Pool", "ProcessPoolExecutor", "joblib", "mpire")

Array = np.ndarray[Any, Any]
Mapped = Callable[[Callable[..., Any], Sequence[Any]], Any]

_made: list[Array] = []


class Library(NamedTuple):
    """One of the libraries, with its workers up."""

    name: str
    map: Mapped
    imap: Mapped


# What is mapped.


def first(array: Array) -> float:
    return float(array[0])


def total(array: Array) -> float:
    return float(array.sum())


def filled(number: int) -> Array:
    return np.full(LENGTH, float(number))


def ready(number: int) -> Array:
    """Return an array that this worker made at its first item, and keeps."""
    if not _made:
        _made.extend(filled(each) for each in range(MADE))
    return _made[number % MADE]


def loaded(_: int) -> bool:
    """See to it that numpy is up, and that the other worker gets an item as well."""
    time.sleep(0.02)
    return bool(np.zeros(1)[0] == 0)


def even(items: Sequence[Any]) -> int:
    """Return the chunk size that `Pool.map` would choose, better than others' for small items."""
    return -(-len(items) // (4 * WORKERS))


def installed(name: str) -> bool:
    return name not in {"joblib", "mpire"} or find_spec(name) is not None


def library(name: str, stack: ExitStack, size: int | None = 1) -> Library:
    """Return a library with its workers up and numpy loaded in them.

    They are ended with `stack`.  Peers send `size` items at a time; 1 is their best for arrays of
    their own, None leaves it to them.  parallelkit chooses itself.
    """
    opened = {
        OURS: _ours,
        "multiprocessing.Pool": _pool,
        "ProcessPoolExecutor": _executor,
        "joblib": _joblib,
        "mpire": _mpire,
    }[name](stack, size)
    for _ in range(3):
        list(opened.map(loaded, range(4 * WORKERS)))
    return opened


def _ours(_: ExitStack, __: int | None) -> Library:
    return Library(OURS, partial(pmap, workers=WORKERS), partial(imap, workers=WORKERS))


def _pool(stack: ExitStack, size: int | None) -> Library:
    pool = stack.enter_context(multiprocessing.get_context("fork").Pool(WORKERS))
    return Library(
        "multiprocessing.Pool",
        lambda fn, items: pool.map(fn, items, size),
        lambda fn, items: pool.imap(fn, items, size or 1),
    )


def _executor(stack: ExitStack, size: int | None) -> Library:
    context = multiprocessing.get_context("fork")
    pool = stack.enter_context(ProcessPoolExecutor(WORKERS, context))

    def mapped(fn: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        chosen = list(items)
        return pool.map(fn, chosen, chunksize=size or even(chosen))

    return Library("ProcessPoolExecutor", lambda fn, items: list(mapped(fn, items)), mapped)


def _joblib(stack: ExitStack, size: int | None) -> Library:
    from joblib import Parallel, delayed

    batch = size or "auto"
    parallel = stack.enter_context(Parallel(WORKERS, batch_size=batch))
    # A second one, because how results come is fixed at the start; the workers are the same.
    lazy = Parallel(WORKERS, batch_size=batch, return_as="generator")
    return Library(
        "joblib",
        lambda fn, items: parallel(delayed(fn)(item) for item in items),
        lambda fn, items: lazy(delayed(fn)(item) for item in items),
    )


def _mpire(stack: ExitStack, size: int | None) -> Library:
    from mpire import WorkerPool

    pool = stack.enter_context(WorkerPool(WORKERS, start_method="fork", keep_alive=True))
    return Library(
        "mpire",
        lambda fn, items: pool.map(
            fn, items, chunk_size=size or even(items), concatenate_numpy_output=False
        ),
        lambda fn, items: pool.imap(fn, items, chunk_size=size),
    )


# A function that captures an array, as each library has it best.


def pick(big: Any, number: int) -> float:
    """Touch one item of what was captured."""
    return float(big[number])


class Captured(NamedTuple):
    """A library that calls a function with a captured array: `call(fn, array, items)`."""

    name: str
    call: Callable[[Callable[..., Any], Any, Sequence[int]], Any]


def captured(way: str, stack: ExitStack) -> Captured:
    """Return a way to give an array to all calls of a function."""
    if way == "Pool, forked for the call":
        return Captured(way, _forked)
    if way == "mpire, shared_objects":
        return Captured(way, partial(_sharing, stack, {}))
    opened = library(way.partition(",")[0], stack, None if way in {OURS, "joblib"} else 100)
    return Captured(way, lambda fn, big, items: opened.map(partial(fn, big), items))


def _forked(fn: Callable[..., Any], big: Array, items: Sequence[int]) -> Any:
    """Map by workers that inherit the array, being forked for this call."""
    _made[:] = [big]
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
        return pool.map(partial(_inherited, fn), items)


def _inherited(fn: Callable[..., Any], number: int) -> Any:
    return fn(_made[0], number)


def _sharing(
    stack: ExitStack,
    pools: dict[int, Any],
    fn: Callable[..., Any],
    big: Array,
    items: Sequence[int],
) -> Any:
    """Map by workers that inherit the array, being forked for the first call that names it."""
    from mpire import WorkerPool

    if id(big) not in pools:
        pool = WorkerPool(WORKERS, shared_objects=big, start_method="fork", keep_alive=True)
        pools[id(big)] = stack.enter_context(pool)
    return pools[id(big)].map(fn, items)
