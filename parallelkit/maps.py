"""`pmap` and `imap`: a loop over a function's calls, on all CPUs."""

from __future__ import annotations

import os
import sys
from _operator import is_

from .guests import at_home
from .solo import Solo
from .source import source

TYPE_CHECKING = False  # type checkers take it for true, and importing `typing` costs 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeVar

    from .backends import Block
    from .brief import Begun
    from .engine import Engine
    from .home import Home
    from .options import Exceptions, OnError, Plan
    from .outcomes import Work

    R = TypeVar("R")

_BRIEF = f"{__package__}.brief"

AHEAD = 8
"""How many chunks for each worker `imap` lets lie between its input and its reader.

Two keep a worker busy; the others are room for neighbours that take unequal times."""


def pmap(
    fn: Callable[..., R],
    *iterables: Iterable[Any],
    workers: int | None = None,
    chunksize: int | None = None,
    backend: Any = None,
    timeout: float | None = None,
    retries: int = 0,
    retry_on: Exceptions = Exception,
    backoff: float = 0.0,
    on_error: OnError = "raise",
    seed: int | None = None,
    worker_state: Callable[[], Any] | None = None,
    max_memory: int | None = None,
) -> list[R]:
    """Return `[fn(x) for x in xs]`, computed on all CPUs.

    Args:
        fn: Called with one item of each iterable, like `map`'s function.  Lambdas, closures and
            functions of the script itself will do.  An item is never unpacked.
        *iterables: The items; with several, the shortest ends it.
        workers: How many processes.  By default as many as this process may use CPUs, and the
            calling thread runs items itself as long as workers would not end the call sooner.
            Given a number, every item runs in one of that many workers.
        chunksize: How many items to send at a time.  By default chosen, and adapted to what the
            items turn out to cost.
        backend: Where items run: `"processes"` (default), `"serial"` (in the calling thread, for
            debugging), `"threads"`, `"dask"`, `"ray"`, `"mpi"`, an address such as
            `"dask://host:8786"`, a client of Dask, any `concurrent.futures.Executor`, or a function
            that makes one.  A `with parallelkit.backend(...)` block or the variable
            `PARALLELKIT_BACKEND` sets the default.
        timeout: Seconds that one item may take, from when a worker starts it.  The worker of an
            item that takes longer is ended, and everything else goes on.  Backends that cannot end
            what runs refuse it, as they do `max_memory`.
        retries: How many times an item is tried again that raised, ran out of time, or lost its
            worker.  Two lost workers end an item in any case.
        retry_on: The exceptions for which that is so, if `fn` raises; a class or a tuple of them.
        backoff: Seconds before the first of these retries; each further one waits twice as long.
        on_error: What becomes of an item that failed for good.  `"raise"` ends the call with its
            exception, `"return"` puts that in the result's place, `"skip"` leaves it out.
        seed: Resets `random` and `numpy.random` before each item from this and the position, so
            that an item draws the same numbers however the work is spread.
        worker_state: Called once in each worker; what it returns is the first argument of `fn`.
        max_memory: Bytes that `fn` may take in each worker, above what the worker takes itself;
            more is a MemoryError of the item (Linux).

    Returns:
        The results in the order of the items, as the loop would give them.

    Raises:
        Exception: What `fn` raised for the first item that failed, with a note that names the item.
            It has the attributes `index`, `item`, `replay` (call it to run the item again, here),
            `results` and `failures` (by position, what is known of the others).
        WorkerDied: A worker was killed or crashed while it ran an item.
        ItemTimeout: An item ran longer than `timeout`.
        NoWorkers: No worker could be started, or the engine given as backend is gone or unfit.
        TypeError, ValueError: An argument cannot be used.

    Example:
        >>> pmap(lambda x: x * x, range(5))
        [0, 1, 4, 9, 16]
    """
    knobs = (chunksize, backend, timeout, retries, retry_on, backoff, on_error, seed)
    plain = all(map(is_, (*knobs, worker_state, max_memory), _OTHERS))
    if plain and workers is None and _unbidden() and _mappable(fn, iterables):
        return _loop(fn, iterables)
    results, begun = _attempted(fn, iterables, workers) if plain else (None, None)
    if results is not None:
        return results
    try:
        engine, results = _run(fn, iterables, (workers, *knobs, worker_state, max_memory), begun)
    finally:
        if begun is not None:
            begun.close()
    if plain and workers is not None:
        from .brief import remember

        remember(engine, workers)
    return results


def _attempted(
    fn: Callable[..., R], iterables: tuple[Iterable[Any], ...], workers: int | None
) -> tuple[list[R] | None, Begun | None]:
    """Return the results of a call that is like the one before, or what was begun of it."""
    if workers is None:
        return None, None
    if _BRIEF not in sys.modules:  # which is loaded when the first call is over
        if type(workers) is int and workers > 0 and _unbidden() and _mappable(fn, iterables):
            from .ahead import prepare

            prepare()  # before all else, as it takes longest
        return None, None
    from .brief import attempt

    return attempt(fn, iterables, workers)


def _run(
    fn: Callable[..., R], iterables: tuple[Iterable[Any], ...], given: Any, begun: Begun | None
) -> tuple[Engine, list[R]]:
    """Return the results of a call with these options, and the engine that had them computed."""
    from .options import Options, check_call, plan

    options = Options(*given)
    checked = plan(options)
    check_call("pmap", fn, iterables)
    engine = _engine(fn, iterables, options.worker_state, checked, begun)
    results: list[R] = []
    if checked.on_error == "raise":  # else it may leave out items, and not tell where it ends
        engine.home.sink = results
    return engine, _collected(engine, results, checked)


def _engine(
    fn: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    worker_state: Callable[[], Any] | None,
    checked: Plan,
    begun: Begun | None,
) -> Engine:
    _prepare(checked)
    from .calls import begin
    from .outcomes import Work

    work = Work(fn, worker_state, None, checked.seed, checked.retry_on)
    if begun is None:
        return begin(checked, work, source(iterables))
    engine = begin(checked._replace(chunksize=begun.size), work, source((begun.items,)))
    begun.hand_over(engine)
    return engine


def _prepare(checked: Plan) -> None:
    """Have what workers need made ready while the rest is loaded, if they are sure to be wanted."""
    if checked.backend.venue is None and not checked.home:
        from .ahead import prepare

        prepare()


def _unbidden() -> bool:
    """Return whether nothing but the call itself says where its items run."""
    given = os.environ.get
    workers = given("PARALLELKIT_WORKERS", "1")
    if given("PARALLELKIT_BACKEND") or not workers.isdecimal() or int(workers) < 1:
        return False  # or there is something wrong, which is for `plan` to say
    return at_home()


_OTHERS = tuple((pmap.__kwdefaults__ or {}).values())[1:]  # the defaults but for `workers`


def _mappable(fn: Any, iterables: tuple[Any, ...]) -> bool:
    """Return whether there is certainly nothing wrong with the arguments."""
    each = [hasattr(type(iterable), "__iter__") for iterable in iterables]
    return callable(fn) and bool(each) and all(each)


def _loop(fn: Callable[..., R], iterables: tuple[Iterable[Any], ...]) -> list[R]:
    """Return what a `pmap` without options does: the loop, until workers would end it sooner."""
    items = source(iterables)

    def open_engine(home: Home, shared: bool) -> Engine:
        if shared:
            from .ahead import prepare

            prepare()
        from .calls import begin
        from .options import Options, plan
        from .outcomes import Work

        return begin(plan(Options()), Work(fn), items, home=home)

    solo = Solo(fn, items, open_engine)
    engine = solo.run()
    if engine is None:
        return solo.results
    from .options import Options, plan

    return _collected(engine, solo.results, plan(Options()))


def _collected(engine: Engine, results: list[R], checked: Plan) -> list[R]:
    from .calls import conclude

    for block in engine.results():
        if block.failures:
            results.extend(kept(block, checked))
        else:
            results.extend(block.values)
    conclude(engine, results)
    return results


def imap(
    fn: Callable[..., R],
    *iterables: Iterable[Any],
    ordered: bool = True,
    workers: int | None = None,
    chunksize: int | None = None,
    backend: Any = None,
    timeout: float | None = None,
    retries: int = 0,
    retry_on: Exceptions = Exception,
    backoff: float = 0.0,
    on_error: OnError = "raise",
    seed: int | None = None,
    worker_state: Callable[[], Any] | None = None,
    max_memory: int | None = None,
) -> Iterator[R]:
    """Yield what `pmap` would return, result by result, as they become ready.

    The input may be endless: it is read only so far ahead as keeps the workers busy, and no further
    while results wait to be read.  To stop early, just stop reading: when the iterator is closed or
    forgotten, its workers stop too.

    Args:
        fn: As for `pmap`, and so are the options that are not named here.
        *iterables: The items; they are pulled in the thread that reads the results.
        ordered: Whether results come in the order of the items (default) or as they are ready.

    Yields:
        One result for each item; where an item fails, the results before it come first.

    Example:
        >>> from itertools import count, islice
        >>> list(islice(imap(lambda x: x * x, count()), 4))
        [0, 1, 4, 9]
    """
    knobs = (workers, chunksize, backend, timeout, retries, retry_on, backoff, on_error, seed)
    from .options import Options, check_call, plan

    checked = plan(Options(*knobs, worker_state, max_memory))
    check_call("imap", fn, iterables)
    from .outcomes import Work

    work = Work(fn, worker_state, None, checked.seed, checked.retry_on)
    return _results(checked, work, iterables, ordered)


def _results(
    checked: Plan, work: Work, iterables: tuple[Iterable[Any], ...], ordered: bool
) -> Iterator[Any]:
    _prepare(checked)
    import contextlib

    from .calls import begin, conclude

    grace = None if ordered else 0.0
    engine = begin(checked, work, source(iterables), ordered, AHEAD, grace)
    with contextlib.closing(engine.results()) as outcomes:  # now, not when it is collected
        for block in outcomes:
            yield from kept(block, checked) if block.failures else block.values
    conclude(engine, [])


def kept(block: Block, checked: Plan) -> Iterator[Any]:
    """Yield the outcomes of a block with failures, as the caller wants them."""
    for offset, value in enumerate(block.values):
        error = block.failures.get(offset)
        if error is None:
            yield value
        elif checked.on_error == "return":
            yield error
