"""What travels beside a pickle: large buffers, each copied once to where its reader finds it.

A frame is a pickle.  One that has freight is preceded by a manifest: where the buffers are that
pickle handed out (protocol 5), and which pieces of the pickle itself, such as long `bytes`, are to
be read elsewhere.  What finds no room travels in the frame, as everything small does.

`Hold` puts freight into blocks for one reader, `Crate` into a parcel for many, and `Arrival` finds
it again.  What is taken apart into buffers is decided in `arrays`, the rest of a frame in `codec`.
"""

from __future__ import annotations

import pickle
import struct
import sys
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from .arenas import Arena, Holder, Place
from .arrays import LARGE
from .leases import Berth
from .telling import mention

if TYPE_CHECKING:
    from .parcels import Parcel, Parcels

MARK = 1
"""The first byte of a frame with freight; a pickle begins with another."""

LONG = 1 << 18
"""Bytes from which a piece of the pickle itself, such as long `bytes`, is read elsewhere.  Pickles
of many small things come in pieces of a quarter of that, which belong in the message."""

_SIZE = struct.Struct("<BQ")  # the mark, bytes of the manifest

_NAMED = 16
"""References to an array from which it is taken to be named by several items at once.  One that is
sent once has about six: its list, the chunk, and those who are pickling it."""

NO_ROOM = (
    "large data travels in messages, several times slower, because there is no room for it in "
    "shared memory (memory, open files or a limit): python -m parallelkit tells more"
)
"""Said where what would have gone beside a pickle goes in it."""

_MOST_PARCELS = 64  # of a run, for each takes descriptors; arrays beyond go with each chunk

Pieces = Sequence[Any]  # bytes-like, in order


class Freight(Protocol):
    """Takes the large buffers of one pickle after the other."""

    def accept(self, buffer: pickle.PickleBuffer) -> bool:
        """Take a buffer; return whether it must be in the pickle after all."""

    def seal(self, pieces: Pieces) -> bytes:
        """Return the frame of a pickle whose buffers were taken."""

    def scrap(self) -> None:
        """Forget what was taken: the pickle failed."""


class Hold:
    """Freight for one reader at a time, who is `holder`.

    An array that comes up again, or that many name, goes into one of `parcels` once and for all, as
    it is then.
    """

    def __init__(self, arena: Arena, parcels: Parcels | None = None) -> None:
        self.arena = arena
        self.parcels = parcels
        self.holder: Holder | None = None
        self.size = 0  # bytes beside the pickles, for who may set it back
        self.packed: list[Parcel] = []
        self.places: list[Place] = []
        self.taken: list[Place] = []  # of the arena, for this pickle
        self.seen: dict[tuple[int, int], tuple[weakref.ref[Any], Place | None]] = {}
        self.fresh: list[tuple[int, int]] = []  # what was not seen before this pickle

    def accept(self, buffer: pickle.PickleBuffer) -> bool:
        """Take a buffer; return whether it must be in the pickle after all."""
        view = _large(buffer)
        if view is None:
            return True
        place = self._shared(view) or self._taken(view)
        if place is None:
            return True
        self.places.append(place)
        return False

    def _taken(self, view: memoryview) -> Place | None:
        place = self.arena.place(view, self.holder)
        if place is not None:
            self.taken.append(place)
        elif self.arena.usable():
            mention(NO_ROOM)
        return place

    def _shared(self, view: memoryview) -> Place | None:
        """Return where an array is that is sent again, or will be."""
        root = None if self.parcels is None else _root(view.obj)
        if root is None:
            return None
        key = (_address(view), view.nbytes)
        known, place = self.seen.get(key, (None, None))
        again = known is not None and known() is root
        if again and place is not None:
            return place
        place = None
        # Others may have their parts of the same array, which says nothing of this one.
        if again or (root.nbytes == view.nbytes and sys.getrefcount(root) > _NAMED):
            place = self._pack(view)
        else:
            self.fresh.append(key)
        seen = self.seen
        seen[key] = weakref.ref(root, lambda _: seen.pop(key, None)), place
        return place

    def _pack(self, view: memoryview) -> Place | None:
        if self.parcels is None or len(self.packed) >= _MOST_PARCELS:
            return None
        packed = self.parcels.pack([view])
        if packed is None:
            return None
        parcel, (place,) = packed
        self.packed.append(parcel)
        return place

    def seal(self, pieces: Pieces) -> bytes:
        """Return the frame of a pickle whose buffers were taken."""
        if len(pieces) == 1 and not self.places:
            return pieces[0]  # type: ignore[no-any-return]
        body, stitches = [], []
        at = 0
        for piece in [memoryview(piece) for piece in pieces]:
            place = self._taken(piece) if piece.nbytes >= LONG else None
            if place is None:
                body.append(piece)
                at += piece.nbytes
            else:
                stitches.append((at, place))
        frame = _sealed(self.places, stitches, body)
        self.size += sum(place.length for place in self.taken)
        self.places, self.taken, self.fresh = [], [], []
        return frame

    def scrap(self) -> None:
        """Forget what was taken: the pickle failed."""
        taken, fresh = self.taken, self.fresh
        self.places, self.taken, self.fresh = [], [], []
        for place in taken:
            self.arena.take_back(place)
        for key in fresh:
            self.seen.pop(key, None)


class Crate:
    """Freight for all workers of a run."""

    def __init__(self, parcels: Parcels) -> None:
        self.parcels = parcels
        self.packed: list[Parcel] = []
        self.views: list[memoryview] = []

    def accept(self, buffer: pickle.PickleBuffer) -> bool:
        """Take a buffer; return whether it must be in the pickle after all."""
        view = _large(buffer)
        if view is None:
            return True
        self.views.append(view)
        return False

    def seal(self, pieces: Pieces) -> bytes:
        """Return the frame of a pickle whose buffers were taken."""
        views, self.views = self.views, []
        body, cuts = [], []
        at = 0
        for piece in [memoryview(piece) for piece in pieces]:
            if piece.nbytes >= LONG:
                cuts.append((at, piece))
            else:
                body.append(piece)
                at += piece.nbytes
        contents = [*views, *(piece for _, piece in cuts)]
        packed = self.parcels.pack(contents) if contents else None
        places: list[Any]
        if packed is None:
            if contents:
                mention(NO_ROOM)
            places = [view.tobytes() for view in contents]
        else:
            self.packed.append(packed[0])
            places = packed[1]
        stitches = [(at, place) for (at, _), place in zip(cuts, places[len(views) :], strict=True)]
        return _sealed(places[: len(views)], stitches, body)

    def scrap(self) -> None:
        """Forget what was taken: the pickle failed."""
        self.views = []


class Band:
    """Freight for who has no memory in common with us: everything goes in the pickle."""

    def __init__(self) -> None:
        self.packed: list[Parcel] = []  # none, ever

    def accept(self, _: pickle.PickleBuffer) -> bool:
        """Leave a buffer in the pickle."""
        return True

    def seal(self, pieces: Pieces) -> bytes:
        """Return the frame, which is the pickle."""
        return b"".join(pieces)

    def scrap(self) -> None:
        """Nothing was taken."""


def _large(buffer: pickle.PickleBuffer) -> memoryview | None:
    try:
        view = buffer.raw()
    except BufferError:  # not in one piece
        return None
    return view if view.nbytes >= LARGE else None


def _root(obj: Any) -> Any:
    """Return the array to which the bytes of an array belong, None for what is no array."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(obj, numpy.ndarray):
        return None
    # Not beyond arrays: what comes in a block of an arena belongs to the array that holds it.
    while isinstance(obj.base, numpy.ndarray):
        obj = obj.base
    return obj


def _address(view: memoryview) -> int:
    import numpy as np

    address: int = np.frombuffer(view, np.uint8).__array_interface__["data"][0]
    return address


def _sealed(places: list[Any], stitches: list[tuple[int, Any]], body: Pieces) -> bytes:
    if not places and not stitches:
        return b"".join(body)
    manifest = pickle.dumps((places, stitches), 5)
    return b"".join((_SIZE.pack(MARK, len(manifest)), manifest, *body))


class Stranded(Exception):
    """The freight of a frame cannot be had: its sender has ended, or there is no room to map it."""


class Arrival:
    """A frame as its reader has it: the parts of its pickle, and the buffers beside it.

    Raises:
        Stranded: What is beside it cannot be had.
    """

    def __init__(self, frame: bytes | bytearray | memoryview, berth: Berth) -> None:
        view = memoryview(frame)
        _, length = _SIZE.unpack_from(view)
        start = _SIZE.size + length
        places, stitches = pickle.loads(view[_SIZE.size : start])
        self.berth = berth
        self.read: list[Place] = [place for _, place in stitches if not isinstance(place, bytes)]
        self.parts: list[memoryview] = []
        self.buffers: list[Any] = []
        try:
            self.buffers = self._buffers(places)
            self.parts = self._parts(view[start:], stitches)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise Stranded(f"an array got lost on its way: {error}") from error
            raise

    def _parts(self, body: memoryview, stitches: list[tuple[int, Any]]) -> list[memoryview]:
        parts, before = [], 0
        for at, place in stitches:
            parts.append(body[before:at])
            whole = isinstance(place, bytes)
            parts.append(memoryview(place) if whole else self.berth.view(place))
            before = at
        parts.append(body[before:])
        return parts

    def _buffers(self, places: list[Any]) -> list[Any]:
        claimed = iter(self.berth.claim([p for p in places if not isinstance(p, bytes)]))
        return [bytearray(p) if isinstance(p, bytes) else next(claimed) for p in places]

    def loads(self) -> Any:
        """Return the object that was pickled."""
        try:
            if len(self.parts) == 1:
                return pickle.loads(self.parts[0], buffers=self.buffers)
            return pickle.Unpickler(_Stitched(self.parts), buffers=self.buffers).load()
        finally:
            self.close()

    def close(self) -> None:
        """Need the parts no more."""
        self.parts = []
        read, self.read = self.read, []
        self.berth.give_back(read)


class _Stitched:
    """A file to read whose bytes lie in several parts.  The last thing read may be any length."""

    def __init__(self, parts: list[memoryview]) -> None:
        self.parts = [part for part in reversed(parts) if part.nbytes]

    def readinto(self, target: Any) -> int:
        """Fill `target` as far as there is something, and return how far that is."""
        into = memoryview(target).cast("B")
        done = 0
        while done < into.nbytes and self.parts:
            part = self.parts.pop()
            count = min(part.nbytes, into.nbytes - done)
            into[done : done + count] = part[:count]
            done += count
            if count < part.nbytes:
                self.parts.append(part[count:])
        return done

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes, or as many as there are."""
        target = bytearray(min(count, sum(part.nbytes for part in self.parts)))
        self.readinto(target)
        return bytes(target)

    def readline(self) -> bytes:
        """Return the bytes up to the end of a line: names in old pickles are lines."""
        line = bytearray()
        while not line.endswith(b"\n") and self.parts:
            line += self.read(1)
        return bytes(line)
