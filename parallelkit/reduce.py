"""`preduce`: a reduction on all CPUs whose value does not depend on how the work was spread."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from .calls import begin, conclude
from .errors import shortened
from .folding import Tree
from .options import Exceptions, OnError, Options, Plan, check_call, plan
from .outcomes import Work
from .source import source

T = TypeVar("T")


class _Missing:
    """The type of the default of `initial`, which must differ from every value, None as well."""

    def __repr__(self) -> str:
        return "<no initial value>"


MISSING = _Missing()


def preduce(
    op: Callable[[T, T], T],
    iterable: Iterable[Any],
    *,
    map: Callable[[Any], T] | None = None,
    initial: T | _Missing = MISSING,
    workers: int | None = None,
    chunksize: int | None = None,
    backend: Any = None,
    timeout: float | None = None,
    retries: int = 0,
    retry_on: Exceptions = Exception,
    backoff: float = 0.0,
    seed: int | None = None,
    worker_state: Callable[[], Any] | None = None,
    max_memory: int | None = None,
) -> T:
    """Return the items combined by `op`, like `functools.reduce`, computed on all CPUs.

    The items are combined as a binary tree over their positions, so the value is the same, bit for
    bit, for any number of workers, chunk size and backend.  `op` must be associative up to
    rounding (`(a + b) + c` must mean `a + (b + c)`); it need not be commutative, for operands keep
    their order.  Sums of floats come out more exact than a loop's, so not identical to it.

    Args:
        op: Called with two values, returns one.  It must not change its arguments, but for the
            first where `map` makes a new value of each item: then `operator.iadd` adds large arrays
            in less time than `operator.add`, which has to find memory for each sum.  An `initial`
            is such a first argument, too.
        iterable: The items.
        map: Called with each item first; its results are what is combined.
        initial: Goes before the items, and is the value when there are none.
        workers: As for `pmap`, and so are the other options.

    Raises:
        TypeError: There are no items and no `initial`.

    Example:
        >>> import operator
        >>> preduce(operator.add, range(1, 101))
        5050
        >>> preduce(max, ["a", "ccc", "bb"], map=len)
        3
    """
    on_error: OnError = "raise"  # a reduction that lacks an item has no value
    knobs = (workers, chunksize, backend, timeout, retries, retry_on, backoff, on_error, seed)
    checked = plan(Options(*knobs, worker_state, max_memory))
    check_call("preduce", op, (iterable,))
    if map is not None and not callable(map):
        raise TypeError(f"map must be a function or None, got {shortened(map)}")
    fn = map if map is not None else _same if worker_state is None else _second
    work = Work(fn, worker_state, op, checked.seed, checked.retry_on)
    total: T = _reduced(checked, work, iterable, initial)
    return total


def _reduced(checked: Plan, work: Work, iterable: Iterable[Any], initial: Any) -> Any:
    assert work.op is not None
    tree, empty = Tree(work.op), True
    engine = begin(checked, work, source((iterable,)))
    # Closed at once when `op` raises, not when its traceback is forgotten: workers are busy.
    with contextlib.closing(engine.results()) as outcomes:
        for block in outcomes:
            tree.add(block.values)
            empty = False
    conclude(engine, [])
    if empty:
        if isinstance(initial, _Missing):
            raise TypeError("preduce() of an empty iterable needs an initial value: give initial=")
        return initial
    total = tree.total()
    return total if isinstance(initial, _Missing) else work.op(initial, total)


def _same(item: Any) -> Any:
    return item


def _second(_: Any, item: Any) -> Any:
    return item
