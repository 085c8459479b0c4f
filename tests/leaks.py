"""What a test left behind: processes, threads, descriptors, files, and changes to this process.

`take` looks, `left` compares two looks and names what is new, `settle` gives what is about to end
the time to end.  It leaves to `conftest.py` when to look.  A process counts as the test's if it
descends from this one or carries the test's `TMPDIR` in its environment, so an orphan, whose
parent is another, is seen as well.  Linux shows all of it; elsewhere psutil shows processes, and
descriptors only by number.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import wait
from time import monotonic
from typing import Any

import psutil

from parallelkit import lending

PROC = os.path.isdir("/proc/self/task")
SHM = "/dev/shm"
GRACE = 5.0  # seconds for processes and threads to end: a kill takes 0.5, a loaded machine 10 times
PAUSE = 0.01  # seconds between looks at what has no descriptor to wait on, such as a dying thread
# Environment variables that pytest sets around each phase, and that joblib and threadpoolctl set
# when they are first imported.
IGNORED = {"PYTEST_CURRENT_TEST", "KMP_INIT_AT_FORK", "KMP_DUPLICATE_LIB_OK"}


@dataclass(slots=True)
class Look:
    """What there was at one moment, of everything that a test may leave behind."""

    pids: frozenset[int]
    children: frozenset[int]
    threads: frozenset[threading.Thread]
    natives: frozenset[int]
    descriptors: dict[int, str]
    segments: frozenset[str]
    files: frozenset[str]
    settings: dict[str, Any]


def take(folder: str) -> Look:
    """Look at everything now; `folder` is the test's own TMPDIR."""
    return Look(
        pids=frozenset(pids()),
        children=frozenset(descendants(os.getpid())),
        threads=frozenset(threading.enumerate()),
        natives=frozenset(natives()),
        descriptors=descriptors(),
        segments=frozenset(filter(familiar, names(SHM))),
        files=frozenset(names(folder)),
        settings=settings(),
    )


def names(folder: str) -> list[str]:
    """Return what lies in a folder, nothing where there is none."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def familiar(segment: str) -> bool:
    """Return whether a name in /dev/shm may be the test's: some tell that they are a stranger's."""
    found = re.match(r"(?:joblib_memmapping_folder_|(?:sem\.)?loky-)(\d+)[-_]", segment)
    return found is None or int(found[1]) in {os.getpid(), *descendants(os.getpid())}


def pids() -> Iterable[int]:
    """Return the processes there are, wherever that is cheap to tell."""
    return map(int, filter(str.isdecimal, names("/proc")))


def natives() -> Iterable[int]:
    """Return the threads that the kernel knows, those without a Python object among them."""
    if PROC:
        return map(int, names("/proc/self/task"))
    return [thread.id for thread in psutil.Process().threads()]


def descendants(pid: int) -> list[int]:
    """Return children, their children and so on, zombies included."""
    if not PROC:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    found = []
    for task in names(f"/proc/{pid}/task"):
        for child in map(int, text(f"/proc/{pid}/task/{task}/children").split()):
            found += [child, *descendants(child)]
    return found


def descriptors() -> dict[int, str]:
    """Return the open descriptors with what they are open on."""
    if not PROC:
        process = psutil.Process()
        count = process.num_handles() if sys.platform == "win32" else process.num_fds()
        return dict.fromkeys(range(count), "unknown")
    found = {}
    for number in map(int, names("/proc/self/fd")):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # the one that listed the folder
            continue
    return found


def settings() -> dict[str, Any]:
    """Return what this process can have changed about itself."""
    found: dict[str, Any] = {
        f"the handler of {number.name}": signal.getsignal(number)
        for number in signal.valid_signals()
        if isinstance(number, signal.Signals)
    }
    found |= {f"environment variable {name}": value for name, value in os.environ.items()}
    found |= {f"sys.{name}": id(getattr(sys, name)) for name in ("stdin", "stdout", "stderr")}
    found["the working directory"] = os.getcwd()
    found["the thresholds of the garbage collector"] = gc.get_threshold()
    found["sys.path"] = tuple(sys.path)
    found["sys.modules['__main__']"] = id(sys.modules.get("__main__"))
    if hasattr(signal, "getitimer"):
        found["the alarm"] = signal.getitimer(signal.ITIMER_REAL)[1] or (
            signal.getitimer(signal.ITIMER_REAL)[0] > 0
        )
        found["the blocked signals"] = frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    return found


def text(path: str) -> str:
    """Return a file's text, empty if it or its process is gone."""
    try:
        with open(path, "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def processes(before: Look, after: Look, folder: str) -> set[int]:
    """Return the new processes that are the test's: descendants, and orphans with its TMPDIR."""
    mark = f"TMPDIR={folder} "
    strangers = after.pids - before.pids - after.children
    orphans = {pid for pid in strangers if mark in text(f"/proc/{pid}/environ") + " "}
    return set(after.children - before.children) | orphans


def left(before: Look, after: Look, folder: str) -> list[str]:
    """Return what the later look has that the earlier one had not, each thing named."""
    threads = after.threads - before.threads
    known = {thread.native_id for thread in threads}
    family = {os.getpid()} | after.children
    return [
        *(f"process {describe(pid)}" for pid in sorted(processes(before, after, folder))),
        *(f"thread {thread.name}" for thread in threads),
        *(f"native thread {native}" for native in after.natives - before.natives - known),
        *(
            f"descriptor {number} on {target}"
            for number, target in after.descriptors.items()
            if before.descriptors.get(number) != target
        ),
        *(
            f"shared memory {name}"
            for name in after.segments - before.segments
            if ours(name, family)
        ),
        *(f"file {name} in TMPDIR" for name in after.files - before.files),
        *changes(before.settings, after.settings),
    ]


def describe(pid: int) -> str:
    """Return a process's number, state and command line."""
    try:
        process = psutil.Process(pid)
        status, name = process.status(), process.name()
        dead = status == psutil.STATUS_ZOMBIE  # and has no command line any more
        return f"{pid} ({status}): {name if dead else ' '.join(process.cmdline()) or name}"
    except psutil.Error:
        return f"{pid}, just gone"


def ours(segment: str, family: set[int]) -> bool:
    """Tell whether a new name in /dev/shm can be a test's: not if only strangers have it open."""
    path = f"{SHM}/{segment}"
    holders = {pid for pid in pids() if path in text(f"/proc/{pid}/maps")}
    return not holders or bool(holders & family)


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return what changed in the settings, and how."""
    return [
        f"{name} was {before.get(name)!r}, is {after.get(name)!r}"
        for name in before | after
        if before.get(name) != after.get(name)
        and name.removeprefix("environment variable ") not in IGNORED
    ]


def settle(before: Look, folder: str, grace: float = GRACE) -> list[str]:
    """Return what is left once everything that was about to end has ended.

    Args:
        before: The look before the test.
        folder: The test's TMPDIR.
        grace: Seconds to wait for processes and threads; all else is there or not.
    """
    after = take(folder)
    if not left(before, after, folder):
        return []
    gc.collect()  # what hangs in a cycle, an exception's traceback say, is let go here
    deadline = monotonic() + grace
    while remains := left(before, after := take(folder), folder):
        running = processes(before, after, folder)
        if monotonic() > deadline or not (running or after.natives - before.natives):
            break
        wait_briefly(running)
    return remains


def wait_briefly(running: set[int]) -> None:
    """Wait for one of the processes to end, but not longer than `PAUSE`."""
    handles = []
    for pid in running if hasattr(os, "pidfd_open") else ():
        try:
            handles.append(os.pidfd_open(pid))
        except OSError:  # gone in between
            continue
    try:
        wait(handles, PAUSE)
    finally:
        for handle in handles:
            os.close(handle)


def not_a_worker() -> None:
    """Forget that a worker was in this process, which would hold what is lent and borrowed."""
    lending.end()
    lending.begin(keep=False)
    lending._keeping = False
