"""What arrays weigh on their way: the parts of `benchmarks.arrays` that need a process each.

Each function printed by `alone` runs in a fresh process with one library, so that nobody's memory
is taken for another's, and prints numbers.  Weighed is PSS: the pages of all processes of a tree,
each page shared by n of them counted as 1/n in each, so that the sum is what they hold together
(Documentation/filesystems/proc.rst of Linux).  Linux only.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import psutil

from benchmarks import printed
from benchmarks.array_peers import LENGTH, OURS, WORKERS, Array, captured, first, library, pick
from parallelkit import pmap, share

MEGABYTE = 125_000  # items of an array that take one: they are floats of 8 bytes
ITEMS = 200  # of the call whose function captures an array
EVERY = 20  # of which one so many weighs everything
QUARTERS = 4  # the arrays that make up a round, so that both workers have some at any time
SHM = Path("/dev/shm")

CALL = "import sys; from benchmarks.array_memory import {name}; {name}(*sys.argv[1:])"


def alone(function: Any, *arguments: object) -> list[float]:
    """Return what a function of this file prints when a fresh process calls it."""
    return printed(CALL.format(name=function.__name__), *map(str, arguments))


# Weighing.


def tree(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    return [pid, *(each.pid for each in psutil.Process(pid).children(recursive=True))]


def pss(pids: Iterable[int]) -> int:
    """Return the bytes that processes hold together; those that are gone hold none."""
    held = 0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            held += sum(int(line.split()[1]) for line in text.splitlines() if line[:4] == "Pss:")
    return held * 1024


def shmem() -> int:
    """Return the bytes of all shared memory of this machine, named or not, mapped or not."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Shmem:")) * 1024


def written() -> int:
    """Return the bytes that this process wrote so far: to pipes and files, and by `Counting`."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("wchar:")) + Counting.sent


class Counting(socket.socket):
    """A socket that tells what it sends, which `/proc/self/io` leaves out."""

    sent = 0  # by all of them

    def send(self, *arguments: Any) -> int:
        count = super().send(*arguments)
        Counting.sent += count
        return count

    def sendmsg(self, *arguments: Any) -> int:
        count = super().sendmsg(*arguments)
        Counting.sent += count
        return count


def named(pids: Iterable[int]) -> set[str]:
    """Return the names in /dev/shm that processes have open or mapped (not what is unlinked)."""
    names = set()
    for pid in pids:
        with suppress(OSError):
            maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
            names |= {line.split(None, 5)[5] for line in maps if f"{SHM}/" in line}
        with suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    names.add(os.readlink(f"/proc/{pid}/fd/{number}"))
    return {name for name in names if name.startswith(f"{SHM}/") and Path(name).exists()}


def weigh(caller: int, big: Any, number: int) -> int:
    """Read all that was captured; return, by some items, what everybody holds meanwhile."""
    if number % EVERY >= WORKERS:
        return int(pick(big, number)) * 0
    big.sum()
    return pss(tree(caller))


# A function that captures an array.


def capture_seconds(way: str, megabytes: str, shared: str, calls: str) -> None:
    """Print the seconds of two copies, of the work itself, and of the first and later calls.

    The work itself is the same call with an array of 200 items in place of the large one.
    """
    big, small = np.ones(int(megabytes) * MEGABYTE), np.ones(ITEMS)
    given: Any = share(big) if shared == "shared" else big
    little: Any = share(small) if shared == "shared" else small
    with ExitStack() as stack:
        mapped = captured(way, stack).call
        # The first call may start workers, or teach the library the function, so it is not told.
        mapped(pick, little, range(ITEMS))
        # Several, because the first may wait for the machine's host to find the pages.
        copy, memfd = (
            median(timed(each, big) for _ in range(5)) for each in (fresh_copy, fresh_memfd)
        )
        work, taken = (
            [timed(mapped, pick, each, range(ITEMS)) for _ in range(int(calls))]
            for each in (little, given)
        )
    print(copy, memfd, median(work), taken[0], median(taken[1:]))


def capture_memory(way: str, megabytes: str, shared: str) -> None:
    """Print the bytes of all processes before, and at most during, the call."""
    big: Any = np.ones(int(megabytes) * MEGABYTE)
    if shared == "shared":
        big = share(big)
        big.sum()  # what nobody has looked at is in nobody's PSS
    with ExitStack() as stack:
        mapped = captured(way, stack).call
        look = partial(weigh, os.getpid())
        mapped(look, np.ones(ITEMS), range(ITEMS))  # loads all that it takes
        before = pss(tree(os.getpid()))
        print(before, max(mapped(look, big, range(ITEMS))))


def timed(function: Any, *arguments: Any) -> float:
    began = perf_counter()
    result = function(*arguments)
    seconds = perf_counter() - began
    del result  # giving it back is not part of it
    return seconds


def fresh_copy(array: Array) -> Array:
    copy = np.empty_like(array)
    np.copyto(copy, array)
    return copy


def fresh_memfd(array: Array) -> None:
    descriptor = os.memfd_create("copy")
    view = memoryview(array).cast("B")
    while view:
        view = view[os.write(descriptor, view) :]
    os.close(descriptor)


# Many items that name one array.


def one_array(name: str, items: str) -> None:
    """Print the seconds, bytes written, growth of shared memory and of PSS of a call.

    All items are the same array of 10 MB.  Growth is from before the call to right after it, with
    the workers up, and shared memory is everybody's on this machine.
    """
    array = np.ones(10 * MEGABYTE)
    socket.socket = Counting  # type: ignore[misc]  # this process ends soon
    with ExitStack() as stack:
        opened = library(name, stack, None)
        opened.map(first, [np.ones(LENGTH // 2)] * 10)  # of another size: nothing fits by luck
        pids = tree(os.getpid())
        before = [written(), shmem(), pss(pids)]
        seconds = timed(opened.map, first, [array] * int(items))
        after = [written(), shmem(), pss(tree(os.getpid()))]
    print(seconds, *(then - now for then, now in zip(after, before, strict=True)))


# Round after round.


def higher(caller: int, array: Array) -> tuple[Array, int]:
    """Return an array as large as this one, and how many names in /dev/shm the tree uses now."""
    return array + 1, len(named([caller, os.getpid()]))


def rounds(megabytes: str, *marks: str) -> None:
    """Print, at each of these rounds, the PSS of the caller, of all others, and the names so far.

    Last comes the median of the seconds since the mark before.  A round sends `megabytes` to the
    workers and has as many come back.  Names are counted in each item while it runs, and here after
    each round.
    """
    caller, names = os.getpid(), 0
    array = np.ones(int(megabytes) * MEGABYTE // QUARTERS)
    look, taken = partial(higher, caller), []
    for number in range(1, max(map(int, marks)) + 1):
        arrays = [array + each for each in range(QUARTERS)]
        began = perf_counter()
        results = pmap(look, arrays, workers=WORKERS)
        taken.append(perf_counter() - began)
        assert all(
            back[0] == sent[0] + 1 and back[-1] == sent[-1] + 1
            for (back, _), sent in zip(results, arrays, strict=True)
        )
        names += sum(count for _, count in results) + len(named([caller]))
        del arrays, results
        if str(number) in marks:
            others = tree(caller)[1:]
            print(number, pss([caller]), pss(others), names, median(taken))
            taken.clear()


def capture_ways() -> list[tuple[str, str]]:
    """Return the ways to capture an array that `array_peers` knows, and whether it is shared."""
    return [
        (OURS, "plain"),
        (OURS, "shared"),
        ("joblib", "plain"),
        ("mpire, shared_objects", "plain"),
        ("mpire, partial", "plain"),
        ("Pool, forked for the call", "plain"),
        ("multiprocessing.Pool, partial", "plain"),
        ("ProcessPoolExecutor, partial", "plain"),
    ]
