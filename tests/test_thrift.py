"""Arenas that are sent content of ever other sizes: they keep few pages that nobody uses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parallelkit import arenas, segments
from parallelkit.arenas import GIVEN_BACK, LEAST, Arena, Place
from parallelkit.machine import Memory

TOTAL = 1 << 30
SMALL = Memory(total=TOTAL, limit=None, available=TOTAL // 2, source="a test")
KEPT = TOTAL // arenas._KEPT


def give_back(place: Place) -> None:
    """Do what a reader does that needs a block no more."""
    segments.attach(place.handle)[place.slot] = GIVEN_BACK


def sent(arena: Arena, length: int) -> Place:
    place = arena.place(memoryview(bytes(length)))
    assert place is not None
    return place


@given(st.lists(st.integers(LEAST, 1 << 22), min_size=1, max_size=30))
def test_pages_that_lie_idle_are_few_whatever_the_sizes(lengths):
    arena = Arena(lambda: SMALL)
    for length in sorted(lengths):
        give_back(sent(arena, length))
        # Between two looks it may grow without one.
        assert arena.warm() <= KEPT + SMALL.available // 16 + length
    arena.leave()


def test_sizes_that_grow_leave_no_segments_behind():
    arena, length = Arena(lambda: SMALL), 1 << 20
    while length < 1 << 26:
        give_back(sent(arena, length))
        length += length // 4
    assert arena.warm() <= KEPT + SMALL.available // 16 + length
    assert len(arena.regions) <= 3
    arena.leave()


def test_as_many_idle_pages_as_are_in_use_stay():
    arena = Arena(lambda: SMALL)
    used = [sent(arena, 4 * KEPT) for _ in range(2)]
    idle = sent(arena, 4 * KEPT)
    give_back(idle)
    used.append(sent(arena, 20 * KEPT // 2))
    assert sent(arena, 4 * KEPT) == idle
    arena.leave()


def test_idle_pages_make_room_before_there_is_none():
    def look() -> Memory:
        left = 4 * KEPT - arena.warm()
        return Memory(total=TOTAL, limit=None, available=left + int(TOTAL * 0.06), source="a test")

    arena = Arena(look)
    give_back(sent(arena, KEPT))
    assert arena.place(memoryview(bytes(5 * KEPT))) is None
    arena.keep = TOTAL
    give_back(sent(arena, 2 * KEPT - LEAST))
    used = sent(arena, 4 * KEPT - LEAST)
    assert arena.place(memoryview(bytes(KEPT))) is None
    give_back(used)
    arena.leave()
