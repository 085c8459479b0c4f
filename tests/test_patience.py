"""What a `Run` does while items wait to be repeated, and while memory is short.

That it keeps its promises meanwhile is the property's in `test_scheduler.py`.
"""

from __future__ import annotations

import pytest
from outside import answers, staffed, tell

from parallelkit.chunking import Pace
from parallelkit.events import (
    HOME,
    Begin,
    Cancel,
    Done,
    Fail,
    Give,
    Joined,
    Kill,
    Lost,
    Pull,
    Pulled,
    Refused,
    Send,
    Start,
    Strained,
    Tick,
    Work,
)
from parallelkit.scheduler import Limits, Run

# Repeats that wait.


def test_a_repeat_waits_while_others_go_on():
    run = staffed(3, workers=1, retries=2, chunksize=1, backoff=0.5)
    assert tell(
        run,
        (1.0, Done(1, 1, 1.0, (0,))),
        (1.25, Done(1, 2, 0.25)),
        (1.4, Done(1, 3, 0.15)),
    ) == [[Send(1, range(1, 2))], [Send(1, range(2, 3))], []]
    assert run.deadline == 1.5
    assert answers(run, (1.5, Tick())) == [Send(1, range(1))]
    assert run.deadline is None


def test_each_repeat_waits_twice_as_long():
    run = staffed(1, workers=1, retries=2, chunksize=1, backoff=0.5)
    tell(run, (1.0, Done(1, 1, 1.0, (0,))))
    assert run.deadline == 1.5
    tell(run, (1.5, Tick()), (2.0, Done(1, 1, 0.5, (0,))))
    assert run.deadline == 3.0
    assert tell(run, (3.0, Tick()), (3.5, Done(1, 1, 0.5, (0,)))) == [
        [Send(1, range(1))],
        [Fail(0, "raised")],
    ]


def test_no_repeat_waits_longer_than_a_minute():
    run = staffed(1, workers=1, retries=10_000, backoff=50.0)
    tell(run, (0.0, Done(1, 1, 0.0, (0,))), (50.0, Tick()), (50.0, Done(1, 1, 0.0, (0,))))
    assert run.deadline == 110.0


def test_any_event_ends_a_wait_that_is_over():
    run = staffed(2, retries=1, backoff=0.5)
    told = tell(run, (1.0, Done(1, 1, 1.0, (0,))), (1.6, Done(2, 2, 1.6)))
    assert told == [[], [Send(2, range(1))]]


def test_a_replacement_comes_while_its_item_waits():
    run = staffed(1, workers=1, retries=1, backoff=0.5)
    assert tell(run, (1.0, Lost(1, range(1))), (1.1, Joined(2)), (1.5, Tick())) == [
        [Start(1)],
        [],
        [Send(2, range(1))],
    ]


def test_a_late_item_waits_as_well():
    run = staffed(1, workers=1, retries=1, timeout=1.0, backoff=0.5)
    tell(run, (1.0, Tick()), (1.1, Lost(1)), (1.2, Joined(2)))
    assert run.deadline == 1.5


def test_several_suspects_wait_for_nothing():
    run = staffed(2, workers=1, chunksize=2, retries=1, backoff=0.5)
    assert tell(run, (1.0, Lost(1, range(2))), (1.0, Joined(2))) == [
        [Start(1)],
        [Send(2, range(1))],
    ]


@pytest.mark.parametrize(
    ("grace", "when", "told"), [(None, 1.5, [Send(2, range(1))]), (0.25, 1.25, [Fail(1, "raised")])]
)
def test_a_failure_waits_for_those_that_rest_below_it_within_its_grace(grace, when, told):
    run = staffed(2, retries=1, backoff=0.5, grace=grace)
    tell(run, (1.0, Done(1, 1, 1.0, (0,))))
    assert answers(run, (1.0, Done(2, 2, 1.0, (1,), hopeless=(1,)))) == []
    assert run.deadline == when
    assert answers(run, (when, Tick())) == told


def test_who_gives_up_is_told_of_the_lowest_that_rests():
    run = staffed(3, retries=1, ordered=False, chunksize=1, backoff=0.5)
    tell(run, (1.0, Done(1, 1, 1.0, (0,))))
    assert answers(run, (1.0, Cancel())) == [Fail(0, "cancelled")]


def test_no_further_ahead_of_those_that_rest_than_allowed():
    run = staffed(9, workers=1, retries=1, chunksize=1, ahead=2, backoff=0.5)
    tell(run, (1.0, Done(1, 1, 1.0, (0,))))
    assert tell(run, (1.1, Done(1, 2, 0.1)), (1.5, Tick()), (1.6, Done(1, 1, 0.1))) == [
        [],
        [Send(1, range(1))],
        [Give(range(1)), Give(range(1, 2))],
    ]


def test_without_workers_nobody_waits_for_what_rests():
    run = staffed(1, workers=1, retries=1, backoff=0.5)
    assert tell(run, (1.0, Lost(1, range(1))), *[(1.1, Lost(2 + n)) for n in range(4)]) == [
        [Start(1)],
        [Start(1)],
        [Start(1)],
        [Start(1)],
        [Fail(0, "unstaffed")],
    ]


# Memory.


def test_short_of_memory_one_item_runs_at_a_time():
    run = staffed(40, chunksize=4)
    assert tell(
        run,
        (1.0, Strained(True)),
        (1.0, Done(1, 4, 1.0)),
        (1.1, Done(2, 8, 1.1)),
        (1.2, Done(2, 9, 0.1)),
        (1.3, Strained(False)),
    ) == [
        [],
        [Give(range(4))],
        [Give(range(4, 8)), Send(2, range(8, 9))],
        [Give(range(8, 9)), Send(2, range(9, 10))],
        [Send(1, range(10, 14))],
    ]


def test_short_of_memory_nobody_is_started_unless_nobody_is_there():
    run = Run(Limits(4, home=False))
    assert tell(
        run,
        (0.0, Begin(9)),
        (0.0, Strained(True)),
        (0.0, Pulled(9, last=True)),
        (0.1, Joined(1)),
        (0.2, Lost(1)),
        (0.3, Strained(False)),
    ) == [[Start(4), Pull(1)], [], [], [Send(1, range(1))], [], [Start(1)]]


def test_short_of_memory_nobody_there_is_one_too_few():
    run = staffed(9, workers=2, chunksize=1)
    assert tell(
        run,
        (1.0, Strained(True)),
        (1.1, Lost(1)),
        (1.2, Lost(2)),
        (1.3, Refused(1)),
        (1.4, Joined(3)),
        (1.5, Strained(False)),
    ) == [[], [], [Start(1)], [Start(1)], [Send(3, range(1, 2))], []]


def test_short_of_memory_nothing_is_read_before_it_is_needed():
    run = Run(Limits(2, home=False, chunksize=1))
    tell(run, (0.0, Begin(None)), (0.0, Strained(True)))
    assert tell(
        run,
        (0.1, Pulled(1, last=False)),
        (0.2, Joined(1)),
        (0.3, Done(1, 1, 0.1)),
    ) == [[Start(1)], [Send(1, range(1))], [Give(range(1)), Pull(1)]]


def test_short_of_memory_the_caller_runs_one_item_at_a_time():
    run = Run(Limits(2), Pace(item=1e-3, launch=1.0))
    tell(run, (0.0, Begin(100, 100)))
    assert tell(
        run,
        (0.1, Strained(True)),
        (0.1, Done(HOME, 2, 2e-3)),
        (0.2, Strained(False)),
        (0.2, Done(HOME, 3, 1e-3)),
    ) == [
        [],
        [Give(range(2)), Work(range(2, 3), 1e-3)],
        [],
        [Give(range(2, 3)), Work(range(3, 7), 2e-3)],
    ]


def test_short_of_memory_the_caller_gives_way_to_a_worker():
    run = Run(Limits(2), Pace(item=0.01, launch=0.025))
    tell(run, (0.0, Begin(100, 100)), (0.0, Strained(True)))
    assert tell(run, (0.01, Joined(1)), (0.02, Done(HOME, 1, 0.01)), (0.03, Done(1, 2, 0.01))) == [
        [],
        [Give(range(1)), Send(1, range(1, 2))],
        [Give(range(1, 2)), Send(1, range(2, 3))],
    ]


def test_short_of_memory_the_caller_does_what_it_can_before_anybody_is_started():
    run = Run(Limits(2), Pace(item=0.01, launch=0.025))
    tell(run, (0.0, Begin(100, 100)), (0.0, Joined(1)), (0.0, Joined(2)), (0.0, Strained(True)))
    assert tell(run, (0.1, Lost(2)), (0.1, Lost(1)), (0.2, Done(HOME, 1, 0.2))) == [
        [],
        [],
        [Give(range(1)), Work(range(1, 2), 1e-3)],
    ]


def test_the_biggest_of_several_is_tried_again_with_all_memory_to_itself():
    run = staffed(9, workers=3, chunksize=1)
    assert tell(
        run,
        (1.0, Strained(True)),
        (1.1, Lost(3, range(2, 3))),
        (1.2, Strained(False)),
        (1.3, Joined(4)),
        (1.4, Done(1, 1, 1.4)),
        (1.5, Done(2, 2, 1.5)),
        (1.6, Done(2, 3, 0.1)),
    ) == [
        [],
        [],
        [Start(1)],
        [],
        [Give(range(1))],
        [Give(range(1, 2)), Send(2, range(2, 3))],
        [Give(range(2, 3)), Send(2, range(3, 4)), Send(1, range(4, 5)), Send(4, range(5, 6))],
    ]
    assert not run.failures.tries


def test_the_second_death_of_the_biggest_counts():
    run = staffed(9, chunksize=1)
    tell(run, (1.0, Strained(True)), (1.1, Lost(2, range(1, 2))), (1.2, Done(1, 1, 1.2)))
    assert answers(run, (1.3, Lost(1, range(1, 2)))) == [Fail(1, "died")]


def test_all_that_died_together_are_tried_again():
    run = staffed(2, chunksize=1)
    tell(run, (1.0, Strained(True)), (1.1, Lost(2, range(1, 2))))
    assert tell(
        run,
        (1.1, Lost(1, range(1))),
        (1.2, Joined(3)),
        (1.3, Done(3, 2, 0.1)),
    ) == [[Start(1)], [Send(3, range(1, 2))], [Send(3, range(1))]]


def test_each_is_excused_once_whoever_waits_to_be_the_only_one():
    run = staffed(2, chunksize=1)
    tell(run, (1.0, Strained(True)), (1.1, Lost(1, range(1))), (1.1, Lost(2, range(1, 2))))
    assert tell(run, (1.2, Joined(3)), (1.3, Lost(3, range(1)))) == [
        [Send(3, range(1))],
        [Fail(0, "died")],
    ]


def test_whoever_was_not_reached_is_still_to_be_the_only_one():
    run = staffed(4, chunksize=1)
    tell(run, (1.0, Strained(True)), (1.1, Lost(2, range(1, 2))), (1.2, Strained(False)))
    assert tell(
        run,
        (1.3, Joined(3)),
        (1.4, Done(1, 1, 1.4)),
        (1.5, Lost(1)),
        (1.6, Joined(4)),
        (1.7, Done(3, 2, 0.1)),
    ) == [
        [],
        [Give(range(1)), Send(1, range(1, 2))],
        [Start(1), Send(3, range(1, 2))],
        [],
        [Give(range(1, 2)), Send(3, range(2, 3)), Send(4, range(3, 4))],
    ]


def test_what_has_killed_a_worker_never_runs_in_the_caller():
    run = Run(Limits(2), Pace(item=0.01, launch=150e-6))
    tell(run, (0.0, Begin(2, 2)), (0.0, Joined(1)), (0.0, Joined(2)), (0.1, Strained(True)))
    assert tell(
        run,
        (0.1, Lost(1, range(1))),
        (0.2, Done(2, 2, 0.2)),
        (0.3, Lost(2)),
        (0.4, Refused(1)),
        (0.5, Refused(1)),
    ) == [[], [Send(2, range(1))], [Start(1)], [Start(1)], [Fail(0, "unstaffed")]]


def test_whoever_died_alone_was_too_big():
    run = staffed(1, workers=1, chunksize=1)
    assert answers(run, (1.0, Strained(True)), (1.1, Lost(1, range(1)))) == [Fail(0, "died")]


def test_what_died_without_a_strain_is_not_excused():
    run = staffed(2, chunksize=1, ordered=False, grace=0.0)
    assert answers(run, (1.0, Lost(2, range(1, 2)))) == [Fail(1, "died")]


def test_a_lone_item_that_is_late_has_no_company_until_its_worker_is_gone():
    run = staffed(3, chunksize=1, timeout=1.0, keep_errors=True)
    told = tell(
        run,
        (0.1, Strained(True)),
        (0.2, Lost(2, range(1, 2))),
        (0.3, Strained(False)),
        (0.4, Done(1, 1, 0.4)),
        (0.5, Joined(3)),
        (1.4, Tick()),
        (1.5, Lost(1)),
    )
    assert told[3:] == [
        [Give(range(1)), Send(1, range(1, 2))],
        [],
        [Kill(1), Give(range(1, 2))],
        [Send(3, range(2, 3))],
    ]
