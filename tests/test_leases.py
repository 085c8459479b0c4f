"""Leases: a block is held as long as anybody looks at it, and no longer, whoever ends first."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from scripts import environment

from parallelkit import leases, segments
from parallelkit.arenas import GIVEN_BACK, LEAST, LEFT, TAKEN, Arena, Place
from parallelkit.leases import PRIVATE, Berth
from parallelkit.machine import Memory

PLENTY = Memory(total=1 << 50, limit=None, available=1 << 49, source="a test")

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

SENDER = """
import pickle, sys
from parallelkit.arenas import Arena

arena, out = Arena(), sys.stdout.buffer
for line in sys.stdin:
    number, length = map(int, line.split())
    if length < 0:
        arena.leave()
        answer = None
    else:
        answer = arena.place(memoryview(bytes([number]) * length))
    pickle.dump((answer, arena.warm()), out)
    out.flush()
"""


class Sender:
    """Another process, which sends blocks of bytes that are all the same number."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SENDER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        )
        self.warm = 0

    def place(self, number: int, length: int = LEAST) -> Place:
        self.process.stdin.write(f"{number} {length}\n".encode())
        self.process.stdin.flush()
        place, self.warm = pickle.load(self.process.stdout)
        return place

    def leave(self) -> None:
        self.place(0, -1)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def sender() -> Iterator[Sender]:
    process = Sender()
    yield process
    process.end()


def roomy() -> Arena:
    return Arena(lambda: PLENTY)


def block(arena: Arena, number: int, length: int = LEAST) -> Place:
    return arena.place(memoryview(bytes([number]) * length))


def state(place: Place) -> int:
    return segments.attach(place.handle)[place.slot]


def test_array_is_over_the_block_and_writable():
    arena = roomy()
    place = block(arena, 3, LEAST + 1)
    (array,) = Berth().claim([place])
    assert array.dtype == np.uint8
    assert array.tolist() == [3] * (LEAST + 1)
    array[:] = 4
    assert segments.attach(place.handle)[place.start] == 4
    assert state(place) == TAKEN
    del array
    assert state(place) == GIVEN_BACK


VIEWS = {
    "slice": lambda array: array[5:],
    "row": lambda array: array.reshape(-1, 16)[3],
    "transposed": lambda array: array.reshape(-1, 16).T,
    "another dtype": lambda array: array.view("f8"),
    "memoryview": memoryview,
    "memoryview of a view": lambda array: memoryview(array[::2]),
    "buffer": pickle.PickleBuffer,
    "frombuffer": lambda array: np.frombuffer(array, "i4")[1:],
    "ndarray": lambda array: np.ndarray((4, 4), "f4", array, 64),
    "subclass": lambda array: array.view(np.recarray),
    "masked": lambda array: np.ma.masked_array(array, False),
    "iterator": np.nditer,
    "broadcast": lambda array: np.broadcast_to(array, (3, len(array))),
    "strided": lambda array: np.lib.stride_tricks.as_strided(array, (4,), (8,)),
    "base of a base": lambda array: array[1:][1:][1:].reshape(-1, 1)[2:].T,
    "in a container": lambda array: {"a": [(array[3:],)]},
    "in a closure": lambda array: lambda: array,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_lease_ends_with_the_last_view_and_not_before(view):
    arena = roomy()
    place = block(arena, 3)
    (array,) = Berth().claim([place])
    kept = view(array)
    del array
    gc.collect()
    assert state(place) == TAKEN
    assert block(arena, 4) != place
    del kept
    gc.collect()
    assert state(place) == GIVEN_BACK


def test_lease_may_end_in_any_thread():
    arena = roomy()
    places = [block(arena, number) for number in range(8)]
    arrays = Berth().claim(places)
    gate = threading.Barrier(4)

    def drop(mine):
        gate.wait()
        mine.clear()

    halves = [arrays[start : start + 2] for start in range(0, 8, 2)]
    arrays.clear()
    threads = [threading.Thread(target=drop, args=(mine,)) for mine in halves]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [state(place) for place in places] == [GIVEN_BACK] * 8
    assert {block(arena, number) for number in range(8)} == set(places)


def test_what_is_held_stays_when_its_arena_is_dropped():
    arena = roomy()
    berth = Berth()
    (array,) = berth.claim([block(arena, 3)])
    del arena, berth
    gc.collect()
    assert array.tolist() == [3] * LEAST


@linux
def test_what_is_held_stays_when_its_sender_is_killed(sender):
    berth = Berth(sole=True)
    (array,) = berth.claim([sender.place(3)])
    late = sender.place(4)
    gone = Berth()
    sender.end()
    assert array.tolist() == [3] * LEAST
    assert berth.claim([late])[0].tolist() == [4] * LEAST  # the segment is mapped here
    berth.close()
    del berth
    array[:] = 5
    assert array.tolist() == [5] * LEAST
    del array
    with pytest.raises(FileNotFoundError):
        gone.claim([late])
    assert gone.owed == []


@linux
def test_another_process_uses_its_block_again_when_it_was_given_back(sender):
    berth = Berth(sole=True)
    (array,) = berth.claim([first := sender.place(3)])
    assert sender.place(4) != first
    del array
    assert sender.place(5) == first
    assert berth.claim([first])[0].tolist() == [5] * LEAST


@linux
@pytest.mark.parametrize("kind", ["memfd", "file", "named"])
def test_pages_go_back_to_the_system_when_the_owner_has_left(kind, monkeypatch):
    monkeypatch.setenv(segments.KINDS, kind)
    sender = Sender()
    try:
        berth = Berth(sole=True)
        arrays = berth.claim([sender.place(number, 1 << 20) for number in range(3)])
        sender.leave()
        sender.end()
        segment = next(iter(berth.segments.values()))
        assert segment[LEFT] == 1
        file = segment._descriptor
        before = os.fstat(file).st_blocks * 512
        del arrays[1:]
        assert os.fstat(file).st_blocks * 512 == before - (2 << 20)
        assert arrays[0].tolist() == [0] * (1 << 20)
    finally:
        sender.end()


def test_berth_lets_go_of_segments_that_their_owner_closed():
    arena = roomy()
    berth = Berth()
    (array,) = berth.claim([block(arena, 3)])
    (first,) = berth.segments
    del array
    arena.trim(0)
    assert arena.regions == []
    berth.claim([block(arena, 4)])
    assert first not in berth.segments
    assert len(berth.segments) == 1


def test_beyond_the_cap_results_are_copied_and_blocks_given_back(monkeypatch):
    arena = roomy()
    gc.collect()
    leases._may_hold(0)  # so that what is free by now is counted
    monkeypatch.setattr(leases, "_most", leases._held + 2 * LEAST)
    places = [block(arena, number) for number in range(4)]
    arrays = Berth(sole=True).claim(places)
    assert [state(place) for place in places] == [TAKEN, TAKEN, GIVEN_BACK, GIVEN_BACK]
    assert {block(arena, 9), block(arena, 9)} == set(places[2:])
    assert [array[-1] for array in arrays] == [0, 1, 2, 3]
    del arrays[0]
    (again,) = Berth().claim([block(arena, 7)])
    assert not again.flags.owndata  # there is room again
    del arrays


def test_what_a_worker_keeps_beyond_its_share_is_copied_but_one_item_may_be_any_size(monkeypatch):
    arena = roomy()
    gc.collect()
    leases._may_hold(0)
    monkeypatch.setattr(leases, "_each", leases._held + 1)
    berth = Berth()
    item = berth.claim([block(arena, number, 3 * LEAST) for number in range(2)])
    assert [array.flags.owndata for array in item] == [False, False]
    (further,) = berth.claim([place := block(arena, 7)])
    assert further.flags.owndata
    assert state(place) == GIVEN_BACK
    assert (further[0], item[1][-1]) == (7, 1)
    del item[:]
    (again,) = berth.claim([block(arena, 8)])
    assert not again.flags.owndata
    del again


def test_what_is_held_is_counted_right():
    arena = roomy()
    gc.collect()
    leases._may_hold(0)
    before = leases._held
    arrays = Berth().claim([block(arena, number, LEAST + number) for number in range(3)])
    assert leases._held == before + 3 * LEAST + 3
    arrays.pop()
    leases._may_hold(0)
    assert leases._held == before + 2 * LEAST + 1
    arrays.clear()
    leases._may_hold(0)
    assert (leases._held, len(leases._freed)) == (before, 0)


def test_view_is_read_and_given_back():
    arena = roomy()
    berth, place = Berth(), block(arena, 3)
    assert berth.view(place) == bytes([3]) * LEAST
    assert state(place) == TAKEN
    assert berth.size == LEAST
    berth.give_back([place])
    assert state(place) == GIVEN_BACK


def test_claim_that_fails_gives_everything_back():
    arena = roomy()
    good, other = block(arena, 3), block(arena, 4)
    gone = good._replace(handle=good.handle._replace(token="0" * 32))
    with pytest.raises(FileNotFoundError):
        Berth().claim([good, gone, other])
    assert [state(good), state(other)] == [GIVEN_BACK, GIVEN_BACK]


@linux
def test_what_cannot_be_mapped_now_is_given_back_when_it_can_be(sender):
    import resource

    berth, before = Berth(sole=True), resource.getrlimit(resource.RLIMIT_NOFILE)
    place = sender.place(3)
    resource.setrlimit(resource.RLIMIT_NOFILE, (5, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            berth.claim([place])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert berth.owed == [place]
    (array,) = berth.claim([sender.place(4)])
    assert berth.owed == []
    assert array[0] == 4
    assert sender.place(5) == place


@linux
def test_no_addresses_left_is_told_as_what_cannot_be_mapped(sender):
    import resource

    berth, before = Berth(sole=True), resource.getrlimit(resource.RLIMIT_AS)
    place = sender.place(3)
    segment = segments.create(1 << 26)
    parcel = Place(segment.handle(), PRIVATE, 0, LEAST)
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 25), before[1]))
    try:
        for lost in (place, parcel):
            with pytest.raises(OSError, match="Cannot allocate memory"):
                berth.claim([lost])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert berth.owed == [place]


def test_private_bytes_are_one_mapping_for_a_claim_and_stay_here():
    segment = segments.create(3 * LEAST, memoryview(bytes([7]) * 3 * LEAST))
    places = [Place(segment.handle(), PRIVATE, start, LEAST) for start in (0, LEAST)]
    berth = Berth()
    one, two = berth.claim(places)
    (mapping,) = berth.parcels
    one[:] = 8
    assert two[0] == segment[0] == 7
    assert berth.claim(places[:1])[0][0] == 7
    berth.give_back(places)  # does nothing
    assert berth.view(places[1]) == bytes([7]) * LEAST
    del one, mapping
    assert len(berth.parcels) == 1
    del two
    assert len(berth.parcels) == 0
