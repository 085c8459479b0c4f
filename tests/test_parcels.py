"""Parcels: each reader's writes are its own, and one is used again when nobody maps it any more."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts import environment

from parallelkit import arenas, leases, parcels, segments
from parallelkit.arenas import Place
from parallelkit.leases import Berth
from parallelkit.machine import Memory
from parallelkit.parcels import Parcels

PAGE = arenas.pages(1)
SIZE = 1 << 18

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and memfd")
locks = pytest.mark.skipif(segments.fcntl is None, reason="nobody can tell who maps a segment")

READER = """
import pickle, sys
from parallelkit.leases import Berth

berth, held, source, out = Berth(), {}, sys.stdin.buffer, sys.stdout.buffer
while True:
    try:
        word, argument = pickle.load(source)
    except EOFError:
        break
    answer = None
    if word == "claim":
        held = dict(enumerate(berth.claim(argument)))
    elif word == "read":
        answer = bytes(held[argument])
    elif word == "write":
        held[argument[0]][:] = argument[1]
    elif word == "drop":
        held.clear()
    pickle.dump(answer, out)
    out.flush()
"""


class Reader:
    """Another process that claims places."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", READER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        )

    def do(self, word: str, argument: object = None) -> object:
        pickle.dump((word, argument), self.process.stdin)
        self.process.stdin.flush()
        return pickle.load(self.process.stdout)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def readers() -> Iterator[list[Reader]]:
    both = [Reader(), Reader()]
    yield both
    for reader in both:
        reader.end()


def content(number: int, length: int = SIZE) -> memoryview:
    return memoryview(bytes([number]) * length)


def read(place: Place) -> bytes:
    return segments.attach(place.handle)[place.start : place.start + place.length]


@given(st.lists(st.lists(st.integers(1, 5 * PAGE), min_size=1, max_size=6), min_size=1, max_size=6))
def test_contents_arrive_whatever_was_in_the_parcel_before(rounds):
    store = Parcels()
    for number, lengths in enumerate(rounds):
        contents = [content(16 * number + index + 1, size) for index, size in enumerate(lengths)]
        parcel, places = store.pack(contents)
        assert [read(place) for place in places] == contents
        assert [place.slot for place in places] == [leases.PRIVATE] * len(places)
        assert all(place.start % PAGE == 0 for place in places)
        if sys.platform == "linux":
            written = os.fstat(parcel.segment._descriptor).st_blocks * 512
            assert written == arenas.pages(parcel.warm)  # what is mapped has pages
        store.give_back([parcel])


@linux
def test_readers_see_the_same_and_what_they_write_is_their_own(readers):
    parcel, places = Parcels().pack([content(1), content(2)])
    for reader in readers:
        reader.do("claim", places)
    readers[0].do("write", (0, 7))
    assert readers[0].do("read", 0) == content(7)
    assert readers[0].do("read", 1) == content(2)
    assert readers[1].do("read", 0) == content(1)
    assert parcel.segment[0] == 1


@linux
@locks
@pytest.mark.parametrize("end", ["drop", "killed"])
def test_parcel_is_used_again_when_its_last_reader_has_let_go(readers, end):
    store = Parcels()
    parcel, places = store.pack([content(1)])
    for reader in readers:
        reader.do("claim", places)
    store.give_back([parcel])
    other, _ = store.pack([content(2)])
    assert other is not parcel
    readers[0].do("drop")
    assert parcel.segment.mapped()
    another, _ = store.pack([content(3)])
    assert another not in (parcel, other)
    assert readers[1].do("read", 0) == content(1)
    readers[1].do("drop") if end == "drop" else readers[1].end()
    again, places = store.pack([content(4)])
    assert again is parcel
    assert read(places[0]) == content(4)


@linux
@locks
def test_the_smallest_that_fits_is_used_and_none_much_larger():
    store = Parcels()
    made = [store.pack([content(1, length)])[0] for length in (8 * SIZE, 2 * SIZE, SIZE)]
    store.give_back(made)
    assert store.pack([content(2, SIZE // 2)])[0] is made[2]
    assert store.pack([content(2, SIZE // 2)])[0] is made[1]
    assert store.pack([content(2, SIZE // 2)])[0] not in made
    assert store.pack([content(2, 8 * SIZE)])[0] is made[0]


def memory(whole: int, available: int) -> Memory:
    return Memory(total=whole, limit=None, available=available, source="a test")


def test_nothing_is_packed_where_memory_is_short(monkeypatch):
    monkeypatch.setattr(parcels, "look", lambda: memory(1 << 40, 1 << 35))
    assert Parcels().pack([content(1)]) is None
    monkeypatch.setattr(parcels, "look", lambda: memory(1 << 40, 1 << 39))
    assert Parcels().pack([content(1)]) is not None


@linux
@pytest.mark.parametrize("limit", ["RLIMIT_NOFILE", "RLIMIT_FSIZE"])
def test_limit_means_that_nothing_is_packed(limit):
    import resource

    number = getattr(resource, limit)
    before = resource.getrlimit(number)
    resource.setrlimit(number, (5, before[1]))
    try:
        packed = Parcels().pack([content(1)])
    finally:
        resource.setrlimit(number, before)
    assert packed is None


@linux
def test_file_that_finds_no_room_half_way_is_closed(monkeypatch):
    import errno

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "pwrite", full)
    assert Parcels().pack([content(1)]) is None
    assert len(os.listdir("/proc/self/fd")) == before


@locks
def test_only_a_part_of_the_memory_is_kept_and_the_last_used_first(monkeypatch):
    store = Parcels()
    made = [store.pack([content(number)])[0] for number in range(4)]
    monkeypatch.setattr(parcels, "look", lambda: memory(64 * 2 * SIZE, 1 << 40))
    store.give_back(made[:3])
    assert store.idle == made[1:3]
    store.give_back(made[3:])
    assert store.idle == made[2:]
    store.shut()
    assert store.idle == []


@locks
def test_garbage_that_packs_under_the_lock_does_not_wait_and_gets_another(monkeypatch):
    store, packed = Parcels(), []
    first, _ = store.pack([content(1)])

    class Garbage:
        def __init__(self):
            self.cycle = self

        def __del__(self):
            packed.append(store.pack([content(2)])[0])

    store.give_back([first])
    mapped = segments.Segment.mapped

    def collecting(segment):
        if not packed:
            Garbage()
            gc.collect()
        return mapped(segment)

    monkeypatch.setattr(segments.Segment, "mapped", collecting)
    second, places = store.pack([content(3)])
    assert packed[0] is first
    assert second is not first
    assert read(places[0]) == content(3)


@linux
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_copy_of_the_process_uses_none_of_its_parcels():
    parcel, _ = parcels.kept.pack([content(1)])
    parcels.kept.give_back([parcel])
    try:
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            os._exit(0 if parcels.kept.idle == [] else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert parcels.kept.idle == [parcel]
    finally:
        parcels.kept.shut()


def test_parcel_that_is_dropped_lives_while_a_reader_has_it():
    packed = Parcels().pack([content(1)])
    berth = Berth()
    (array,) = berth.claim(packed[1])
    del packed
    gc.collect()
    assert array.tobytes() == content(1)
    assert len(berth.parcels) == 1
    del array
    assert len(berth.parcels) == 0
