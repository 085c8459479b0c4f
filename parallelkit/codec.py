"""Objects to bytes and back, between a caller and the workers of one run.

What both sides can import goes by name, as in any pickle.  What they cannot (`__main__` above all)
is a definition: the caller has a stream of them, each worker takes in a copy of the stream, and
chunks and results refer to them by number.  So an instance of a class of `__main__` that a worker
returns is an instance of the caller's own class, and neither that class's state nor a function's
globals are set back by each chunk.

What goes by name is decided in `definitions.py`, how the rest goes by value in `byvalue.py`, how
bytes are made of an object in `frames.py`, what to say of one that cannot go in `culprits.py`, how
an exception goes in `failures.py`, and what travels beside the bytes in `freight.py`.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any, NoReturn

from .arenas import Arena, Holder, outgoing
from .definitions import Known, Names, reading
from .failures import pack_error
from .frames import LARGE, Frames, Pickler, Pieces, References
from .freight import MARK, Arrival, Band, Crate, Hold, Stranded
from .leases import Berth
from .scalars import gathered

_BY_NAME, _BY_VALUE = b"\0", b"\1"  # the first byte of a blob: is the rest part of the stream?

_RAISED = (Exception, SystemExit, GeneratorExit)
"""What pickling, which runs the user's code, can raise of an item's or a result's own accord."""


class _NotByName(Exception):
    """Something must go by value."""


def _refuse(_: object) -> NoReturn:
    raise _NotByName


class _Stream:
    """The definition stream of one run, as the caller writes it."""

    def __init__(self, names: Names, crate: Crate | Band) -> None:
        self.names = names
        self.crate = crate
        self.known = Known()
        self.blobs: list[bytes] = []
        self.sink = Pieces()
        self.pickler: Any = None  # a byvalue.Stream, when first needed

    def tell(self, obj: object, found: list[object]) -> None:
        """Add a blob that holds `obj`, the definitions in `found` and all others that are in it."""
        if self.pickler is None:
            from .byvalue import Stream

            self.pickler = Stream(self.sink, self.names, self.crate)
        self.sink.pieces.clear()
        self.crate.scrap()  # of what failed
        self.pickler.define(obj, found)
        self.known.add(found)
        self.blobs.append(_BY_VALUE + self.sink.take(self.crate))

    def define(self, obj: object) -> None:
        """Add a blob that gives `obj` a number."""
        self.tell(obj, [obj])

    def attempt(self, obj: object) -> None:
        """Raise what pickling `obj` by value raises, and remember nothing."""
        from .byvalue import Stream

        Stream(Pieces(), self.names).define(obj, [])


class Definitions:
    """One run as its caller has it: what the worker must know first, and frames both ways.

    `blobs` grows: a worker must have had all of them before it gets a frame made since.

    Args:
        root: What the first blob holds, such as the function.
        by_value: Modules that a worker turned out not to find, with all within them.
        ashore: Workers have no memory in common with this process, so nothing travels beside.

    Raises:
        pickle.PicklingError: A part of `root`, which the message names, cannot be pickled.
    """

    def __init__(self, root: object, by_value: Iterable[str] = (), ashore: bool = False) -> None:
        from .parcels import kept  # which no worker needs

        self._kept = kept
        self._crate: Crate | Band = Band() if ashore else Crate(kept)
        self._hold = Hold(outgoing(), kept)
        self._stream = _Stream(Names(by_value), self._crate)
        self._known = self._stream.known
        references = References(self._known, self._stream.names, self._stream.define)
        self._frames, self._laden = Frames(references), Frames(references, self._hold)
        self._tell_root(root)

    @property
    def blobs(self) -> list[bytes]:
        """The definition stream, in order."""
        return self._stream.blobs

    def _tell_root(self, root: object) -> None:
        sink = Pieces()
        stream = self._stream
        with suppress(Exception):  # something must go by value, or cannot go at all
            refer = References(self._known, stream.names, _refuse).refer
            Pickler(sink, refer, self._crate).dump(root)
            stream.blobs.append(_BY_NAME + sink.take(self._crate))
        if not stream.blobs:
            try:
                stream.tell(root, [])
            except Exception as error:  # pickling runs the user's code
                parts = root if isinstance(root, tuple) else (root,)
                for part in parts:
                    _check(part, getattr(part, "__name__", "fn"), stream.attempt)
                raise _unpicklable(root, "fn", error, stream.attempt) from error

    def dumps(self, obj: object) -> bytes:
        """Return `obj` as a frame for a `Replica`; whatever pickling raises is raised."""
        return self._frames.dumps(obj)

    def dumps_salvaging(self, columns: tuple[Any, ...], holder: Holder | None = None) -> bytes:
        """Return a chunk's columns as a frame, from which the items that cannot be pickled lack.

        The worker gets a `pickle.PicklingError` when it comes to such an item.  If it is `holder`,
        what is large goes beside the pickle, else in it.
        """
        hold = self._hold
        hold.holder, hold.size = holder, 0
        frames = self._laden if holder else self._frames
        try:
            return frames.dumps(tuple([gathered(column) for column in columns]))
        except _RAISED:
            return self.dumps(self._salvaged(columns))

    def _salvaged(self, columns: tuple[Any, ...]) -> tuple[Any, ...]:
        kept = [list(column) for column in columns]
        errors: dict[int, str] = {}
        for position, arguments in enumerate(zip(*kept, strict=True)):
            try:
                for argument in arguments:
                    _check(argument, "item", self.dumps)
            except pickle.PicklingError as error:
                errors[position] = str(error)
                for column in kept:
                    column[position] = None
        # The last column, so that zip() has advanced all others when it raises.
        return (*kept[:-1], Gapped(kept[-1], errors))

    def loads(self, frame: bytes | bytearray | memoryview, berth: Berth | None = None) -> Any:
        """Return what a `Replica` dumped; definitions in it are the caller's own objects.

        Raises:
            Stranded: What lies in the worker's memory, of which `berth` knows, cannot be had.
        """
        return _loads(frame, self._known, "what a worker returned", berth)

    def send_anew(self) -> None:
        """Send an array that comes up again as it then is, and not what was sent before."""
        self._hold.parcels = None

    def beside(self) -> int:
        """Return the bytes that went beside the last frame."""
        return self._hold.size

    def lone(self) -> bool:
        """Return whether there is nothing to know but the root.

        What was sent is forgotten, and which modules go by name, as the caller may change that.
        """
        self._hold.seen = {}
        self._stream.names.verdicts.clear()
        return len(self.blobs) == 1

    def light(self) -> bool:
        """Return whether a worker can be left with it for a while."""
        parcels = self._crate.packed or self._hold.packed
        return not parcels and sum(map(len, self.blobs)) < LARGE

    def close(self, arrived: bool) -> None:
        """End the run; `arrived` says that every worker has taken in all that it was sent."""
        parcels = [*self._crate.packed, *self._hold.packed]
        self._crate.packed, self._hold.packed = [], []
        if arrived and parcels:
            self._kept.give_back(parcels)


class Replica:
    """One run as a worker has it: large values go through `arena`, and come to `berth`."""

    def __init__(self, arena: Arena | None = None, berth: Berth | None = None) -> None:
        self._known = Known()
        self._berth = berth or Berth()
        self._tape = BytesIO()
        self._buffers = _Buffers()
        self._unpickler = pickle.Unpickler(self._tape, buffers=self._buffers)
        # What has a name here has one in the caller too, since both import the same modules; and
        # a name in `__main__`, which is empty here, is found out by pickle.
        references = References(self._known, Names(), None)
        self._frames = Frames(references)
        self._laden = Frames(references, None if arena is None else Hold(arena))
        self.laden = True  # whether values may travel beside their pickle

    def learn(self, blob: bytes | bytearray | memoryview) -> Any:
        """Take in the next blob of the definition stream and return what was dumped in it."""
        view = memoryview(blob)
        if view[0] == _BY_NAME[0]:
            return _load(view[1:], self._berth)
        arrival = Arrival(view[1:], self._berth) if view[1] == MARK else None
        self._tape.seek(0)
        self._tape.truncate()
        for part in [view[1:]] if arrival is None else arrival.parts:
            self._tape.write(part)
        self._tape.seek(0)
        self._buffers.waiting.extend([] if arrival is None else arrival.buffers)
        obj, found = self._unpickler.load()
        self._known.add(found)
        return obj

    def loads(self, frame: bytes | bytearray | memoryview) -> Any:
        """Return what a `Definitions` (or this one) dumped.

        Raises:
            Stranded: What lies in the caller's memory cannot be had.
        """
        return _loads(frame, self._known, "the items sent to this worker", self._berth)

    def dumps(self, obj: object) -> bytes:
        """Return `obj` as a frame for `Definitions`; whatever pickling raises is raised."""
        return self._frames.dumps(obj)

    def dumps_values(self, values: list[Any]) -> tuple[bytes, dict[int, bytes]]:
        """Return `values` as a frame, and errors, packed, by the indices of those that failed.

        In the place of a value that cannot be pickled the frame has None.
        """
        with suppress(*_RAISED):
            return (self._laden if self.laden else self._frames).dumps(gathered(values)), {}
        kept = list(values)
        failures = {}
        for index, value in enumerate(values):
            try:
                _check(value, "result", self.dumps)
            except pickle.PicklingError as error:
                kept[index] = None
                failures[index] = pack_error(error.with_traceback(None), self)
        return self.dumps(kept), failures


class _Buffers:
    """Iterates over buffers that may still come.  Not a generator, which would once be over."""

    def __init__(self) -> None:
        self.waiting: deque[Any] = deque()

    def __iter__(self) -> _Buffers:
        return self

    def __next__(self) -> Any:
        if not self.waiting:
            raise StopIteration
        return self.waiting.popleft()


class Gapped:
    """A column of items in which some are missing: getting one of these raises.

    An iterator goes on after it raised, and several iterators of it must not be expected.
    """

    def __init__(self, items: list[Any], errors: dict[int, str]) -> None:
        self.items = items
        self.errors = errors

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        return _GappedIterator(self)


def missing(columns: tuple[Any, ...]) -> Iterable[int]:
    """Return the indices of the items that these columns lack."""
    last = columns[-1]
    return last.errors if type(last) is Gapped else ()


class _GappedIterator:
    # Not a generator, which would be over once it has raised.

    def __init__(self, column: Gapped) -> None:
        self.numbered = enumerate(column.items)
        self.errors = column.errors

    def __iter__(self) -> _GappedIterator:
        return self

    def __next__(self) -> Any:
        position, item = next(self.numbered)
        if position in self.errors:
            raise pickle.PicklingError(self.errors[position])
        return item


def _load(frame: bytes | bytearray | memoryview, berth: Berth | None) -> Any:
    if frame[0] != MARK:
        return pickle.loads(frame)
    return Arrival(frame, berth or Berth()).loads()


def _loads(
    frame: bytes | bytearray | memoryview, known: Known, what: str, berth: Berth | None
) -> Any:
    token = reading.set(known)
    try:
        return _load(frame, berth)
    except Stranded:
        raise
    except Exception as error:
        error.add_note(f"This was raised while unpickling {what}")
        raise
    finally:
        reading.reset(token)


def _check(obj: object, name: str, attempt: Callable[[object], object]) -> None:
    """Raise a `PicklingError` that says why `obj` cannot be pickled, if so."""
    try:
        attempt(obj)
    except _RAISED as error:
        raise _unpicklable(obj, name, error, attempt) from error


def _unpicklable(
    obj: object, name: str, error: BaseException, attempt: Callable[[object], object]
) -> pickle.PicklingError:
    from .culprits import unpicklable

    return unpicklable(obj, name, error, attempt)
