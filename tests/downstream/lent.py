"""Our workers as other libraries are given them: a function like `map`, or a pool with methods."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from parallelkit import Executor, Pool, imap, pmap

MAPS = ["pmap", "pmap with workers", "imap", "Pool.map", "Pool.imap", "Executor.map"]
FEW = ["pmap with workers", "Pool.map"]  # a list and a pool: where more would show nothing new
POOLS = [Pool, Executor]


@contextlib.contextmanager
def lent(name: str) -> Iterator[Callable[..., Any]]:
    """Give the map of `MAPS` that is called so."""
    functions = {
        "pmap": pmap,
        "pmap with workers": partial(pmap, workers=2),
        "imap": partial(imap, workers=2),
    }
    if name in functions:
        yield functions[name]
        return
    kind, method = name.split(".")
    with {"Pool": Pool, "Executor": Executor}[kind](2) as pool:
        yield getattr(pool, method)


def elsewhere(function: Callable[..., Any], name: str = "") -> Callable[..., Any]:
    """Return `function`, which from now on fails in this process; but see plain `pmap`."""
    here = os.getpid() if name != "pmap" else None  # which may run items here

    def away(*args: Any, **keywords: Any) -> Any:
        assert os.getpid() != here, "this ran in the caller"
        return function(*args, **keywords)

    return away
