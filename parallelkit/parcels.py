"""Parcels: large buffers for several readers, written once.

A parcel is a segment that each reader maps privately: what it writes there, nobody else sees, and
what nobody writes exists once for all.  A function goes to all workers, and so does an array that
many items name.  The kernel tells when no reader is left, by a lock on the file that each of them
has, and then the segment, whose pages are warm, is used again: fresh pages cost 5 to 8 times what
copying costs (measured).
"""

from __future__ import annotations

import _thread
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from . import segments
from .arenas import Place, look, pages, within_means
from .leases import PRIVATE

_SHARE = 64  # the part of the memory that parcels may keep while nobody needs them
_WIDE = 4  # one is used again for no less than this part of it, or it would hide a lack of memory
_RESERVE = 0.06  # share of memory that must stay: where `governor` calls it short


class Parcel:
    """A segment of which `warm` bytes have pages."""

    def __init__(self, length: int) -> None:
        self.segment = within_means(segments.sparse(length))
        self.handle = self.segment.handle()
        self.warm = 0

    def write(self, start: int, content: memoryview) -> None:
        """Copy bytes to `start`, with none left out between them and what was written before.

        Raises:
            MemoryError: There is no room for them.
        """
        warm = max(0, min(len(content), self.warm - start))
        self.segment[start : start + warm] = content[:warm]
        self.segment.fill(start + warm, content[warm:])
        self.warm = max(self.warm, start + len(content))


class Parcels:
    """The parcels of this process that are to be used again.  May be used from several threads."""

    def __init__(self) -> None:
        self.lock = _thread.RLock()  # garbage collected under it may send something
        self.idle: list[Parcel] = []

    def pack(self, contents: Sequence[memoryview]) -> tuple[Parcel, list[Place]] | None:
        """Return a parcel with copies of `contents`, and where each is; None if there is no room.

        The parcel must be kept as long as readers may come.
        """
        parcel = self._parcel(sum(pages(len(content)) for content in contents))
        if parcel is None:
            return None
        places, start = [], 0
        try:
            for content in contents:
                parcel.write(start, content)
                places.append(Place(parcel.handle, PRIVATE, start, len(content)))
                start += pages(len(content))
        except MemoryError:
            return None
        return parcel, places

    def _parcel(self, length: int) -> Parcel | None:
        with self.lock:
            fitting = [
                parcel
                for parcel in self.idle
                if length <= len(parcel.segment) <= _WIDE * length and not parcel.segment.mapped()
            ]
            for parcel in sorted(fitting, key=lambda parcel: len(parcel.segment)):
                with suppress(ValueError):  # what was sent by garbage under the lock has it
                    self.idle.remove(parcel)
                    return parcel
        memory = look()
        if length > memory.available - memory.whole * _RESERVE:
            return None
        try:
            return Parcel(length)
        except (OSError, MemoryError):  # no more descriptors, mappings, or memory
            return None

    def give_back(self, parcels: Sequence[Parcel]) -> None:
        """Keep parcels for later, which no further reader will be told of, as far as fits."""
        if sys.is_finalizing():  # there is no later, and no room can be loaded to look
            return
        room = look().whole // _SHARE
        with self.lock:
            self.idle.extend(parcels)
            for parcel in reversed(tuple(self.idle)):
                room -= len(parcel.segment)
                if room < 0:
                    room += len(parcel.segment)
                    with suppress(ValueError):  # as above
                        self.idle.remove(parcel)

    def shut(self) -> None:
        """Keep none."""
        with self.lock:
            self.idle = []


kept = Parcels()
"""The parcels that this process sends."""


def _forget() -> None:
    """In a forked copy of the process: they are the original's."""
    kept.lock = _thread.RLock()
    kept.idle = []


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
