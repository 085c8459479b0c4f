"""What earlier calls have taught: the price of a function, and how soon workers are up.

A price is known by the function's code, the kind of its items and how results are folded, so that a
lambda made anew in each round of a loop is known too.  Deciding by it is `chunking`'s.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # type checkers take it for true, and importing `typing` costs 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any

    from .almanac import Almanac

    Key = tuple[CodeType, type | None, CodeType | str | None]
    Costs = tuple[float, float | None, float]

REMEMBERED = 256  # functions whose cost is kept; a script has a handful

COLD = 0.06  # seconds until a zygote is there, with what else a cold run must load
FORK = 2.5e-3  # and for each worker, until that was measured
_BRIEFEST, _LONGEST = 0.5e-3, 50e-3  # seconds for it that are believed

_Code = type((lambda: None).__code__)

costs: dict[Key, Costs] = {}
"""By function: seconds for an item, to carry one (None: not known), and bytes of one or of its
result, or of what a chunk is folded into; the one used last comes last."""


_fork = FORK  # the seconds for a worker, as they were measured
_almanac: list[Almanac | None] = []  # the file that the user has named, once that was looked at


def key(
    fn: Callable[..., Any], kind: type | None, op: Callable[..., Any] | None = None
) -> Key | None:
    """Return what tells that a function and its items are as at an earlier call, also if made anew.

    The same function may be a thousand times dearer for an array than for a number; and folding by
    `op` is part of a price.
    """
    functools = sys.modules.get("functools")
    partial = getattr(functools, "partial", None)  # another thread may be loading it just now
    while partial is not None and isinstance(fn, partial):
        fn = fn.func
    code = getattr(fn, "__code__", None)
    folding = None if op is None else _named(op)
    return (code, kind, folding) if isinstance(code, _Code) else None


def _named(op: Callable[..., Any]) -> CodeType | str:
    """Return what an operation is known by; an object of the user's can answer anything."""
    for name in ("__code__", "__name__"):
        try:
            found = getattr(op, name, None)
        except Exception:
            return ""
        if isinstance(found, (_Code, str)):
            return found
    return ""


def recall(key: Key | None) -> Costs | None:
    """Return what a function is known to cost, if it is known."""
    if key is None:
        return None
    known = costs.get(key)
    almanac = _opened() if known is None else None
    return known if almanac is None else almanac.recall(key)


def remember(key: Key | None, found: Costs) -> None:
    """Keep what a function costs, and forget the one that was not used for longest."""
    if key is None:
        return
    costs.pop(key, None)
    costs[key] = found
    almanac = _opened()
    if almanac is not None:
        almanac.remember(key, found)
    if len(costs) > REMEMBERED:
        for oldest in costs:
            # Another thread may have done so just now.
            costs.pop(oldest, None)
            return


def launch(count: int) -> float:
    """Return the seconds until `count` workers are up."""
    # Another thread may be loading that room just now, hence getattr.
    warm = getattr(sys.modules.get("parallelkit.backends.processes"), "launch", None)
    return COLD + _fork * count if warm is None else float(warm(count))


def forked(seconds: float) -> None:
    """Learn that a worker was up so long after it was asked for, of a zygote that was there."""
    global _fork
    # Half of the weight goes to the newest: the machine may be busy for a while.
    _fork = (_fork + min(max(seconds, _BRIEFEST), _LONGEST)) / 2


def fork() -> float:
    """Return the seconds for each worker that a zygote forks."""
    return _fork


def _opened() -> Almanac | None:
    if not _almanac:
        found = None
        if os.environ.get("PARALLELKIT_CACHE"):
            from .almanac import opened

            found = opened()
        _almanac.append(found)
    return _almanac[0]
