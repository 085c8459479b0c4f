"""The check after each test sees every kind of leak: one that cannot fail would be worthless."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import shared_memory
from pathlib import Path

import leaks
import pytest

linux = pytest.mark.skipif(not leaks.PROC, reason="needs Linux's /proc")
WAITER = [sys.executable, "-S", "-c", "input()"]


@pytest.fixture
def folder() -> str:
    return os.environ["TMPDIR"]


@pytest.fixture
def seen(folder: str) -> Callable[[], str]:
    """Give a function that says what is left since the test began."""
    before = leaks.take(folder)
    return lambda: "\n".join(leaks.settle(before, folder, grace=0))


@contextmanager
def waiting() -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that ends when its input does."""
    quiet = {"stdin": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(WAITER, **quiet) as process:
        yield process


def test_nothing_is_left_by_nothing(seen):
    assert not seen()


def test_a_running_child_is_seen_with_its_command_line(seen):
    with waiting() as child:
        said = seen()

        assert f"process {child.pid} (" in said
        assert " ".join(WAITER) in said

    assert not seen()


@linux
def test_a_zombie_is_seen(seen):
    child = subprocess.Popen(WAITER, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert f"process {child.pid} (zombie)" in seen()

    child.wait()
    assert not seen()


@linux
def test_an_orphan_is_seen(seen):
    orphaning = (
        "import subprocess, sys; "
        f"print(subprocess.Popen({WAITER!r}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)"
        ".pid)"
    )
    reader, writer = os.pipe()
    parent = [sys.executable, "-c", orphaning]
    orphan = int(subprocess.run(parent, stdin=reader, stdout=subprocess.PIPE, check=True).stdout)
    os.close(reader)

    assert f"process {orphan} " in seen()

    handle = os.pidfd_open(orphan)
    os.close(writer)
    leaks.wait([handle])
    os.close(handle)
    assert not seen()


def test_a_thread_is_seen(seen):
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="straggler")
    thread.start()

    assert "thread straggler" in seen()

    over.set()
    thread.join()


@linux
def test_an_open_descriptor_is_seen_with_its_target(seen):
    with open(os.devnull) as file:
        assert seen() == f"descriptor {file.fileno()} on {os.devnull}"


@linux
def test_a_descriptor_turned_to_something_else_is_seen(folder):
    with open(os.devnull) as one, open(os.sep + "etc/hosts") as other:
        before = leaks.take(folder)
        os.dup2(other.fileno(), one.fileno())

        found = leaks.settle(before, folder, grace=0)

    assert found == [f"descriptor {one_number(found)} on {os.path.realpath('/etc/hosts')}"]


def one_number(found: list[str]) -> str:
    """Return the number of the only descriptor found."""
    return found[0].split()[1]


@linux
def test_shared_memory_is_seen(seen):
    path = f"{leaks.SHM}/pk-left-by-test-{os.getpid()}"
    with open(path, "x"):
        pass

    assert seen() == f"shared memory {os.path.basename(path)}"

    os.unlink(path)


@linux
def test_shared_memory_of_a_stranger_is_not_held_against_the_test(seen):
    block = shared_memory.SharedMemory(create=True, size=1)
    try:
        assert f"shared memory {block.name}" in seen()
        assert not leaks.ours(block.name, family=set())
    finally:
        block.close()
        block.unlink()
        shut_tracker()


def shut_tracker() -> None:
    """End the process and the descriptor that the standard library's shared memory leaves."""
    from multiprocessing import resource_tracker

    resource_tracker._resource_tracker._stop()


def test_a_file_in_the_temporary_folder_is_seen(seen):
    handle, path = tempfile.mkstemp(prefix="stray")
    os.close(handle)

    assert seen() == f"file {os.path.basename(path)} in TMPDIR"

    os.unlink(path)


def test_a_signal_handler_is_seen(seen):
    old = signal.signal(signal.SIGTERM, signal.SIG_IGN)

    assert "the handler of SIGTERM was" in seen()

    signal.signal(signal.SIGTERM, old)


@linux
def test_an_alarm_and_a_blocked_signal_are_seen(seen):
    signal.setitimer(signal.ITIMER_REAL, 3600)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])

    said = seen()

    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    assert "the alarm was False, is True" in said
    assert "the blocked signals was frozenset(), is frozenset({<Signals.SIGUSR1" in said


def test_changes_to_the_process_are_seen(seen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STRAY", "1")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "stdout", sys.__stderr__)
    monkeypatch.setitem(sys.modules, "__main__", leaks)

    said = seen()

    assert "the working directory was" in said
    assert "environment variable STRAY was None, is '1'" in said
    assert "sys.path was" in said
    assert "sys.stdout was" in said
    assert "sys.modules['__main__'] was" in said


def test_what_is_about_to_end_is_waited_for(folder):
    before = leaks.take(folder)
    with waiting() as child:
        ender = threading.Thread(target=child.communicate)
        ender.start()

        assert leaks.settle(before, folder) == []

        ender.join()


BAD = """
import os, threading

def test_bad():
    open(os.path.join(os.environ["TMPDIR"], "forgotten"), "w").close()

def test_good():
    assert not os.listdir(os.environ["TMPDIR"])
"""


def test_the_fixture_fails_the_test_that_leaks_and_no_other(tmp_path):
    script = tmp_path / "test_it.py"
    script.write_text(BAD)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    tests = Path(__file__).parent

    options = ["-p", "conftest", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "base")]
    run = subprocess.run(
        [sys.executable, "-B", "-m", "pytest", *options, str(script)],
        env=os.environ | {"PYTHONPATH": str(tests)},
        check=False,
        capture_output=True,
        text=True,
    )

    assert "file forgotten in TMPDIR" in run.stdout
    assert "2 passed, 1 error" in run.stdout
