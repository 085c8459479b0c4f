"""A function that notes what it has run and where, and is slow on the items of the first chunk."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

SIZE = 60  # items of a chunk: one of them is slow
SLOW = 0.01  # seconds for an item of that chunk, so that it is still at it when the others are done
LIMIT = 30.0  # seconds until an item gives up waiting


class Work:
    """A function that notes in a file what it has run, and is slow on the first `SIZE` items."""

    def __init__(self, path: Path, mortal: tuple[int, ...] = (), slow: float = SLOW) -> None:
        self.path = str(path)
        self.mortal = mortal
        self.slow = slow

    def __call__(self, x: int) -> int:
        line = f"{x} {os.getpid()}\n".encode()
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, line)
        os.close(fd)
        if x in self.mortal:
            os.kill(os.getpid(), signal.SIGKILL)
        if x < SIZE:
            self.linger()
        return 3 * x

    def linger(self) -> None:
        """Take as long as a slow item does."""
        time.sleep(self.slow)

    def wait_for(self, items: range) -> None:
        """Be an item that takes until all of `items` were run, by somebody else."""
        deadline = time.monotonic() + LIMIT
        while not {item for item, _ in self.ran()}.issuperset(items):
            assert time.monotonic() < deadline, "they wait for this one"
            time.sleep(0.01)

    def ran(self) -> list[tuple[int, int]]:
        """Return what was run, each item with the process that ran it."""
        lines = Path(self.path).read_text().splitlines()
        return [(int(item), int(pid)) for item, pid in map(str.split, lines)]
