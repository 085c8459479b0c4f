"""Bytes of an object, with numbers for what both sides know."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from parallelkit.arenas import Arena
from parallelkit.definitions import Known, Names, reading
from parallelkit.frames import LARGE, Frames, References
from parallelkit.freight import Arrival, Hold
from parallelkit.leases import Berth


class Marked:
    """What a test defines."""


def frames(known: Known, hold: Hold | None = None) -> Frames:
    return Frames(References(known, Names([__name__]), None), hold)


def loaded(frame: bytes, known: Known) -> Any:
    token = reading.set(known)
    try:
        return pickle.loads(frame)
    finally:
        reading.reset(token)


def test_what_is_known_goes_by_its_number() -> None:
    known = Known()
    known.add([Marked])
    frame = frames(known).dumps([Marked, Marked(), 1])

    assert b"Marked" not in frame
    found, instance, one = loaded(frame, known)
    assert (found, type(instance), one) == (Marked, Marked, 1)


def test_one_frame_remembers_nothing_of_another() -> None:
    making, shared = frames(Known()), ["x" * 100]
    first, second = making.dumps([shared, shared]), making.dumps([shared])

    again = pickle.loads(first)
    assert again[0] is again[1]
    assert pickle.loads(second) == [shared]


def test_what_plain_pickle_refuses_goes_by_value() -> None:
    known = Known()
    function = loaded(frames(known).dumps(lambda x: x + 1), known)
    assert function(1) == 2


def test_after_a_failure_and_after_a_large_frame_all_is_as_before() -> None:
    making = frames(Known())
    with pytest.raises(TypeError, match="generator"):
        making.dumps(x for x in ())
    assert pickle.loads(making.dumps(["x" * (i % 7) for i in range(LARGE)]))[8] == "x"
    assert pickle.loads(making.dumps("small")) == "small"


def test_what_is_large_goes_beside_and_comes_back_when_pickling_fails() -> None:
    arena = Arena()
    making, large = frames(Known(), Hold(arena)), bytes(1 << 20)

    frame = making.dumps([large, 1])
    assert len(frame) < 1000
    assert Arrival(frame, Berth()).loads() == [large, 1]
    with pytest.raises(TypeError, match="generator"):
        making.dumps([large, (x for x in ())])
    assert making.dumps([large]) != b""
    assert arena.warm() <= 2 * len(large)
