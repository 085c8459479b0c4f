"""What the caller's surroundings are, so that a worker can have the same.

A worker outlives calls, and between them a script may change directory, extend `sys.path`, set a
variable or silence a warning.  Holds what is captured and how it is put in force; leaves to others
when to send it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import warnings
from typing import Any

_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)
"""How numerical libraries are told how many threads to start; each reads its own when loaded."""


_levelled: set[str] = set()
"""Loggers whose level was put in force here, and so has to go when the caller takes it back."""


def capture(share: int) -> bytes:
    """Return the surroundings of this process, for a worker that may use `share` CPUs.

    A numerical library in a worker starts `share` threads, unless the environment says otherwise,
    and a `pmap` inside a worker has `share` CPUs to itself.
    """
    environment = dict(os.environ)
    for name in _THREADS:
        environment.setdefault(name, str(share))
    environment["PARALLELKIT_WORKERS"] = str(share)
    try:
        directory = os.getcwd()
    except OSError:  # it was deleted
        directory = None
    settings = (list(sys.path), list(sys.argv), directory, environment, _levels(), _filters())
    return pickle.dumps(settings, 5)


def put_in_force(captured: bytes) -> None:
    """Make the surroundings of this process those that were captured."""
    path, argv, directory, environment, levels, filters = pickle.loads(captured)
    sys.path[:] = path
    sys.argv[:] = argv
    if directory is not None:
        _enter(directory)
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    if levels or _levelled:
        _set_levels(levels)
    found = _loaded(filters)  # first, as what this imports may warn
    warnings.resetwarnings()  # which also makes Python forget what it has shown already
    warnings.filters.extend(found)  # type: ignore[attr-defined]


def limit_memory(allowance: int | None) -> None:
    """Let this process take `allowance` bytes more than it has now; None lifts the limit.

    It is address space that is limited (`RLIMIT_AS`), the only kind for which the kernel refuses
    instead of killing: a function that asks for more gets a MemoryError.
    """
    if os.name != "posix":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if allowance is None:
        limit = hard
    else:
        with open("/proc/self/statm", "rb") as file:
            limit = int(file.read().split()[0]) * resource.getpagesize() + allowance
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard) if limit != resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _enter(directory: str) -> None:
    try:
        os.chdir(directory)
    except OSError:  # gone or closed to us: relative paths will say so where they are used
        return


def _set_levels(levels: dict[str, int]) -> None:
    import logging  # 10 ms, and few scripts set a level

    for name in _levelled - levels.keys():
        logging.getLogger(name).setLevel(logging.NOTSET if name else logging.WARNING)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    _levelled.clear()
    _levelled.update(levels)


def _levels() -> dict[str, int]:
    """Return the level of every logger that has one of its own; the root's name is empty."""
    logging = sys.modules.get("logging")
    if logging is None:
        return {}
    loggers: dict[str, Any] = {"": logging.root, **logging.root.manager.loggerDict}
    levels = {name: int(getattr(each, "level", 0)) for name, each in loggers.items()}
    if levels[""] == logging.WARNING:  # as it is by itself
        del levels[""]
    return {name: level for name, level in levels.items() if level}


def _filters() -> list[bytes]:
    """Return the warnings filters, but for those whose category only this script knows.

    Each is a pickle of its own: a category may lie in a module that only `sys.path` leads to.
    """
    packed = []
    for each in warnings.filters:
        if each[2].__module__ != "__main__":
            with contextlib.suppress(Exception):  # a class made in a function, say
                packed.append(pickle.dumps(each, 5))
    return packed


def _loaded(filters: list[bytes]) -> list[Any]:
    found = []
    for each in filters:
        with contextlib.suppress(Exception):  # importing a user's module can raise anything
            found.append(pickle.loads(each))
    return found
