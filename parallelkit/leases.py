"""What a process holds of another's memory: bytes to read and write, until nobody looks at them.

A block of an arena goes back to its owner when the last array over it is gone, in whatever thread
that is and however long after the run; see `arenas`.  What comes in a parcel is mapped privately,
so that several readers may each write to it; see `parcels`.

The objects given out here are those that numpy keeps as the owners of the bytes, so views, slices
and memoryviews of an array hold them too.

Before a fork all that is held is mapped privately, in place, so that neither process sees what the
other writes; and as both look at it from then on, neither gives it back.
"""

from __future__ import annotations

import _thread
import errno
import mmap
import os
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from . import segments
from .arenas import GIVEN_BACK, LEFT, Place, look, pages, within_means
from .segments import Private, Segment

if TYPE_CHECKING:
    import numpy as np

PRIVATE = -1
"""In place of a block's index: the bytes lie in a parcel."""

_SHARE = 16
"""The part of the memory that may be held in others' arenas, by a caller, and by all its workers
together.  What comes beyond it is copied, so that what a caller keeps for long does not pin what
workers could use again, nor what a worker keeps, or has forked with, what the caller could."""

_LEAST = 1 << 28  # and at least so many bytes

_MAP_FIXED = 0x10  # sys/mman.h of Linux, macOS and the BSDs; Python's mmap does not tell

_Lease = tuple["weakref.finalize[..., Any]", Segment, Place]

_live: dict[tuple[str, int], _Lease] = {}
"""What was not given back yet, by token and slot, but for what a forked process holds as well."""

_lock = _thread.RLock()  # garbage collected under it may claim something
_held = 0  # bytes held in arenas, but for those in `_freed`
_freed: deque[int] = deque()  # a finalizer may run in any thread, between any two steps
_most: int | None = None
_each: int | None = None  # what a worker may keep of it


class Berth:
    """The segments of one other process, kept mapped here while the two have to do together.

    With `sole`, nobody else will map them, so that a name is not needed once they are mapped here.
    """

    def __init__(self, sole: bool = False) -> None:
        self.sole = sole
        self.segments: dict[str, Segment] = {}
        self.full = False  # whether this process holds its share of the caller's arena
        self.size = 0  # bytes that came, for who may set it back
        self.owed: list[Place] = []  # to be given back when there is room to map them
        self.parcels: weakref.WeakSet[Private] = weakref.WeakSet()

    def claim(self, places: list[Place]) -> list[np.ndarray[Any, Any]]:
        """Return writable bytes for each place; for whoever reads them in the end.

        Raises:
            OSError: The process that sent them has ended, or there is no room to map them here.
                All places are given back, once that can be.
        """
        if not self.sole:
            self.full = _is_full()
        parcels: dict[str, Private] = {}
        owners: list[np.ndarray[Any, Any]] = []
        try:
            for place in places:
                claim = self._claim if place.slot != PRIVATE else partial(self._open, parcels)
                owners.append(claim(place))
        except BaseException:
            self.give_back(places[len(owners) :])
            raise
        return owners

    def _open(self, parcels: dict[str, Private], place: Place) -> np.ndarray[Any, Any]:
        import numpy as np

        token = place.handle.token
        if token not in parcels:
            parcels[token] = _attached(place).private()
            self.parcels.add(parcels[token])
        return np.frombuffer(parcels[token], np.uint8, place.length, place.start)

    def _claim(self, place: Place) -> np.ndarray[Any, Any]:
        import numpy as np

        segment = self._segment(place)
        self.size += place.length
        owner = np.frombuffer(segment, np.uint8, place.length, place.start)
        if self.full or not _may_hold(place.length, self.sole):
            owner = owner.copy()
            _give_back(segment, place)
            return owner
        key = place.handle.token, place.slot
        back = weakref.finalize(owner, _end, *key)
        back.atexit = False
        _live[key] = back, segment, place
        return owner

    def view(self, place: Place) -> memoryview:
        """Return the bytes of a place, to be read now."""
        self.size += place.length
        start = place.start
        segment = _attached(place) if place.slot == PRIVATE else self._segment(place)
        return memoryview(segment)[start : start + place.length]

    def give_back(self, places: Sequence[Place]) -> None:
        """Need places no more that were not claimed, or of which a `view` was taken."""
        for place in places:
            if place.slot == PRIVATE:
                continue
            try:
                _give_back(self._segment(place), place)
            except FileNotFoundError:  # the process has ended
                continue
            except OSError:  # there is no room to map it now
                self.owed.append(place)

    def _segment(self, place: Place) -> Segment:
        token = place.handle.token
        segment = self.segments.get(token)
        if segment is None:
            self._part()
            segment = self.segments[token] = _attached(place)
            if self.sole:
                segments.disown(place.handle)
            owed, self.owed = self.owed, []
            self.give_back(owed)
        return segment

    def _part(self) -> None:
        """Let go of the segments that their owner has left."""
        for token, segment in tuple(self.segments.items()):
            if segment[LEFT]:
                del self.segments[token]

    def close(self) -> None:
        """Know that the other process ends, of which nobody else reads.

        What is held stays; when it is let go of, its pages go back to the system.
        """
        mapped, self.segments = self.segments, {}
        for segment in mapped.values():
            segment[LEFT] = 1


def _attached(place: Place) -> Segment:
    """Return the segment of a place, mapped; OSError where it cannot be, for whatever reason."""
    try:
        return within_means(segments.attach(place.handle))
    except MemoryError as error:  # a limit of addresses, which a message may well fit into
        raise OSError(errno.ENOMEM, str(error)) from error


def _may_hold(length: int, capped: bool = True) -> bool:
    global _held
    with _lock:
        if capped and _kept() + length > _cap():
            return False
        _held += length
        return True


def _is_full() -> bool:
    """Whether a worker has kept so much of what it was sent that all together may be too much.

    Each may have an item beyond that, however large, since it is only passing.
    """
    global _each
    if not _held:
        return False
    with _lock:
        if _each is None:
            from .machine import cpu_count

            _each = _cap() // cpu_count()
        return _kept() >= _each


def _cap() -> int:
    global _most
    if _most is None:
        _most = max(_LEAST, look().whole // _SHARE)
    return _most


def _kept() -> int:
    global _held
    while _freed:
        _held -= _freed.popleft()
    return _held


def _end(token: str, slot: int) -> None:
    """Give a block back, unless a forked process may still look at it."""
    lease = _live.pop((token, slot), None)
    if lease is not None:
        _, segment, place = lease
        _freed.append(place.length)
        _give_back(segment, place)


def _give_back(segment: Segment, place: Place) -> None:
    segment[place.slot] = GIVEN_BACK
    if segment[LEFT]:  # nobody will use it again
        segment.drop(place.start, pages(place.length))


# Forks.


def _keep_apart() -> None:
    """Before a fork: map privately what is held, and never give it back."""
    remap = None
    for key in tuple(_live):
        lease = _live.pop(key, None)
        if lease is None:  # another thread was faster
            continue
        back, segment, place = lease
        alive = back.peek()
        if alive is None:  # it is just being let go of, and nobody will look at it
            _freed.append(place.length)
            _give_back(segment, place)
            continue
        # It counts as held for as long as its segment is mapped here.
        weakref.finalize(segment, _freed.append, place.length).atexit = False
        remap = remap or _remapping()
        remap(alive[0].__array_interface__["data"][0], segment, place)


def _remapping() -> Callable[[int, Segment, Place], None]:
    """Return what replaces the mapping of a place by a private one, at the same address.

    Other threads may read and write there meanwhile: the kernel lets them see one or the other, and
    both have the same bytes.
    """
    try:
        import ctypes
    except ImportError:  # a Python built without it; then they do see what the other writes
        return lambda *_: None
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    whole, number, offset = ctypes.c_void_p, ctypes.c_int, ctypes.c_long
    libc.mmap.argtypes = [whole, ctypes.c_size_t, number, number, number, offset]
    libc.munmap.argtypes = [whole, ctypes.c_size_t]
    failed = whole(-1).value

    def remap(address: int, segment: Segment, place: Place) -> None:
        size, access = pages(place.length), mmap.PROT_READ | mmap.PROT_WRITE
        descriptor = segment._descriptor  # noqa: SLF001  # nobody else needs it
        kind, source = mmap.MAP_PRIVATE, (descriptor, place.start)
        # Tried elsewhere first: where there is no room, one that is to replace another may leave
        # nothing at all.
        trial = libc.mmap(None, size, access, kind, *source)
        if trial != failed:
            libc.munmap(trial, size)
            libc.mmap(address, size, access, kind | _MAP_FIXED, *source)

    return remap


def _forked() -> None:
    """In a forked copy of the process: what there is the original gives back."""
    global _lock
    _lock = _thread.RLock()  # another thread may have held it
    _live.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_keep_apart, after_in_child=_forked)
