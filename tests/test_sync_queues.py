"""Queue: every message once and in order, and whole, whoever is killed when."""

from __future__ import annotations

import os
import pickle
import queue
import resource
import signal
from collections import deque

import numpy as np
import pytest
from forks import Fork, interrupted_at_each_step, killed_at_each_step
from hypothesis import given
from hypothesis import strategies as st

from parallelkit.sync import lines, queues
from parallelkit.sync.queues import Queue

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the tests fork")


@pytest.fixture(params=["bells", "looks"])
def way(request, monkeypatch):
    monkeypatch.setattr(lines, "DOORBELLS", request.param == "bells")


SIZES = st.sampled_from([0, 1, 100, 5000, 70_000])


@given(
    maxsize=st.integers(0, 4),
    slack=st.sampled_from([0, 3000, 1 << 20]),
    steps=st.lists(st.tuples(st.sampled_from(["put", "put", "get"]), SIZES), max_size=40),
)
def test_a_queue_is_a_deque(maxsize, slack, steps):
    shared, model = Queue(maxsize), deque()
    before, queues._SLACK, kept, queues._KEPT = queues._SLACK, slack, queues._KEPT, slack
    try:
        for number, (step, size) in enumerate(steps):
            thing = (number, b"x" * size)
            if step == "put" and maxsize and len(model) == maxsize:
                assert shared.full()
                with pytest.raises(queue.Full):
                    shared.put_nowait(thing)
            elif step == "put":
                shared.put(thing)
                model.append(thing)
            elif model:
                assert shared.get() == model.popleft()
            else:
                assert shared.empty()
                with pytest.raises(queue.Empty):
                    shared.get_nowait()
            assert shared.qsize() == len(model)
        assert [shared.get() for _ in model] == list(model)
    finally:
        queues._SLACK, queues._KEPT = before, kept


def test_a_copy_is_the_same_queue():
    shared = Queue(2)
    pickle.loads(pickle.dumps(shared)).put(1)
    assert repr(shared) == "<Queue of 1>"
    assert shared.get() == 1
    assert not shared.full()


def test_a_timeout_ends_the_wait(way):
    shared = Queue(1)
    with pytest.raises(queue.Empty):
        shared.get(timeout=0.01)
    shared.put(1)
    with pytest.raises(queue.Full):
        shared.put(2, timeout=0.01)
    assert shared.get(timeout=60) == 1


def test_who_waits_to_get_and_who_waits_to_put_go_on(way):
    shared = Queue(1)
    with (
        Fork(lambda: [shared.get(timeout=60) for _ in range(50)]) as reader,
        Fork(lambda: [shared.put(x, timeout=60) for x in range(50)]) as writer,
    ):
        writer.result()
        assert reader.result() == list(range(50))


def test_every_message_arrives_once(way):
    shared, count = Queue(5), 100
    writers = [
        Fork(lambda first=first: [shared.put((first, x)) for x in range(count)])
        for first in range(2)
    ]
    readers = [Fork(lambda: [shared.get(timeout=60) for _ in range(count)]) for _ in range(2)]
    try:
        seen = [message for reader in readers for message in reader.result()]
        assert sorted(seen) == [(first, x) for first in range(2) for x in range(count)]
        for reader in readers:  # of each writer in order
            for first in range(2):
                own = [x for writer, x in reader_messages(seen, readers, reader) if writer == first]
                assert own == sorted(own)
    finally:
        for each in writers + readers:
            each.__exit__()


def reader_messages(seen, readers, reader):
    """Return what one of the readers got: each got as many."""
    share = len(seen) // len(readers)
    start = readers.index(reader) * share
    return seen[start : start + share]


@pytest.mark.slow
@pytest.mark.parametrize("size", [10, queues._SLACK])
def test_a_writer_killed_anywhere_leaves_its_message_whole_or_not_at_all(size):
    shared, message = Queue(), b"y" * size
    for _ in killed_at_each_step(lambda: shared.put(message)):
        shared.put("after")
        seen = [shared.get() for _ in range(shared.qsize())]
        assert seen in (["after"], [message, "after"])
        assert shared.empty()


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 1])
def test_a_reader_killed_anywhere_takes_the_message_or_leaves_it(left):
    shared, rest = Queue(2), ["more"] * left
    for _ in killed_at_each_step(shared.get):
        seen = [shared.get() for _ in range(shared.qsize())]
        assert seen in ([], rest, ["first", *rest])
        for thing in ("first", *rest):
            shared.put(thing, timeout=60)


@pytest.mark.slow
def test_one_killed_anywhere_while_it_makes_room_loses_nothing(monkeypatch):
    monkeypatch.setattr(queues, "_SLACK", 1000)
    shared, old = Queue(), [b"a" * 600, b"b" * 600, b"c" * 600, b"d" * 600]

    def fill():
        while not shared.empty():
            shared.get()
        for message in old:
            shared.put(message)
        for _ in range(3):
            shared.get()

    fill()
    for _ in killed_at_each_step(lambda: shared.put("new")):
        seen = [shared.get() for _ in range(shared.qsize())]
        assert seen in ([old[3]], [old[3], "new"])
        fill()


def test_an_interrupt_anywhere_leaves_the_queue_usable():
    shared = Queue()
    for _ in interrupted_at_each_step(lambda: shared.put("mine")):
        with Fork(lambda: shared.put("other")) as other:
            other.result()
        seen = [shared.get(timeout=60) for _ in range(shared.qsize())]
        assert seen in (["other"], ["mine", "other"])


def test_a_full_memory_is_an_error_and_leaves_the_queue_as_it_was():
    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            shared.put(b"z" * (2 << 20))
        except MemoryError as error:
            return str(error)

    shared = Queue()
    shared.put("before")
    with Fork(fill) as other:
        assert other.result().startswith("no room in the queue for 2097")
    assert [shared.get() for _ in range(shared.qsize())] == ["before"]


def test_an_empty_queue_gives_its_memory_back():
    shared = Queue()
    shared.put(np.zeros(queues._KEPT + 1, np.uint8))
    assert os.fstat(shared._cell.file).st_size > queues._KEPT
    shared.get()
    assert os.fstat(shared._cell.file).st_size == queues.SIZE


def test_a_queue_in_steady_use_does_not_grow(monkeypatch):
    monkeypatch.setattr(queues, "_SLACK", 10_000)
    shared = Queue()
    shared.put(b"x" * 1000)
    for _ in range(200):
        shared.put(b"x" * 1000)
        shared.get()
    assert os.fstat(shared._cell.file).st_size < queues.SIZE + 20_000


def test_a_closed_queue_refuses():
    shared = Queue()
    shared.put(1)
    other = pickle.loads(pickle.dumps(shared))
    shared.close()
    shared.join_thread()
    shared.cancel_join_thread()
    for call in (shared.get, lambda: shared.put(1)):
        with pytest.raises(ValueError, match=r"^<Queue of 1> is closed$"):
            call()
    assert other.get() == 1


def test_a_signal_ends_a_wait():
    def ring(*_):
        raise KeyboardInterrupt

    shared = Queue()
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            shared.get()
    finally:
        signal.signal(signal.SIGALRM, before)
    shared.put(1)
    assert shared.get() == 1
