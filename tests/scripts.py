"""Run a user's script as a user would, in a process of its own, and see that nothing stays."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import psutil

import parallelkit

LIMIT = 60.0  # seconds for one script: a hang is a failure, not a wait
GONE = 5.0  # seconds until what a script started must be gone, on a busy machine

STARTS = ["zygote", "spawn"]
"""The ways of starting workers, as PARALLELKIT_START names them."""

PACKAGE = Path(parallelkit.__file__).parent.parent
MARK = "PARALLELKIT_TEST_MARK"


def environment(**extra: str) -> dict[str, str]:
    """Return an environment in which scripts find parallelkit, and by whose mark they are known."""
    path = os.pathsep.join(filter(None, [str(PACKAGE), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, MARK: uuid.uuid4().hex, **extra}


def marked(mark: str) -> list[psutil.Process]:
    """Return the processes that carry `mark`, zombies not among them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def assert_gone(mark: str) -> None:
    """Fail if a process that carries `mark` is still there after a while, and end it."""
    deadline = time.monotonic() + GONE
    left = marked(mark)
    while left and time.monotonic() < deadline:
        psutil.wait_procs(left, timeout=0.2)
        left = marked(mark)
    lines = [f"{process.pid}: {process.cmdline()}" for process in left]
    for process in left:
        process.kill()
    assert not lines, f"left behind: {lines}"


def script(
    source: str,
    *arguments: str,
    where: Path,
    command: list[str] | None = None,
    status: int = 0,
    **extra: str,
) -> str:
    """Run `source` as a file in `where`, check its exit status, and return what it printed."""
    text = textwrap.dedent(source)
    path = where / "script.py"
    path.write_text(text)
    line = command or [sys.executable, str(path), *arguments]
    env = environment(**extra)
    ended = subprocess.run(
        line,
        env=env,
        cwd=where,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert_gone(env[MARK])
    shown = f"{ended.stdout}\n--- stderr\n{ended.stderr}"
    assert ended.returncode == status, shown
    if status == 0:
        assert not ended.stderr, shown
    return ended.stdout if status == 0 else shown
