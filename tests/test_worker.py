"""A worker, spoken to over its socket as the caller does."""

from __future__ import annotations

import pickle
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from leaks import not_a_worker

from parallelkit import wire
from parallelkit.board import Board, Slot
from parallelkit.codec import Definitions
from parallelkit.failures import unpack_error
from parallelkit.job import Settings
from parallelkit.wire import Message, Reader
from parallelkit.worker import Worker


class Conversation:
    """The caller's end of a worker that runs in a thread of this process."""

    def __init__(self) -> None:
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(30)
        self.board = Board()
        self.reader = Reader(self.sock)
        self.inbox: list[Message] = []
        self.worker = Worker(theirs, self.board.slot(0))
        self.thread = threading.Thread(target=self.worker.serve)
        self.thread.start()
        self.theirs = theirs

    def say(self, kind: int, body: bytes, first: int = 0, second: int = 0) -> None:
        for piece in wire.frame(Message(kind, body, first, second)):
            self.sock.sendall(piece)

    def hear(self) -> Message:
        while not self.inbox:
            self.inbox += self.reader.read()
        return self.inbox.pop(0)

    def begin(self, fn: Callable[..., Any], op: object = None, **settings: Any) -> Definitions:
        definitions = Definitions((fn, None, op))
        self.say(wire.RUN, pickle.dumps(tuple(Settings(7, **settings))))
        for blob in definitions.blobs:
            self.say(wire.LEARN, blob)
        return definitions

    def close(self) -> None:
        self.sock.close()
        self.thread.join(30)
        assert not self.thread.is_alive(), "the worker goes on"
        self.theirs.close()
        self.board.close()
        # The page is mapped, and with it a descriptor is held, as long as anyone has a slot.
        del self.worker, self.board, self.thread


@pytest.fixture(autouse=True)
def nothing_held() -> Iterator[None]:
    """Have this process be no worker afterwards."""
    yield
    not_a_worker()


@pytest.fixture
def talk() -> Iterator[Conversation]:
    """A conversation with a worker."""
    conversation = Conversation()
    yield conversation
    conversation.close()


def test_chunks_are_answered_in_order(talk: Conversation) -> None:
    definitions = talk.begin(abs)
    assert talk.hear() == Message(wire.JOINED, b"", 7)
    for start in (0, 10):
        items = [-x for x in range(start, start + 10)]
        talk.say(wire.CHUNK, definitions.dumps((items,)), start, 10)
    for start in (0, 10):
        kind, body, stop, failed, seconds = talk.hear()
        assert (kind, stop, failed) == (wire.DONE, start + 10, 0)
        assert seconds >= 0
        assert definitions.loads(body) == list(range(start, start + 10))


def test_a_failure_is_told_at_once_and_the_rest_goes_on(talk: Conversation) -> None:
    definitions = talk.begin(int)
    talk.hear()
    talk.say(wire.CHUNK, definitions.dumps((["1", "x", "3"],)), 0, 3)
    first, second = talk.hear(), talk.hear()
    assert (first.first, first.second, second.first, second.second) == (2, 1, 3, 0)
    body, failures, unsent, unreturned = pickle.loads(first.body)
    assert (unsent, unreturned) == ((), ())
    assert definitions.loads(body) == [1, None]
    assert "invalid literal" in str(unpack_error(failures[1]))
    assert definitions.loads(second.body) == [3]


def test_a_function_that_cannot_be_loaded_is_told_once(talk: Conversation) -> None:
    talk.say(wire.RUN, pickle.dumps(tuple(Settings(9))))
    talk.say(wire.LEARN, b"\0" + pickle.dumps(1)[:-1])
    told = talk.hear()
    assert (told.kind, told.first) == (wire.BROKEN, 9)
    talk.say(wire.CHUNK, b"", 0, 1)
    definitions = talk.begin(abs)  # and the worker is as good as new
    assert talk.hear().kind == wire.JOINED
    talk.say(wire.CHUNK, definitions.dumps(([-1],)), 0, 1)
    assert definitions.loads(talk.hear().body) == [1]


def test_a_reduction_sends_blocks(talk: Conversation) -> None:
    import operator

    definitions = talk.begin(int, operator.add)
    talk.hear()
    talk.say(wire.CHUNK, definitions.dumps((list(range(4, 9)),)), 4, 5)
    assert definitions.loads(talk.hear().body) == [(4, 4, 22), (8, 1, 8)]


def test_the_board_says_what_runs(talk: Conversation) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def wait(x: int) -> int:
        inside.set()
        assert go_on.wait(30)
        return x

    slot = talk.board.slot(0)
    definitions = talk.begin(abs)
    talk.hear()
    talk.worker.job.fn = wait  # events cannot travel, and this worker is in our process
    talk.say(wire.CHUNK, definitions.dumps(([5],)), 3, 1)
    assert inside.wait(30)
    assert slot.read() == range(3, 4)
    go_on.set()
    talk.hear()
    talk.say(wire.END, b"")
    talk.say(wire.RUN, pickle.dumps(tuple(Settings(8))))
    talk.say(wire.LEARN, Definitions((abs, None, None)).blobs[0])
    assert talk.hear().first == 8
    assert slot.read() == range(3, 3)


@pytest.fixture
def waiting(monkeypatch: Any) -> Iterator[tuple[Worker, socket.socket]]:
    """A worker of a run, in this thread, and the caller's end of its socket."""
    monkeypatch.setattr("parallelkit.worker.LULL", 1e-4)
    ours, theirs = socket.socketpair()
    worker = Worker(theirs, Slot.apart())
    worker.begin(Message(wire.RUN, pickle.dumps(tuple(Settings(7)))))
    for blob in Definitions((abs, None, None)).blobs:
        worker.job.learn(blob)
    yield worker, ours
    ours.close()
    theirs.close()


def test_a_worker_that_finds_its_run_over_forgets_it(waiting: Any) -> None:
    worker, _ = waiting
    worker.slot.leave(7)
    worker.wait()
    assert (worker.job.fn, worker.job.settings.run) == (None, 0)


def test_a_worker_that_may_be_asked_for_more_of_the_same_rests(waiting: Any) -> None:
    worker, _ = waiting
    worker.slot.leave(-7)
    worker.wait()
    assert worker.resting
    assert worker.job.fn is abs
    assert worker.sock.gettimeout() is not None
    worker.resume()
    assert not worker.resting
    assert worker.sock.gettimeout() is None


def test_a_worker_waits_on_while_its_run_goes_on(waiting: Any) -> None:
    worker, ours = waiting
    worker.slot.leave(6)  # the run before
    ours.sendall(b"x")
    worker.wait()
    assert worker.job.fn is abs
    assert not worker.resting


def test_a_run_that_follows_unasked_finds_nothing_of_the_one_before(waiting: Any) -> None:
    worker, _ = waiting
    worker.begin(Message(wire.RUN, pickle.dumps(tuple(Settings(8)))))
    assert (worker.job.fn, worker.job.settings.run) == (None, 8)


def test_a_chunk_is_not_kept_while_the_worker_waits_for_more(waiting: Any) -> None:
    worker, ours = waiting
    seen: list[list[Any]] = []

    def wait() -> None:
        frame = sys._getframe(1)
        found = [each for each in frame.f_locals.values() if isinstance(each, Message)]
        seen.append([each.kind for each in found])
        if len(seen) == 2:
            raise EOFError

    worker.wait = wait
    body = Definitions((abs, None, None)).dumps(([-5, -6],))
    for piece in wire.frame(Message(wire.CHUNK, body, 0, 2)):
        ours.sendall(piece)
    worker.serve()
    assert seen == [[], []]
