"""What earlier calls have taught: the price of a function, and how soon workers are up.

A price is known by the function's code and the kind of its items, so that a lambda made anew in
each round of a loop is known too.  Deciding by it is `chunking`'s.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # type checkers take it for true, and importing `typing` costs 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any

    Key = tuple[CodeType, type | None]
    Costs = tuple[float, float | None, float]

REMEMBERED = 256  # functions whose cost is kept; a script has a handful

COLD = 0.06  # seconds until a zygote is there, with what else a cold run must load
_FORK = 2.5e-3  # and for each worker

_Code = type((lambda: None).__code__)

costs: dict[Key, Costs] = {}
"""By function: seconds for an item, to carry one (None: not known), and bytes of one or of its
result; the one used last comes last."""


def key(fn: Callable[..., Any], kind: type | None) -> Key | None:
    """Return what tells that a function and its items are as at an earlier call, also if made anew.

    The same function may be a thousand times dearer for an array than for a number.
    """
    functools = sys.modules.get("functools")
    partial = getattr(functools, "partial", None)  # another thread may be loading it just now
    while partial is not None and isinstance(fn, partial):
        fn = fn.func
    code = getattr(fn, "__code__", None)
    return (code, kind) if isinstance(code, _Code) else None


def recall(key: Key | None) -> Costs | None:
    """Return what a function is known to cost, if it is known."""
    return None if key is None else costs.get(key)


def remember(key: Key | None, found: Costs) -> None:
    """Keep what a function costs, and forget the one that was not used for longest."""
    if key is None:
        return
    costs.pop(key, None)
    costs[key] = found
    if len(costs) > REMEMBERED:
        for oldest in costs:
            # Another thread may have done so just now.
            costs.pop(oldest, None)
            return


def launch(count: int) -> float:
    """Return the seconds until `count` workers are up."""
    # Another thread may be loading that room just now, hence getattr.
    warm = getattr(sys.modules.get("parallelkit.backends.processes"), "launch", None)
    return COLD + _FORK * count if warm is None else float(warm(count))
