"""Messages arrive whole and in order however the stream is cut, and writing never blocks."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import pairwise
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelkit import wire
from parallelkit.wire import DIRECT, HEADER, Message, Outbox, Reader, frame

WORD = st.integers(-(2**63), 2**63 - 1)
# Every side of the bounds at which a body is joined to its header or received where it stays.
SIZES = st.one_of(
    st.integers(0, 300),
    st.sampled_from([DIRECT - 1, DIRECT, DIRECT + 1, 2 * DIRECT, wire.READ, wire.READ + 1]),
)
MESSAGES = st.builds(
    lambda kind, size, fill, first, second, seconds: Message(
        kind, bytes([fill]) * size, first, second, seconds
    ),
    st.sampled_from(sorted(wire._KINDS)),
    SIZES,
    st.integers(0, 255),
    WORD,
    WORD,
    st.floats(allow_nan=False),
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


class Cut:
    """A socket whose reads return at most as much as it is told, in turns."""

    def __init__(self, sock: socket.socket, sizes: list[int]) -> None:
        self.sock = sock
        self.sizes = sizes

    def turn(self) -> int:
        self.sizes.append(self.sizes.pop(0))
        return self.sizes[-1]

    def recv(self, size: int) -> bytes:
        return self.sock.recv(min(size, self.turn()))

    def recv_into(self, place: memoryview) -> int:
        return self.sock.recv_into(place[: self.turn()])


def transfer(pieces: list[bytes], reader: Reader, left: socket.socket) -> list[Message]:
    """Write pieces as far as they go and read what has come, in turns, until all is through."""
    left.setblocking(False)
    outbox = Outbox(left)
    outbox.put(pieces)
    got: list[Message] = []
    while True:
        outbox.flush()
        try:
            got += reader.read()
        except BlockingIOError:
            if not outbox:
                return got


@given(
    st.lists(MESSAGES, max_size=6),
    st.lists(st.integers(1, 3 * DIRECT), max_size=8),
    st.lists(st.integers(1, wire.READ), min_size=1, max_size=4),
)
def test_any_messages_in_any_pieces_arrive_whole_and_in_order(messages, cuts, sizes):
    stream = b"".join(bytes(piece) for message in messages for piece in frame(message))
    bounds = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[start:stop] for start, stop in pairwise(bounds)]
    left, right = socket.socketpair()
    with left, right:
        right.setblocking(False)

        got = transfer(pieces, Reader(Cut(right, sizes)), left)

    assert got == messages


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(1, 3))
def test_short_reads_cut_headers_anywhere(sizes, step):
    messages = [Message(wire.CHUNK, b"x" * size, at) for at, size in enumerate(sizes)]
    left, right = socket.socketpair()
    with left, right:
        right.setblocking(False)
        pieces = [bytes(piece) for message in messages for piece in frame(message)]

        assert transfer(pieces, Reader(Cut(right, [step])), left) == messages


def test_a_large_body_is_not_joined_to_its_header():
    body = bytes(DIRECT)

    assert frame(Message(wire.CHUNK, body))[1] is body
    assert len(frame(Message(wire.CHUNK, body[1:]))) == 1


def test_the_header_is_the_same_everywhere():
    header = bytes(frame(Message(wire.DONE, b"ab", 3, -4, 0.5))[0])

    assert header[: HEADER.size].hex() == (
        "0d000000020000000000000003000000000000"
        "00fcffffffffffffff000000000000e03f"
    )  # fmt: skip


def test_an_outbox_keeps_what_nobody_reads(pair):
    left, right = pair
    left.setblocking(False)
    outbox = Outbox(left)
    messages = [Message(wire.CHUNK, bytes([number]) * 300_000, number) for number in range(20)]

    for message in messages:
        outbox.put(frame(message))
        outbox.flush()  # would block for ever, did it block at all

    assert outbox
    right.setblocking(False)
    reader, got = Reader(right), []
    while len(got) < len(messages):
        outbox.flush()
        try:
            got += reader.read()
        except BlockingIOError:
            continue
    assert got == messages
    assert not outbox


def test_an_outbox_forgets_what_is_for_an_end_that_is_gone(pair):
    left, right = pair
    left.setblocking(False)
    outbox = Outbox(left)
    outbox.put([bytes(1 << 24)])
    outbox.flush()
    assert outbox

    right.close()
    outbox.flush()

    assert not outbox
    outbox.put([b"more"])
    outbox.flush()
    assert not outbox


@pytest.mark.parametrize(
    "garbage",
    [
        b"a line that the function printed, long enough to be taken for a header\n",
        HEADER.pack(99, 0, 0, 0, 0.0),
        HEADER.pack(wire.DONE, -1, 0, 0, 0.0),
        HEADER.pack(wire.DONE, 1 << 60, 0, 0, 0.0),
    ],
)
def test_what_is_no_message_ends_the_stream(pair, garbage):
    left, right = pair
    left.sendall(garbage)

    with pytest.raises(EOFError, match="wrote to a descriptor that is not its own"):
        Reader(right).read()


@pytest.mark.parametrize("sent", [0, 1, HEADER.size, HEADER.size + 5, 3 * DIRECT])
def test_a_closed_end_is_told_after_what_it_said(pair, sent):
    left, right = pair
    stream = b"".join(map(bytes, frame(Message(wire.DONE, bytes(4 * DIRECT)))))
    whole = frame(Message(wire.READY, b"", 7))[0]
    left.setblocking(False)
    right.setblocking(False)
    outbox, reader, got = Outbox(left), Reader(right), []
    outbox.put([whole, stream[:sent]])
    with pytest.raises(EOFError):
        while True:
            outbox.flush()
            try:
                got += reader.read()
            except BlockingIOError:
                left.close()

    assert got == [Message(wire.READY, b"", 7)]


def test_nothing_there_is_said_so(pair):
    pair[1].setblocking(False)

    with pytest.raises(BlockingIOError):
        Reader(pair[1]).read()


# Looking before sleeping.


def taking_its_time() -> None:
    """Give way to somebody who takes the processor."""
    end = perf_counter() + 50e-6
    while perf_counter() < end:
        pass


def test_who_looks_sees_what_is_there():
    assert wire.heed(lambda: [1]) == [1]


def test_who_looks_in_vain_ends():
    assert wire.heed(list) == []


def test_who_looks_leaves_the_processor_to_others_and_looks_once_more(monkeypatch):
    monkeypatch.setattr(wire, "_give_way", taking_its_time)
    seen = iter([[], ["late"]])

    assert wire.heed(lambda: next(seen), seconds=60.0) == ["late"]


def test_who_looks_goes_on_until_it_is_told(monkeypatch):
    monkeypatch.setattr(wire, "_give_way", taking_its_time)
    said = [perf_counter() + 60.0, perf_counter() + 60.0, 0.0]
    looks = []

    assert wire.heed(lambda: looks.append(1), seconds=60.0, crowded=lambda: said.pop(0)) is None
    assert not said
    assert len(looks) == 4, "before each time it gave way, and once more"
