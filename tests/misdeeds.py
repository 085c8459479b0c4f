"""What can go wrong in a worker, one function for each; workers import this, so it loads little.

Each is an item of its own: `perform` calls an item that is a function, and negates any other.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from typing import Any

import faults


def perform(item: Any) -> Any:
    """Return `-item`, or what an item that is a function does."""
    return item() if callable(item) else -item


class Awkward(Exception):
    """Cannot be made from its `args`, as pickle wants it."""

    def __init__(self, code: int, *, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Rigid(Exception):
    """Cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("rigid")
        self.lock = threading.Lock()


def leave_politely() -> None:
    sys.exit(3)


def give_a_lock() -> Any:
    return threading.Lock()


def be_awkward() -> None:
    raise Awkward(7, text="no")


def be_rigid() -> None:
    raise Rigid


def interrupt() -> None:
    raise KeyboardInterrupt


def recurse() -> None:
    recurse()


def take_much() -> int:
    return len(bytearray(1 << 30))


def close_descriptors() -> int:
    os.closerange(0, 20)
    return 1


def fork_and_return() -> int:
    if not os.fork():
        return 2
    os.wait()
    return 1


def fork_and_die() -> None:
    parent = os.getpid()
    if not os.fork():
        while os.getppid() == parent:  # and so beyond its death
            time.sleep(0.01)
        os._exit(0)
    faults.kill()


def hold_threads() -> int:
    threading.Thread(target=threading.Event().wait).start()
    return 1


def end_parent(log: str) -> int:
    """Kill the zygote, which is the parent of this worker, but the first time only."""
    if faults.note(log, "parent") == 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(os.getppid(), 9)
        time.sleep(3600)  # not long, for this process goes with its parent
    return 1


def joined(left: list[Any], right: list[Any]) -> list[Any]:
    """Add two lists, as what a reduction folds."""
    return left + right


def listed(item: Any) -> list[Any]:
    return [perform(item)]
