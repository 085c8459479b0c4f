"""Functions of which nothing can change from one call to the next.

Such a function need not be pickled, sent and unpickled again for workers that had it in the call
before, which is most of what a short call costs.  What a function is made of is compared by
identity: its code, its defaults, what it has closed over, and the globals that it names.  Whatever
can be changed in place (a list, a class of the script's) is no part of one, and neither is what the
function sets itself: a worker's copy of it would keep that from one call to the next.
"""

from __future__ import annotations

import builtins
import sys
from functools import lru_cache
from operator import is_
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from .definitions import Names

_FIXED = (int, float, complex, str, bytes, bool, type(None), type(Ellipsis))
"""What cannot change.  Exact types: an instance of a subclass can have attributes."""

_UNCHECKED = frozenset(
    {"globals", "exec", "eval", "vars", "locals", "setattr", "__builtins__"}
    | {"__globals__", "f_globals", "__closure__"}
)
"""Names through which a function can change what it does not name."""

_NOTHING = object()  # in place of a global that there is not: a builtin, or an attribute's name


def made_of(fn: Any) -> tuple[Any, ...] | None:
    """Return what `fn` is made of, to be given to `same`, None if that can change."""
    if type(fn) is BuiltinFunctionType and isinstance(fn.__self__, ModuleType):
        return (fn,)
    if type(fn) is not FunctionType or fn.__dict__:
        return None
    names = Names()
    if not names.defines(fn) and names.finds(fn, fn.__qualname__):
        return fn, fn.__code__  # it goes by name, and the worker keeps its module anyway
    outer = _outer(fn)
    if outer is None or not all(_lasting(each, names) for each in outer):
        return None
    return (*_own(fn), *outer)


def still(parts: tuple[Any, ...], fn: Any) -> bool:
    """Return whether `fn` is made of what was found before, whose parts have not changed since."""
    if type(fn) is BuiltinFunctionType:
        return parts[0] is fn
    if type(fn) is not FunctionType or fn.__dict__:
        return False
    if parts[0] is fn:
        return parts[1] is fn.__code__
    outer = _outer(fn)
    return outer is not None and same(parts, (*_own(fn), *outer))


def _own(fn: FunctionType) -> tuple[Any, ...]:
    own = (fn.__code__, fn.__globals__, fn.__name__, fn.__qualname__, fn.__module__)
    return (*own, *(fn.__kwdefaults__ or ()))


def _outer(fn: FunctionType) -> list[Any] | None:
    """Return what a function refers to, None if it may set that, or it cannot be had yet."""
    named, held = _globals(fn.__code__), _held(fn)
    if named is None or held is None:
        return None
    known = fn.__globals__
    return [*[known.get(name, _NOTHING) for name in named], *held]


def _held(fn: FunctionType) -> list[Any] | None:
    """Return the values that a function has of its own, None if one cannot be had yet."""
    try:
        cells = [cell.cell_contents for cell in fn.__closure__ or ()]
        annotations = fn.__annotations__.values()
    except Exception:  # a variable without a value; or an annotation, where these are put off
        return None
    return [*(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values(), *cells, *annotations]


def same(before: tuple[Any, ...] | None, now: tuple[Any, ...] | None) -> bool:
    """Return whether two functions are made of the same."""
    if before is None or now is None or len(before) != len(now):
        return False
    return all(map(is_, before, now))


def _lasting(found: Any, names: Names) -> bool:
    kind = type(found)
    if found is _NOTHING or kind in _FIXED:
        return True
    if kind is type and getattr(builtins, found.__name__, None) is found:
        return True
    if kind is ModuleType:
        name = getattr(found, "__name__", None)
        return sys.modules.get(str(name)) is found and names.importable(str(name))
    return kind is BuiltinFunctionType and isinstance(getattr(found, "__self__", None), ModuleType)


@lru_cache(maxsize=256)
def _globals(code: CodeType) -> tuple[str, ...] | None:
    """Return the names in `code` that may be globals, None if it may set what is not its own."""
    from opcode import opmap

    setting = ["STORE_GLOBAL", "DELETE_GLOBAL"]
    if code.co_freevars:  # else what is set this way was made in the same call
        setting += ["STORE_DEREF", "DELETE_DEREF"]
    changing = {opmap[name] for name in setting}
    names: dict[str, None] = {}
    codes = [code]
    while codes:
        code = codes.pop()
        if changing.intersection(code.co_code[::2]) or _UNCHECKED.intersection(code.co_names):
            return None
        names.update(dict.fromkeys(code.co_names))
        codes += [each for each in code.co_consts if isinstance(each, CodeType)]
    return tuple(names)
