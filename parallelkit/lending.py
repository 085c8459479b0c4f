"""What passes by reference between a worker and others, and how long the worker holds it.

A shared array travels as a handle, good for as long as its sender has the array.  A function that
makes one and returns it has nothing left of it at once; so the worker holds what it *lent*, until
what it is asked next shows that the caller has the result.

What it *borrowed* it holds from one run to the next, for mapping a shared array anew costs about
1 us for each page of it that is touched: 0.1 s for 200 MB (measured on 2 cores, a virtual machine).
But it must not keep alive what nobody else has, so it looks, at the borders of runs and every
`NAP` seconds between them, whether the lender still has it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable

_HELD = 2
"""Chunks whose loans are held: a worker has two at most, so when it begins a third, the caller has
taken in the first."""

_KEPT = 8
"""Borrowed things to hold: more than functions name at once, and few descriptors."""

NAP = 1.0
"""Seconds that memory may outlive the interest of all others: a look costs 10 us for each thing."""

_loans: deque[list[object]] = deque(maxlen=_HELD)
_borrowed: dict[Hashable, Callable[[], bool]] = {}  # the one used last is last
_keeping = False  # whether this is a worker that may borrow


def turn() -> None:
    """Begin a chunk: its loans are held from now on, those of the one before the last no more."""
    _loans.append([])


def lend(thing: object) -> None:
    """Hold `thing`, if this is a worker that runs a chunk; elsewhere its owner sees to that."""
    if _loans:
        _loans[-1].append(thing)


def owing() -> bool:
    """Return whether anything is lent that may not have arrived."""
    return any(_loans)


def borrow(thing: Hashable, wanted: Callable[[], bool]) -> None:
    """Hold `thing` while `wanted` is true, if this is a worker; it is one of few, the last used."""
    if _keeping:
        _borrowed.pop(thing, None)
        _borrowed[thing] = wanted
        if len(_borrowed) > _KEPT:
            del _borrowed[next(iter(_borrowed))]


def begin(keep: bool = True) -> None:
    """Begin a run, in a worker.  What was borrowed goes unless the worker may `keep` it."""
    global _keeping
    _keeping = keep
    if not keep:
        _borrowed.clear()
    review()


def review() -> bool:
    """Give back what its lender has no more; return whether anything is left."""
    for thing, wanted in list(_borrowed.items()):
        if not wanted():
            del _borrowed[thing]
    return bool(_borrowed)


def end() -> None:
    """Hold no loans: the run is over, and all has arrived."""
    _loans.clear()
