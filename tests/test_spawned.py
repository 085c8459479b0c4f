"""A worker that is an interpreter of its own ends with its caller, whatever it is doing."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys

import pytest
from scripts import LIMIT, environment

from parallelkit import wire
from parallelkit.backends.start import command
from parallelkit.board import Board
from parallelkit.codec import Definitions
from parallelkit.job import Settings
from parallelkit.wire import Message, Outbox, frame

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the socket is passed by number")


@pytest.fixture
def spawned():
    """A worker whose caller we are, its socket, and the board."""
    board = Board(portable=True)
    ours, theirs = socket.socketpair()
    line = command("spawned", f"{theirs.fileno()}, {board.fd}, 3, {os.getpid()}")
    with (
        ours,
        subprocess.Popen(
            line,
            stdin=subprocess.PIPE,
            pass_fds=(theirs.fileno(), board.fd),
            env=environment(),
        ) as child,
    ):
        theirs.close()
        ours.settimeout(LIMIT)
        yield child, ours, board
        child.kill()
    board.close()


def heard(sock: socket.socket) -> Message:
    """Receive one message, which fits into one read."""
    reader = wire.Reader(sock)
    while not (messages := reader.read()):
        pass
    (message,) = messages
    return message


def test_it_introduces_itself_and_leaves_when_its_socket_closes(spawned):
    child, sock, _ = spawned

    assert heard(sock)[:3] == (wire.READY, b"", child.pid)

    sock.close()
    assert child.wait(LIMIT) == 0


def busy(_):
    print("busy", file=sys.__stderr__)
    while True:
        os.read(0, 0)


def test_it_ends_in_the_middle_of_a_function_when_its_lifeline_does(spawned):
    child, sock, board = spawned
    heard(sock)
    definitions = Definitions((busy, None, None))
    outbox = Outbox(sock)
    body = definitions.dumps(([1],))
    outbox.put(frame(Message(wire.RUN, pickle.dumps(tuple(Settings(run=1))))))
    for blob in definitions.blobs:
        outbox.put(frame(Message(wire.LEARN, blob)))
    outbox.put(frame(Message(wire.CHUNK, body, 70, 1)))
    outbox.flush()
    assert heard(sock).kind == wire.JOINED

    child.stdin.close()

    assert child.wait(LIMIT) == 1
    assert board.slot(3).read() in (range(70, 71), range(0))


def test_it_is_no_child_of_another_caller():
    board = Board(portable=True)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = command("spawned", f"{theirs.fileno()}, {board.fd}, 0, {1 << 22}")
        passed = (theirs.fileno(), board.fd)
        with subprocess.Popen(
            line, stdin=subprocess.PIPE, pass_fds=passed, env=environment()
        ) as child:
            assert child.wait(LIMIT) == 1
    board.close()
