"""Which backend a call is to have: named, addressed, handed over, or chosen for a while.

Here is the register of backends.  Each of other engines is a room of `backends` with a function
`venue(given, workers)`, which is loaded when it is asked for, and with it the engine's package.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections import Counter
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import shortened
from .guests import chosen, lodged

if TYPE_CHECKING:
    from .backends.slots import Venue

VARIABLE = "PARALLELKIT_BACKEND"

OURS = ("processes", "serial")
ROOMS = {"threads": "threads", "dask": "dask", "ray": "ray", "mpi": "mpi"}
SCHEMES = {"dask": "dask", "tcp": "dask", "tls": "dask", "ray": "ray"}
PACKAGES = {"distributed": "dask", "ray": "ray", "mpi4py": "mpi"}
"""Rooms by name, by the scheme of an address, and by the package that an object's class is from,
which also is the package that a room needs."""


_before: ContextVar[tuple[tuple[Any, tuple[Any, bool] | None], ...]] = ContextVar(
    "before", default=()
)
"""The `with` blocks that this code is in, and what was chosen before each."""

_lock = threading.Lock()
_blocks: Counter[str] = Counter()  # that are open in any thread, by name or address


class Choice(NamedTuple):
    """A backend: one of ours, or another engine, where `depth` workers share a place."""

    name: str
    venue: Venue | None = None
    depth: int = 1


class backend:  # noqa: N801  # it is used as a function is
    """Choose the backend of the calls in a `with` block that name none themselves.

    The choice holds for this thread or task of an event loop, and goes before the variable
    `PARALLELKIT_BACKEND`.  An engine that was connected to or started by its name or address is
    left when the last block that names it ends, also if a call outside of these uses it then; one
    that was handed over stays as it is.

    Args:
        given: What `backend=` of `pmap` takes.

    Example:
        >>> with backend("threads"):
        ...     pmap(abs, [-1, 2, -3])
        [1, 2, 3]
    """

    def __init__(self, given: Any) -> None:
        _room(given, "backend")
        self.given = given

    def __enter__(self) -> None:
        """Choose it."""
        _before.set((*_before.get(), (self, chosen.get())))
        chosen.set((self.given, lodged.get()))
        if isinstance(self.given, str):
            with _lock:
                _blocks[self.given] += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let the choice before it hold again."""
        blocks = _before.get()
        if blocks and blocks[-1][0] is self:  # else another context began this one
            _before.set(blocks[:-1])
            chosen.set(blocks[-1][1])
        if isinstance(self.given, str) and _closed(self.given):
            name = _room(self.given, "backend")
            room = sys.modules.get(f"{__package__}.backends.{name}")
            if room is not None and hasattr(room, "leave"):
                room.leave(self.given)


def _closed(given: str) -> bool:
    """Record that a block has ended; return whether it was the last that names this backend."""
    with _lock:
        _blocks[given] -= 1
        if _blocks[given] > 0:
            return False
        del _blocks[given]
        return True


def choose(given: Any, workers: int | None) -> Choice:
    """Return the backend that a call asks for, or else what was chosen for it.

    Raises:
        TypeError, ValueError: There is no such backend.
        ModuleNotFoundError: It needs a package that is not installed.
        NoWorkers: It cannot be reached.
    """
    given, where = _wanted(given)
    room = _room(given, where)
    if room is None:
        return Choice(given)
    return Choice(room, _loaded(room, given).venue(given, workers))


def _wanted(given: Any) -> tuple[Any, str]:
    if given is not None:
        return given, "backend"
    choice = chosen.get()
    if choice is not None and choice[1] == lodged.get():
        return choice[0], "backend"
    if lodged.get():
        return "processes", "backend"
    named = os.environ.get(VARIABLE)
    return (named, f"the environment variable {VARIABLE}") if named else ("processes", "backend")


def _room(given: Any, where: str) -> str | None:
    """Return the room of a backend, None for one of ours."""
    if isinstance(given, str):
        if given in OURS:
            return None
        scheme, mark, address = given.partition("://")
        room = SCHEMES.get(scheme) if mark and address else ROOMS.get(given)
        if room is None:
            names = ", ".join(f'"{name}"' for name in (*OURS, *ROOMS))
            raise ValueError(
                f"{where} must be one of {names}, an address such as "
                f'"dask://host:8786", an executor or a client, got {shortened(given)}'
            )
        return room
    return _room_of_object(given)


def _room_of_object(given: Any) -> str:
    from concurrent.futures import Executor

    for cls in type(given).__mro__:  # it may be of a class of the user's own
        package = cls.__module__.partition(".")[0]
        if package in PACKAGES:
            return PACKAGES[package]
    if isinstance(given, Executor) or (callable(given) and not isinstance(given, type)):
        return "executor"
    if isinstance(given, type) and issubclass(given, Executor):
        return "executor"
    raise TypeError(
        "backend must be a name, an address, a concurrent.futures.Executor, a function that makes "
        f"one, or a client of Dask, got {shortened(given)}"
    )


def _loaded(room: str, given: Any) -> Any:
    try:
        return importlib.import_module(f".backends.{room}", __package__)
    except ModuleNotFoundError as error:
        package = next((name for name, its in PACKAGES.items() if its == room), None)
        if error.name != package:
            raise
        raise ModuleNotFoundError(
            f"backend={given!r} needs the package {package}, which is not installed: "
            f"pip install 'parallelkit[{room}]'",
            name=package,
        ) from None
    except RuntimeError as error:  # what mpi4py raises where its library is not found
        if room != "mpi" or "MPI library" not in str(error):
            raise
        raise ImportError(
            f"backend={given!r} needs an MPI library, which the package mpi4py does not find: "
            "install Open MPI, MPICH or Intel MPI, or put its folder on the path of libraries "
            "(LD_LIBRARY_PATH)",
            name="mpi4py",
        ) from error
