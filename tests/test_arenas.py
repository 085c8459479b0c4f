"""Arenas: no two live blocks overlap, none is lost for good, and no page is used unreserved."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import weakref
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from parallelkit import arenas, segments
from parallelkit.arenas import GIVEN_BACK, LEAST, OPEN, TAKEN, Arena
from parallelkit.machine import Memory

PLENTY = Memory(total=1 << 50, limit=None, available=1 << 49, source="a test")
NOTHING = Memory(total=1 << 50, limit=None, available=0, source="a test")

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs memfd")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


class Process:
    """A reader that lives until it is said that it has ended."""

    def __init__(self) -> None:
        self.exitcode: int | None = None


def roomy() -> Arena:
    return Arena(lambda: PLENTY)


def content(number: int, length: int) -> memoryview:
    """Return bytes that are like no others."""
    return memoryview((number.to_bytes(8) * (length // 8 + 1))[:length])


def read(place: arenas.Place) -> bytes:
    return segments.attach(place.handle)[place.start : place.start + place.length]


def give_back(place: arenas.Place) -> None:
    """Do what a reader does that needs a block no more."""
    segments.attach(place.handle)[place.slot] = GIVEN_BACK


def filled(region: arenas._Region) -> int:
    """Return the bytes of a segment for which there are pages."""
    return os.fstat(region.segment._descriptor).st_blocks * 512


class AnArena(RuleBasedStateMachine):
    """An arena, what is live in it, and readers that come to an end."""

    lengths = st.one_of(st.integers(1, 4 * LEAST), st.sampled_from([LEAST, 1 << 20, 3 << 19]))

    def __init__(self) -> None:
        super().__init__()
        self.span, arenas.SPAN = arenas.SPAN, 1 << 20  # so that there are several segments
        self.memory = PLENTY
        self.arena = Arena(lambda: self.memory)
        self.live: list[tuple[arenas.Place, memoryview, Process | None]] = []
        self.running = [Process(), Process()]
        self.ending: list[Process] = []
        self.count = 0

    @rule(length=lengths, reader=st.sampled_from([0, 1, None]))
    def place(self, length, reader):
        holder = None if reader is None else self.running[reader]
        self.count += 1
        bytes_ = content(self.count, length)
        place = self.arena.place(bytes_, holder)
        assert (place is None) <= (self.memory is NOTHING)
        if place is not None:
            self.live.append((place, bytes_, holder))

    @precondition(lambda self: self.live)
    @rule(choice=st.integers(0), back=st.sampled_from(["given", "taken"]))
    def finish(self, choice, back):
        place, _, _ = self.live.pop(choice % len(self.live))
        give_back(place) if back == "given" else self.arena.take_back(place)

    @rule(reader=st.sampled_from([0, 1]))
    def lose(self, reader):
        self.ending.append(self.running[reader])
        self.arena.lose(self.running[reader])
        self.running[reader] = Process()

    @precondition(lambda self: self.ending)
    @rule()
    def end(self):
        gone = self.ending.pop()
        gone.exitcode = -9
        self.live = [(*live, holder) for *live, holder in self.live if holder is not gone]

    @rule(keep=st.sampled_from([0, LEAST, 1 << 20]))
    def trim(self, keep):
        before = self.arena.warm()
        self.arena.trim(keep)
        used = sum(place.length for place, _, _ in self.live)
        # An open block may be wider than its next content, so those in use can be warmer.
        assert used <= self.arena.warm() <= before
        spare = [b for blocks in self.arena.open.values() for b in blocks]
        assert sum(block.warm for block in spare) <= keep

    @rule(memory=st.sampled_from([PLENTY, NOTHING]))
    def turn(self, memory):
        self.memory = memory
        self.arena.allowance = 0

    @invariant()
    def contents_are_intact(self):
        assert all(read(place) == bytes_ for place, bytes_, _ in self.live)

    @invariant()
    def live_blocks_do_not_overlap(self):
        ranges = sorted((p.handle.token, p.start, p.start + p.length) for p, _, _ in self.live)
        for (token, _, stop), (other, start, _) in pairwise(ranges):
            assert token != other or stop <= start

    @invariant()
    def warm_is_what_has_pages(self):
        if sys.platform == "linux":
            pages = sum(filled(region) - region.head for region in self.arena.regions)
            blocks = [b for region in self.arena.regions for b in region.blocks if b is not None]
            assert pages == sum(arenas.pages(block.warm) for block in blocks)
            assert self.arena.warm() <= pages

    def teardown(self):
        arenas.SPAN = self.span
        for process in (*self.running, *self.ending):
            self.arena.lose(process)
            process.exitcode = 0
        for place, _, holder in self.live:
            if holder is None:
                give_back(place)
        self.arena.trim(0)
        assert not self.arena.regions
        assert not self.arena.gone
        assert not any(self.arena.open.values())


TestArena = AnArena.TestCase
TestArena.settings = settings(max_examples=25, stateful_step_count=40)


def test_block_is_used_again_only_when_it_was_given_back():
    arena = roomy()
    first = arena.place(content(1, LEAST))
    second = arena.place(content(2, LEAST))
    assert (first.slot, first.start) != (second.slot, second.start)
    give_back(first)
    third = arena.place(content(3, LEAST))
    assert third == first
    assert read(third) == content(3, LEAST)
    assert read(second) == content(2, LEAST)


def test_block_of_a_reader_that_ends_waits_for_its_end():
    arena, reader = roomy(), Process()
    first = arena.place(content(1, LEAST), reader)
    arena.lose(reader)
    assert arena.place(content(2, LEAST)) != first  # it may still write there
    reader.exitcode = -9
    assert arena.place(content(3, LEAST)) == first
    assert arena.gone == []


def test_what_a_reader_gave_back_before_its_end_is_free_once():
    arena, reader = roomy(), Process()
    first = arena.place(content(1, LEAST), reader)
    give_back(first)
    arena.lose(reader)
    reader.exitcode = 0
    assert arena.place(content(2, LEAST)) == first
    assert arena.place(content(3, LEAST)) != first


def test_large_content_has_a_segment_of_its_size_and_small_ones_share():
    arena = roomy()
    small = [arena.place(content(number, LEAST)) for number in range(3)]
    assert {place.handle for place in small} == {arena.regions[0].handle}
    large = arena.place(memoryview(bytes(arenas.SPAN + 1)))
    assert large.handle == arena.regions[1].handle
    assert arena.regions[1].segment[large.slot] == TAKEN


def test_nothing_is_placed_where_memory_is_short():
    looks = []

    def look():
        looks.append(len(looks))
        return NOTHING if len(looks) == 2 else PLENTY

    arena = Arena(look)
    first = arena.place(content(1, LEAST))
    arena.allowance = 0
    assert arena.place(content(2, LEAST)) is None
    give_back(first)
    assert arena.place(content(3, LEAST)) == first  # whose pages are there
    assert looks == [0, 1]
    assert arena.place(content(4, LEAST)) is not None


@linux
@pytest.mark.parametrize("limit", ["RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_AS"])
def test_limit_means_that_nothing_is_placed_and_nothing_leaks(limit):
    import resource

    number = getattr(resource, limit)
    before = resource.getrlimit(number)
    open_ = len(os.listdir("/proc/self/fd"))
    lowest = {"RLIMIT_NOFILE": 5, "RLIMIT_FSIZE": 1 << 20, "RLIMIT_AS": mapped()}[limit]
    arena = roomy()
    resource.setrlimit(number, (lowest, before[1]))
    try:
        place = arena.place(content(1, 1 << 21))
    finally:
        resource.setrlimit(number, before)
    assert place is None
    assert len(os.listdir("/proc/self/fd")) == open_
    assert arena.place(content(1, 1 << 21)) is not None


def mapped() -> int:
    """Return the bytes of address space that this process has, and a few for Python itself."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE") + (1 << 22)


@linux
def test_half_of_the_descriptors_are_left_to_others():
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = os.dup(0)
    os.close(used)
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * used - 1, before[1]))
    try:
        assert roomy().place(content(1, LEAST)) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    again = os.dup(0)
    os.close(again)
    assert again == used


@linux
def test_content_that_finds_no_room_half_way_leaves_no_pages():
    import resource

    arena = roomy()
    first = arena.place(content(1, LEAST))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, before[1]))  # in the middle of the second
    try:
        assert arena.place(content(2, 8 << 20)) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert filled(arena.regions[0]) == arena.regions[0].head + LEAST
    assert arena.warm() == LEAST
    again = arena.place(content(3, 8 << 20))
    assert read(again) == content(3, 8 << 20)
    assert read(first) == content(1, LEAST)


@linux
def test_ctrl_c_in_the_middle_loses_no_block(monkeypatch):
    arena, write = roomy(), os.pwrite

    def interrupted(*arguments):
        done = write(*arguments)
        signal.raise_signal(signal.SIGINT)
        return done

    arena.place(content(1, LEAST))
    monkeypatch.setattr(os, "pwrite", interrupted)
    with pytest.raises(KeyboardInterrupt):
        arena.place(content(2, 8 << 20))
    monkeypatch.undo()
    ((block,),) = filter(None, arena.open.values())
    assert block.warm == 0
    assert filled(arena.regions[0]) == arena.regions[0].head + LEAST
    assert arena.place(content(3, 8 << 20)).slot == block.slot


def test_trim_keeps_the_warmest_and_closes_what_is_of_no_use():
    arena = roomy()
    places = [arena.place(content(number, 1 << 20)) for number in range(4)]
    held = places.pop()
    for place in places:
        give_back(place)
    arena.trim(2 << 20)
    assert arena.warm() == 3 << 20  # two that wait, one that is held
    arena.trim(0)
    assert arena.warm() == 1 << 20
    give_back(held)
    region = weakref.ref(arena.regions[0].segment)
    arena.trim(0)
    assert arena.regions == []
    assert region() is None


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs fallocate")
def test_where_pages_cannot_be_given_back_the_segment_is(monkeypatch):
    import mmap

    monkeypatch.delattr(mmap, "MADV_REMOVE", raising=False)
    arena = roomy()
    first, second = (arena.place(content(number, LEAST)) for number in range(2))
    give_back(first)
    arena.trim(0)
    assert arena.warm() == 2 * LEAST
    give_back(second)
    segment = arena.regions[0].segment
    arena.trim(0)
    assert arena.warm() == 0
    assert segment[arenas.LEFT] == 1  # for the reader, who has it mapped too


def test_arena_that_was_left_says_so_and_takes_nothing():
    arena = roomy()
    first, second = (arena.place(content(number, LEAST)) for number in range(2))
    give_back(first)
    arena.leave()
    assert segments.attach(second.handle)[arenas.LEFT] == 1
    assert arena.warm() == LEAST
    assert arena.place(content(3, LEAST)) is None
    assert read(second) == content(1, LEAST)


def test_block_outlives_the_arena_while_it_is_mapped():
    arena = roomy()
    place = arena.place(content(1, LEAST))
    segment = segments.attach(place.handle)
    del arena
    gc.collect()
    assert read(place) == content(1, LEAST)
    assert segment[place.slot] == TAKEN


class Sender:
    """Sends something when it is collected, and remembers what came of it."""

    def __init__(self, arena: Arena, told: list[arenas.Place | None]) -> None:
        self.arena = arena
        self.told = told
        self.cycle = self

    def __del__(self) -> None:
        self.told.append(self.arena.place(content(9, LEAST)))
        self.arena.trim(0)


def test_finalizers_that_run_within_place_do_not_wait_for_it():
    arena: Arena
    told: list[arenas.Place | None] = []

    def look():
        Sender(arena, told)
        gc.collect()
        return PLENTY

    arena = Arena(look)
    place = arena.place(content(1, LEAST))
    assert told == [None]
    assert read(place) == content(1, LEAST)
    assert arena.place(content(2, LEAST)) is not None


def test_threads_get_blocks_of_their_own():
    arena, places = roomy(), []

    def send(number):
        for turn in range(20):
            bytes_ = content(100 * number + turn, LEAST)
            place = arena.place(bytes_)
            places.append((place, bytes_))
            if turn % 2:
                assert read(place) == bytes_
                places.remove((place, bytes_))
                give_back(place)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({place.start for place, _ in places}) == len(places) == 40
    assert all(read(place) == bytes_ for place, bytes_ in places)


@forks
def test_forked_copy_takes_nothing_of_the_arena_and_breaks_nothing():
    arena = roomy()
    first = arena.place(content(1, LEAST))
    free = arena.place(content(2, LEAST))
    give_back(free)
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        taken = arena.place(content(3, LEAST))
        arena.trim(0)
        arena.leave()
        os._exit(0 if taken is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert segments.attach(first.handle)[arenas.LEFT] == OPEN
    assert read(first) == content(1, LEAST)
    assert arena.place(content(4, LEAST)) == free


@forks
def test_arena_of_the_process_is_one_and_a_fork_has_its_own():
    arenas.shut()
    arena = arenas.outgoing()
    try:
        assert arenas.outgoing() is arena
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            os._exit(0 if arenas.outgoing() is not arena else 1)
        assert os.waitpid(child, 0)[1] == 0
        reader = Process()
        place = arena.place(content(1, LEAST), reader)
        arenas.lose(reader)
        reader.exitcode = 0
        arenas.rest()
        assert segments.attach(place.handle)[place.slot] == OPEN
    finally:
        arenas.shut()
    assert arenas._outgoing is None
    assert arena.place(content(2, LEAST)) is None


@pytest.mark.parametrize("length", [1, LEAST, LEAST + 1, 100_000, 1 << 20, (1 << 20) + 1])
def test_sizes_of_blocks_are_few_and_waste_little(length):
    size = arenas._size(length)
    assert size % os.sysconf("SC_PAGE_SIZE") == 0
    assert max(length, LEAST) <= size <= max(LEAST, 1.25 * length)
    sizes = {arenas._size(number) for number in range(LEAST, 4 * LEAST, 997)}
    assert len(sizes) <= 10
