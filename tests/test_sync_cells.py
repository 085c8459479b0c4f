"""A cell: one holder at a time, whoever dies, forks or is interrupted."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading

import pytest
from forks import Fork, interrupted_at_each_step

from parallelkit import segments
from parallelkit.sync import cells

KINDS = ["memfd", "file", "named"] if sys.platform == "linux" else [segments.kind_here()]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the tests fork")


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch):
    monkeypatch.setenv(segments.KINDS, request.param)


def test_a_cell_is_the_same_wherever_it_is_unpickled_in_a_process(kind):
    cell = cells.create()
    assert pickle.loads(pickle.dumps(cell)) is cell


def test_a_holder_in_another_process_is_waited_for_until_the_timeout(kind):
    cell = cells.create()
    with Fork(cell.acquire) as holder:
        assert holder.result()
        assert not cell.acquire(block=False)
        assert not cell.acquire(timeout=0)
        assert not cell.acquire(timeout=-1)
        assert not cell.acquire(timeout=0.01)
        assert cell.locked()
        assert not cell.held()


def test_a_killed_holder_releases_it_and_the_next_one_learns_of_it(kind):
    cell = cells.create()
    with Fork(cell.acquire) as holder:
        assert holder.result()
        with Fork(lambda: (cell.acquire(), cell.abandoned)) as waiter:
            holder.kill()
            assert waiter.result() == (True, True)
            assert not cell.acquire(block=False)
    assert cell.acquire()
    assert cell.abandoned
    cell.release()
    assert cell.acquire()
    assert not cell.abandoned
    cell.release()


def test_who_waits_with_a_timeout_gets_what_a_killed_holder_had(kind):
    cell = cells.create()
    with Fork(cell.acquire) as holder:
        assert holder.result()
        with Fork(lambda: (cell.acquire(timeout=60), cell.abandoned)) as waiter:
            holder.kill()
            assert waiter.result() == (True, True)


def test_a_fork_of_the_holder_does_not_hold_it(kind):
    cell = cells.create()
    cell.acquire()
    with Fork(lambda: (cell.held(), cell.acquire(block=False), cell.depth)) as fork:
        assert fork.result() == (False, False, 0)
    with Fork(cell.release) as fork, pytest.raises(ValueError, match=r"does not hold it$"):
        fork.result()
    assert cell.held()
    cell.release()


def test_a_living_fork_of_a_dead_holder_does_not_keep_it_locked(kind):
    cell = cells.create()
    read, write = os.pipe()

    def hold_and_fork():
        cell.acquire()
        if not os.fork():
            os.close(write)
            os.read(read, 1)  # until the test ends
            os._exit(0)

    with Fork(hold_and_fork) as holder:
        holder.result()
        holder.kill()
        assert cell.acquire(timeout=60)
    os.close(read)
    os.close(write)


def test_threads_exclude_each_other(kind):
    cell = cells.create()
    assert cell.acquire()
    seen = []
    thread = threading.Thread(target=lambda: seen.append(cell.acquire(timeout=0.01)))
    thread.start()
    thread.join()
    assert seen == [False]
    cell.release()


def test_a_lock_that_is_not_held_cannot_be_released(kind):
    cell = cells.create()
    with pytest.raises(
        ValueError, match=r"^this lock cannot be released: this process does not hold it$"
    ):
        cell.release()


@pytest.mark.parametrize("name", ["own", "elsewhere"])
def test_an_interrupt_anywhere_leaves_nothing_locked(kind, name):
    cell = cells.create()

    def write():
        cell.words[cells.FREE] += 1

    cell.open()  # before: a descriptor can be lost between the system's call and the assignment
    for _ in interrupted_at_each_step(lambda: cell.within(write)):
        if name == "own":
            assert not cell.threads.locked()
            cell.within(write)
        else:
            with Fork(lambda: cell.acquire(timeout=60)) as other:
                assert other.result()


def test_what_the_action_raises_comes_out_and_unlocks(kind):
    cell = cells.create()
    with pytest.raises(ZeroDivisionError):
        cell.within(lambda: 1 / 0)
    assert not cell.locked()


def _run(code):
    command = [sys.executable, "-X", "dev", "-c", code]
    return subprocess.run(command, check=False, capture_output=True)


def test_a_handle_whose_sender_is_gone_says_so(kind):
    cell = cells.create()
    handle = pickle.dumps(cell)
    code = f"import pickle; pickle.loads({handle!r})"
    del cell
    gc.collect()
    with Fork(lambda: _run(code)) as fork:
        assert b"this lock, queue or number is gone: " in fork.result().stderr


def test_a_cell_needs_no_semaphores_and_closes_what_it_opened(kind):
    code = """if True:
        import os, sys
        sys.modules["_multiprocessing"] = None
        from parallelkit import Lock, Queue
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc") else 0
        def use():
            lock, queue = Lock(), Queue()
            with lock:
                queue.put(1)
                queue.get()
        use()
        print((len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc") else 0) - before)
    """
    run = _run(code)
    assert (run.stdout, run.stderr) == (b"0\n", b"")
