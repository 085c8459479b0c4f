"""What goes by name, what must go by value, and the numbers by which both sides know the latter.

A worker can import modules but has no `__main__` of the caller's.  Functions and classes of
modules that a worker cannot import are *definitions*: each goes by value once in a run, and from
then on both sides write its number in place of it.  How it goes by value is left to `byvalue.py`,
what is made of the numbers to `codec.py`.
"""

from __future__ import annotations

import copyreg
import os
import sys
from collections.abc import Iterable
from contextvars import ContextVar
from functools import lru_cache
from types import FunctionType
from typing import Any
from weakref import WeakSet

from .failures import keeps_default_reduce, reduce_error

PROTOCOL = 5

Reduction = Any  # a name, a tuple, or NotImplemented: what pickle's `reducer_override` may return

_CACHED = type(lru_cache(lambda: None))

MAINS = frozenset({"__main__", "__mp_main__"})
"""The modules that every process has its own of; the second is the caller's, in a process that
`multiprocessing` started."""


class Known:
    """The definitions of one run, in the order of their numbers, as this side has them."""

    def __init__(self) -> None:
        self.objects: list[object] = []
        self.numbers: dict[int, int] = {}  # by id(), which the list keeps from being used again
        # Classes that are complete here, though they go by value: see `settle` in byvalue.py.
        self.settled: WeakSet[type] = WeakSet()

    def add(self, objects: Iterable[object]) -> None:
        """Number further definitions."""
        for obj in objects:
            self.numbers[id(obj)] = len(self.objects)
            self.objects.append(obj)


# Not a global, since several runs may be unpickling in as many threads.
reading: ContextVar[Known] = ContextVar("reading")


def definition(number: int) -> object:
    """Return the definition with this number in the run whose frame is being unpickled."""
    return reading.get().objects[number]


class Names:
    """Tells what goes by name from what goes by value, and remembers it for a run."""

    def __init__(self, by_value: Iterable[str] = ()) -> None:
        self.by_value = frozenset(by_value)
        self.verdicts: dict[str, bool] = {}

    def defines(self, obj: object, name: str | None = None) -> bool:
        """Whether `obj` is what a module that goes by value holds under the name of `obj`."""
        module = getattr(obj, "__module__", None)
        if not isinstance(module, str) or self.importable(module):
            return False
        if name is None:
            name = getattr(obj, "__qualname__", "")
        return holds(module, str(name), obj)

    def finds(self, obj: object, name: str) -> bool:
        """Whether a worker finds `obj` under `name` in its module."""
        module = getattr(obj, "__module__", None)
        if not isinstance(module, str):
            return True  # pickle searches all modules for it
        return self.importable(module) and holds(module, name, obj)

    def importable(self, module: str) -> bool:
        """Whether a worker can import `module`."""
        verdict = self.verdicts.get(module)
        if verdict is None:
            verdict = self.verdicts[module] = not self._goes_by_value(module) and findable(module)
        return verdict

    def _goes_by_value(self, module: str) -> bool:
        """Whether someone said so: the caller of this class, or cloudpickle's user."""
        cloudpickle = sys.modules.get("cloudpickle")
        chosen = self.by_value
        # Another thread may be loading it just now.
        registry = getattr(cloudpickle, "list_registry_pickle_by_value", None)
        if registry is not None:
            chosen = chosen | registry()
        return any(module == name or module.startswith(name + ".") for name in chosen)


def holds(module: str, name: str, obj: object) -> bool:
    """Whether the loaded `module` has exactly `obj` under the qualified `name`."""
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is obj


def findable(module: str) -> bool:
    """Whether a fresh interpreter with this one's `sys.path` would find the loaded `module`.

    A module that was never loaded is not judged here: pickle will try, and say what is wrong.
    """
    if module in MAINS or _loading(module):
        return False
    package = module.partition(".")[0]
    if module not in sys.modules or package in sys.stdlib_module_names or package == __package__:
        return True  # a worker has this package, even where `sys.path` leads to another copy of it
    return _findable(module, tuple(sys.path))


def _loading(module: str) -> bool:
    """Whether `module` or a package around it is being imported.

    What calls us then is its own top level: a worker that imported it would do so again, and so
    would that one's workers, without end.
    """
    while module:
        spec = getattr(sys.modules.get(module), "__spec__", None)
        if getattr(spec, "_initializing", False):  # private, as importlib's own lock on it
            return True
        module = module.rpartition(".")[0]
    return False


@lru_cache(maxsize=4096)  # a search costs some 50 us; a big program loads some 2000 modules
def _findable(module: str, _: tuple[str, ...]) -> bool:
    parent = module.rpartition(".")[0]
    search = None
    if parent:
        if not findable(parent):
            return False
        search = getattr(sys.modules.get(parent), "__path__", None)
        if search is None:  # no package, so it makes its submodules itself, as torch._C does
            return True
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(module, search)
        except Exception:  # an import hook of someone's, which may not know what it is asked
            spec = None
        if spec is not None:
            return _same_file(spec.origin, getattr(sys.modules.get(module), "__file__", None))
    return False


def _same_file(found: str | None, loaded: str | None) -> bool:
    """Whether what would be found is what was loaded: test runners load files by their path."""
    if not found or not loaded:  # a namespace package, a built-in module
        return True
    return os.path.realpath(found) == os.path.realpath(loaded)


def own_reduction(obj: object, kind: type) -> Reduction:
    """Return what `obj` says of itself to pickle, None if that cannot be of interest here.

    Of interest is an object that goes by a name (a string), which may be one of `__main__`: an
    enum's member, `lru_cache`'s wrapper, a type variable, a singleton of the user's.  Whatever else
    a `__reduce__` in Python returned is handed on, so that it is called once.  None holds for all
    objects of the same type.
    """
    if kind in copyreg.dispatch_table:
        return None
    if isinstance(obj, BaseException) and keeps_default_reduce(type(obj)):
        return reduce_error(obj)
    written = isinstance(kind.__reduce__, FunctionType)
    written = written or isinstance(kind.__reduce_ex__, FunctionType)
    if written or kind is _CACHED or kind.__module__ == "typing":
        return obj.__reduce_ex__(PROTOCOL)
    return None
