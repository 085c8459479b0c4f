"""Slabs: where there are many small arrays, they lie together, for each segment takes descriptors.

Arrays are put into a slab one after the other, by the process that makes them.  Nobody knows when
an array that was passed on is needed no more, so its place is not used again: a slab goes as a
whole, as every segment does, with the last array over it in any process.  One small array that is
kept for long may keep all of its slab.  So the first `ALONE` that a process has at a time have a
segment each.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from parallelkit import segments, shortage
from parallelkit.segments import Segment

if TYPE_CHECKING:
    import numpy as np

SMALL = 1 << 16
"""Bytes from which an array always has a segment of its own: whoever has a thousand such arrays
may need more descriptors, but not yet more memory than a small machine has."""

ALONE = 8
"""Small arrays with segments of their own; each takes up to two descriptors."""

LEAST, MOST = 1 << 20, 1 << 26
"""Bytes of a slab.  They double with what lies in slabs already, so that 30 slabs, which a process
of 64 descriptors can have, hold some 500 MB."""

_SHARE = 4  # a new slab is as large as this part of what lies in all others
_ALIGNED = 64  # bytes: a line of the processor's cache, so that neighbours do not slow each other
_STEP = 1 << 14  # bytes that get pages at a time: 4 us


class _Slab:
    """How far a segment is used; the pages up to `warm` are there."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.end = 0
        self.warm = 0
        self.arrays: list[weakref.ref[np.ndarray[Any, Any]]] = []

    def alive(self) -> int:
        """Return the bytes of the arrays that this process still has."""
        arrays = [array for array in (each() for each in self.arrays) if array is not None]
        self.arrays = [weakref.ref(array) for array in arrays]
        return sum(array.nbytes for array in arrays)


class Slabs:
    """The slabs that this process puts arrays into.  May be used from several threads."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # reentrant: garbage collected under it may make arrays
        self.slabs: weakref.WeakKeyDictionary[Segment, _Slab] = weakref.WeakKeyDictionary()
        self.newest: Callable[[], Segment | None] = _nothing
        self.alone: weakref.WeakSet[Segment] = weakref.WeakSet()

    def take(self, length: int) -> tuple[Segment, int]:
        """Return a segment, and where in it are `length` bytes of zeros that nobody has.

        Raises:
            MemoryError: There is no room for them.
            OSError: There can be no more files or mappings.
        """
        if len(self.alone) < ALONE:
            segment = segments.create(length)
            self.alone.add(segment)
            return segment, 0
        size = -(-max(length, 1) // _ALIGNED) * _ALIGNED
        with self.lock:
            segment, slab = self._with_room(size)
            start = slab.end
            slab.end += size
            if slab.end > slab.warm:
                _warm(segment, slab)
        return segment, start

    def note(self, segment: Segment, array: np.ndarray[Any, Any]) -> None:
        """Know which array lies in a place that was taken."""
        with self.lock:
            self.slabs[segment].arrays.append(weakref.ref(array))

    def _with_room(self, size: int) -> tuple[Segment, _Slab]:
        newest = self.newest()
        for segment in [*self.slabs] if newest is None else [newest]:
            slab = self.slabs[segment]
            if slab.end + size <= slab.capacity:
                self.newest = weakref.ref(segment)
                return segment, slab
        return self._new()

    def _new(self) -> tuple[Segment, _Slab]:
        wanted = sum(slab.alive() for slab in list(self.slabs.values())) // _SHARE
        capacity = min(MOST, max(LEAST, 1 << wanted.bit_length()))
        segment, slab = segments.sparse(capacity), _Slab(capacity)
        self.slabs[segment] = slab
        self.newest = weakref.ref(segment)
        return segment, slab


def _nothing() -> None:
    return None


def _warm(segment: Segment, slab: _Slab) -> None:
    """Give a slab the pages that it needs now, and a few more."""
    length = min(slab.capacity, -(-slab.end // _STEP) * _STEP) - slab.warm
    shortage.check(length)
    segment.fill(slab.warm, memoryview(bytes(length)))
    slab.warm += length


_slabs = Slabs()


def take(length: int) -> tuple[Segment, int]:
    """Return a segment, and where in it are `length` bytes of zeros that nobody has.

    Raises:
        MemoryError: There is no room for them.
        OSError: There can be no more files or mappings.
    """
    if length < SMALL:
        try:
            return _slabs.take(length)
        except (MemoryError, OSError):  # a slab needs more room than one array does
            pass
    return segments.create(length), 0


def note(segment: Segment, array: np.ndarray[Any, Any]) -> None:
    """Know which array lies in a place that was taken."""
    if segment in _slabs.slabs:
        _slabs.note(segment, array)


def _forget() -> None:
    """In a forked copy of the process: the slabs are the original's."""
    global _slabs
    _slabs = Slabs()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
