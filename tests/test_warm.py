"""Workers are kept between runs, given out to one run at a time, and let go when they should be."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

import psutil
import pytest
from scripts import LIMIT, script

from parallelkit import pmap, wire, worker
from parallelkit.backends import warm
from parallelkit.backends.start import SpawnStarter, WorkerProcess, ZygoteStarter
from parallelkit.backends.warm import Link, Pool
from parallelkit.board import SLOTS
from parallelkit.wire import Message

STARTERS = {"zygote": ZygoteStarter, "spawn": SpawnStarter}


@pytest.fixture(params=STARTERS)
def pool(request) -> Iterator[Pool]:
    made = Pool(STARTERS[request.param]())
    yield made
    for link in tuple(made.busy):
        link.process.kill()
        made.bury(link)
    if not made.retired:
        made.retire()


def heard(link: Link) -> list[Message]:
    """Wait for what a worker says."""
    link.sock.settimeout(LIMIT)
    try:
        return link.read()
    finally:
        link.sock.setblocking(False)


def hired(pool: Pool, context: bytes | None = None) -> Link:
    link = pool.start()
    (message,) = heard(link)
    assert (message.kind, message.first) == (wire.READY, link.process.pid)
    link.context = context
    return link


def test_a_worker_given_back_is_taken_again(pool):
    link = hired(pool)
    assert pool.busy == {link}

    pool.give_back(link)
    assert (pool.idle, pool.busy) == ([link], set())

    assert pool.take(5, b"") == [link]
    assert (pool.idle, pool.busy) == ([], {link})
    assert pool.take(5, b"") == []


def test_those_that_have_the_context_come_first(pool):
    crew = [hired(pool, context) for context in (b"one", b"two", b"one")]
    for link in crew:
        pool.give_back(link)

    first = pool.take(2, b"one")
    assert {link.number for link in first} == {0, 2}
    assert [link.number for link in pool.take(2, b"one")] == [1]


def test_a_dead_one_is_not_given_out(pool):
    crew = [hired(pool), hired(pool)]
    for link in crew:
        pool.give_back(link)
    crew[1].process.kill()
    assert crew[1].process.ended(LIMIT) == -signal.SIGKILL

    assert pool.take(2, b"") == [crew[0]]
    assert pool.start().number == 1


def test_one_that_nobody_waited_for_is_as_good_as_any(pool):
    link = pool.start()

    pool.give_back(link)

    assert pool.take(1, b"") == [link]
    assert heard(link)[0].kind == wire.READY


def test_numbers_are_used_again_from_the_lowest(pool):
    crew = [hired(pool) for _ in range(3)]
    assert [link.number for link in crew] == [0, 1, 2]
    for link in (crew[2], crew[0]):
        link.process.kill()
        pool.bury(link)
        pool.bury(link)  # twice is as good as once

    assert [pool.start().number for _ in range(3)] == [0, 2, 3]


def test_a_new_worker_begins_with_a_clean_line(pool):
    link = hired(pool)
    link.slot.stamp(7, 1, 0)
    link.process.kill()
    pool.bury(link)

    assert not pool.start().slot.read()


def test_there_is_an_end_to_numbers():
    pool = Pool(SpawnStarter())
    pool.used = SLOTS

    with pytest.raises(OSError, match=f"there are {SLOTS} workers already"):
        pool.start()
    pool.retire()


def test_a_number_is_not_lost_when_a_start_fails(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    pool = Pool(SpawnStarter())

    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            pool.start()

    assert pool.free == [0]
    pool.retire()


def test_one_that_does_not_listen_is_not_kept(pool):
    link = hired(pool)
    os.kill(link.process.pid, signal.SIGSTOP)
    link.say(Message(wire.LEARN, bytes(1 << 24)))
    link.outbox.flush()
    assert link.outbox

    link.process.kill()
    pool.give_back(link)

    assert (pool.idle, pool.busy) == ([], set())


def test_a_retired_pool_ends_with_its_last_worker(pool):
    crew = [hired(pool) for _ in range(3)]
    pids = [psutil.Process(link.process.pid) for link in crew]
    pool.give_back(crew[0])

    pool.retire()
    assert pool.starter.board.fd >= 0
    pool.give_back(crew[1])
    assert pool.starter.board.fd >= 0
    pool.give_back(crew[2])

    assert pool.starter.board.fd == -1
    _, alive = psutil.wait_procs(pids, timeout=LIMIT)
    assert not alive


def test_the_end_of_a_worker_is_the_end_of_what_it_says(pool):
    link = hired(pool)
    link.process.kill()

    with pytest.raises(EOFError):
        heard(link)
    assert not link.alive()


def test_the_end_before_the_first_word(pool):
    link = pool.start()
    link.sock.close()
    link.sock, theirs = socket.socketpair()
    theirs.close()

    with pytest.raises(EOFError):
        heard(link)


def test_a_forked_copy_can_end_nobody(pool):
    link = hired(pool)
    child = os.fork()
    if not child:
        status = 1
        try:
            link.process.kill()
            link.process.terminate()
            pool.forget()
            link.close()
            status = 0 if link.process._popen.poll() is None else 2
        finally:
            os._exit(status)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert link.process.is_alive()
    assert link.alive()


def test_a_worker_that_idles_leaves(monkeypatch):
    monkeypatch.setattr(worker, "IDLE", 0.01)
    ours, theirs = socket.socketpair()
    slot = warm.pool().starter.board.slot(SLOTS - 1)

    def idle():
        with theirs:
            worker.Worker(theirs, slot).serve()

    thread = threading.Thread(target=idle)
    thread.start()
    with ours:
        ours.settimeout(LIMIT)
        assert ours.recv(1) == b""
    thread.join(LIMIT)
    assert not thread.is_alive()


def test_there_is_one_pool_until_it_is_shut():
    assert warm.warmth() == (False, 0)
    first = warm.pool()
    assert warm.pool() is first

    pmap(abs, range(9), workers=2)
    assert warm.warmth() == (True, 2)

    warm.shut()
    assert warm.warmth() == (False, 0)
    assert warm.pool() is not first


def test_another_way_of_starting_is_another_pool(monkeypatch):
    monkeypatch.setenv("PARALLELKIT_START", "zygote")
    first = warm.pool()
    monkeypatch.setenv("PARALLELKIT_START", "spawn")
    second = warm.pool()

    assert isinstance(second.starter, SpawnStarter)
    assert not first.starter.alive()
    warm.shut()


@pytest.mark.parametrize("way", STARTERS)
def test_output_redirected_between_calls_goes_there(way, tmp_path):
    source = """
        import os, sys
        from parallelkit import pmap

        def say(x):
            print("item", x, flush=True)

        pmap(say, [1], workers=1)
        sys.stdout.flush()
        kept = os.dup(1)
        with open("elsewhere", "w") as file:
            os.dup2(file.fileno(), 1)
        pmap(say, [2], workers=1)
        os.dup2(kept, 1)
        os.close(kept)
        pmap(say, [3], workers=1)
    """
    assert script(source, where=tmp_path, PARALLELKIT_START=way) == "item 1\nitem 3\n"
    assert (tmp_path / "elsewhere").read_text() == "item 2\n"


@pytest.mark.parametrize("way", STARTERS)
def test_a_run_that_nobody_reads_ends_with_the_program(way, tmp_path):
    source = """
        from itertools import count
        from parallelkit import imap
        results = imap(abs, count(), workers=2)
        print(next(results))
    """
    assert script(source, where=tmp_path, PARALLELKIT_START=way) == "0\n"


def test_a_worker_is_a_process_as_multiprocessing_knows_it():
    assert issubclass(WorkerProcess, __import__("multiprocessing").process.BaseProcess)
