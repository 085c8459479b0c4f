"""The guard keeps a run moving while its caller is busy, and leaves signals to the caller."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import faults
import pytest
from test_engine import Threads, results

from parallelkit.guard import Guard


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    with faults.limited():
        yield


def test_the_guard_keeps_the_rest_moving_while_the_caller_is_busy() -> None:
    others = threading.Semaphore(0)

    def work(x: int) -> int:
        if x:
            others.release()
        else:
            for _ in range(19):
                assert others.acquire(timeout=30), "the others waited for item 0"
        return x

    _, found = results(work, range(20), home=True)
    assert found == list(range(20))


def test_what_goes_wrong_in_the_guard_is_raised_in_the_caller() -> None:
    class Broken(Threads):
        def start(self, count: int) -> None:
            raise RuntimeError("no place")

    begun = time.monotonic()

    def slow(x: int) -> int:
        while time.monotonic() < begun + 0.1:
            pass
        return x

    with pytest.raises(RuntimeError, match="no place"):
        results(slow, range(20), Broken(slow), home=True)


class Stuck:
    """An engine whose run has a deadline that is over at once, and which then waits for `wake`."""

    def __init__(self) -> None:
        self.backend: Any = None
        self.deadline = time.perf_counter()
        self.waiting = threading.Event()
        self.woken = threading.Event()
        self.helper: threading.Thread | None = None

    def act(self) -> None:
        self.helper = threading.current_thread()
        self.backend = self
        self.waiting.set()
        self.woken.wait()
        self.woken.clear()

    def wakeable(self) -> None:
        pass

    def wake(self) -> None:
        self.woken.set()


def test_the_helper_is_woken_and_gone_after_the_turn() -> None:
    engine = Stuck()
    guard = Guard(engine)
    with guard:
        assert engine.waiting.wait(faults.LIMIT)
    assert guard.acting.locked()  # nobody but the caller may act from here on
    assert engine.helper is not None
    engine.helper.join(faults.LIMIT)
    assert not engine.helper.is_alive()
    guard.close()


def test_one_helper_at_a_time_serves_many_turns() -> None:
    engine = Stuck()
    guard = Guard(engine)
    for _ in range(20):
        engine.waiting.clear()
        with guard:
            assert engine.waiting.wait(faults.LIMIT)
    guard.close()
    assert guard.error is None


def test_a_turn_without_a_deadline_needs_no_helper() -> None:
    engine = Stuck()
    engine.deadline = None  # type: ignore[assignment]
    guard = Guard(engine)
    before = threading.active_count()
    with guard:
        assert threading.active_count() == before
    guard.close()


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="there are no signals to leave")
def test_signals_go_to_the_caller() -> None:
    masks: list[set[Any]] = []

    class Looking(Stuck):
        def act(self) -> None:
            masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
            super().act()

    engine = Looking()
    guard = Guard(engine)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with guard:
        assert engine.waiting.wait(faults.LIMIT)
    guard.close()

    assert {signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD} <= masks[0]
    assert not {signal.SIGSEGV, signal.SIGABRT} & masks[0]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_signal_during_a_turn_interrupts_the_caller() -> None:
    engine = Stuck()
    guard = Guard(engine)
    with pytest.raises(KeyboardInterrupt), guard:
        assert engine.waiting.wait(faults.LIMIT)
        os.kill(os.getpid(), signal.SIGINT)
        faults.spin()
    guard.close()
    assert engine.helper is not None
    engine.helper.join(faults.LIMIT)
    assert not engine.helper.is_alive()


def test_a_helper_that_never_got_to_act_is_gone_after_the_end() -> None:
    engine = Stuck()
    guard = Guard(engine)
    guard.deadline = engine.deadline
    guard.turn += 1  # as `__enter__` begins, which Ctrl-C then ends
    guard._have_watched()
    guard.close()

    before = {thread for thread in threading.enumerate() if thread.name == "parallelkit-guard"}
    for thread in before:
        thread.join(faults.LIMIT)
    assert not any(thread.is_alive() for thread in before)
    assert engine.helper is None
