"""Segments: memory that several processes see, freed when the last of them lets go of it.

A segment has a random token, is mapped once in each process that uses it, and the object that maps
it is the one that numpy holds as the owner of the bytes.  So a segment lives exactly as long as
the last array over it, in any process, and nothing has to be closed in order.

How a segment is made depends on the system (`PARALLELKIT_SEGMENTS` chooses, for tests):

- `memfd`: Linux.  It has no name, so nothing can be left behind, and /dev/shm may be small.
- `file`: a temporary file that loses its name at once, where /proc lets others open it all the
  same; for a Linux that denies memfd.
- `named`: a temporary file that keeps its name until its maker lets go of it; for macOS.  Whoever
  has it then keeps it, but can no longer pass it on, and SIGKILL of the maker leaves the file
  until the system clears its temporary folder.
- `tagged`: Windows, where a mapping has a tag in place of a file and goes with its last user.

What lies in the memory is `shared`'s business; how messages travel is `codec`'s.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
import sys
import threading
import weakref
from typing import Any, Literal, NamedTuple, Self

from parallelkit import lending

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

KINDS = "PARALLELKIT_SEGMENTS"
"""The environment variable that chooses how segments are made."""

Kind = Literal["memfd", "file", "named", "tagged"]

STEP = 1 << 20
"""Bytes to reserve or write at a time: 0.5 ms of work (measured on 2 cores, Linux 6).

Between steps Python runs signal handlers, so that Ctrl-C ends the making of a large segment.  And
kernels that undo a reservation when a signal comes would, under a profiler's ticks, never end one
that takes longer than a tick.
"""

FULL = {errno.ENOSPC, errno.ENOMEM, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
"""What the system calls a lack of memory: none left, or more than a limit or quota allows."""

WINDOWS_FULL = {8, 14, 1455}
"""The same on Windows: NOT_ENOUGH_MEMORY, OUTOFMEMORY, COMMITMENT_LIMIT (winerror.h)."""

GONE = (
    "the memory of this SharedArray is gone: the process that passed it on closed it, dropped it "
    "or ended before it was received here\nkeep it there until it has arrived"
)


class Handle(NamedTuple):
    """Where another process finds a segment: a path or tag, and what proves that it is the one.

    `identity` is the device and inode of the file, zeros for a tag.  A process id and a descriptor
    in `place` may belong to another by the time they are used; the token, random, cannot.
    """

    place: str
    token: str
    identity: tuple[int, int]
    length: int


class Segment(mmap.mmap):
    """Shared memory mapped into this process, unmapped when no array is over it any more.

    Before Python 3.13 it takes two descriptors (the mapping keeps its own), since then one.
    """

    def __new__(cls, handle: Handle, descriptor: int, writable: bool = True) -> Self:
        """Map the memory behind `descriptor`, or with none (-1) behind the handle's tag."""
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        if sys.platform == "win32":
            return super().__new__(cls, -1, handle.length, tagname=handle.place, access=access)
        if sys.version_info >= (3, 13):
            return super().__new__(cls, descriptor, handle.length, access=access, trackfd=False)
        return super().__new__(cls, descriptor, handle.length, access=access)

    def __init__(self, handle: Handle, descriptor: int, writable: bool = True) -> None:
        self._handle = handle
        self._descriptor = descriptor
        self.writable = writable
        if descriptor >= 0:
            # Not at exit, when others may still use the memory; the system closes it then.
            weakref.finalize(self, _close, descriptor, handle.identity).atexit = False

    def handle(self) -> Handle:
        """Return where to find it, good for as long as this process holds it."""
        lending.lend(self)
        if self._handle.place:
            return self._handle
        # Asked now and not when it was made: a fork has the same descriptor, but another number.
        return self._handle._replace(place=f"/proc/{os.getpid()}/fd/{self._descriptor}")

    def fill(self, start: int, content: memoryview) -> None:
        """Write bytes where there may be no pages yet.

        Raises:
            MemoryError: There is no room for them.
        """
        if self._descriptor < 0:
            self[start : start + len(content)] = content
            return
        with _ToldAsMemoryError(len(content)):
            _write(self._descriptor, content, start)

    def drop(self, start: int, length: int) -> bool:
        """Give the pages of a range back to the system, if it takes them; they must be filled anew.

        Both `start` and `length` are multiples of `mmap.PAGESIZE`.
        """
        if not hasattr(mmap, "MADV_REMOVE") or self._descriptor < 0:
            return False
        try:
            self.madvise(mmap.MADV_REMOVE, start, length)
        except OSError:  # a file system that cannot
            return False
        return True

    def private(self) -> Private:
        """Map the same memory once more, so that what is written there is seen by nobody else.

        As long as such a mapping lives, in any process but the maker's, the segment is `mapped`.
        """
        if fcntl is not None and self._descriptor >= 0:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        return Private(self, self._handle.place, self._descriptor)

    def mapped(self) -> bool:
        """Return, in the maker, whether another process has it privately mapped, or could."""
        if fcntl is None or self._descriptor < 0:
            return True  # nobody can tell
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return False


class Private(mmap.mmap):
    """A mapping of a segment whose writes stay here."""

    def __new__(cls, segment: Segment, tag: str, descriptor: int) -> Self:
        """Map all of `segment`, by its descriptor or, with none (-1), by its tag."""
        length, private = len(segment), mmap.ACCESS_COPY
        if sys.platform == "win32":
            return super().__new__(cls, -1, length, tagname=tag, access=private)
        if sys.version_info >= (3, 13):
            return super().__new__(cls, descriptor, length, access=private, trackfd=False)
        return super().__new__(cls, descriptor, length, access=private)

    def __init__(self, segment: Segment, tag: str, descriptor: int) -> None:
        del tag, descriptor
        self.segment = segment  # whose descriptor has the lock


class _Segments:
    """The segments mapped in this process, by token and whether to be written, each once."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: garbage collected under it may unpickle
        self._mapped = weakref.WeakValueDictionary[tuple[str, bool], Segment]()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self._lock = threading.RLock()  # another thread may have held it at the fork

    def add(self, segment: Segment) -> Segment:
        """Remember a segment and return it."""
        with self._lock:
            self._mapped[segment.handle().token, segment.writable] = segment
        return segment

    def attach(self, handle: Handle, writable: bool) -> Segment:
        """Return the segment of a handle, mapped now if it was not."""
        with self._lock:
            found = self._mapped.get((handle.token, True))
            if not writable:
                found = found or self._mapped.get((handle.token, False))
            return found or self.add(_opened(handle, writable))


_segments = _Segments()


def attach(handle: Handle, writable: bool = True) -> Segment:
    """Return the segment of a handle, the same object wherever in this process it is asked for.

    One that need not be `writable` is not, unless it is mapped so already.

    Raises:
        FileNotFoundError: Nobody holds it any more where the handle comes from.
        MemoryError: It does not fit into what this process may map.
    """
    with _ToldAsMemoryError(handle.length):
        return _segments.attach(handle, writable)


def there(handle: Handle) -> bool:
    """Whether the process that a handle comes from still holds the segment, as far as is known."""
    try:
        return _is_it(handle, handle.place)
    except OSError:
        return False


def disown(handle: Handle) -> None:
    """Take the name from a segment that has one, when all who need it have it mapped."""
    if handle.place and handle.identity != (0, 0) and not handle.place.startswith("/proc/"):
        _unlink(handle.place, os.getpid())


# Making a segment.


def create(length: int, content: memoryview | None = None) -> Segment:
    """Make a segment of `length` bytes, zeros or `content`; all of it is there when this returns.

    Raises:
        MemoryError: There is no room for it.
    """
    from parallelkit import shortage  # not with this room, for workers rarely make one

    length = max(length, 1)  # nothing can not be mapped
    shortage.check(length)
    with _ToldAsMemoryError(length):
        return _segments.add(_made(length, content))


def sparse(length: int) -> Segment:
    """Make a segment of which no page is there yet: each range must be `fill`ed before it is used.

    Where a system has no such thing, all is there.

    Raises:
        MemoryError: There is no room for it.
        OSError: There can be no more files or mappings.
    """
    with _ToldAsMemoryError(length):
        return _segments.add(_made(length, None, whole=False))


# Not a generator, which would keep the segment in a cycle with the error.
class _ToldAsMemoryError(contextlib.AbstractContextManager[None]):
    def __init__(self, length: int) -> None:
        self.length = length

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if getattr(error, "errno", None) in FULL or getattr(error, "winerror", 0) in WINDOWS_FULL:
            from parallelkit import shortage

            length = shortage.size(self.length)
            raise MemoryError(f"a shared array of {length} does not fit: {error}") from error


def kind_here() -> Kind:
    """Return how segments are made here.

    Raises:
        ValueError: `PARALLELKIT_SEGMENTS` names no way of this system.
    """
    listed = hasattr(os, "readlink") and os.path.isdir("/proc/self/fd")
    kinds: list[Kind] = ["memfd"] if listed and hasattr(os, "memfd_create") else []
    kinds += ["file", "named"] if listed else ["named"]
    if sys.platform == "win32":
        kinds = ["tagged"]
    asked = os.environ.get(KINDS)
    for kind in kinds:
        if asked in {None, kind}:
            return kind
    raise ValueError(f"{KINDS} must be one of {', '.join(kinds)}, got {asked!r}")


def _made(length: int, content: memoryview | None, whole: bool = True) -> Segment:
    kind, token = kind_here(), os.urandom(16).hex()
    if kind == "tagged":
        # Whoever opens a tag that is gone makes a new one, and tells by the missing token.
        handle = Handle(f"Local\\parallelkit-{token}", token, (0, 0), length + len(token))
        segment = Segment(handle, -1)
        segment[length:] = token.encode()
        if content is not None:
            segment[:length] = content
        return segment
    descriptor, path = _file(kind, token, length)
    try:
        if whole:
            _fill(descriptor, length, content)
        else:
            os.ftruncate(descriptor, length)
        segment = Segment(Handle(path, token, _identity(descriptor), length), descriptor)
    except BaseException:
        os.close(descriptor)
        _unlink(path, os.getpid())
        raise
    if path:
        weakref.finalize(segment, _unlink, path, os.getpid())
    return segment


def _file(kind: Kind, token: str, length: int) -> tuple[int, str]:
    """Return the descriptor of an empty file that bears the token, and its path if it keeps it."""
    name = f"parallelkit-{token}"
    if kind == "memfd":
        try:
            return os.memfd_create(name), ""
        except PermissionError:
            pass  # a sandbox denies it
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
    path = os.path.join(_folder(length), name)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    if kind == "named":
        return descriptor, path
    os.unlink(path)
    return descriptor, ""


def _folder(length: int) -> str:
    """Return /dev/shm where it has room, else the temporary folder, which may lie on a disk."""
    from parallelkit import machine

    _, free = machine.shm_space()
    if free is not None and free > length and os.access(machine.SHM, os.W_OK):
        return machine.SHM
    import tempfile

    return tempfile.gettempdir()


def _fill(descriptor: int, length: int, content: memoryview | None) -> None:
    """Give a file its pages: a page that cannot be had when it is used is a SIGBUS."""
    # Writing is faster than reserving zeros and copying: 0.29 against 0.51 ms a MiB, 23 against
    # 33 ms for 64 (measured on 2 cores, Linux 6).  macOS can only write.
    if content is None and not hasattr(os, "posix_fallocate"):
        zeros = memoryview(bytes(STEP))
        for start in range(0, length, STEP):
            _write(descriptor, zeros[: length - start], start)
    elif content is None:
        for start in range(0, length, STEP):
            os.posix_fallocate(descriptor, start, min(STEP, length - start))
    else:
        _write(descriptor, content, 0)


def _write(descriptor: int, content: memoryview, at: int) -> None:
    start = 0
    while start < len(content):
        start += os.pwrite(descriptor, content[start : start + STEP], at + start)


# Finding one again, and letting go.


def _opened(handle: Handle, writable: bool = True) -> Segment:
    """Map the segment of another process.

    Raises:
        FileNotFoundError: It is gone.
    """
    if handle.identity == (0, 0):
        segment = Segment(handle, -1, writable)
        if segment[-len(handle.token) :] != handle.token.encode():
            raise FileNotFoundError(GONE)
        return segment
    try:
        # Looked at before it is opened: opening a stranger's pipe or device could have effects.
        if not _is_it(handle, handle.place):
            raise FileNotFoundError(GONE)
        descriptor = os.open(handle.place, os.O_RDWR if writable else os.O_RDONLY)
    except (FileNotFoundError, ProcessLookupError, PermissionError) as error:
        raise FileNotFoundError(GONE) from error
    try:
        if _identity(descriptor) != handle.identity:
            raise FileNotFoundError(GONE)
        passing = handle.place.startswith("/proc/")
        return Segment(handle._replace(place="") if passing else handle, descriptor, writable)
    except BaseException:
        os.close(descriptor)
        raise


def _is_it(handle: Handle, place: str) -> bool:
    found = os.stat(place)
    named = os.readlink(place) if place.startswith("/proc/") else place
    name = f"parallelkit-{handle.token}"  # all of it: a forged handle leads to no file of others
    ours = named.removesuffix(" (deleted)").endswith((f"/{name}", f":{name}"))
    identity = found.st_dev, found.st_ino
    return ours and identity == handle.identity and stat.S_ISREG(found.st_mode)


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _close(descriptor: int, identity: tuple[int, int]) -> None:
    # A program that turns into a daemon closes all descriptors, and the number may be another's.
    with contextlib.suppress(OSError):
        if _identity(descriptor) == identity:
            os.close(descriptor)


def _unlink(path: str, maker: int) -> None:
    if path and os.getpid() == maker:  # not in a fork of the maker
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
