"""What this computer gives the process: CPUs, memory, and means of sharing memory.

Everything here is read and nothing is decided: how many workers pay is `chunking`'s question, and
what to do with memory is `shared`'s.  Limits are those of this process, not of the computer: an
affinity mask, a cgroup quota of a container or of any group around it, an address space limit.
What cannot be read is no limit, never an error.

Readers take `root`, a folder put before every path, so that tests can show them other computers.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Literal

from .guests import allotted
from .records import dataclass

WORKERS = "PARALLELKIT_WORKERS"
"""The environment variable that says how many CPUs to use, whatever the machine says."""

QUOTA_AGE = 1.0
"""Seconds for which a cgroup quota is believed before it is read again.

Quotas change at run time (Kubernetes resizes pods in place, `systemctl set-property`), but rarely,
and reading one takes 130 us where a whole `cpu_count()` takes 2 us (measured on 2 cores, Linux 6).
"""

DIGITS = 20
"""More digits than any 64 bit number of the kernel has: longer ones are not numbers to us."""

UNKNOWN = sys.maxsize
"""Bytes of memory where nothing tells how much there is: no reason to refuse anything."""

MEMORY_FILES = {
    1: (["memory.limit_in_bytes"], "memory.usage_in_bytes", "total_inactive_file"),
    2: (["memory.max", "memory.high"], "memory.current", "inactive_file"),
}
"""By cgroup version: the files of the limits and of the use, and the row of idle file pages."""

SHM = "/dev/shm"  # noqa: S108 -- only its size is asked for

Controller = Literal["cpu", "memory"]


@dataclass(frozen=True, slots=True)
class Bound:
    """A number of CPUs (at least 1), and what says so.  Its text is a line for the doctor."""

    cpus: int
    source: str

    def __str__(self) -> str:
        return f"{self.source}: {self.cpus}"


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory in bytes.  `sys.maxsize` stands for unknown.

    `total` is what the computer has; `limit` the least cap put on this process below that (by a
    cgroup or `RLIMIT_AS`), None without one; `available` what can be taken now without swapping
    or being killed: the least that the computer and each cap leave.  `source` names which.
    """

    total: int
    limit: int | None
    available: int
    source: str

    @property
    def whole(self) -> int:
        """What this process may have at most: the least of computer and caps."""
        return min(self.total, self.limit or self.total)


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """Which means of sharing memory work here.

    `memfd`: nameless memory (Linux).  `semaphores`: POSIX semaphores, which `multiprocessing`'s
    locks and pools need, and a read-only /dev/shm denies.  `size` and `free` are the bytes of
    /dev/shm, None where there is none; parallelkit needs neither semaphores nor /dev/shm.
    """

    memfd: bool
    semaphores: bool
    size: int | None
    free: int | None


# CPUs.


def cpu_count() -> int:
    """Return how many CPUs this process may keep busy, at least 1.

    That is the least of its affinity (or `PYTHON_CPU_COUNT`, from Python 3.13), the cgroup quotas
    around it, rounded up, and what joblib left it if it is a worker of joblib's.  The environment
    variable `PARALLELKIT_WORKERS` overrides all.
    A change of the variable or the affinity is seen at once, one of a quota within a second.

    Raises:
        ValueError: `PARALLELKIT_WORKERS` is set, but not to a positive integer.

    Example:
        >>> cpu_count() >= 1
        True
    """
    asked = _asked()
    if asked is not None:
        return asked
    allowed = _allowed()
    quota = _recent_quota.cpus()
    return allowed if quota is None else min(allowed, quota)


def cpu_bound() -> int:
    """Return a number of CPUs that `cpu_count()` does not exceed, in 2 us instead of up to 300.

    It leaves out the quotas, which are files to be read.
    """
    return _asked() or _allowed()


def cpu_reasons() -> list[Bound]:
    """Return all that bounds `cpu_count()`, read afresh; the first decides.

    Raises:
        ValueError: `PARALLELKIT_WORKERS` is set, but not to a positive integer.
    """
    left = allotted()
    shares = [] if left is None else [Bound(left, "share of a worker of joblib's")]
    bounds = sorted([*shares, _affinity(), *_quotas("")], key=lambda bound: bound.cpus)
    asked = _asked()
    return bounds if asked is None else [Bound(asked, WORKERS), *bounds]


def _asked() -> int | None:
    text = os.environ.get(WORKERS)
    if text is None:
        return None
    try:
        asked = int(text)
    except ValueError:
        asked = 0
    if asked < 1:
        raise ValueError(
            f"{WORKERS} must be a positive integer, got {text!r}: "
            "set it to a number such as 4, or unset it to use what the machine gives"
        )
    return asked


def _allowed() -> int:
    return min(_affinity().cpus, allotted() or UNKNOWN)


def _affinity() -> Bound:
    """Return how many CPUs the scheduler may put this process on."""
    allowed = _mask_size() or os.cpu_count() or 1
    if sys.version_info >= (3, 13):
        # It equals the mask's size unless the user gave Python another number.
        forced = os.process_cpu_count() or 1
        if forced != allowed:
            return Bound(forced, "PYTHON_CPU_COUNT or -X cpu_count")
    return Bound(allowed, "affinity")


def _mask_size() -> int | None:
    try:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        import psutil

        return len(psutil.Process().cpu_affinity())
    except (ImportError, AttributeError, OSError):  # macOS has no affinity, for psutil neither.
        return None


class _RecentQuota:
    """The least CPU quota around this process, read again when it is `QUOTA_AGE` old."""

    def __init__(self) -> None:
        # When it was read, and what: one tuple, so that threads never see a mix.
        self._seen: tuple[float, int | None] = (float("-inf"), None)

    def cpus(self) -> int | None:
        """Return the quota in whole CPUs, rounded up, None without one."""
        read, least = self._seen
        now = time.monotonic()
        if now - read > QUOTA_AGE:
            least = min((bound.cpus for bound in _quotas("")), default=None)
            self._seen = now, least
        return least


_recent_quota = _RecentQuota()


def _quotas(root: str) -> Iterator[Bound]:
    """Yield the CPU quota of each cgroup around this process that has one."""
    for level in _levels("cpu", root):
        if level.version == 2:
            words = [*_read(f"{level.folder}/cpu.max").split(), "", ""]
        else:
            words = [_read(f"{level.folder}/cpu.cfs_{name}_us") for name in ("quota", "period")]
        quota, period = _positive(words[0]), _positive(words[1])
        if quota and period:
            share = f"cgroup v{level.version} quota {quota / period:g} at {level.folder}"
            yield Bound(-(-quota // period), share)


# Memory.


def memory() -> Memory:
    """Return what memory there is and what of it this process may still take.

    Takes about 0.3 ms: call it before taking something large, not for each item.

    Example:
        >>> memory().available <= memory().total
        True
    """
    return _memory("")


def _memory(root: str) -> Memory:
    total, available, source = _machine_memory(root)
    limit, caps = None, [*_group_caps(root), *_address_space(root)]
    for cap, left, name in caps:
        if cap < total and (limit is None or cap < limit):  # v1 says "no limit" by a huge number
            limit = cap
        if left < available:
            available, source = left, name
    return Memory(total, limit, available, source)


def _machine_memory(root: str) -> tuple[int, int, str]:
    """Return the total and the available bytes of the computer, and who says so."""
    path = f"{root}/proc/meminfo"
    kilobytes = _table(_read(path))
    total = kilobytes.get("MemTotal:")
    if total:
        # Before Linux 3.14 there is no MemAvailable; free and cached pages come near it.
        guess = sum(kilobytes.get(name, 0) for name in ("MemFree:", "Buffers:", "Cached:"))
        available = min(total, kilobytes.get("MemAvailable:", guess))
        return total * 1024, available * 1024, path
    try:
        import psutil

        found = psutil.virtual_memory()
        return found.total, found.available, "psutil"
    except (ImportError, FileNotFoundError):  # a sandbox without /proc, which psutil reads too
        pass
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return total, total, "sysconf"
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return UNKNOWN, UNKNOWN, "unknown"


def _group_caps(root: str) -> Iterator[tuple[int, int, str]]:
    """Yield limit, bytes left and source for each memory limit of a cgroup around this process."""
    for level in _levels("memory", root):
        names, usage, cache = MEMORY_FILES[level.version]
        limits = [(_positive(_read(f"{level.folder}/{name}")), name) for name in names]
        if not any(limit for limit, _ in limits):
            continue
        # File pages that nobody uses are given up before anything is refused; what Kubernetes
        # calls the working set leaves them out in the same way.
        idle = _table(_read(f"{level.folder}/memory.stat")).get(cache, 0)
        used = max(0, (_positive(_read(f"{level.folder}/{usage}")) or 0) - idle)
        for limit, name in limits:
            if limit:
                yield limit, max(0, limit - used), f"{level.folder}/{name}"


def _address_space(root: str) -> Iterator[tuple[int, int, str]]:
    """Yield limit, bytes left and source of `RLIMIT_AS` (`ulimit -v`), if it is set."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        pages = (_read(f"{root}/proc/self/statm").split() or ["0"])[0]
        used = (_positive(pages) or 0) * resource.getpagesize()
        yield limit, max(0, limit - used), "RLIMIT_AS"


# Means of sharing memory.


def resident(pid: int | None, root: str = "") -> int:
    """Return the bytes of memory that a process holds, 0 where that cannot be told."""
    fields = _read(f"{root}/proc/{pid}/statm").split()
    return (_positive(fields[1]) or 0) * mmap.PAGESIZE if len(fields) > 1 else 0


def oom_kills(root: str = "") -> int:
    """Return how many processes were killed so far for want of memory.

    Those of this process's own cgroup, where that tells, else those of the whole computer.
    """
    for level in _levels("memory", root):
        for name in ("memory.events", "memory.oom_control"):
            events = _table(_read(f"{level.folder}/{name}"))
            if "oom_kill" in events:
                return events["oom_kill"]
    return _table(_read(f"{root}/proc/vmstat")).get("oom_kill", 0)


def shared_memory() -> SharedMemory:
    """Try which means of sharing memory work here; leaves nothing behind."""
    size, free = shm_space()
    return SharedMemory(_memfd_works(), _semaphores_work(), size, free)


def _memfd_works() -> bool:
    if not hasattr(os, "memfd_create"):
        return False
    try:
        os.close(os.memfd_create("parallelkit-probe"))
    except OSError:  # ENOSYS in an old kernel, EPERM in a sandbox
        return False
    return True


def _semaphores_work() -> bool:
    try:
        from _multiprocessing import SemLock  # type: ignore[import-not-found]

        # Kind 1 is a semaphore; `unlink=True` takes its name away before this returns.
        SemLock(1, 1, 1, f"/parallelkit-{os.urandom(8).hex()}", True)
    except (ImportError, OSError):
        return False
    return True


def shm_space(root: str = "") -> tuple[int, int] | tuple[None, None]:
    """Return the size and the free bytes of /dev/shm, None and None where there is none."""
    try:
        found = os.statvfs(root + SHM)
    except (AttributeError, OSError):  # Windows has no statvfs, macOS no /dev/shm
        return None, None
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


# Control groups.


@dataclass(frozen=True, slots=True)
class _Level:
    """A cgroup that holds this process, as the folder of its files."""

    version: int
    folder: str


def _levels(controller: Controller, root: str) -> list[_Level]:
    """Return the cgroups around this process, its own first and then the ones around that.

    Any of them may set a limit for `controller`.  Both versions are looked at: a hybrid system
    mounts version 2 beside the controllers of version 1.
    """
    levels: list[_Level] = []
    for version, path in _own_groups(controller, _read(f"{root}/proc/self/cgroup")):
        mounts = [*_mounts(version, controller, _read(f"{root}/proc/self/mountinfo"))]
        around = [(point, path[len(top) :]) for top, point in mounts if _within(path, top)]
        # A container without a cgroup namespace may see a path that only its host can follow:
        # what it has mounted is then its own group.
        for point, below in around or [(point, "") for _, point in mounts]:
            levels += [_Level(version, folder) for folder in _upward(root + point, below)]
    return levels


def _own_groups(controller: Controller, text: str) -> Iterator[tuple[int, str]]:
    """Yield version and path of the groups in `/proc/self/cgroup` that concern `controller`."""
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield 2, path.rstrip("/")
        elif controller in controllers.split(","):
            yield 1, path.rstrip("/")


def _mounts(version: int, controller: Controller, text: str) -> Iterator[tuple[str, str]]:
    """Yield, from `/proc/self/mountinfo`, which group is mounted and where."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(kind) < 3:
            continue
        first = kind[0] == "cgroup" and controller in kind[2].split(",")
        if (version == 1 and first) or (version == 2 and kind[0] == "cgroup2"):
            yield _unescaped(fields[3]).rstrip("/"), _unescaped(fields[4])


def _unescaped(path: str) -> str:
    """Undo how the kernel writes a space, tab, newline and backslash in a path of mountinfo."""
    for octal, character in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
        path = path.replace(f"\\{octal}", character)
    return path


def _within(path: str, top: str) -> bool:
    # ".." after the mounted group leads out of what is mounted (a group outside the namespace).
    return f"{path}/".startswith(f"{top}/") and ".." not in path[len(top) :].split("/")


def _upward(point: str, below: str) -> Iterable[str]:
    """Yield the folder `below` the mount point, the one above it, and so on to the mount point."""
    parts = [part for part in below.split("/") if part]
    for depth in range(len(parts), -1, -1):
        yield "/".join([point.rstrip("/"), *parts[:depth]])


# Reading.


def _read(path: str) -> str:
    """Return the text of a file, empty where it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            return os.fsdecode(file.read())
    except (OSError, ValueError):  # ValueError: a path with a null byte, or one Windows refuses
        return ""


def _positive(text: str) -> int | None:
    """Return the positive integer that `text` is, None for anything else ("max", -1, nothing)."""
    text = text.strip()
    if text.isascii() and text.isdecimal() and len(text) <= DIGITS:
        return int(text) or None
    return None


def _table(text: str) -> dict[str, int]:
    """Return the lines `name number ...` of a file as a dictionary."""
    rows = (line.split() for line in text.splitlines())
    return {row[0]: _positive(row[1]) or 0 for row in rows if len(row) > 1}
