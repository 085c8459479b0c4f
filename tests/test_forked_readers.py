"""Forks of a process that holds leases: nobody sees what another writes, or loses what it has."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from scripts import environment

from parallelkit import leases, segments
from parallelkit.arenas import GIVEN_BACK, LEAST, TAKEN, Arena, Place
from parallelkit.leases import Berth
from parallelkit.machine import Memory

PLENTY = Memory(total=1 << 50, limit=None, available=1 << 49, source="a test")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def roomy() -> Arena:
    return Arena(lambda: PLENTY)


def block(arena: Arena, number: int, length: int = LEAST) -> Place:
    return arena.place(memoryview(bytes([number]) * length))


def state(place: Place) -> int:
    return segments.attach(place.handle)[place.slot]


def assert_in_a_fork(see) -> None:
    """Fail unless `see`, which may return a reason, is content in a forked copy of this process."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, from Python 3.12 on
        child = os.fork()
    if child == 0:
        signal.alarm(30)
        code = 1
        try:
            os.write(writer, str(see() or "").encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader) as said:
        words = said.read()
    assert (os.waitpid(child, 0)[1], words) == (0, "")


def test_fork_and_its_parent_do_not_see_what_the_other_writes():
    arena = roomy()
    place = block(arena, 3)
    (array,) = Berth().claim([place])
    array[:10] = 4
    step, go = os.pipe()

    def see():
        array[10:20] = 5
        os.read(step, 1)  # until the parent has written
        if array[:10].tolist() != [4] * 10:
            return "what was written before the fork is lost"
        return "" if array[20] == 3 else "it sees what its parent wrote after the fork"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.alarm(30)
        os._exit(1 if see() else 0)
    array[20:] = 6
    os.write(go, b"x")
    assert os.waitpid(child, 0)[1] == 0
    assert array[10:20].tolist() == [3] * 10
    assert array[20:].tolist() == [6] * (LEAST - 20)
    os.close(step)
    os.close(go)


def test_what_a_fork_may_look_at_is_given_back_by_nobody():
    arena = roomy()
    place = block(arena, 3)
    (array,) = Berth().claim([place])

    def see():
        nonlocal array
        mine, array = array[5:], None
        del mine
        gc.collect()
        return "" if state(place) == TAKEN else "given back by the child"

    assert_in_a_fork(see)
    del array
    gc.collect()
    assert state(place) == TAKEN
    assert block(arena, 4) != place


def test_what_comes_after_a_fork_is_given_back():
    arena = roomy()
    berth = Berth()
    (held,) = berth.claim([block(arena, 3)])
    assert_in_a_fork(lambda: "" if held[0] == 3 else "wrong")
    place = block(arena, 4)
    (array,) = berth.claim([place])
    assert array.tolist() == [4] * LEAST
    del array
    assert state(place) == GIVEN_BACK
    assert held.tolist() == [3] * LEAST


def test_forks_of_forks_and_later_forks_keep_what_they_wrote():
    arena = roomy()
    (array,) = Berth().claim([block(arena, 3)])
    array[0] = 10

    def inner():
        wrong = array[:2].tolist() != [11, 3]
        array[1] = 12
        return "a fork of a fork lost something" if wrong else ""

    def outer():
        array[0] = 11
        assert_in_a_fork(inner)
        return "" if array[:2].tolist() == [11, 3] else "seen by its parent"

    assert_in_a_fork(outer)
    array[2] = 13
    assert_in_a_fork(
        lambda: "" if array[:3].tolist() == [10, 3, 13] else "a later fork lost something"
    )
    assert array[:3].tolist() == [10, 3, 13]


def test_what_is_pinned_by_forks_counts_as_held_until_it_is_unmapped():
    arena = roomy()
    leases._may_hold(0)
    before = leases._held
    berth = Berth()
    (array,) = berth.claim([place := block(arena, 3)])
    assert_in_a_fork(lambda: "")
    del array
    leases._may_hold(0)
    assert leases._held == before + LEAST
    del berth, arena
    gc.collect()
    with pytest.raises(FileNotFoundError):
        segments.attach(place.handle)
    leases._may_hold(0)
    assert leases._held == before


def test_fork_without_leases_loads_no_ctypes():
    code = """
import os, sys
from parallelkit import leases
if os.fork() == 0:
    os._exit(0)
os.wait()
print("ctypes" in sys.modules)
"""
    run = [sys.executable, "-c", code]
    assert subprocess.check_output(run, env=environment()).split() == [b"False"]


def test_fork_while_another_thread_claims_does_not_hang():
    held, release = threading.Event(), threading.Event()

    def hold():
        with leases._lock:
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert_in_a_fork(lambda: "" if leases._may_hold(0) else "no")
    finally:
        release.set()
        thread.join()


def test_other_threads_read_and_write_through_a_fork():
    arena = roomy()
    (array,) = Berth().claim([block(arena, 1, 1 << 22)])
    whole, stop, wrong = array.view("u8"), threading.Event(), []
    wanted = int.from_bytes(bytes([1]) * 8)

    def toil():
        while not stop.is_set():
            np.add(whole, 1, out=whole)
            np.subtract(whole, 1, out=whole)
            if not (whole == wanted).all():
                wrong.append(1)

    thread = threading.Thread(target=toil)
    thread.start()
    try:
        for _ in range(3):
            assert_in_a_fork(lambda: "")
    finally:
        stop.set()
        thread.join()
    assert not wrong
    assert (whole == wanted).all()


@pytest.mark.slow
def test_pool_of_forks_over_arrays_that_pmap_returned():
    import multiprocessing

    from parallelkit import pmap

    results = pmap(lambda number: np.full(1 << 16, number, float), range(4), workers=1)
    assert not results[0].flags.owndata
    with multiprocessing.get_context("fork").Pool(2, warnings_off) as pool:
        sums = pool.map(_add_one, [(results, number) for number in range(4)])
    assert sums == [(number + 1) * (1 << 16) for number in range(4)]
    assert [int(result.mean()) for result in results] == [0, 1, 2, 3]
    again = pmap(lambda number: np.full(1 << 16, -number, float), range(4), workers=1)
    assert [int(result.mean()) for result in results] == [0, 1, 2, 3]
    assert [int(result.mean()) for result in again] == [0, -1, -2, -3]


def warnings_off() -> None:
    warnings.simplefilter("ignore")


def _add_one(job):
    results, number = job
    results[number] += 1
    return float(results[number].sum())
