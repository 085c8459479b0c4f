"""What goes through a queue: objects to bytes and back, by whoever takes them.

It is not known who will, so nothing is told beforehand and each message stands alone.  What can be
imported goes by name, as in any pickle; functions and classes of `__main__`, which a worker does
not have, go by value in each message that has one.
"""

from __future__ import annotations

import pickle
import sys
from io import BytesIO
from types import FunctionType
from typing import Any

from ..definitions import MAINS, PROTOCOL, Known, Names, Reduction, own_reduction, reading

_known = Known()  # which classes are complete in this process: see `settle` in byvalue.py


def packed(obj: object) -> bytes:
    """Return `obj` as bytes; whatever pickling raises is raised."""
    sink = BytesIO()
    try:
        _ByName(sink).dump(obj)
    except Exception:  # pickle can do less than cloudpickle, and says so in many ways
        return _by_value(obj, _refer)
    return sink.getvalue()


def unpacked(frame: bytes) -> Any:
    """Return what was packed."""
    token = reading.set(_known)
    try:
        return pickle.loads(frame)
    finally:
        reading.reset(token)


class _ByName(pickle.Pickler):
    """Plain pickle, which fails on what only this process has."""

    def __init__(self, sink: BytesIO) -> None:
        super().__init__(sink, PROTOCOL)
        self.plain: set[type] = set()  # types of which objects can go as they are

    def reducer_override(self, obj: Any) -> Reduction:
        """Return how pickle shall write `obj`; it asks about all but plain values."""
        kind = type(obj)
        if kind in self.plain:
            return NotImplemented
        named: Reduction = NotImplemented
        if kind is not FunctionType and not issubclass(kind, type):
            named = own_reduction(obj, kind)
            if named is None:
                self.plain.add(kind)
                return NotImplemented
            if not isinstance(named, str):
                return named
        if getattr(obj, "__module__", None) in MAINS:
            raise pickle.PicklingError("it must go by value")
        return named


def _by_value(obj: object, refer: Any) -> bytes:
    from ..byvalue import Inline

    sink = BytesIO()
    Inline(sink, refer, Names(), _known).dump(obj)
    return sink.getvalue()


def _refer(obj: Any) -> Reduction:
    """Return how an object goes whose class may be one of `__main__`; see `own_reduction`."""
    if isinstance(obj, type) and obj.__module__ in MAINS:
        return class_here, (obj.__qualname__, _by_value(obj, _refer_within))
    return _refer_within(obj)


def _refer_within(obj: Any) -> Reduction:
    if isinstance(obj, type):
        return NotImplemented
    answer = own_reduction(obj, type(obj))
    return NotImplemented if answer is None else answer


def class_here(name: str, frame: bytes) -> Any:
    """Return the class of that name in `__main__`, or where there is none the one in the frame.

    So what a worker puts is, in the caller, an instance of the caller's own class.
    """
    found: object = sys.modules.get("__main__")
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) else pickle.loads(frame)
