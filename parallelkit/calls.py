"""From a checked call to its engine: which limits, what is known of the function, which backend."""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pickle import PicklingError
from types import CodeType
from typing import TYPE_CHECKING, Any

from .chunking import Pace
from .engine import Engine
from .errors import AloneWarning
from .machine import cpu_count
from .options import Exceptions, Plan
from .outcomes import Strays, Work
from .scheduler import Limits
from .source import Source
from .telling import warn

if TYPE_CHECKING:
    from .backends import Backend
    from .worker import Settings

    Staffing = tuple[tuple[Any, ...], int, int, Settings]

_REMEMBERED = 256  # functions whose cost is kept; a script has a handful

Key = tuple[CodeType, type | None]

_costs: OrderedDict[Key, tuple[float, float | None, float]] = OrderedDict()


def begin(
    checked: Plan,
    work: Work,
    source: Source,
    ordered: bool = True,
    ahead: int | None = None,
    grace: float | None = 0.1,
) -> Engine:
    """Return the engine that runs a call when its results are asked for."""
    limits, pace = terms(checked, work, source, ordered, ahead, grace)
    here = _serially(work, checked) if checked.serial else work
    return Engine(here, source, limits, pace, lambda: _open(checked, work))


def terms(
    checked: Plan,
    work: Work,
    source: Source,
    ordered: bool = True,
    ahead: int | None = None,
    grace: float | None = 0.1,
) -> tuple[Limits, Pace]:
    """Return the limits of a call, and what is known of its function."""
    limits = Limits(
        workers=checked.workers,
        ordered=ordered,
        retries=0 if checked.serial else checked.retries,
        timeout=checked.timeout,
        backoff=checked.backoff,
        keep_errors=checked.on_error != "raise",
        home=checked.home,
        chunksize=checked.chunksize,
        ahead=ahead,
        grace=grace,
        stealing=checked.timeout is None,
    )
    return limits, _pace(_key(work.fn, source), _crew(checked, source))


def _alone(cause: BaseException) -> str:
    what = "have the function" if isinstance(cause, PicklingError) else "be started"
    return f"every item ran in the calling thread, since workers cannot {what}: {cause}"


def _astray(strays: Strays, closed: bool) -> str:
    others = strays.count - 1
    more = f" and {others} other{'s' * (others > 1)}" if others else ""
    more = " and all that was left" if closed else more
    what = f"{strays.item}{more} ran in the calling thread"
    return f"{what}, for want of a way to a worker and back: {strays.why}"


def _serially(work: Work, checked: Plan) -> Work:
    """Return the work with what workers would add to it, for a caller that runs it all."""
    fn = work.fn if work.worker_state is None else partial(work.fn, work.worker_state())
    if checked.retries:
        fn = partial(_patiently, fn, checked.retries, checked.retry_on, checked.backoff)
    return work._replace(fn=fn, worker_state=None)


def _patiently(
    fn: Callable[..., Any], retries: int, retry_on: Exceptions, backoff: float, *arguments: Any
) -> Any:
    """Call `fn`, and again if it raises what is to be retried."""
    for turn in range(retries):
        try:
            return fn(*arguments)
        except retry_on:
            time.sleep(min(backoff * 2**turn, 60.0))
    return fn(*arguments)


def conclude(engine: Engine, given: list[Any]) -> None:
    """Remember what the call taught, and raise what it failed with, if it did.

    `given` are the results that the caller has and is about to lose.
    """
    key, pace = _key(engine.outcomes.work.fn, engine.source), engine.run.pace
    if key is not None and pace.item is not None:
        _remember(key, (pace.item, pace.carriage, pace.weight))
    if engine.cause is not None and engine.run.limits.home:
        warn(_alone(engine.cause), AloneWarning)
    elif engine.outcomes.strays.count:
        warn(_astray(engine.outcomes.strays, engine.run.home.closed), AloneWarning)
    if engine.failure is not None:
        engine.outcomes.summed_up(engine.failure, given)
        raise engine.failure


def _open(checked: Plan, work: Work) -> Backend:
    """Return a backend for one run; loading what it takes is put off until it is needed."""
    try:
        from .backends.processes import Processes
    except KeyboardInterrupt as interrupt:
        interrupt.__context__ = None  # a module may have been handling an error of its own
        raise

    return Processes(*staffing(checked, work))


def staffing(checked: Plan, work: Work) -> Staffing:
    """Return what a backend is to know: what is run, by how many at most, and how."""
    from .worker import Settings

    cpus = cpu_count()
    most = checked.workers if checked.named else min(checked.workers, cpus)
    root = (work.fn, work.worker_state, work.op)
    settings = Settings(
        seed=work.seed,
        urgent=checked.on_error == "raise",
        max_memory=checked.max_memory,
        timed=checked.timeout is not None,
    )
    return root, most, max(1, cpus // most), settings


def _crew(checked: Plan, source: Source) -> int:
    """Return how many workers the call could use."""
    return checked.workers if source.length is None else min(checked.workers, source.length)


def _pace(key: Key | None, crew: int) -> Pace:
    unknown = (None, None, 0.0)
    item, carriage, weight = unknown if key is None else _costs.get(key, unknown)
    # Another thread may be loading that room just now, hence getattr.
    launch = getattr(sys.modules.get("parallelkit.backends.processes"), "launch", _cold)
    return Pace(item=item, launch=launch(crew), carriage=carriage, weight=weight)


def _cold(count: int) -> float:
    """Return what `backends.processes.launch` would say; it is not loaded before it is needed."""
    return 0.06 + 0.0025 * count


def _key(fn: Callable[..., Any], source: Source) -> Key | None:
    """Return what tells that a function and its items are as at an earlier call, also if made anew.

    The same function may be a thousand times dearer for an array than for a number.
    """
    while isinstance(fn, partial):
        fn = fn.func
    code = getattr(fn, "__code__", None)
    return (code, source.kind) if isinstance(code, CodeType) else None


def _remember(key: Key, costs: tuple[float, float | None, float]) -> None:
    _costs[key] = costs
    _costs.move_to_end(key)
    if len(_costs) > _REMEMBERED:
        _costs.popitem(last=False)
