"""What a worker holds, and what becomes of it when some is taken back, whoever is faster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelkit.backends.duty import SEEN, Duty
from parallelkit.board import Board, Slot


class Worker:
    """The other end: it works as `worker.Worker` does, an item or a few at a time."""

    def __init__(self, slot: Slot, chunks: list[range]) -> None:
        self.slot = slot
        self.waiting = chunks
        self.ran: list[int] = []
        self.chunk = range(0)
        self.said: list[tuple[str, int]] = []

    def steps(self, stride: int) -> Iterator[None]:
        """Run everything; stop after each store and each load."""
        while self.waiting:
            self.chunk = self.waiting.pop(0)
            number = self.slot.turn()
            position, stop = self.chunk.start, self.chunk.stop
            ran = 0
            while position < stop:
                size = min(stride, stop - position)
                self.slot.claim(position + size)
                yield  # it has said what it begins, and not yet read whether it may
                end = self.slot.claim(position + size)
                yield
                if end < position + size:
                    stop = max(end, position)
                    size = stop - position
                self.ran += range(position, position + size)
                ran += size
                position += size
                yield
            whole = stop == self.chunk.stop
            self.said.append(("done" if whole else "cut", stop) if ran else ("skipped", number))
            yield


@pytest.fixture(name="board", scope="module")
def a_board() -> Iterator[Board]:
    """A page of shared memory."""
    board = Board()
    yield board
    board.close()


def pair(board: Board, chunks: list[range]) -> tuple[Duty, Worker]:
    """Return both ends of a worker that was sent `chunks`."""
    slot = board.slot(0)
    slot.reset()
    duty = Duty(slot)
    for chunk in chunks:
        duty.give(chunk)
    return duty, Worker(board.slot(0), list(chunks))


def hear(duty: Duty, worker: Worker) -> list[range]:
    """Take in what the worker said, and return what it gave up by that."""
    back = []
    while worker.said:
        word, at = worker.said.pop(0)
        if word != "skipped":
            chunk = duty.answered(at, word == "cut")
            back.append(range(at, chunk.stop))
        elif duty.skipped(at):
            back.append(duty.answered(duty.chunks[0].start, cut=True))
    return back


def settle(duty: Duty, now: float) -> list[range]:
    """Settle, and return what the worker gave up by that."""
    before = list(duty.chunks)
    stop = duty.settle(now)
    kept = {at for chunk in duty.chunks for at in chunk}
    lost = [at for chunk in before for at in chunk if at not in kept]
    assert (stop is None) == (not lost)
    assert stop is None or lost[0] == stop
    return [range(at, at + 1) for at in lost]


@given(st.integers(1, 9), st.integers(0, 9), st.integers(1, 4), st.floats(0, 0.9), st.data())
def test_every_item_is_begun_once_or_given_up(board, first, second, stride, keep, data):
    chunks = [chunk for chunk in (range(20, 20 + first), range(second)) if chunk]
    duty, worker = pair(board, chunks)
    steps = worker.steps(stride)
    back: list[range] = []

    for _ in range(data.draw(st.integers(0, 12))):
        next(steps, None)
    if data.draw(st.booleans()):
        back += hear(duty, worker)
    duty.reclaim(keep, 0.0)
    for _ in range(data.draw(st.integers(0, 12))):
        next(steps, None)
    back += hear(duty, worker)
    more = range(30, 33)
    back += settle(duty, data.draw(st.sampled_from([0.0, SEEN])))
    if data.draw(st.booleans()):
        chunks.append(more)
        duty.give(more)
        worker.waiting.append(more)
    list(steps)
    list(worker.steps(stride))
    back += hear(duty, worker)

    positions = sorted([*worker.ran, *(at for part in back for at in part)])
    assert positions == sorted(at for chunk in chunks for at in chunk)
    assert not duty.chunks
    duty.heard = True
    assert duty.clean()


def test_a_share_of_what_is_not_begun_is_kept(board):
    duty, worker = pair(board, [range(10), range(10, 20)])
    next(worker.steps(2))
    duty.reclaim(0.5, 0.0)

    assert duty.settle(1.0) == 11
    assert list(duty.chunks) == [range(10), range(10, 11)]


def test_one_that_has_begun_nothing_keeps_an_item(board):
    duty, _ = pair(board, [range(5), range(5, 9)])
    duty.reclaim(0.01, 0.0)

    assert duty.settle(1.0) == 1
    assert list(duty.chunks) == [range(1)]
    assert not duty.clean()


def test_one_that_has_begun_everything_gives_nothing(board):
    duty, worker = pair(board, [range(2)])
    next(worker.steps(2))
    duty.reclaim(0.5, 0.0)

    assert duty.settle(1.0) is None
    assert list(duty.chunks) == [range(2)]


def test_what_was_taken_stays_taken_when_more_is_given(board):
    duty, worker = pair(board, [range(10), range(10, 20)])
    duty.reclaim(0.01, 0.0)
    assert duty.settle(1.0) == 1
    duty.give(range(30, 32))
    worker.waiting.append(range(30, 32))
    duty.give(range(40, 42))
    with pytest.raises(AssertionError, match="it has too many chunks"):
        duty.give(range(50, 52))
    list(worker.steps(4))

    assert worker.ran == [0, 30, 31]


def test_the_next_chunk_is_not_limited_by_what_was_taken_of_another(board):
    duty, worker = pair(board, [range(4)])
    duty.reclaim(0.5, 0.0)
    assert duty.settle(1.0) == 2
    duty.give(range(4))
    worker.waiting.append(range(4))
    list(worker.steps(1))

    assert worker.ran == [0, 1, 0, 1, 2, 3]
