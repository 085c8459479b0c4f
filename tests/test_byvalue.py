"""The stream of definitions: each thing once, failures forgotten, what cloudpickle lacks added."""

from __future__ import annotations

import enum
import functools
import io
import pickle
import threading
import typing
import weakref

import pytest

from parallelkit.byvalue import Inline, Stream
from parallelkit.definitions import Known, Names, reading


class Channel:
    """A stream and its reader."""

    def __init__(self) -> None:
        self.tape = io.BytesIO()
        self.stream = Stream(self.tape, Names())
        self.reader = pickle.Unpickler(self.tape)

    def send(self, obj: object) -> tuple[typing.Any, list[object], list[object]]:
        """Return what arrives, and the definitions found on either side."""
        found: list[object] = []
        start = self.tape.tell()
        try:
            self.stream.define(obj, found)
        except BaseException:
            self.tape.seek(start)
            self.tape.truncate()
            raise
        self.tape.seek(start)
        arrived, numbered = self.reader.load()
        return arrived, found, numbered


def test_each_function_is_found_and_written_once():
    shared = {"n": 0}

    def one():
        return shared

    def two():
        return one, shared

    channel = Channel()
    far_one, found, numbered = channel.send(one)
    far_two, found_later, _ = channel.send([two, one])

    assert (found, numbered) == ([one], [far_one])
    assert found_later == [two]
    assert far_two[1] is far_one
    assert far_two[0]()[0] is far_one
    assert far_two[0]()[1] is far_one()


@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_failed_dump_is_forgotten(before):
    channel = Channel()
    lock = threading.Lock()
    kept = [lambda n=n: n for n in range(before)]
    arrived = [channel.send(function)[0] for function in kept]

    def late():
        return kept

    for _ in range(2):
        with pytest.raises(TypeError):
            channel.send([late, *kept, lambda: lock])
    far, _, _ = channel.send([late, *kept])

    assert far[1:] == arrived
    assert far[0]() == arrived


def test_cached_and_dispatching_functions_arrive():
    @functools.lru_cache(maxsize=3, typed=True)
    def cached(n):
        return n and cached(n - 1)

    @functools.singledispatch
    def by_type(_):
        return "other"

    cached.mark = "mine"
    by_type.register(int, lambda _: "int")
    by_type(1)

    far, by_type_there = Channel().send((cached, by_type))[0]

    parameters = {"maxsize": 3, "typed": True}
    assert (far(5), far.cache_parameters(), far.mark) == (0, parameters, "mine")
    assert (by_type_there(1), by_type_there("")) == ("int", "other")


def test_slots_cached_properties_and_enums_arrive():
    class Slotted:
        __slots__ = "a"  # noqa: PLC0205  # as some write it

    class Late:
        @functools.cached_property
        def late(self):
            return 1

    class Kind(enum.Enum):
        A = 1
        ALSO_A = 1  # noqa: PIE796

        def __init__(self, n):
            self.twice = 2 * n

    slotted, late, kind = Channel().send((Slotted, Late, Kind))[0]

    assert not hasattr(slotted(), "__dict__")
    assert late().late == 1
    assert (kind["ALSO_A"] is kind.A, kind.A.twice) == (True, 2)


def test_a_weak_dictionary_that_holds_itself_arrives():
    weak = weakref.WeakKeyDictionary()
    weak[Stream] = weak

    far = Channel().send(weak)[0]

    assert far[Stream] is far


def test_a_class_in_a_stream_is_new_for_each_run():
    class Local:
        count = 0

    first, second = Channel().send(Local)[0], Channel().send(Local)[0]
    first.count = 1

    assert (second.count, Local.count) == (0, 0)


def test_a_class_in_a_frame_is_the_one_that_is_here():
    class Local:
        count = 0

    known = Known()
    sink = io.BytesIO()
    Inline(sink, lambda _: NotImplemented, Names(), known).dump(Local)
    Local.count = 1
    token = reading.set(known)
    try:
        back = pickle.loads(sink.getvalue())
    finally:
        reading.reset(token)

    assert back is Local
    assert Local.count == 1


def test_functions_know_where_they_stand():
    def outer():
        return lambda: 1 / 0

    channel = Channel()
    far = channel.send(outer)[0]
    for code in (far.__code__, far().__code__):
        assert code.co_filename == __file__
    assert far().__code__.co_firstlineno == outer().__code__.co_firstlineno


def test_files_do_not_travel_but_standard_streams_are_those_of_the_worker(tmp_path):
    channel = Channel()
    refused = pytest.raises(TypeError, match=r"^cannot pickle '_io.TextIOWrapper' object$")
    with (tmp_path / "text").open("w+") as file, refused:
        channel.send(file)
    real = io.TextIOWrapper(io.BytesIO())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", real)
        assert channel.send([real])[0] == [real]
        assert channel.send([real])[0][0] is real
