"""What one process stamps, another sees; nothing has a name that could be left behind."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys

import pytest

from parallelkit.board import SLOTS, Board, above_standard, attach

WRITER = """
import sys
from parallelkit.board import attach
where, number = int(sys.argv[1]), int(sys.argv[2])
slot = attach(where, number)
print(*slot.read(), flush=True)
slot.stamp(2**62, 3, 9)
print("stamped", flush=True)
sys.stdin.read(1)
slot.clear()
"""

each_way = pytest.mark.parametrize("portable", [False, True])


@each_way
def test_two_processes_see_each_others_stamps(portable):
    board = Board(portable)
    slot = board.slot(SLOTS - 1)
    slot.stamp(40, 2, 1)
    arguments = [sys.executable, "-c", WRITER, str(board.fd), str(SLOTS - 1)]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[board.fd], text=True
    ) as writer:
        assert writer.stdout.readline() == "40 41\n"
        assert writer.stdout.readline() == "stamped\n"
        assert slot.read() == range(2**62, 2**62 + 3)
        assert list(slot.words[:3]) == [2**62, 3, 9]
        writer.communicate("x")
    assert writer.returncode == 0
    assert not slot.read()
    board.close()


@each_way
def test_slots_do_not_overlap(portable):
    board = Board(portable)
    slots = [board.slot(number) for number in (0, 1, 2, SLOTS - 1)]
    for number, slot in enumerate(slots):
        slot.stamp(number, number + 1, -number)

    assert [slot.read() for slot in slots] == [range(at, 2 * at + 1) for at in range(4)]
    board.close()


@each_way
def test_a_fresh_slot_says_nothing(portable):
    board = Board(portable)

    assert not any(board.slot(number).read() for number in range(SLOTS))
    board.close()


@each_way
def test_a_slot_outlives_its_board_which_leaves_no_file(portable):
    before = set(os.listdir(os.environ["TMPDIR"]))
    board = Board(portable)
    slot = board.slot(5)
    other = attach(board.fd, 5)
    assert set(os.listdir(os.environ["TMPDIR"])) == before

    board.close()
    board.close()
    del board
    gc.collect()
    slot.stamp(1, 1, 1)

    assert other.read() == range(1, 2)


@each_way
def test_programs_that_the_user_starts_do_not_get_it(portable):
    board = Board(portable)

    assert not os.get_inheritable(board.fd)
    board.close()


def test_no_number_of_a_standard_stream():
    left, right = socket.socketpair()
    with left, right:
        number = left.fileno()
        assert above_standard(number) == number

    code = """
import os
for fd in (0, 1, 2):
    os.close(fd)
from parallelkit.board import Board
board = Board()
os._exit(0 if board.fd > 2 and not os.get_inheritable(board.fd) else 1)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_that_the_caller_has_done_with_is_no_other() -> None:
    board = Board()
    slot = board.slot(3)
    slot.stamp(1, 2, 3)
    assert not slot.left(7)
    slot.leave(7)
    assert slot.left(7)
    assert not slot.left(-7)
    assert slot.read() == range(1, 3)
    assert not board.slot(4).left(7)
    del slot
    board.close()


@each_way
def test_a_claim_goes_no_further_than_the_limit_of_its_chunk(portable):
    board = Board(portable)
    caller, worker = board.slot(1), board.slot(1)
    assert caller.turn() == worker.turn()
    first = worker.number
    assert worker.claim(10) == 10
    assert caller.claimed() == (first, 10)
    caller.limit(first, 12)
    caller.limit(caller.turn(), 3)
    assert [worker.claim(stop) for stop in (11, 12, 20)] == [11, 12, 12]
    assert worker.turn() == first + 1
    assert worker.claim(20) == 3
    caller.allow(first + 1)
    assert worker.claim(20) == 20
    board.close()


def test_the_numbers_of_chunks_come_in_turns_and_never_end():
    board = Board()
    slot = board.slot(0)
    seen = [slot.turn() for _ in range(9)]
    assert len(set(seen)) == 9
    slot.number = 2**19 - 2
    around = [slot.turn() for _ in range(4)]
    assert all(0 < number < 2**19 for number in around)
    assert not any(slot.clash(a, b) for a in around for b in around if a != b)
    slot.limit(around[0], 2**44 - 1)
    slot.number = around[0] - 1
    assert slot.turn() == around[0]
    assert slot.claim(2**44 - 1) == 2**44 - 1
    assert slot.claimed() == (around[0], 2**44 - 1)
    board.close()


def test_a_line_is_wiped_for_another_worker():
    board = Board()
    slot = board.slot(0)
    slot.stamp(1, 2, 3)
    slot.limit(slot.turn(), 5)
    slot.claim(4)
    slot.reset()
    assert not any(slot.words)
    board.close()
