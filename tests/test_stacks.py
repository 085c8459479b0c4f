"""A process tells where it is stuck in its last moment, without its interpreter's help."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import faults
import pytest

import parallelkit
from parallelkit import stacks

pytestmark = pytest.mark.skipif(
    stacks.telling_signal() is None, reason="there is no /proc to read a stack through"
)

PROGRAM = """
import ctypes, sys, threading, time
from parallelkit import stacks

def outer(stuck):
    inner(stuck)

def inner(stuck):
    print(fd, flush=True)
    stuck()

def spin():
    while True:
        pass

def sleep():
    time.sleep(3600)

def locked():
    ctypes.PyDLL(None).sleep(3600)

fd = stacks.prepare()
threading.Thread(target=threading.Event().wait, daemon=True).start()
outer(globals()[sys.argv[1]])
"""


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    with faults.limited():
        yield


def started(stuck: str) -> tuple[subprocess.Popen[str], int]:
    folder = os.path.dirname(os.path.dirname(parallelkit.__file__))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, stuck],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": folder},
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("stuck", ["spin", "sleep", "locked"])
def test_the_stack_is_told_and_the_process_ends(stuck: str) -> None:
    process, fd = started(stuck)
    number = stacks.telling_signal()
    assert number is not None
    with process, stacks.Telling(process.pid, fd) as telling:
        process.send_signal(number)
        status = process.wait()

    assert status == -number
    # All of it stands in "<string>", which is left out as the program that starts a worker is.
    assert telling.text == ""
    assert telling.open >= 0


def test_frames_are_the_users() -> None:
    here = os.path.dirname(os.path.abspath(parallelkit.__file__))
    told = (
        "Current thread 0x00007f (most recent call first):\n"
        '  File "/home/me/job.py", line 3 in inner\n'
        '  File "/home/me/job.py", line 9 in outer\n'
        f'  File "{here}/worker.py", line 1 in work\n'
        '  File "<string>", line 1 in <module>\n'
    )
    assert stacks._users(told) == (
        '  File "/home/me/job.py", line 3 in inner\n  File "/home/me/job.py", line 9 in outer'
    )


def test_a_process_that_is_gone_tells_nothing() -> None:
    process, fd = started("sleep")
    with process:
        process.kill()
    with stacks.Telling(process.pid, fd) as telling:
        pass

    assert (telling.open, telling.text) == (-1, "")


def test_where_there_is_no_such_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    assert stacks.prepare() == -1


def test_where_there_is_no_such_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "SIGRTMAX")
    assert stacks.telling_signal() is None
    assert stacks.prepare() == -1
