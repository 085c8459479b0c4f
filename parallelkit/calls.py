"""From a checked call to its engine: which limits, what is known of the function, which backend."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pickle import PicklingError
from typing import TYPE_CHECKING, Any

from . import learned
from .chunking import LONGEST, QUEUED, WAIT, Pace
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
    from .backends.slots import Slots, Venue
    from .home import Home
    from .job import Settings

    Staffing = tuple[tuple[Any, ...], int, int, Settings]


FEW = 4
"""Items for each worker of which the caller keeps no second one behind the first, to learn what
folding costs: where items are long, it would be missed elsewhere."""


def begin(
    checked: Plan,
    work: Work,
    source: Source,
    ordered: bool = True,
    ahead: int | None = None,
    grace: float | None = WAIT,
    home: Home | None = None,
) -> Engine:
    """Return the engine that runs a call when its results are asked for.

    `home` is its caller, if it has begun to run items already.
    """
    limits, pace = terms(checked, work, source, ordered, ahead, grace)
    here = _serially(work, checked) if checked.serial else work
    return Engine(here, source, limits, pace, lambda: _open(checked, work), home)


def terms(
    checked: Plan,
    work: Work,
    source: Source,
    ordered: bool = True,
    ahead: int | None = None,
    grace: float | None = WAIT,
    shared: bool = False,
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
        ahead=ahead if ahead is None else max(1, ahead // checked.backend.depth),
        grace=grace,
        stealing=checked.timeout is None and checked.backend.venue is None,
        folded=work.op is not None,
    )
    pace = _pace(_key(work, source), _crew(checked, source), limits.folded)
    if limits.folded and (source.length is None or source.length > FEW * checked.workers):
        pace.first = 2  # of one alone, nothing is folded
    # Who reads results as they come had rather have few than late; so had others who wait for the
    # same workers.
    if ahead is not None or shared:
        pace.span = LONGEST
    if limits.stealing and not shared:
        pace.queue = QUEUED
    venue = checked.backend.venue
    if venue is not None:
        pace.launch, pace.journey, pace.depth = 0.0, venue.journey, checked.backend.depth
        pace.queue = 0
    return limits, pace


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
    key, pace = _key(engine.outcomes.work, engine.source), engine.run.pace
    if pace.item is not None:
        weight = pace.block if engine.run.limits.folded else pace.weight
        learned.remember(key, (pace.item, pace.carriage, weight))
    if engine.cause is not None and engine.run.limits.home:
        warn(_alone(engine.cause), AloneWarning)
    elif engine.outcomes.strays.count:
        warn(_astray(engine.outcomes.strays, engine.run.home.closed), AloneWarning)
    if engine.failure is not None:
        engine.outcomes.summed_up(engine.failure, given)
        raise engine.failure


def _open(checked: Plan, work: Work) -> Backend:
    """Return a backend for one run; loading what it takes is put off until it is needed."""
    if checked.backend.venue is not None:
        root, _, _, settings = staffing(checked, work)
        return abroad(checked, checked.backend.venue, root, settings)
    try:
        from .backends.repeated import opened
    except KeyboardInterrupt as interrupt:
        interrupt.__context__ = None  # a module may have been handling an error of its own
        raise

    return opened(*staffing(checked, work))


def abroad(checked: Plan, venue: Venue, root: tuple[Any, ...], settings: Settings) -> Slots:
    """Return a backend on another engine, whose workers were seen to be fit."""
    from .backends.cargo import Cargo, Handed, Shipped
    from .backends.slots import Slots

    by_value = venue.greet()
    cargo: Cargo
    cargo = Handed(root, settings) if venue.inside else Shipped(root, settings, by_value, venue)
    return Slots(venue, cargo, checked.workers, checked.asked, checked.timeout is not None)


def staffing(checked: Plan, work: Work) -> Staffing:
    """Return what a backend is to know: what is run, by how many at most, and how."""
    from .job import Settings

    cpus = cpu_count()
    most = checked.workers if checked.asked else min(checked.workers, cpus)
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


def _pace(key: learned.Key | None, crew: int, folded: bool) -> Pace:
    item, carriage, weight = learned.recall(key) or (None, None, 0.0)
    pace = Pace(item=item, launch=learned.launch(crew), carriage=carriage)
    pace.weigh(0 if folded else 1, weight)
    return pace


def _key(work: Work, source: Source) -> learned.Key | None:
    return learned.key(work.fn, source.kind, work.op)
