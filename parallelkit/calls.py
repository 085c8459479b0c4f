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
from .outcomes import Work
from .scheduler import Limits
from .source import Source
from .telling import warn

if TYPE_CHECKING:
    from .backends import Backend

_REMEMBERED = 256  # functions whose cost is kept; a script has a handful

_costs: OrderedDict[CodeType, tuple[float, float | None]] = OrderedDict()


def begin(
    checked: Plan,
    work: Work,
    source: Source,
    ordered: bool = True,
    ahead: int | None = None,
    grace: float | None = 0.1,
) -> Engine:
    """Return the engine that runs a call when its results are asked for."""
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
    )
    pace = _pace(_code(work.fn), _crew(checked, source))
    here = _serially(work, checked) if checked.serial else work
    return Engine(here, source, limits, pace, lambda: _open(checked, work))


def _alone(cause: BaseException) -> str:
    what = "have the function" if isinstance(cause, PicklingError) else "be started"
    return f"every item ran in the calling thread, since workers cannot {what}: {cause}"


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
    code, pace = _code(engine.outcomes.work.fn), engine.run.pace
    if code is not None and pace.item is not None:
        _remember(code, pace.item, pace.carriage)
    if engine.cause is not None and engine.run.limits.home:
        warn(_alone(engine.cause), AloneWarning)
    if engine.failure is not None:
        engine.outcomes.summed_up(engine.failure, given)
        raise engine.failure


def _open(checked: Plan, work: Work) -> Backend:
    """Return a backend for one run; loading what it takes is put off until it is needed."""
    from .backends.processes import Processes
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
    return Processes(root, most, max(1, cpus // most), settings)


def _crew(checked: Plan, source: Source) -> int:
    """Return how many workers the call could use."""
    return checked.workers if source.length is None else min(checked.workers, source.length)


def _pace(code: CodeType | None, crew: int) -> Pace:
    item, carriage = _costs.get(code, (None, None)) if code is not None else (None, None)
    # Another thread may be loading that room just now, hence getattr.
    launch = getattr(sys.modules.get("parallelkit.backends.processes"), "launch", _cold)
    return Pace(item=item, launch=launch(crew), carriage=carriage)


def _cold(count: int) -> float:
    """Return what `backends.processes.launch` would say; it is not loaded before it is needed."""
    return 0.06 + 0.0025 * count


def _code(fn: Callable[..., Any]) -> CodeType | None:
    """Return what tells that a function is the same as at an earlier call, also if made anew."""
    while isinstance(fn, partial):
        fn = fn.func
    code = getattr(fn, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _remember(code: CodeType, item: float, carriage: float | None) -> None:
    _costs[code] = (item, carriage)
    _costs.move_to_end(code)
    if len(_costs) > _REMEMBERED:
        _costs.popitem(last=False)
