"""From a checked call to its engine: which limits, what is known of the function, which backend."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import CodeType
from typing import TYPE_CHECKING, Any

from .chunking import Pace
from .engine import Engine, Work
from .machine import cpu_count
from .options import Plan
from .scheduler import Limits
from .source import Source

if TYPE_CHECKING:
    from .backends import Backend, Block

_REMEMBERED = 256  # functions whose cost is kept; a script has a handful

_costs: OrderedDict[CodeType, tuple[float, float | None]] = OrderedDict()


def blocks(
    plan: Plan,
    work: Work,
    source: Source,
    ordered: bool = True,
    ahead: int | None = None,
    grace: float | None = 0.1,
) -> Iterator[tuple[int, Block]]:
    """Run a call and yield its outcomes, block by block, each with its first position."""
    limits = Limits(
        workers=plan.workers,
        ordered=ordered,
        keep_errors=plan.on_error != "raise",
        home=plan.home,
        chunksize=plan.chunksize,
        ahead=ahead,
        grace=grace,
    )
    code = _code(work.fn)
    pace = _pace(code, _crew(plan, source))
    fn = work.fn
    if plan.serial and plan.worker_state is not None:
        state = plan.worker_state()
        fn = _with_state(fn, state)
    engine = Engine(work._replace(fn=fn), source, limits, pace, lambda: _open(plan, work))
    yield from engine.results()
    if code is not None and pace.item is not None:
        _remember(code, pace.item, pace.carriage)


def _with_state(fn: Callable[..., Any], state: Any) -> Callable[..., Any]:
    def with_state(*arguments: Any) -> Any:
        return fn(state, *arguments)

    return with_state


def _open(plan: Plan, work: Work) -> Backend:
    """Return a backend for one run; loading what it takes is put off until it is needed."""
    from .backends.processes import Processes

    share = max(1, cpu_count() // plan.workers)
    root = (work.fn, plan.worker_state, work.op)
    return Processes(root, share, plan.seed, plan.on_error == "raise")


def _crew(plan: Plan, source: Source) -> int:
    """Return how many workers the call could use."""
    return plan.workers if source.length is None else min(plan.workers, source.length)


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
    while hasattr(fn, "func"):  # functools.partial
        fn = fn.func
    code = getattr(fn, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _remember(code: CodeType, item: float, carriage: float | None) -> None:
    _costs[code] = (item, carriage)
    _costs.move_to_end(code)
    if len(_costs) > _REMEMBERED:
        _costs.popitem(last=False)
