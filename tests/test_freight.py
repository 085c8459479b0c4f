"""Freight: any mix of buffers arrives as it was, beside the pickle or in it, and nothing stays."""

from __future__ import annotations

import gc
import io
import os
import pickle
import sys
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelkit import arenas, freight, parcels, segments
from parallelkit.arenas import Arena
from parallelkit.freight import LARGE, LONG, MARK, Arrival, Crate, Hold, Stranded
from parallelkit.leases import PRIVATE, Berth
from parallelkit.machine import Memory
from parallelkit.parcels import Parcels

PLENTY = Memory(total=1 << 50, limit=None, available=1 << 49, source="a test")
NOTHING = Memory(total=1 << 50, limit=None, available=0, source="a test")
ITEMS = LARGE // 8  # float64s in an array that is just large

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


class Pieces(list):
    write = list.append


def dumps(obj: Any, through: freight.Freight) -> bytes:
    """Do as `codec` does."""
    pieces = Pieces()
    try:
        pickle.Pickler(pieces, 5, buffer_callback=through.accept).dump(obj)
        return through.seal(pieces)
    except BaseException:
        through.scrap()
        raise


def loads(frame: bytes | memoryview, berth: Berth | None = None) -> Any:
    if frame[0] != MARK:
        return pickle.loads(frame)
    return Arrival(frame, berth or Berth()).loads()


def a_hold(store: Parcels | None = None) -> Hold:
    return Hold(Arena(lambda: PLENTY), store)


def manifest(frame: bytes) -> tuple[list[Any], list[Any]]:
    """Return where the buffers of a frame are, and its long pieces."""
    _, length = freight._SIZE.unpack_from(frame)
    places, stitches = pickle.loads(frame[freight._SIZE.size : freight._SIZE.size + length])
    return places, [place for _, place in stitches]


def assert_all_is_given_back(arena: Arena) -> None:
    gc.collect()
    arena.trim(0)
    assert arena.regions == []


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())
    return one == other


def filled(number: int, length: int) -> bytes:
    return number.to_bytes(2) * (length // 2)


LENGTHS = st.sampled_from([0, 10, LARGE - 2, LARGE, LARGE + 2, LONG - 2, LONG, 3 * LONG])
NUMBERS = st.integers(0, 1 << 15)
LEAVES = st.one_of(
    st.integers(),
    st.text(max_size=5),
    st.builds(filled, NUMBERS, LENGTHS),
    st.builds(lambda number, length: bytearray(filled(number, length)), NUMBERS, LENGTHS),
    st.builds(lambda number, length: chr(number % 1000 + 40) * length, NUMBERS, LENGTHS),
    st.builds(lambda number, length: np.full(length // 2, number, "u2"), NUMBERS, LENGTHS),
    st.builds(
        lambda number, length: np.full((length // 8, 4), number, "u2", "F"), NUMBERS, LENGTHS
    ),
    st.builds(lambda number, length: np.full(length // 2, number, "u2")[::2], NUMBERS, LENGTHS),
)
NESTS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
    ),
    max_leaves=6,
)


@settings(max_examples=40)
@given(NESTS, st.sampled_from([bytes, bytearray, memoryview]))
def test_anything_goes_through_a_hold_and_comes_back(nest, kind):
    hold = a_hold()
    frame = dumps(nest, hold)
    loaded = loads(kind(frame))
    assert same(loaded, nest)
    assert (hold.size > 0) == bool(hold.arena.regions)
    assert hold.places == hold.taken == hold.fresh == []
    del loaded
    assert_all_is_given_back(hold.arena)


@settings(max_examples=40)
@given(NESTS)
def test_anything_goes_in_a_crate_to_each_of_its_readers(nest):
    crate = Crate(Parcels())
    frame = dumps(nest, crate)
    assert same(loads(frame), nest)
    assert same(loads(frame), nest)
    assert len(crate.packed) == (frame[0] == MARK)


@settings(max_examples=40)
@given(NESTS)
def test_anything_goes_in_the_pickle_where_there_is_no_room(nest):
    hold = Hold(Arena(lambda: NOTHING))
    assert same(loads(dumps(nest, hold)), nest)
    assert hold.size == 0


@pytest.mark.parametrize("kind", ["memfd", "file", "named"])
def test_every_kind_of_segment_carries_it(kind, monkeypatch):
    if kind not in ("named", segments.kind_here()) and sys.platform != "linux":
        pytest.skip("there is no such kind here")
    monkeypatch.setenv(segments.KINDS, kind)
    nest = [np.arange(ITEMS), bytes(LONG), {"a": np.ones((2, ITEMS))}]
    hold, crate = a_hold(), Crate(Parcels())
    assert same(loads(dumps(nest, hold)), nest)
    assert same(loads(dumps(nest, crate)), nest)
    assert_all_is_given_back(hold.arena)


def test_no_room_in_a_crate_means_in_the_frame(monkeypatch):
    monkeypatch.setattr(parcels, "look", lambda: NOTHING)
    nest = [np.arange(ITEMS), bytes(LONG), "x" * LONG, np.arange(ITEMS)[::-1]]
    crate = Crate(Parcels())
    loaded = loads(dumps(nest, crate))
    assert same(loaded, nest)
    assert loaded[0].flags.writeable
    assert crate.packed == []


@linux
@pytest.mark.parametrize("limit", ["RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_AS"])
def test_limits_of_the_sender_mean_in_the_frame(limit):
    import resource

    number, nest = getattr(resource, limit), [np.arange(ITEMS), bytes(LONG)]
    with open("/proc/self/statm") as file:
        space = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE") + (1 << 24)
    lowest = {"RLIMIT_NOFILE": 5, "RLIMIT_FSIZE": 5, "RLIMIT_AS": space}[limit]
    before = resource.getrlimit(number)
    resource.setrlimit(number, (lowest, before[1]))
    try:
        frames = [dumps(nest, Hold(Arena())), dumps(nest, Crate(Parcels()))]
    finally:
        resource.setrlimit(number, before)
    assert manifest(frames[1])[0][0] == nest[0].tobytes() or limit == "RLIMIT_AS"
    assert frames[0][0] != MARK
    assert all(same(loads(frame), nest) for frame in frames)


def test_what_is_small_has_no_manifest_and_what_is_large_no_bytes_in_the_frame():
    hold, crate = a_hold(), Crate(Parcels())
    small = np.arange(ITEMS - 1)
    assert dumps(small, hold)[0] != MARK
    assert dumps(small, crate)[0] != MARK
    large = [np.arange(ITEMS), bytes(LONG)]
    for through in (hold, crate):
        frame = dumps(large, through)
        assert frame[0] == MARK
        assert len(frame) < 1000
        buffers, pieces = manifest(frame)
        assert [place.length for place in (*buffers, *pieces)] == [LARGE, LONG]
        loads(frame)


def test_what_arrives_is_writable_and_the_senders_stays_as_it_is():
    array = np.arange(ITEMS)
    for through in (a_hold(), Crate(Parcels())):
        frame = dumps(array, through)
        loaded = loads(frame)
        loaded[:] = 0
        assert array[-1] == ITEMS - 1
        assert loaded.flags.writeable
        if isinstance(through, Crate):
            assert same(loads(frame), array)  # for the next reader


def test_read_only_buffers_stay_read_only():
    array = np.arange(ITEMS)
    array.flags.writeable = False
    for through in (a_hold(), Crate(Parcels()), Hold(Arena(lambda: NOTHING))):
        assert not loads(dumps(array, through)).flags.writeable


class Unpicklable:
    def __reduce__(self):
        raise ValueError("not this one")


def test_pickle_that_fails_gives_back_what_it_took():
    hold, crate = a_hold(Parcels()), Crate(Parcels())
    arrays = [np.arange(ITEMS), np.ones(ITEMS)]
    for through in (hold, crate):
        with pytest.raises(ValueError, match="not this one"):
            dumps([*arrays, bytes(LONG), Unpicklable()], through)
    assert_all_is_given_back(hold.arena)
    assert (crate.views, crate.packed, hold.size, hold.seen) == ([], [], 0, {})
    places, _ = manifest(dumps(arrays, hold))
    assert PRIVATE not in [place.slot for place in places]  # they were not sent before


@linux
def test_ctrl_c_in_the_middle_of_sealing_gives_back_what_was_taken(monkeypatch):
    hold, write, written = a_hold(), os.pwrite, []

    def interrupted(*arguments):
        written.append(1)
        if len(written) == 4:  # the table, the array, the first bytes
            raise KeyboardInterrupt
        return write(*arguments)

    monkeypatch.setattr(os, "pwrite", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dumps([np.arange(ITEMS), bytes(LONG), bytes(LONG + 1)], hold)
    assert len(written) == 4
    assert_all_is_given_back(hold.arena)


def test_long_pieces_are_given_back_as_soon_as_they_are_read():
    hold = a_hold()
    loaded = loads(dumps([bytes(LONG), "x" * LONG], hold))
    assert_all_is_given_back(hold.arena)
    assert len(loaded[0]) == LONG


def test_what_cannot_be_unpickled_is_given_back():
    hold = a_hold()
    frame = dumps([np.arange(ITEMS), bytes(LONG)], hold)
    with pytest.raises((pickle.UnpicklingError, EOFError)):
        loads(frame[:-1])
    assert_all_is_given_back(hold.arena)


def test_freight_of_a_sender_that_is_gone_is_told():
    hold = a_hold()
    frame = dumps(np.arange(ITEMS), hold)
    del hold
    gc.collect()
    with pytest.raises(Stranded) as caught:
        loads(frame)
    assert str(caught.value) == f"an array got lost on its way: {segments.GONE}"


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_frame_of_which_a_part_is_lost_gives_back_the_others(lost):
    hold = a_hold()
    frame = dumps([np.arange(ITEMS), bytes(LONG), np.ones(ITEMS)], hold)
    buffers, pieces = manifest(frame)
    gone = [buffers[0], pieces[0], buffers[1]][lost]
    token = gone.handle.token
    spoilt = gone._replace(handle=gone.handle._replace(token="0" * len(token)))
    places = [spoilt if place == gone else place for place in buffers]
    at = pickle.loads(frame[freight._SIZE.size :])[1][0][0]
    stitches = [(at, spoilt if lost == 1 else pieces[0])]
    body = frame[freight._SIZE.size + freight._SIZE.unpack_from(frame)[1] :]
    with pytest.raises(Stranded):
        loads(freight._sealed(places, stitches, [body]))
    hold.arena.take_back(gone)
    assert_all_is_given_back(hold.arena)


# Arrays that are named more than once.


def test_array_that_many_name_goes_once_and_by_parcel():
    hold, array = a_hold(Parcels()), np.arange(ITEMS)
    items = [(array, number) for number in range(100)]
    frames = []
    for start in range(0, 100, 10):
        frames.append(dumps(items[start : start + 10], hold))
        assert hold.size == 0
    assert len({place for frame in frames for place in manifest(frame)[0]}) == 1
    assert len(hold.packed) == 1
    assert hold.arena.regions == []
    assert all(same(loads(frame)[3][0], array) for frame in frames)


def test_array_that_comes_again_goes_by_parcel_from_then_on():
    hold, array = a_hold(Parcels()), np.arange(ITEMS)
    frames = [dumps([array, number], hold) for number in range(4)]
    places = [manifest(frame)[0][0] for frame in frames]
    assert [place.slot == PRIVATE for place in places] == [False, True, True, True]
    assert len(set(places[1:])) == 1
    assert all(same(loads(frame), [array, number]) for number, frame in enumerate(frames))


def test_parts_of_one_array_are_not_that_array():
    hold, matrix = a_hold(Parcels()), np.arange(40 * ITEMS).reshape(40, ITEMS)
    rows = list(matrix)
    frames = [dumps(row, hold) for row in rows]
    assert hold.packed == []
    assert all(same(loads(frame), row) for frame, row in zip(frames, rows, strict=True))


def test_views_of_a_whole_array_are_that_array():
    hold, array = a_hold(Parcels()), np.arange(ITEMS)
    first = manifest(dumps(array, hold))[0][0]
    again = manifest(dumps(array.reshape(2, -1), hold))[0][0]
    once_more = manifest(dumps(array.view("u8"), hold))[0][0]
    assert first.slot != PRIVATE
    assert again == once_more
    hold.arena.take_back(first)


def test_without_parcels_an_array_goes_each_time():
    hold, array = a_hold(), np.arange(ITEMS)
    places = [manifest(dumps(array, hold))[0][0] for _ in range(3)]
    assert len(set(places)) == 3


def test_only_so_many_arrays_go_by_parcel(monkeypatch):
    monkeypatch.setattr(freight, "_MOST_PARCELS", 2)
    hold, arrays = a_hold(Parcels()), [np.full(ITEMS, number) for number in range(4)]
    for _ in range(3):
        frames = [dumps(array, hold) for array in arrays]
        assert all(same(loads(frame), array) for frame, array in zip(frames, arrays, strict=True))
    assert len(hold.packed) == 2


def test_sender_keeps_no_array_alive():
    hold, array = a_hold(Parcels()), np.arange(ITEMS)
    dumps(array, hold)
    dumps(array, hold)
    alive = weakref.ref(array)
    assert len(hold.seen) == 1
    del array
    assert alive() is None
    assert hold.seen == {}


@pytest.mark.parametrize("times", [1, 2])
def test_new_array_at_an_old_address_is_a_new_array(times):
    hold, addresses = a_hold(Parcels()), set()
    for number in range(20):
        array = np.full(ITEMS, number)
        address = array.__array_interface__["data"][0]
        for _ in range(times):
            assert same(loads(dumps(array, hold)), array)
        reused = address in addresses
        addresses.add(address)
        del array
    assert reused  # as the allocator does; else this shows nothing


def test_two_arrays_over_the_same_bytes_do_not_vouch_for_each_other():
    hold, under = a_hold(Parcels()), bytearray(LARGE)
    one, two = np.frombuffer(under, "u1"), np.frombuffer(under, "u1")
    for number in range(1, 4):
        under[:] = bytes([number]) * LARGE
        assert loads(dumps(one, hold))[0] == number
        assert loads(dumps(two, hold))[0] == number
    assert hold.packed == []


def test_what_arrived_can_be_sent_on():
    there, back = a_hold(Parcels()), a_hold(Parcels())
    array = np.arange(ITEMS)
    received = loads(dumps(array, there))
    places = [manifest(dumps(received, back))[0][0] for _ in range(2)]
    assert [place.slot == PRIVATE for place in places] == [False, True]
    back.arena.take_back(places[0])
    del received
    assert back.seen == {}
    assert_all_is_given_back(there.arena)


def test_finalizer_that_sends_while_something_is_sent_gets_it_in_the_frame():
    hold: Hold
    frames: list[bytes] = []

    class Garbage:
        def __init__(self):
            self.cycle = self

        def __del__(self):
            frames.append(dumps(np.ones(ITEMS), Hold(hold.arena)))

    def look():
        Garbage()
        gc.collect()
        return PLENTY

    hold = Hold(Arena(look))
    array = np.arange(ITEMS)
    assert same(loads(dumps(array, hold)), array)
    assert frames
    assert frames[0][0] != MARK
    assert same(loads(frames[0]), np.ones(ITEMS))


# Reading parts as one file.


@given(
    st.lists(st.binary(max_size=20) | st.sampled_from([b"\n", b"a\nb\n", b""]), max_size=8),
    st.lists(st.tuples(st.sampled_from(["read", "readinto", "readline"]), st.integers(0, 12))),
)
def test_parts_are_read_as_if_they_were_one_file(parts, calls):
    file = io.BytesIO(b"".join(parts))
    stitched = freight._Stitched([memoryview(part) for part in parts])
    for call, count in calls:
        if call == "readinto":
            ours, theirs = bytearray(count), bytearray(count)
            assert stitched.readinto(ours) == file.readinto(theirs)
            assert ours == theirs
        elif call == "readline":
            assert stitched.readline() == file.readline()
        else:
            assert stitched.read(count) == file.read(count)


def test_names_of_old_pickles_are_read_as_lines():
    pickled = pickle.dumps([np.ndarray, arenas.Place], 0)
    parts = [memoryview(pickled[start : start + 7]) for start in range(0, len(pickled), 7)]
    assert pickle.Unpickler(freight._Stitched(parts)).load() == [np.ndarray, arenas.Place]
