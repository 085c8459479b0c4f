"""Short calls of several threads: each has its own workers and its own results."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faults
import pytest
from kept import ready

from parallelkit import brief, pmap
from parallelkit.backends import repeated, warm

SAME = lambda x: x


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    with faults.limited():
        yield


@pytest.mark.parametrize("interval", [1e-6, 5e-3])
def test_threads_at_the_same_time_have_workers_of_their_own(interval: float) -> None:
    def some(thread: int) -> None:
        for turn in range(50):
            assert pmap(SAME, [(thread, turn)], workers=1) == [(thread, turn)]
            assert pmap(SAME, [thread, turn], workers=2) == [thread, turn]
            assert pmap(SAME, [(turn, thread)], workers=2) == [(turn, thread)]

    before = sys.getswitchinterval()
    sys.setswitchinterval(interval)
    try:
        with ThreadPoolExecutor(4) as threads:
            for _ in threads.map(some, range(4)):
                pass
    finally:
        sys.setswitchinterval(before)


def test_a_thread_takes_nothing_that_a_faster_one_has_begun(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gate = str(tmp_path / "gate")
    os.mkfifo(gate)

    def answer(name: str) -> str:
        if name == "first":
            with open(gate, "rb") as file:
                file.read()
        return name

    ready(answer, ["second"], 2)
    run: Any = warm.parked()
    capture, looked = brief.capture, threading.Event()

    def overtaken(share: int) -> bytes:
        found = capture(share)
        if threading.current_thread() is not first:  # which has looked, and has not begun
            looked.set()
            while not run.under_way:
                os.sched_yield()
        return found

    def call() -> list[str]:
        looked.wait()
        return pmap(answer, ["first"], workers=2)

    monkeypatch.setattr(brief, "capture", overtaken)
    monkeypatch.setattr(repeated, "SOON", 60.0)
    answers: list[list[str]] = []
    first = threading.Thread(target=lambda: answers.append(call()))
    first.start()
    try:
        answers.append(pmap(answer, ["second"], workers=2))
    finally:
        with open(gate, "wb"):
            pass
        first.join()
    assert answers == [["second"], ["first"]]
