"""What a worker has passed on by reference, and must hold until it has arrived.

A shared array travels as a handle, good for as long as its sender has the array.  A function that
makes one and returns it has nothing left of it at once; so the worker holds it, until what it is
asked next shows that the caller has the result.
"""

from __future__ import annotations

from collections import deque

_HELD = 2
"""Chunks whose loans are held: a worker has two at most, so when it begins a third, the caller has
taken in the first."""

_loans: deque[list[object]] = deque(maxlen=_HELD)


def turn() -> None:
    """Begin a chunk: its loans are held from now on, those of the one before the last no more."""
    _loans.append([])


def lend(thing: object) -> None:
    """Hold `thing`, if this is a worker that runs a chunk; elsewhere its owner sees to that."""
    if _loans:
        _loans[-1].append(thing)


def end() -> None:
    """Hold nothing: the run is over, and all has arrived."""
    _loans.clear()
