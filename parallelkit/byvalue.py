"""Functions and classes by value: cloudpickle, with what it does not do.

Two picklers: `Stream` writes a run's definitions, each once, with one memory over several dumps;
`Inline` writes what has no name anywhere (a lambda, a local class) into the frame that holds it.
This room imports cloudpickle, which takes 15 ms, so nothing imports this room before it must.
"""

from __future__ import annotations

import copyreg
from collections import ChainMap
from collections.abc import Callable
from enum import Enum
from functools import _lru_cache_wrapper, cached_property, lru_cache
from types import FunctionType
from typing import Any, ClassVar, Protocol

import cloudpickle
from cloudpickle import cloudpickle as inner

from .definitions import PROTOCOL, Known, Names, Reduction, own_reduction, reading


class Sink(Protocol):
    """Where a pickler writes."""

    def write(self, piece: Any, /) -> object:
        """Take what was written."""


def _reduce_cached_property(obj: cached_property[Any]) -> Reduction:
    # Python 3.11's holds a lock, which cannot be pickled; the new one makes its own.
    return cached_property, (obj.func,), {"attrname": obj.attrname, "__doc__": obj.__doc__}


class _ByValue(cloudpickle.Pickler):  # type: ignore[misc]
    """What both picklers share: how a thing is taken apart."""

    globals_ref: dict[int, dict[str, Any]]  # cloudpickle's: the globals of the functions written
    memo: Any  # pickle's: what was written, with numbers
    dispatch_table: ClassVar[ChainMap[type, Any]] = ChainMap(
        {cached_property: _reduce_cached_property}, cloudpickle.Pickler.dispatch_table
    )

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink, protocol=PROTOCOL)

    def apart(self, obj: Any) -> Reduction:
        """Return what a function or class is made of, though it could be imported here."""
        if isinstance(obj, FunctionType):
            return self._dynamic_function_reduce(obj)
        return inner._dynamic_class_reduce(obj)  # noqa: SLF001

    def remake(self, obj: Any) -> Reduction:
        """Return what an object is made of that would otherwise go by a name."""
        if isinstance(obj, _lru_cache_wrapper):
            made_of = (obj.__wrapped__, *_parameters(obj))
            return remake_cached, made_of, _extras(obj)
        if type(obj) in self.dispatch_table:
            return NotImplemented
        return copyreg.__newobj__, (type(obj),), obj.__getstate__()  # type: ignore[attr-defined]


class Stream(_ByValue):
    """Writes definitions; what one dump wrote, the next ones refer to.

    All functions of a module thus share one dictionary of globals in the worker, as they do here.
    """

    def __init__(self, sink: Sink, names: Names) -> None:
        super().__init__(sink)
        self.names = names
        self.found: list[object] = []  # the definitions of the dump under way
        self.written: list[object] | None = None  # `found` of the last dump that succeeded

    def define(self, obj: object, found: list[object]) -> None:
        """Write `obj` and, behind it, `found` with all definitions in it that are new.

        If that fails, nothing is remembered of it.
        """
        self.found = found
        sharing = dict(self.globals_ref)
        try:
            self.dump((obj, found))  # the list comes last, when it is full
        except BaseException:
            self._forget()
            self.globals_ref = sharing
            raise
        self.written = found

    def _forget(self) -> None:
        """Take out of the memory what was written after the last dump that succeeded.

        The memory is not copied before each dump, because it may hold the user's whole tables.
        What it holds has numbers: the last of a dump are those of the list and the pair around it.
        """
        if self.written is None:
            self.clear_memo()
            return
        memo = self.memo.copy()
        last = memo[id(self.written)][0] + 1
        self.memo = {key: entry for key, entry in memo.items() if entry[0] <= last}

    def reducer_override(self, obj: Any) -> Reduction:
        """Return how pickle shall write `obj`; it asks about all but plain values."""
        kind = type(obj)
        if kind is FunctionType or issubclass(kind, type):
            return self._named(obj)
        if kind is object:  # a sentinel, to be compared by `is`
            self._keep(obj)
            return NotImplemented
        answer = own_reduction(obj, kind)
        if answer is None:
            return NotImplemented
        if isinstance(answer, str) and not self.names.finds(obj, answer):
            self._keep(obj)
            return self.remake(obj)
        return answer

    def _named(self, obj: Any) -> Reduction:
        if self.names.defines(obj):
            answer = self.apart(obj)
        else:
            answer = super().reducer_override(obj)
            if answer is NotImplemented or len(answer) < 6:  # it has a name, if an odd one
                return answer
        self._keep(obj)
        if isinstance(obj, type):
            return _class_anew(obj, answer)
        return answer

    def _keep(self, obj: object) -> None:
        if not self.found or self.found[0] is not obj:
            self.found.append(obj)


class Inline(_ByValue):
    """Writes one frame, with everything in it that no one can look up."""

    def __init__(
        self, sink: Sink, refer: Callable[[Any], Reduction], names: Names, known: Known
    ) -> None:
        super().__init__(sink)
        self.refer = refer
        self.names = names
        self.known = known

    def reducer_override(self, obj: Any) -> Reduction:
        """Return how pickle shall write `obj`; it asks about all but plain values."""
        answer = self.refer(obj)
        if isinstance(answer, str) and not self.names.finds(obj, answer):
            return self.remake(obj)
        if answer is not NotImplemented:
            return answer
        answer = super().reducer_override(obj)
        if isinstance(obj, type) and answer is not NotImplemented and len(answer) == 6:
            self.known.settled.add(obj)
            return (*answer[:5], settle)
        return answer


def _class_anew(cls: type, answer: tuple[Any, ...]) -> Reduction:
    """Return `answer` so that it makes a class for this run alone.

    cloudpickle gives classes a number by which a process finds the one it has made before: a warm
    worker would go on with the class as the run before left it.
    """
    make, args, (state, slots), *_, setter = answer
    made_of = (*args[:-2], None, args[-1])
    if issubclass(cls, Enum):
        members = [(member.name, dict(member.__dict__)) for member in cls]
        return make, made_of, ((state, slots), members), None, None, set_enum
    return make, made_of, (state, slots), None, None, setter


def set_enum(cls: type[Enum], state: tuple[Any, list[tuple[str, dict[str, Any]]]]) -> None:
    """Complete an enum with its methods, and its members with what their `__init__` gave them."""
    inner._class_setstate(cls, state[0])  # noqa: SLF001
    for name, attributes in state[1]:
        member = cls.__members__[name]
        for key, value in attributes.items():
            if key not in ("__objclass__", "_value_", "_name_", "_sort_order_"):
                member.__dict__[key] = value


def settle(cls: type, state: Any) -> None:
    """Complete a class that came inside a frame, unless it is complete here.

    It comes with each frame, and every time it would be set back: in the worker to the state it had
    in the caller, and in the caller, where it was born, to the one that it has in a worker.
    """
    settled = reading.get().settled
    if cls not in settled:
        inner._class_setstate(cls, state)  # noqa: SLF001
        settled.add(cls)


def remake_cached(function: Any, maxsize: int | None, typed: bool) -> Any:
    """Return `function` behind an empty cache; what the caller's cache holds stays there."""
    return lru_cache(maxsize, typed)(function)


def _parameters(cached: Any) -> tuple[int | None, bool]:
    parameters = cached.cache_parameters()
    return parameters["maxsize"], parameters["typed"]


def _extras(cached: Any) -> dict[str, Any] | None:
    """Return the attributes that someone gave to a cached function."""
    made = ("cache_parameters", "__wrapped__", "__module__", "__name__", "__qualname__", "__doc__")
    own = {key: value for key, value in cached.__dict__.items() if key not in made}
    return own or None
