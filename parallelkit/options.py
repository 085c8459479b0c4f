"""What a caller may ask of a map, checked once, at the call.

Every face of the library takes the same options with the same names and defaults; here they are
checked and turned into the run's limits.  A value that cannot be used raises at once, in the
caller's frame, and names the option, the value and what would do.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .errors import shortened
from .guests import lodged
from .machine import cpu_bound
from .selection import Choice, choose

if TYPE_CHECKING:
    from .backends.slots import Venue

OnError = Literal["raise", "return", "skip"]

Exceptions = type[BaseException] | tuple[type[BaseException], ...]


class Options(NamedTuple):
    """The options of one call, as given."""

    workers: int | None = None
    chunksize: int | None = None
    backend: Any = None
    timeout: float | None = None
    retries: int = 0
    retry_on: Exceptions = Exception
    backoff: float = 0.0
    on_error: OnError = "raise"
    seed: int | None = None
    worker_state: Callable[[], Any] | None = None
    max_memory: int | None = None


class Plan(NamedTuple):
    """The same options checked, with what follows from them."""

    workers: int  # at most; how many CPUs there are is looked up when workers are to be started
    asked: int | None  # the number that the caller gave
    chunksize: int | None
    timeout: float | None
    retries: int
    retry_on: Exceptions
    backoff: float
    on_error: OnError
    seed: int | None
    max_memory: int | None
    home: bool  # whether the caller may run items
    backend: Choice

    @property
    def serial(self) -> bool:
        """Whether nobody but the caller may run items."""
        return self.backend.name == "serial"


def plan(options: Options) -> Plan:
    """Return what `options` amount to on this machine.

    Raises:
        TypeError: An option has the wrong type.
        ValueError: An option has a value that cannot be used.
    """
    workers = _count("workers", options.workers, 1)
    _check_names(options)
    choice = choose(options.backend, workers)
    serial = choice.name == "serial"
    checked = Plan(
        workers=1 if serial else workers or _bound(),  # one worker never pays
        asked=workers,
        chunksize=_count("chunksize", options.chunksize, 1),
        timeout=_seconds("timeout", options.timeout),
        retries=_count("retries", options.retries, 0) or 0,
        retry_on=options.retry_on,
        backoff=_backoff(options.backoff),
        on_error=options.on_error,
        seed=_seed(options.seed),
        max_memory=_memory(options.max_memory),
        home=serial,
        backend=choice,
    )
    if serial:
        _check_serial(checked)
        return checked
    if choice.venue is not None:
        return _abroad(checked, choice.venue, workers)
    return checked._replace(home=workers is None and not _only_workers(options))


def _bound() -> int:
    """Return how many workers a call may have that names no number."""
    return 1 if lodged.get() else cpu_bound()


def _abroad(checked: Plan, venue: Venue, workers: int | None) -> Plan:
    """Return the plan of a call whose items another engine runs."""
    from .backends.slots import slots

    timed = checked.timeout is not None
    if timed and not venue.ends:
        raise ValueError(
            f"timeout needs a backend that can end an item which runs, and {venue.name} cannot: "
            'leave out timeout=, or use backend="processes"'
        )
    if checked.max_memory is not None:
        raise ValueError(
            f"max_memory needs workers of parallelkit's own, not those of {venue.name}: "
            'leave out max_memory=, or use backend="processes"'
        )
    most, depth = slots(venue.capacity(), workers, timed)
    return checked._replace(workers=most, backend=checked.backend._replace(depth=depth))


def _only_workers(options: Options) -> bool:
    """Return whether something is asked for that the caller cannot do to itself."""
    return (
        options.on_error != "raise"
        or options.worker_state is not None
        or options.timeout is not None
        or options.retries != 0
        or options.max_memory is not None
    )


def _check_names(options: Options) -> None:
    if not _among(("raise", "return", "skip"), options.on_error):
        raise ValueError(
            f'on_error must be "raise", "return" or "skip", got {shortened(options.on_error)}'
        )
    if options.worker_state is not None and not callable(options.worker_state):
        raise TypeError(
            "worker_state must be a function that makes the state, "
            f"got {shortened(options.worker_state)}"
        )
    kinds: Any = options.retry_on  # of any type, until it is checked
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        raise TypeError(
            "retry_on must be an exception class or a tuple of them, "
            f"got {shortened(options.retry_on)}"
        )


def _check_serial(checked: Plan) -> None:
    """Raise ValueError for what cannot be done without a process that can be ended."""
    for name in ("timeout", "max_memory"):
        value = getattr(checked, name)
        if value is not None:
            raise ValueError(
                f'{name} needs worker processes, but backend is "serial": leave out {name}='
            )


def _seconds(name: str, value: Any) -> float | None:
    """Return a length of time above 0, or None for None."""
    if value is None:
        return None
    seconds = _number(name, value, "a number of seconds or None")
    if not 0 < seconds < math.inf:
        raise ValueError(f"{name} must be a number of seconds above 0, got {shortened(value)}")
    return seconds


def _memory(value: Any) -> int | None:
    count = _count("max_memory", value, 1)
    if count is not None and not sys.platform.startswith("linux"):
        raise ValueError("max_memory works on Linux only: leave it out, or limit the caller itself")
    return count


def _backoff(value: Any) -> float:
    seconds = _number("backoff", value, "a number of seconds")
    if not 0 <= seconds < math.inf:
        raise ValueError(f"backoff must be a number of seconds, 0 or more, got {shortened(value)}")
    return seconds


def _number(name: str, value: Any, what: str) -> float:
    # By method, so that numbers of numpy are some; strings, which float() would take, are none.
    if isinstance(value, bool | str | bytes) or not hasattr(type(value), "__float__"):
        raise TypeError(f"{name} must be {what}, got {shortened(value)}")
    try:
        return float(value)
    except Exception:  # an integer beyond any float, a decimal that signals, a method of the user's
        raise ValueError(f"{name} must be {what}, got {shortened(value)}") from None


def _count(name: str, value: Any, least: int) -> int | None:
    """Return a count of at least `least`, or None for None."""
    if value is None:
        return None
    count = _integer(name, value)
    if count < least:
        raise ValueError(f"{name} must be at least {least}, got {shortened(value)}")
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
