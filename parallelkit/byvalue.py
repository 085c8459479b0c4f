"""Functions and classes by value: cloudpickle, with what it does not do.

Two picklers: `Stream` writes a run's definitions, each once, with one memory over several dumps;
`Inline` writes what has no name anywhere (a lambda, a local class) into the frame that holds it.
This room imports cloudpickle, which takes 15 ms, so nothing imports this room before it must.
"""

from __future__ import annotations

import copyreg
import sys
from collections import ChainMap
from collections.abc import Callable
from enum import Enum
from functools import _lru_cache_wrapper, cached_property, lru_cache
from io import TextIOWrapper
from types import CodeType, FunctionType
from typing import Any, ClassVar, NamedTuple, ParamSpec, Protocol, TypeVarTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

import cloudpickle
from cloudpickle import cloudpickle as inner

from .arrays import reducer
from .definitions import PROTOCOL, Known, Names, Reduction, own_reduction, reading
from .freight import Freight

_FILENAME = 10  # the position of the file's name among what a code object is made of, since 3.11


class Sink(Protocol):
    """Where a pickler writes."""

    def write(self, piece: Any, /) -> object:
        """Take what was written."""


def _reduce_cached_property(obj: cached_property[Any]) -> Reduction:
    # Python 3.11's holds a lock, which cannot be pickled; the new one makes its own.
    return cached_property, (obj.func,), {"attrname": obj.attrname, "__doc__": obj.__doc__}


def _reduce_weak(obj: WeakKeyDictionary[Any, Any] | WeakValueDictionary[Any, Any]) -> Reduction:
    # functools.singledispatch has one.  Items are set when it is there: they may refer to it.
    return type(obj), (), None, None, iter(list(obj.items()))


def _reduce_code(code: CodeType) -> Reduction:
    # Newer versions of cloudpickle leave out where it stands, and then no traceback shows a line.
    make, made_of = inner._code_reduce(code)  # noqa: SLF001
    return make, (*made_of[:_FILENAME], code.co_filename, *made_of[_FILENAME + 1 :])


def _reduce_file(file: TextIOWrapper) -> Reduction:
    # Cloudpickle sends what can be read of a file, as a StringIO, which is not what a loop has.
    for name in ("stdout", "stderr"):
        if file is getattr(sys, name):
            return getattr, (sys, name)
    raise TypeError("cannot pickle '_io.TextIOWrapper' object")  # as plain pickle says it


class _ByValue(cloudpickle.Pickler):  # type: ignore[misc]
    """What both picklers share: how a thing is taken apart."""

    globals_ref: dict[int, dict[str, Any]]  # cloudpickle's: the globals of the functions written
    memo: Any  # pickle's: what was written, with numbers
    dispatch_table: ClassVar[ChainMap[type, Any]] = ChainMap(
        {
            CodeType: _reduce_code,
            TextIOWrapper: _reduce_file,
            cached_property: _reduce_cached_property,
            WeakKeyDictionary: _reduce_weak,
            WeakValueDictionary: _reduce_weak,
        },
        cloudpickle.Pickler.dispatch_table,
    )

    def __init__(self, sink: Sink, freight: Freight | None) -> None:
        accept = freight and freight.accept
        super().__init__(sink, protocol=PROTOCOL, buffer_callback=accept)

    def apart(self, obj: Any) -> Reduction:
        """Return what a function or class is made of, though it could be imported here."""
        if isinstance(obj, FunctionType):
            return self._dynamic_function_reduce(obj)
        return _class_apart(obj)

    def remake(self, obj: Any) -> Reduction:
        """Return what an object is made of that would otherwise go by a name."""
        if isinstance(obj, _lru_cache_wrapper):
            made_of = (obj.__wrapped__, *_parameters(obj))
            return remake_cached, made_of, _extras(obj)
        if type(obj) in self.dispatch_table:
            return NotImplemented
        if isinstance(obj, ParamSpec | TypeVarTuple):
            return type(obj), (obj.__name__,)
        return copyreg.__newobj__, (type(obj),), obj.__getstate__()  # type: ignore[attr-defined]


class Stream(_ByValue):
    """Writes definitions; what one dump wrote, the next ones refer to.

    All functions of a module thus share one dictionary of globals in the worker, as they do here.
    """

    def __init__(self, sink: Sink, names: Names, freight: Freight | None = None) -> None:
        super().__init__(sink, freight)
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
        apart = reducer(kind)
        answer = own_reduction(obj, kind) if apart is None else apart(obj)
        if answer is None:
            return NotImplemented
        if isinstance(answer, str) and not self.names.finds(obj, answer):
            self._keep(obj)
            return self.remake(obj)
        return answer

    def _named(self, obj: Any) -> Reduction:
        if not self.names.defines(obj):
            answer = super().reducer_override(obj)
            if answer is NotImplemented or len(answer) < 6:  # it has a name, if an odd one
                return answer
        self._keep(obj)
        make, args, *rest = self.apart(obj)
        if isinstance(obj, type):  # a warm worker must not find it as another run left it
            args = (*args[:-2], None, args[-1])
        return make, args, *rest

    def _keep(self, obj: object) -> None:
        if not self.found or self.found[0] is not obj:
            self.found.append(obj)


class Inline(_ByValue):
    """Writes one frame, with everything in it that no one can look up."""

    def __init__(
        self,
        sink: Sink,
        refer: Callable[[Any], Reduction],
        names: Names,
        known: Known,
        freight: Freight | None = None,
    ) -> None:
        super().__init__(sink, freight)
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
            return (*self.apart(obj)[:5], settle)
        return answer


def _class_apart(cls: Any) -> tuple[Any, ...]:
    """Return what `cls` is made of, the last two things it is made from as cloudpickle has them.

    These are a number, by which a process finds the class it has made before, and None.
    """
    make, args, (state, slots), *_ = inner._dynamic_class_reduce(cls)  # noqa: SLF001
    attributes = None
    if issubclass(cls, Enum):
        members = cls.__members__  # with aliases, which iterating leaves out
        attributes = {name: dict(member.__dict__) for name, member in members.items()}
        state = {name: value for name, value in state.items() if name not in members}
        make, args = _enum_apart(cls, args)
    elif "__slots__" in cls.__dict__ and NamedTuple not in args[2]:  # which brings its own
        # Without them instances would have a `__dict__`, which the caller's could not take.
        args = (*args[:3], {**args[3], "__slots__": cls.__slots__}, *args[4:])
    return make, args, ((state, slots), attributes), None, None, complete


def _enum_apart(cls: type[Enum], args: tuple[Any, ...]) -> tuple[Callable[..., type], Any]:
    mixin = getattr(cls, "_member_type_")  # noqa: B009  # typeshed does not have it
    custom = isinstance(getattr(cls, "__new_member__", None), FunctionType)
    contents = getattr(mixin, "__getnewargs__", None)
    if custom and (contents or mixin is object):
        made: dict[str, Any] = {
            name: (contents(member) if contents else (), member._value_)
            for name, member in cls.__members__.items()
        }
        return make_enum, (mixin, *args[:3], made, *args[4:])
    values = {name: member._value_ for name, member in cls.__members__.items()}
    return inner._make_skeleton_enum, (*args[:3], values, *args[4:])  # noqa: SLF001


def make_enum(
    mixin: Any,
    bases: tuple[Any, ...],
    name: str,
    qualname: str,
    members: dict[str, Any],
    module: str,
    number: str | None,
    _: None,
) -> type:
    """Return an enum whose `__new__` makes of a value something that cannot be told from it.

    Each member has the arguments of its mixin's `__new__`, and its value.
    """
    kind: Any = type(bases[-1])

    def new(cls: type, *made_of: Any) -> Any:
        args, value = made_of if len(made_of) == 2 else made_of[0]  # a tuple's come in one
        member = mixin.__new__(cls, *args)
        member._value_ = value
        return member

    namespace = kind.__prepare__(name, bases)
    namespace.update({"__new__": new, "__init__": lambda *_: None})
    for member, made_of in members.items():
        namespace[member] = made_of
    cls = kind.__new__(kind, name, bases, namespace)
    for mine in ("__init__", "__new_member__"):  # `complete` brings its own
        delattr(cls, mine)
    cls.__module__, cls.__qualname__ = module, qualname
    made: type = inner._lookup_class_or_track(number, cls)  # noqa: SLF001
    return made


def complete(cls: Any, state: tuple[Any, dict[str, dict[str, Any]] | None]) -> None:
    """Give a class what is in it, and an enum's members what their `__init__` gave them."""
    inner._class_setstate(cls, state[0])  # noqa: SLF001
    for name, attributes in (state[1] or {}).items():
        member = cls.__members__[name].__dict__
        for key in attributes.keys() - member.keys():
            member[key] = attributes[key]


def settle(cls: type, state: Any) -> None:
    """Complete a class that came inside a frame, unless it is complete here.

    It comes with each frame, and every time it would be set back: in the worker to the state it had
    in the caller, and in the caller, where it was born, to the one that it has in a worker.
    """
    settled = reading.get().settled
    if cls not in settled:
        complete(cls, state)
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
