"""What a caller may ask of a map, checked once, at the call.

Every face of the library takes the same options with the same names and defaults; here they are
checked and turned into the run's limits.  A value that cannot be used raises at once, in the
caller's frame, and names the option, the value and what would do.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

from .errors import shortened
from .machine import cpu_bound

OnError = Literal["raise", "return", "skip"]

BACKENDS = ("processes", "serial")


class Options(NamedTuple):
    """The options of one call, as given."""

    workers: int | None = None
    chunksize: int | None = None
    backend: str | None = None
    on_error: OnError = "raise"
    seed: int | None = None
    worker_state: Callable[[], Any] | None = None


class Plan(NamedTuple):
    """The same options checked, with what follows from them."""

    workers: int  # at most; how many CPUs there are is looked up when workers are to be started
    named: bool  # whether the caller gave that number
    chunksize: int | None
    on_error: OnError
    seed: int | None
    worker_state: Callable[[], Any] | None
    home: bool  # whether the caller may run items
    serial: bool  # whether nobody else may


def plan(options: Options) -> Plan:
    """Return what `options` amount to on this machine.

    Raises:
        TypeError: An option has the wrong type.
        ValueError: An option has a value that cannot be used.
    """
    workers = _count("workers", options.workers)
    serial = _backend(options.backend) == "serial"
    if not _among(("raise", "return", "skip"), options.on_error):
        raise ValueError(
            f'on_error must be "raise", "return" or "skip", got {shortened(options.on_error)}'
        )
    if options.worker_state is not None and not callable(options.worker_state):
        raise TypeError(
            "worker_state must be a function that makes the state, "
            f"got {shortened(options.worker_state)}"
        )
    only_workers = options.on_error != "raise" or options.worker_state is not None
    return Plan(
        workers=1 if serial else workers or cpu_bound(),  # one worker never pays
        named=workers is not None,
        chunksize=_count("chunksize", options.chunksize),
        on_error=options.on_error,
        seed=_seed(options.seed),
        worker_state=options.worker_state,
        home=serial or (workers is None and not only_workers),
        serial=serial,
    )


def _count(name: str, value: Any) -> int | None:
    """Return a count of at least 1, or None for None."""
    if value is None:
        return None
    count = _integer(name, value)
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {value!r}")
    return count


def _integer(name: str, value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer or None, got {shortened(value)}") from None


def _among(names: tuple[str, ...], value: Any) -> bool:
    """Return whether `value` is one of `names`; an array, say, compares to no truth value."""
    return isinstance(value, str) and value in names


def _seed(value: Any) -> int | None:
    return None if value is None else _integer("seed", value)


def _backend(value: Any) -> str:
    """Return the name of the backend that the call, or else the environment, asks for."""
    given, where = value, "backend"
    if value is None:
        given = os.environ.get("PARALLELKIT_BACKEND") or "processes"
        where = "the environment variable PARALLELKIT_BACKEND"
    if not _among(BACKENDS, given):
        names = " or ".join(f'"{name}"' for name in BACKENDS)
        raise ValueError(f"{where} must be {names}, got {shortened(given)}")
    return str(given)


def check_call(name: str, fn: Any, iterables: tuple[Any, ...]) -> None:
    """Raise TypeError unless `fn` can be called and there are iterables to take arguments from."""
    if not callable(fn):
        raise TypeError(
            f"{name}() needs a function to call as its first argument, got {shortened(fn)}"
        )
    if not iterables:
        raise TypeError(f"{name}() needs an iterable of items after the function")
    for number, each in enumerate(iterables, 2):
        if not isinstance(each, Iterable) and not hasattr(each, "__getitem__"):
            raise TypeError(
                f"{name}() needs something to iterate over as argument {number}, "
                f"got {shortened(each)}"
            )
