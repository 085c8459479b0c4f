"""Lock, RLock and Condition behave as `multiprocessing`'s do, and outlive whoever holds them."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading

import pytest
from forks import Fork

from parallelkit.sync import lines
from parallelkit.sync.locks import Condition, Lock, RLock

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the tests fork")
both = pytest.mark.parametrize("kind", [Lock, RLock])


@both
def test_a_copy_is_the_same_lock(kind):
    lock = kind()
    copies = [pickle.loads(pickle.dumps(lock)), copy.copy(lock), copy.deepcopy(lock)]
    with lock:
        assert all(each.locked() for each in copies)
    assert not any(each.locked() for each in copies)
    assert repr(lock) == f"<{kind.__name__}, unlocked>"


@both
def test_a_lock_keeps_processes_apart_and_is_told_when_its_holder_died(kind):
    lock = kind()
    with Fork(lock.acquire) as holder:
        assert holder.result()
        assert lock.acquire(timeout=0.01) is False
        assert repr(lock) == f"<{kind.__name__}, locked>"
        holder.kill()
        with lock:
            assert lock.abandoned
        with lock:
            assert not lock.abandoned


def test_a_lock_is_not_taken_twice_and_may_be_released_by_another_thread():
    lock = Lock()
    assert lock.acquire()
    assert not lock.acquire(False)
    assert not lock.acquire(True, 0.01)
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    assert not lock.locked()
    with pytest.raises(ValueError, match=r"does not hold it$"):
        lock.release()


def test_an_rlock_is_free_when_released_as_often_as_taken():
    lock = RLock()
    for _ in range(3):
        assert lock.acquire()
    for _ in range(3):
        with Fork(lambda: lock.acquire(False)) as other:
            assert other.result() is False
        lock.release()
    assert not lock.locked()
    with pytest.raises(RuntimeError, match=r"^this RLock cannot be released: this thread does not"):
        lock.release()


def test_an_rlock_belongs_to_a_thread():
    lock, seen = RLock(), []

    def intrude():
        seen.append(lock.acquire(False))
        try:
            lock.release()
        except RuntimeError as error:
            seen.append(str(error))

    with lock:
        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()
    assert seen == [False, "this RLock cannot be released: this thread does not hold it"]


class Alarm(Exception):
    """What the handler raises."""


@pytest.mark.parametrize("timeout", [None, 60])
def test_a_signal_ends_a_wait(timeout, monkeypatch):
    def ring(*_):
        raise Alarm

    lock = Lock()
    before = signal.signal(signal.SIGALRM, ring)
    try:
        with Fork(lock.acquire) as holder:
            holder.result()
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(Alarm):
                lock.acquire(timeout=timeout)
    finally:
        signal.signal(signal.SIGALRM, before)
    with lock:
        assert lock.abandoned


@pytest.fixture(params=["bells", "looks"])
def way(request, monkeypatch):
    monkeypatch.setattr(lines, "DOORBELLS", request.param == "bells")


@pytest.mark.parametrize("kind", [None, Lock, RLock])
def test_a_condition_wakes_as_many_as_it_is_told(way, kind):
    condition = Condition(kind and kind())
    condition = pickle.loads(pickle.dumps(condition))
    ready = [os.pipe() for _ in range(3)]

    def wait(number):
        with condition:
            os.write(ready[number][1], b".")
            return condition.wait(60)

    waiters = [Fork(lambda number=number: wait(number)) for number in range(3)]
    try:
        for read, _ in ready:
            os.read(read, 1)
        with condition:  # whoever wrote waits now, for he has released the lock
            condition.notify()
        with condition:
            condition.notify_all()
        assert [waiter.result() for waiter in waiters] == [True] * 3
    finally:
        for waiter in waiters:
            waiter.__exit__()
        for end in sum(ready, ()):
            os.close(end)


def test_a_condition_s_wait_ends_with_its_timeout_and_holds_the_lock_again():
    condition = Condition()
    with condition, condition:
        assert condition.wait(0.01) is False
        assert condition.wait_for(lambda: 0, timeout=0.01) == 0
        assert condition.wait_for(lambda: 7, timeout=0.01) == 7
        with Fork(lambda: condition.acquire(False)) as other:
            assert other.result() is False
    assert condition.acquire(False)
    condition.release()
    assert repr(condition) == "<Condition on <RLock, unlocked>>"


@pytest.mark.skipif(not lines.DOORBELLS, reason="here the dead cannot be told")
def test_a_notification_passes_over_the_killed():
    condition, order = Condition(), os.pipe()

    def wait():
        with condition:
            os.write(order[1], b".")
            return condition.wait(60)

    with Fork(wait) as first:
        os.read(order[0], 1)
        condition.acquire()
        condition.release()  # the first waits now
        with Fork(wait) as second:
            os.read(order[0], 1)
            with condition:
                first.kill()
                condition.notify()
            assert second.result() is True
    os.close(order[0])
    os.close(order[1])


@pytest.mark.skipif(not lines.DOORBELLS, reason="here each looks for himself")
def test_who_is_woken_at_once_goes_on(monkeypatch):
    monkeypatch.setattr(lines, "HEARTBEAT", 3600.0)  # who must look for himself comes too late
    condition, ready = Condition(), threading.Semaphore(0)

    def wait():
        with condition:
            ready.release()
            condition.wait()

    for _ in range(200):
        waiter = threading.Thread(target=wait, daemon=True)
        waiter.start()
        ready.acquire()
        with condition:
            condition.notify()
        waiter.join(60)
        assert not waiter.is_alive()


@pytest.mark.parametrize("call", ["wait", "notify", "notify_all"])
def test_a_condition_wants_its_lock_held(call):
    with pytest.raises(
        RuntimeError, match=r"^cannot (wait|notify): the condition's lock is not held"
    ):
        getattr(Condition(), call)()
