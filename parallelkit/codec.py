"""Objects to bytes and back, between a caller and the workers of one run.

What both sides can import goes by name, as in any pickle.  What they cannot (`__main__` above all)
is a definition: the caller has a stream of them, each worker takes in a copy of the stream, and
chunks and results refer to them by number.  So an instance of a class of `__main__` that a worker
returns is an instance of the caller's own class, and neither that class's state nor a function's
globals are set back by each chunk.

What goes by name is decided in `definitions.py`, how the rest goes by value in `byvalue.py`, what
to say of an object that cannot go in `culprits.py`, and how an exception goes in `failures.py`.
Large buffers still go in the pickle.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import BytesIO
from types import FunctionType
from typing import Any, NoReturn

from .definitions import PROTOCOL, Known, Names, Reduction, own_reduction, reading
from .definitions import definition as definition  # noqa: PLC0414  # frames name it
from .failures import pack_error

LARGE = 1 << 16
"""Bytes of a frame after which its pickler is not used again: its memory of what it has pickled
keeps the size it grew to, and clearing that takes time in proportion."""

_BY_NAME, _BY_VALUE = b"\0", b"\1"  # the first byte of a blob: is the rest part of the stream?


class _Pieces:
    """Where a pickler writes: a list of pieces, mostly one, so nothing is copied."""

    def __init__(self) -> None:
        self.pieces: list[Any] = []
        self.write = self.pieces.append

    def take(self) -> bytes:
        """Return what was written, and be empty."""
        pieces = self.pieces
        frame: bytes = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return frame


class _Pickler(pickle.Pickler):
    """A pickler that asks `refer` about every object but numbers, strings and plain containers."""

    def __init__(self, sink: _Pieces, refer: Callable[[Any], Reduction]) -> None:
        super().__init__(sink, PROTOCOL)
        self.reducer_override = refer  # type: ignore[method-assign]  # pickle looks for it here


class _References:
    """Writes definitions as their numbers; `define`, where this side can, makes further ones.

    It is apart from `_Frames` so that picklers, which know it, are in no cycle: what a run holds
    is to be free when the run ends, not when the garbage collector comes by.
    """

    def __init__(
        self, known: Known, names: Names, define: Callable[[object], object] | None
    ) -> None:
        self.known = known
        self.names = names
        self.define = define
        self.plain: set[type] = set()  # types about which there is nothing to say

    def refer(self, obj: Any) -> Reduction:
        """Return a reference for what is or should be a definition, and `NotImplemented` else."""
        kind = type(obj)
        if kind in self.plain:
            return NotImplemented
        if kind is FunctionType or issubclass(kind, type) or kind is object:
            return self._reference(obj)
        answer = own_reduction(obj, kind)
        if answer is None:
            self.plain.add(kind)
            return NotImplemented
        if isinstance(answer, str):
            reference = self._reference(obj, answer)
            return answer if reference is NotImplemented else reference
        return answer

    def _reference(self, obj: object, name: str | None = None) -> Reduction:
        numbers = self.known.numbers
        if id(obj) not in numbers:
            if self.define is None or not self.names.defines(obj, name):
                return NotImplemented
            self.define(obj)
        return definition, (numbers[id(obj)],)


class _Frames:
    """Makes frames: with plain pickle if that will do, else with cloudpickle."""

    def __init__(self, references: _References) -> None:
        self.references = references
        self.sink = _Pieces()
        self.pickler = _Pickler(self.sink, references.refer)

    def dumps(self, obj: object) -> bytes:
        """Return `obj` as bytes; whatever pickling raises is raised."""
        frame = b""
        try:
            self.pickler.dump(obj)
            frame = self.sink.take()
        except Exception:  # pickle can do less than cloudpickle, and says so in many ways
            frame = b""
        finally:
            self.sink.pieces.clear()
            self.pickler.clear_memo()
        if len(frame) > LARGE:
            self.pickler = _Pickler(self.sink, self.references.refer)
        return frame or self._dumps_by_value(obj)

    def _dumps_by_value(self, obj: object) -> bytes:
        from .byvalue import Inline

        sink = _Pieces()
        references = self.references
        Inline(sink, references.refer, references.names, references.known).dump(obj)
        return sink.take()


class _NotByName(Exception):
    """Something must go by value."""


def _refuse(_: object) -> NoReturn:
    raise _NotByName


class _Stream:
    """The definition stream of one run, as the caller writes it."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.known = Known()
        self.blobs: list[bytes] = []
        self.sink = _Pieces()
        self.pickler: Any = None  # a byvalue.Stream, when first needed

    def tell(self, obj: object, found: list[object]) -> None:
        """Add a blob that holds `obj`, the definitions in `found` and all others that are in it."""
        if self.pickler is None:
            from .byvalue import Stream

            self.pickler = Stream(self.sink, self.names)
        self.sink.pieces.clear()
        self.pickler.define(obj, found)
        self.known.add(found)
        self.blobs.append(_BY_VALUE + self.sink.take())

    def define(self, obj: object) -> None:
        """Add a blob that gives `obj` a number."""
        self.tell(obj, [obj])

    def attempt(self, obj: object) -> None:
        """Raise what pickling `obj` by value raises, and remember nothing."""
        from .byvalue import Stream

        Stream(_Pieces(), self.names).define(obj, [])


class Definitions:
    """One run as its caller has it: what the worker must know first, and frames both ways.

    `blobs` grows: a worker must have had all of them before it gets a frame made since.

    Args:
        root: What the first blob holds, such as the function.
        by_value: Modules that a worker turned out not to find, with all within them.

    Raises:
        pickle.PicklingError: A part of `root`, which the message names, cannot be pickled.
    """

    def __init__(self, root: object, by_value: Iterable[str] = ()) -> None:
        self._stream = _Stream(Names(by_value))
        self._known = self._stream.known
        self._frames = _Frames(_References(self._known, self._stream.names, self._stream.define))
        self._tell_root(root)

    @property
    def blobs(self) -> list[bytes]:
        """The definition stream, in order."""
        return self._stream.blobs

    def _tell_root(self, root: object) -> None:
        sink = _Pieces()
        stream = self._stream
        with suppress(Exception):  # something must go by value, or cannot go at all
            _Pickler(sink, _References(self._known, stream.names, _refuse).refer).dump(root)
            stream.blobs.append(_BY_NAME + sink.take())
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

    def dumps_salvaging(self, columns: tuple[Any, ...]) -> bytes:
        """Return a chunk's columns as a frame, from which the items that cannot be pickled lack.

        The worker gets a `pickle.PicklingError` when it comes to such an item.
        """
        with suppress(Exception):  # pickling runs the user's code
            return self.dumps(columns)
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

    def loads(self, frame: bytes | bytearray | memoryview) -> Any:
        """Return what a `Replica` dumped; definitions in it are the caller's own objects."""
        return _loads(frame, self._known, "what a worker returned")


class Replica:
    """One run as a worker has it."""

    def __init__(self) -> None:
        self._known = Known()
        self._tape = BytesIO()
        self._unpickler = pickle.Unpickler(self._tape)
        # What has a name here has one in the caller too, since both import the same modules; and
        # a name in `__main__`, which is empty here, is found out by pickle.
        self._frames = _Frames(_References(self._known, Names(), None))

    def learn(self, blob: bytes | bytearray | memoryview) -> Any:
        """Take in the next blob of the definition stream and return what was dumped in it."""
        view = memoryview(blob)
        if view[0] == _BY_NAME[0]:
            return pickle.loads(view[1:])
        self._tape.seek(0)
        self._tape.truncate()
        self._tape.write(view[1:])
        self._tape.seek(0)
        obj, found = self._unpickler.load()
        self._known.add(found)
        return obj

    def loads(self, frame: bytes | bytearray | memoryview) -> Any:
        """Return what a `Definitions` (or this one) dumped."""
        return _loads(frame, self._known, "the items sent to this worker")

    def dumps(self, obj: object) -> bytes:
        """Return `obj` as a frame for `Definitions`; whatever pickling raises is raised."""
        return self._frames.dumps(obj)

    def dumps_values(self, values: list[Any]) -> tuple[bytes, dict[int, bytes]]:
        """Return `values` as a frame, and errors, packed, by the indices of those that failed.

        In the place of a value that cannot be pickled the frame has None.
        """
        with suppress(Exception):  # pickling runs the user's code
            return self.dumps(values), {}
        kept = list(values)
        failures = {}
        for index, value in enumerate(values):
            try:
                _check(value, "result", self.dumps)
            except pickle.PicklingError as error:
                kept[index] = None
                failures[index] = pack_error(error.with_traceback(None), self)
        return self.dumps(kept), failures


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


def _loads(frame: bytes | bytearray | memoryview, known: Known, what: str) -> Any:
    token = reading.set(known)
    try:
        return pickle.loads(frame)
    except Exception as error:
        error.add_note(f"This was raised while unpickling {what}")
        raise
    finally:
        reading.reset(token)


def _check(obj: object, name: str, attempt: Callable[[object], object]) -> None:
    """Raise a `PicklingError` that says why `obj` cannot be pickled, if so."""
    try:
        attempt(obj)
    except Exception as error:  # pickling runs the user's code
        raise _unpicklable(obj, name, error, attempt) from error


def _unpicklable(
    obj: object, name: str, error: Exception, attempt: Callable[[object], object]
) -> pickle.PicklingError:
    from .culprits import unpicklable

    return unpicklable(obj, name, error, attempt)
