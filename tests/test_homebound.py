"""What a `Run` does with items that do not travel, or whose results do not.

That it keeps its promises meanwhile is the property's in `test_scheduler.py`.
"""

from __future__ import annotations

from outside import answers, staffed, tell

from parallelkit.chunking import Pace
from parallelkit.events import (
    HOME,
    Begin,
    Done,
    Fail,
    Finish,
    Give,
    Joined,
    Send,
    Strained,
    Taken,
    Work,
)
from parallelkit.scheduler import Limits, Run


def opened(length: int, pace: Pace | None = None, **limits: object) -> Run:
    """Return a run whose caller may work, and that has just been given two workers."""
    run = Run(Limits(2, **limits), pace or Pace(item=0.01, launch=1e-4))
    tell(run, (0.0, Begin(length, length)), (0.0, Joined(1)), (0.0, Joined(2)))
    return run


def test_what_does_not_travel_is_the_callers_at_once_and_others_go_on():
    run = opened(9, chunksize=2)
    assert tell(
        run,
        (1.0, Done(1, 1, 0.0, (0,), unsent=(0,))),
        (2.0, Done(1, 2, 1.0)),
        (3.0, Done(HOME, 1, 3.0)),
        (4.0, Done(2, 4, 4.0, (3,), unreturned=(3,))),
        (5.0, Done(HOME, 4, 1.0)),
    ) == [
        [Work(range(1), 1e-3)],
        [Send(1, range(4, 6))],
        [Give(range(1)), Give(range(1, 2))],
        [Give(range(2, 3)), Send(2, range(6, 8)), Work(range(3, 4), 1e-3)],
        [Give(range(3, 4))],
    ]


def test_what_does_not_travel_fails_where_the_caller_runs_nothing():
    run = staffed(3, workers=1, chunksize=3, keep_errors=True)
    assert answers(run, (1.0, Done(1, 3, 1.0, (0, 1, 2), unsent=(1,), unreturned=(0, 2)))) == [
        Give(range(1)),
        Give(range(1, 2)),
        Give(range(2, 3)),
        Finish(),
    ]
    assert run.failures.causes == dict.fromkeys(range(3), "raised")


def test_the_caller_stops_at_its_budget_and_keeps_what_is_its_own():
    run = opened(1000, Pace(item=1e-4, launch=1e-4), chunksize=10)
    unsent = tuple(range(10))
    assert tell(
        run, (1.0, Done(1, 10, 0.0, unsent, unsent=unsent)), (1.1, Done(HOME, 4, 1e-3))
    ) == [
        [Send(1, range(40, 50)), Work(range(10), 1e-3)],
        [Give(range(4)), Work(range(4, 10), 1e-3)],
    ]


def test_what_does_not_travel_is_forgotten_beyond_a_failure():
    run = opened(6, chunksize=3, grace=None)
    assert tell(
        run,
        (1.0, Done(2, 6, 1.0, (3, 4, 5), unsent=(4, 5))),
        (1.1, Done(1, 3, 1.1)),
    ) == [[], [Give(range(3)), Fail(3, "raised")]]
    run = opened(6, chunksize=3, grace=None)
    assert tell(
        run,
        (1.0, Done(2, 6, 1.0, (3, 4, 5), unsent=(3, 4, 5))),
        (1.1, Done(1, 2, 1.1, (1,))),
    ) == [[Work(range(3, 4), 1e-3)], [Give(range(1)), Fail(1, "raised")]]


def test_where_no_result_travels_the_caller_runs_the_rest():
    run = opened(100, chunksize=2)
    told = tell(
        run,
        (1.0, Done(1, 2, 1.0, (0, 1), unreturned=(0, 1))),
        (1.0, Done(2, 4, 1.0, (2, 3), unreturned=(2, 3))),
        (2.0, Done(HOME, 1, 1.0)),
    )
    assert told[0] == [Send(1, range(4, 6)), Work(range(1), 1e-3)]
    assert told[1:] == [[], [Give(range(1)), Work(range(1, 2), 0.02)]]
    assert run.home.closed


def test_the_caller_runs_the_rest_though_memory_is_short_and_workers_idle():
    run = opened(5, chunksize=2)
    told = tell(
        run,
        (1.0, Done(1, 2, 1.0, (0, 1), unreturned=(0, 1))),
        (1.0, Done(2, 4, 1.0, (2, 3), unreturned=(2, 3))),
        (1.0, Strained(True)),
        (1.1, Done(1, 5, 1.0)),
        *[(2.0 + at, Done(HOME, at + 1, 1.0)) for at in range(4)],
    )
    assert told[-1][-1] == Finish()
    run = opened(6, chunksize=2, ahead=1, ordered=False)
    run.home.count(0, 0, 4)
    told = tell(
        run,
        (1.0, Strained(True)),
        (1.0, Done(1, 2, 1.0)),
        (1.1, Done(2, 4, 1.0)),
        (1.2, Taken(4)),
    )
    assert told[2:] == [[Give(range(2, 4))], [Work(range(4, 5), 1e-3)]]


def test_a_failure_waits_for_those_before_it_that_only_the_caller_can_run():
    run = opened(4, chunksize=2, grace=None)
    assert tell(
        run,
        (1.0, Done(1, 2, 1.0, (0, 1), unsent=(0, 1))),
        (1.1, Done(2, 4, 1.0, (2, 3), unsent=(2,))),
        (2.0, Done(HOME, 1, 1.0)),
        (3.0, Done(HOME, 2, 1.0)),
        (4.0, Done(HOME, 3, 1.0)),
    ) == [
        [Work(range(1), 1e-3)],
        [],
        [Give(range(1)), Work(range(1, 2), 1e-3)],
        [Give(range(1, 2)), Work(range(2, 3), 1e-3)],
        [Give(range(2, 3)), Fail(3, "raised")],
    ]


def test_what_does_not_travel_waits_while_memory_is_short():
    run = opened(3, chunksize=1)
    assert tell(
        run,
        (1.0, Strained(True)),
        (1.0, Done(1, 1, 0.0, (0,), unsent=(0,))),
        (1.1, Done(2, 2, 1.0)),
        (1.2, Done(2, 3, 0.1)),
        (1.3, Done(HOME, 1, 0.1)),
    ) == [
        [],
        [],
        [Send(2, range(2, 3))],
        [Work(range(1), 1e-3)],
        [Give(range(1)), Give(range(1, 2)), Give(range(2, 3)), Finish()],
    ]
