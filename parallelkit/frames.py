"""Frames: one object as bytes, in which what both sides have learned goes by its number.

Plain pickle makes them, since it is quick; what it cannot take, such as a lambda among the items,
cloudpickle takes (`byvalue`).  Which objects are known by number is the codec's business, what
travels beside the bytes is the freight's.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from types import FunctionType
from typing import Any

from .arrays import reducer
from .definitions import PROTOCOL, Known, Names, Reduction, own_reduction
from .definitions import definition as definition  # noqa: PLC0414  # frames name it
from .freight import Freight, Hold

LARGE = 1 << 16
"""Bytes of a frame after which its pickler is not used again: its memory of what it has pickled
keeps the size it grew to, and clearing that takes time in proportion."""


class Pieces:
    """Where a pickler writes: a list of pieces, mostly one, so nothing is copied."""

    def __init__(self) -> None:
        self.pieces: list[Any] = []
        self.write = self.pieces.append

    def take(self, freight: Freight | None) -> bytes:
        """Return what was written, and be empty."""
        pieces = self.pieces
        frame: bytes
        if freight is not None:
            frame = freight.seal(pieces)
        else:
            frame = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return frame


class Pickler(pickle.Pickler):
    """A pickler that asks `refer` about every object but numbers, strings and plain containers."""

    def __init__(
        self, sink: Pieces, refer: Callable[[Any], Reduction], freight: Freight | None = None
    ) -> None:
        accept = None if freight is None else freight.accept
        super().__init__(sink, PROTOCOL, buffer_callback=accept)
        self.reducer_override = refer  # type: ignore[method-assign]  # pickle looks for it here


class References:
    """Writes definitions as their numbers; `define`, where this side can, makes further ones.

    It is apart from `Frames` so that picklers, which know it, are in no cycle: what a run holds
    is to be free when the run ends, not when the garbage collector comes by.
    """

    def __init__(
        self, known: Known, names: Names, define: Callable[[object], object] | None
    ) -> None:
        self.known = known
        self.names = names
        self.define = define
        self.plain: set[type] = set()  # types about which there is nothing to say
        self.arrays: dict[type, Callable[[Any], Reduction] | None] = {}  # of those asked about

    def refer(self, obj: Any) -> Reduction:
        """Return a reference for what is or should be a definition, and `NotImplemented` else."""
        kind = type(obj)
        if kind in self.plain:
            return NotImplemented
        if kind is FunctionType or issubclass(kind, type) or kind is object:
            return self._reference(obj)
        return self._refer_new(obj, kind)

    def _refer_new(self, obj: Any, kind: type) -> Reduction:
        if kind not in self.arrays:
            self.arrays[kind] = reducer(kind)
        apart = self.arrays[kind]
        if apart is not None:
            return apart(obj)
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


class Frames:
    """Makes frames: with plain pickle if that will do, else with cloudpickle."""

    def __init__(self, references: References, freight: Hold | None = None) -> None:
        self.references = references
        self.freight = freight
        self.sink = Pieces()
        self.pickler = Pickler(self.sink, references.refer, freight)

    def dumps(self, obj: object) -> bytes:
        """Return `obj` as bytes; whatever pickling raises is raised."""
        frame = b""
        try:
            self.pickler.dump(obj)
            pieces, freight = self.sink.pieces, self.freight
            if len(pieces) == 1 and (freight is None or not freight.places):  # mostly so
                frame = pieces[0]
            else:
                frame = self.sink.take(freight)
        except Exception:  # pickle can do less than cloudpickle, and says so in many ways
            frame = b""
        finally:
            self.sink.pieces.clear()
            self.pickler.clear_memo()
            if not frame and self.freight is not None:
                self.freight.scrap()
        if len(frame) > LARGE:
            self.pickler = Pickler(self.sink, self.references.refer, self.freight)
        return frame or self._dumps_by_value(obj)

    def _dumps_by_value(self, obj: object) -> bytes:
        from .byvalue import Inline

        sink = Pieces()
        references, freight = self.references, self.freight
        try:
            Inline(sink, references.refer, references.names, references.known, freight).dump(obj)
        except BaseException:
            if freight is not None:
                freight.scrap()
            raise
        return sink.take(freight)
