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
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
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


_JOBLIB = "LOKY_MAX_CPU_COUNT"
"""How joblib is told of how many CPUs there are, which `n_jobs=-1` means."""

_FLOAT_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
"""What numpy starts with (numpy.seterr)."""

_DEPTH = sys.getrecursionlimit()
"""What a worker itself may need: a caller's lower limit is not put in force."""

_levelled: set[str] = set()
"""Loggers whose level was put in force here, and so has to go when the caller takes it back."""


_captured: tuple[list[Any], bytes] | None = None
"""What was captured last, before and after it was pickled."""


def capture(share: int) -> bytes:
    """Return the surroundings of this process, for a worker that may use `share` CPUs.

    A numerical library in a worker starts `share` threads, unless the environment says otherwise,
    and a `pmap` inside a worker has `share` CPUs to itself.
    """
    global _captured
    # A decimal context compares by identity, which only costs the time to pickle it.
    customs = [_decimals(), _float_errors(), _place(), _family(), _levels()]
    here = [
        *(share, _environment(), sys.path, sys.argv, _directory(), warnings.filters),
        *(sys.getrecursionlimit(), sys.get_int_max_str_digits(), customs),
    ]
    last = _captured
    if last is not None and last[0] == here:  # as it mostly is: pickling takes 30 us
        return last[1]
    kept = [_copied(each) for each in here]  # before: what another thread sets since is seen next
    found = _packed(share, here[4], customs)
    _captured = kept, found
    return found


def _copied(found: Any) -> Any:
    """Return what stays as it is when the original is changed in place."""
    if isinstance(found, list):
        return list(found)
    return dict(found) if isinstance(found, dict) else found


def _directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return None


def _environment() -> Any:
    """Return the environment in a form that can be compared, as cheaply as can be."""
    raw = getattr(os.environ, "_data", None)  # private; elsewhere it is decoded, name by name
    return dict(os.environ) if raw is None else raw


def _packed(share: int, directory: str | None, others: list[Any]) -> bytes:
    environment = dict(os.environ)
    for name in _THREADS:
        environment.setdefault(name, str(share))
    environment["PARALLELKIT_WORKERS"] = str(share)
    with contextlib.suppress(ValueError):  # joblib will say what is wrong with the user's own
        environment[_JOBLIB] = str(min(share, int(environment.get(_JOBLIB, share))))
    limits = (sys.getrecursionlimit(), sys.get_int_max_str_digits())
    *customs, levels = others
    settings = (
        *(_texts(sys.path), _texts(sys.argv), directory, environment, limits, tuple(customs)),
        *(levels, _filters()),
    )
    return pickle.dumps(settings, 5)


def put_in_force(captured: bytes) -> None:
    """Make the surroundings of this process those that were captured."""
    *place, levels, filters = _unpacked(captured)
    _move(*place)
    if levels or _levelled:
        _set_levels(levels)
    found = _loaded(filters)  # first, as what this imports may warn
    warnings.resetwarnings()  # which also makes Python forget what it has shown already
    warnings.filters.extend(found)  # type: ignore[attr-defined]


def put_back(captured: bytes) -> None:
    """Undo what a function has done to surroundings that were put in force.

    Warnings and levels stay, or each run would show again what was shown before.
    """
    *place, _, _ = _unpacked(captured)
    _move(*place)


@lru_cache(maxsize=1)
def _unpacked(captured: bytes) -> Any:
    return pickle.loads(captured)


def _move(
    path: list[str],
    argv: list[str],
    directory: str | None,
    environment: dict[str, str],
    limits: tuple[int, int],
    customs: tuple[Any, dict[str, str] | None, str | None, bytes | None],
) -> None:
    sys.path[:] = path
    sys.argv[:] = argv
    sys.setrecursionlimit(max(limits[0], _DEPTH))
    sys.set_int_max_str_digits(limits[1])
    _calculate(*customs[:2])
    _settle(customs[2])
    _join(customs[3])
    if directory is not None:
        _enter(directory)
    global _moved
    if _moved is not None and _moved[0] is environment and _moved[1] == _environment():
        return
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    _moved = environment, dict(_environment())


_moved: tuple[dict[str, str], Any] | None = None
"""The environment that was put in force last, as the caller has it and as it is compared here."""


def _family() -> bytes | None:
    """Return what a process shows to a `multiprocessing.Manager`, if there may be one."""
    if "multiprocessing.managers" not in sys.modules:
        return None
    from multiprocessing.process import current_process

    return bytes(current_process().authkey)


def _join(key: bytes | None) -> None:
    if key is not None:
        from multiprocessing.process import current_process

        current_process().authkey = key


def address_space() -> int:
    """Return how many bytes of address space this process has (Linux)."""
    import resource

    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def limit_memory(most: int | None) -> None:
    """Let this process have `most` bytes of address space; None lifts our limit.

    That (`RLIMIT_AS`) is the only kind of limit for which the kernel refuses instead of killing: a
    function that asks for more gets a MemoryError.  Where the user has set a limit, that is the
    most.
    """
    if os.name != "posix":
        return
    import resource

    soft, hard = _inherited()
    limit = soft
    if most is not None and most <= sys.maxsize:  # beyond that it is more than a limit can say
        limit = most if soft == resource.RLIM_INFINITY else min(most, soft)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


@contextlib.contextmanager
def serially() -> Iterator[None]:
    """Have the maps in the block run here, unless they say otherwise.

    A package that maps something when it is imported would in each worker be imported, and so in
    each of that one's workers, without end.
    """
    before = os.environ.get("PARALLELKIT_BACKEND")
    os.environ["PARALLELKIT_BACKEND"] = "serial"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PARALLELKIT_BACKEND"]
        else:
            os.environ["PARALLELKIT_BACKEND"] = before


@cache
def _inherited() -> tuple[int, int]:
    """Return the limits on address space that this process began with: the user's own."""
    import resource

    return resource.getrlimit(resource.RLIMIT_AS)


def _texts(values: Iterable[object]) -> list[str]:
    """Return plain strings: what else there may be, a worker might not know the class of."""
    return [each if type(each) is str else str(each) for each in values]


def _decimals() -> Any:
    """Return the context of this thread's decimal arithmetic, None if it is the usual one."""
    decimal = sys.modules.get("decimal")
    if not hasattr(decimal, "getcontext"):  # not loaded, or in another thread not yet
        return None
    here: Any = decimal.getcontext().copy()  # type: ignore[union-attr]
    here.clear_flags()
    usual = decimal.Context()  # type: ignore[union-attr]
    return None if here.__reduce__() == usual.__reduce__() else here


def _float_errors() -> dict[str, str] | None:
    """Return what numpy does about overflows and the like, None if it is the usual."""
    numpy = sys.modules.get("numpy")
    found: dict[str, str] = numpy.geterr() if hasattr(numpy, "geterr") else _FLOAT_ERRORS  # type: ignore[union-attr]
    return None if found == _FLOAT_ERRORS else found


def _place() -> str | None:
    """Return the locale in which numbers and dates are read and written, if it can be another."""
    module: Any = sys.modules.get("_locale")  # whose parts are those of `locale`
    found: str | None = module.setlocale(module.LC_ALL) if hasattr(module, "setlocale") else None
    return found


def _settle(place: str | None) -> None:
    if place is not None:
        import _locale  # to load `locale` takes each worker 1 ms and 1.3 MB

        if _locale.setlocale(_locale.LC_ALL) != place:
            # Each system has its own.
            with contextlib.suppress(_locale.Error):  # type: ignore[attr-defined]
                _locale.setlocale(_locale.LC_ALL, place)


def _calculate(decimals: Any, float_errors: dict[str, str] | None) -> None:
    """Have this thread calculate as the caller does; None is the usual way."""
    if decimals is not None or "decimal" in sys.modules:
        import decimal

        # A copy, since what is in force is changed by who calculates.
        decimal.setcontext(decimals.copy() if decimals else decimal.Context())
    if float_errors is not None or "numpy" in sys.modules:
        import numpy as np

        np.seterr(**(float_errors or _FLOAT_ERRORS))  # type: ignore[arg-type]


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
