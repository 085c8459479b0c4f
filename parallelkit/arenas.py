"""Arenas: memory through which large buffers reach another process with one copy.

Fresh pages are what large buffers cost, far more than copying (5 to 8 times, measured), so an arena
is used again and again.  It belongs to the process that sends: only its owner takes blocks of it.
The reader sees the same memory and says that it needs a block no more by one byte in a table at
the head of the segment, whoever is busy then; no message is sent for it and no lock is taken.  A
reader that is dead frees what it held.

Pages are reserved by writing to the file before anything touches them, so a lack of memory is
an answer and never a SIGBUS.  What the bytes mean is left to `freight`, where segments come from
to `segments`, and how a reader holds a block to `leases`.
"""

from __future__ import annotations

import _thread
import errno
import mmap
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from . import segments
from .segments import Handle, Segment

if TYPE_CHECKING:
    from .machine import Memory

LEAST = 1 << 16
"""Bytes of the smallest block: what lies below is cheaper in the message (see `freight`)."""

SPAN = 1 << 26
"""Bytes that a segment has at least: few descriptors, and pages that nobody fills cost nothing."""

OPEN, TAKEN, GIVEN_BACK = 0, 1, 2
"""What a block's byte in the table says.  The owner writes `TAKEN`, the reader `GIVEN_BACK`."""

LEFT = 0
"""The slot in the table that is no block's: it becomes 1 when the owner has left for good, and
takes no block of the segment any more."""

_STEPS = 4  # sizes of blocks from one power of two to the next: at most a quarter lies idle
_RESERVE = 0.06  # share of memory that must stay: where `governor` calls it short
_KEPT = 64  # the part of the memory whose pages may wait for the next run
_LOOK = 1 << 25  # bytes to grow by until the next look at the machine's memory, 2 % of their price


class Place(NamedTuple):
    """Where a reader finds a block: in a segment, at a slot of its table, and in its bytes."""

    handle: Handle
    slot: int
    start: int
    length: int


def look() -> Memory:
    """Return what memory there is; the room that knows is loaded when it is first asked."""
    from . import machine

    try:
        return machine.memory()
    except OSError:  # not even a descriptor to look with is left
        return machine.Memory(total=0, limit=None, available=0, source="nothing")


class Holder(Protocol):
    """A process that reads what it is sent; `exitcode` is None until it is known to have ended."""

    @property
    def exitcode(self) -> int | None:
        """What the process ended with."""


class _Block:
    """A range of a segment; the pages up to `warm` are there."""

    # It knows no region, which knows it: what a region has is to go with it, not in a cycle later.
    __slots__ = ("handle", "holder", "segment", "size", "slot", "start", "warm")

    def __init__(self, segment: Segment, handle: Handle, slot: int, start: int, size: int) -> None:
        self.segment = segment
        self.handle = handle
        self.slot = slot
        self.start = start
        self.size = size
        self.warm = 0
        self.holder: Holder | None = None


class _Region:
    """A segment of an arena: a table of a byte for each block, then the blocks in a row."""

    def __init__(self, length: int) -> None:
        self.head = pages(1 + length // LEAST)
        self.segment = within_means(segments.sparse(self.head + length))
        self.segment.fill(0, memoryview(bytes(self.head)))
        self.handle = self.segment.handle()
        self.end = self.head
        self.blocks: list[_Block | None] = [None]  # the first byte of the table is LEFT's

    def carve(self, size: int) -> _Block | None:
        """Return a new block, None if there is no room for it."""
        if self.end + size > len(self.segment):
            return None
        block = _Block(self.segment, self.handle, len(self.blocks), self.end, size)
        self.end += size
        self.blocks.append(block)
        return block

    def returned(self) -> list[_Block]:
        """Return the blocks that readers have given back, which are open again."""
        found, at, count = [], 0, len(self.blocks)
        while (at := self.segment.find(GIVEN_BACK.to_bytes(), at, count)) >= 0:
            self.segment[at] = OPEN
            block = self.blocks[at]
            assert block is not None
            found.append(block)
        return found


class Arena:
    """The blocks that this process sends from.  May be used from several threads.

    A forked copy of the process takes none: it sees the same memory, and the owner knows nothing of
    it.  Nor does what runs within `place` or `trim`, such as a finalizer, get any.
    """

    def __init__(self, look: Callable[[], Memory] = look) -> None:
        self.look = look
        self.lock = _thread.RLock()  # garbage collected under it may send something
        self.busy = False  # and is then told that there is no room
        self.process: int | None = os.getpid()  # None when it has left
        self.regions: list[_Region] = []
        self.open: dict[int, list[_Block]] = {}  # by size; the last was used last, and is warmest
        self.gone: list[Holder] = []  # holders that are dead, or will be in a moment
        self.allowance = 0  # bytes to grow by before the next look
        self.keep = 0  # bytes of pages that may wait between runs for the next

    def place(self, content: memoryview, holder: Holder | None = None) -> Place | None:
        """Copy flat bytes into a block and return where they are, None where there is no room.

        `holder` stands for the reader, and may be named in `lose`.
        """
        with self.lock:
            if not self.usable():
                return None
            try:
                self.busy = True
                block = self._find(len(content))
                if block is None or not self._written(block, content):
                    return None
                block.holder = holder
                block.segment[block.slot] = TAKEN
            finally:
                self.busy = False
        return Place(block.handle, block.slot, block.start, len(content))

    def usable(self) -> bool:
        """Whether it would take something if there is room."""
        return not self.busy and self.process == os.getpid()

    def take_back(self, place: Place) -> None:
        """Have a block again that was never sent."""
        for region in self.regions:
            if region.handle.token == place.handle.token:
                region.segment[place.slot] = GIVEN_BACK

    def _find(self, length: int) -> _Block | None:
        size = _size(length)
        block = self._open(size)
        if block is None or block.warm < length:
            if block is not None:
                self._put(block)
            self._collect()  # it may have a warmer one
            block = self._open(size) or self._carve(size)
        return block

    def _open(self, size: int) -> _Block | None:
        """Return an open block that is large enough, and at most twice as large."""
        wide = [each for each, blocks in self.open.items() if size <= each <= 2 * size and blocks]
        return self.open[min(wide)].pop() if wide else None

    def _carve(self, size: int) -> _Block | None:
        for region in reversed(self.regions):
            block = region.carve(size)
            if block is not None:
                return block
        try:
            region = _Region(max(size, SPAN))
        except (OSError, MemoryError):  # no more descriptors, mappings, or memory
            return None
        self.regions.append(region)
        return region.carve(size)

    def _written(self, block: _Block, content: memoryview) -> bool:
        written = False
        try:
            written = self._write(block, content)
        finally:  # Ctrl-C too
            if not written:
                if block.segment.drop(block.start, block.size):  # what a part has filled
                    block.warm = 0
                self._put(block)
        return written

    def _write(self, block: _Block, content: memoryview) -> bool:
        segment, warm = block.segment, min(block.warm, len(content))
        cold = len(content) - warm
        if cold and not self._may_grow(cold):
            return False
        segment[block.start : block.start + warm] = content[:warm]
        if not cold:
            return True
        try:
            segment.fill(block.start + warm, content[warm:])
        except MemoryError:
            return False
        block.warm = max(block.warm, len(content))
        return True

    def _may_grow(self, length: int) -> bool:
        """Whether the machine has so many bytes to spare; where it has not, a process is killed."""
        if length > self.allowance:
            spare = self._spare(max(self.keep, self.warm() - self._idle()))
            if length > spare and self._idle():  # what was large enough for other sizes
                spare = self._spare(0)
            if length > spare:
                self.allowance = 0
                return False
            self.allowance = max(length, min(_LOOK, spare // 16))  # others may grow meanwhile
        self.allowance -= length
        return True

    def _spare(self, keep: int) -> int:
        """Return how many bytes there are to grow by, with no more than `keep` of them idle here.

        A block is for one size, so without this, what grows a little each time would end up with
        six times the pages that it needs.
        """
        self._cool(keep)
        memory = self.look()
        self.keep = memory.whole // _KEPT
        return memory.available - int(memory.whole * _RESERVE)

    def _idle(self) -> int:
        return sum(block.warm for blocks in self.open.values() for block in blocks)

    def _put(self, block: _Block) -> None:
        blocks = self.open.setdefault(block.size, [])
        blocks.insert(len(blocks) if block.warm else 0, block)

    def _collect(self) -> None:
        """Have what readers have given back, and what dead ones held."""
        for region in self.regions:
            for block in region.returned():
                self._put(block)
        if not self.gone:
            return
        held = [b for region in self.regions for b in region.blocks if b is not None and b.holder]
        for holder in tuple(self.gone):
            mine = [block for block in held if block.holder is holder]
            # One that was killed may still run for a moment, and write to what it holds.
            if not mine or holder.exitcode is not None:
                self.gone.remove(holder)
                for block in mine:
                    self._reopen(block)

    def _reopen(self, block: _Block) -> None:
        if block.segment[block.slot] == TAKEN:
            block.segment[block.slot] = OPEN
            self._put(block)
        block.holder = None

    def lose(self, holder: Holder) -> None:
        """Know that a reader ends, which is sent nothing more: once it has, its blocks are free.

        No lock is taken, so this may be called from anywhere.
        """
        self.gone.append(holder)

    def trim(self, keep: int) -> None:
        """Give pages that are not in use back to the system, but for `keep` bytes."""
        with self.lock:
            if self.busy or self.process != os.getpid():
                return
            try:
                self.busy = True
                self._collect()
                self._cool(keep)
            finally:
                self.busy = False

    def _cool(self, keep: int) -> None:
        stuck = set()
        for blocks in self.open.values():
            for block in reversed(blocks):
                if block.warm <= keep:
                    keep -= block.warm
                elif block.segment.drop(block.start, pages(block.warm)):
                    block.warm = 0
                else:
                    stuck.add(block.segment)
        self._close_unused(stuck)

    def _close_unused(self, stuck: set[Segment]) -> None:
        """Close segments without use: those without pages, and those that keep them (`stuck`)."""
        open_ = {id(block) for blocks in self.open.values() for block in blocks}
        for region in tuple(self.regions):
            blocks = [block for block in region.blocks if block is not None]
            if any(id(block) not in open_ for block in blocks):
                continue
            if region.segment in stuck or not any(block.warm for block in blocks):
                self.regions.remove(region)
                region.segment[LEFT] = 1
                for block in blocks:
                    self.open[block.size].remove(block)

    def leave(self) -> None:
        """Give back all that is not in use, and let readers give back the rest themselves."""
        with self.lock:
            if self.process != os.getpid():
                return
            for region in self.regions:
                region.segment[LEFT] = 1
            self.trim(0)
            self.process = None

    def warm(self) -> int:
        """Return how many bytes there are pages for, in use or not."""
        return sum(b.warm for region in self.regions for b in region.blocks if b is not None)


def _size(length: int) -> int:
    """Return the size of the blocks for `length` bytes."""
    length = max(length, LEAST)
    step = max(mmap.PAGESIZE, (1 << (length - 1).bit_length()) // (2 * _STEPS))
    return -(-length // step) * step


def within_means(segment: Segment) -> Segment:
    """Return `segment`, unless it takes one of the descriptors that others may need.

    Raises:
        OSError: It does, for half of those that this process may have are in use.
    """
    # The kernel gives the lowest number that is free.
    if hasattr(os, "sysconf") and 2 * segment._descriptor > os.sysconf("SC_OPEN_MAX"):  # noqa: SLF001
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return segment


def pages(length: int) -> int:
    """Return `length` rounded up to whole pages."""
    return -(-length // mmap.PAGESIZE) * mmap.PAGESIZE


_outgoing: Arena | None = None
_lock = _thread.RLock()  # as an arena's


def outgoing() -> Arena:
    """Return the arena that this process sends from."""
    global _outgoing
    with _lock:
        if _outgoing is None:
            _outgoing = Arena()
        return _outgoing


def lose(holder: Holder) -> None:
    """Know that a reader of what this process sent ends."""
    if _outgoing is not None:
        _outgoing.lose(holder)


def rest() -> None:
    """Keep some pages for the next run, and give back what others this one has left."""
    if _outgoing is not None and _outgoing.regions:
        _outgoing.trim(_outgoing.keep)


def shut() -> None:
    """Let go of the arena of this process; what readers hold stays theirs."""
    global _outgoing
    with _lock:
        old, _outgoing = _outgoing, None
    if old is not None:
        old.leave()


def _forget() -> None:
    """In a forked copy of the process: the arena is the original's."""
    global _outgoing, _lock
    _outgoing, _lock = None, _thread.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
