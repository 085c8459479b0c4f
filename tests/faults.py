"""What the tests of faults share: a hard limit, functions that fail in every way, live scripts.

The functions run in workers, which import this module by name, so it loads little.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

LIMIT = 60  # seconds for one test: a hang is a failure, not a wait
STARTS = ["zygote", "spawn"]


@contextmanager
def limited(seconds: int = LIMIT) -> Iterator[None]:
    """Raise TimeoutError in the block if it takes longer."""

    def late(*_: object) -> NoReturn:
        raise TimeoutError(f"the test took longer than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def interrupted_at_return(turns: int, monkeypatch: Any) -> Iterator[list[Any]]:
    """Have Ctrl-C end the block when so many workers were given back to the pool; yield these."""
    import pytest

    from parallelkit.backends import warm

    give_back, given = warm.Pool.give_back, []

    def interrupted(pool: Any, link: Any) -> None:
        give_back(pool, link)
        given.append(link)
        if len(given) == turns:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(warm.Pool, "give_back", interrupted)
        yield given


# Functions of the user's, good and bad.


def note(log: str, word: object) -> int:
    """Add a line to a file in one write, and return how many such lines it has now."""
    line = f"{word}\n"
    fd = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(fd, line.encode())
    os.close(fd)
    return noted(log).count(str(word))


def noted(log: str | Path) -> list[str]:
    """Return the lines that were added so far."""
    return Path(log).read_text().splitlines() if os.path.exists(log) else []


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash() -> None:
    ctypes.string_at(0)


def leave() -> None:
    os._exit(0)


def leave_with_3() -> None:
    os._exit(3)


DEATHS = {
    kill: "was killed by SIGKILL",
    crash: "was killed by SIGSEGV",
    os.abort: "was killed by SIGABRT",
    leave: "ended with exit code 0 (it exited, closed descriptors not its own, or called exec)",
    leave_with_3: "ended with exit code 3",
}
"""Ways in which a worker can die, and how that is told."""


def spin() -> None:
    while True:
        pass


def hang() -> None:
    time.sleep(3600)


def pause(seconds: float) -> None:
    time.sleep(seconds)


def sleep_with_the_lock() -> None:
    ctypes.PyDLL(None).sleep(3600)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


STUCK = [spin, hang, sleep_with_the_lock, stop]
"""Ways in which an item can take for ever."""


def act(log: str, item: Any) -> Any:
    """Return `-item`, noting the run; an item that is a function is called instead."""
    note(log, getattr(item, "__name__", item))
    return item() if callable(item) else -item


def act_once(log: str, item: Any) -> Any:
    """Like `act`, but functions only misbehave the first time."""
    name = getattr(item, "__name__", item)
    if note(log, name) == 1 and callable(item):
        item()
    return name if callable(item) else -item


class Live:
    """A script that runs while the test does something to it."""

    def __init__(self, source: str, where: Path, environment: dict[str, str]) -> None:
        path = where / "script.py"
        path.write_text(textwrap.dedent(source))
        self.process = subprocess.Popen(
            [sys.executable, str(path)],
            cwd=where,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def hear(self, line: str) -> None:
        """Wait until the script has printed `line`."""
        # Not by its buffer, in which what comes next would be lost to `end`.
        assert self.process.stdout is not None
        pipe, heard = self.process.stdout.fileno(), b""
        while byte := os.read(pipe, 1):
            if byte == b"\n" and heard.decode() == line:
                return
            heard = b"" if byte == b"\n" else heard + byte
        raise AssertionError(f"{line!r} never came\n{self.process.communicate()[1]}")

    def interrupt(self) -> None:
        """Press Ctrl-C in its terminal: all processes of the session get it."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> tuple[int, str, str]:
        """Wait for its end; return its status, and what else it printed."""
        out, err = self.process.communicate()
        return self.process.returncode, out, err


@contextmanager
def live(source: str, where: Path, **extra: str) -> Iterator[Live]:
    """Run a script beside the block, and check that nothing of it stays."""
    from scripts import MARK, assert_gone, environment

    marks = environment(**extra)
    script = Live(source, where, marks)
    try:
        yield script
    finally:
        script.process.kill()
        with script.process:  # close its pipes
            script.process.wait()
        assert_gone(marks[MARK])
