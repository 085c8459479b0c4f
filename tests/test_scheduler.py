"""Whatever happens outside, in whatever order, a `Run` keeps its promises."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from outside import World, answers, check_failure, some_limits, staffed, tell
from simulator import Machine

from parallelkit.chunking import PROBE, Pace
from parallelkit.events import (
    HOME,
    Begin,
    Cancel,
    Done,
    Fail,
    Finish,
    Give,
    Joined,
    Kill,
    Lost,
    Offered,
    Pull,
    Pulled,
    Refused,
    Send,
    Start,
    Taken,
    Tick,
    Work,
)
from parallelkit.scheduler import Limits, Run

# A profile may ask for more examples, never for fewer than find what was planted.
EXAMPLES = max(500, settings().max_examples)


def changed(limits: Limits, **others: Any) -> Limits:
    return Limits(**{name: getattr(limits, name) for name in limits.__match_args__} | others)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(some_limits(), st.integers(0, 60), st.sampled_from(["list", "sized", "stream"]), st.data())
def test_any_history(limits: Limits, total: int, kind: str, data: st.DataObject) -> None:
    check_history(World(data, limits, total, data.draw(st.sampled_from([0, 0, 1]))), kind)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(some_limits(), st.integers(2, 12), st.sampled_from(["list", "stream"]), st.data())
def test_any_history_short_of_memory(
    limits: Limits, total: int, kind: str, data: st.DataObject
) -> None:
    check_history(World(data, limits, total, flips=8), kind)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(some_limits(), st.integers(2, 5), st.integers(5, 20), st.data())
def test_any_history_of_a_few_large_chunks(
    limits: Limits, workers: int, size: int, data: st.DataObject
) -> None:
    limits = changed(limits, workers=workers, timeout=None, chunksize=size, home=False)
    world = World(data, changed(limits, stealing=True), size * workers, flips=0)
    world.astray, world.crashes = 0, 3
    world.pulled = world.total
    world.tell(Begin(world.total, world.total))
    while world.joining:
        world.join()
    check_history(world, "begun")


def check_history(world: World, kind: str) -> None:
    """Play a history to its end, and check that."""
    limits, total = world.limits, world.total
    cancelled = world.draw([None] * 9 + [5, 20])
    if kind != "begun":
        world.pulled = total if kind == "list" else 0
        world.tell(Begin(None if kind == "stream" else total, world.pulled))
    for step in range(5000):
        if world.end:
            break
        if step == cancelled:
            world.tell(Cancel())
            assert world.end
            break
        world.happen()

    assert world.end, "livelock"
    assert len(set(world.given)) == len(world.given), "an outcome was given twice"
    if limits.ordered:
        assert world.given == list(range(len(world.given)))
    if isinstance(world.end, Finish):
        assert sorted(world.given) == list(range(total))
        return
    check_failure(world, world.end, limits)


# The caller's own work.


def test_a_tiny_run_is_two_turns_of_the_caller():
    run = Run(Limits(2))
    assert tell(
        run,
        (0.0, Begin(10, 10)),
        (1e-6, Done(HOME, 1, 1e-6)),
        (1e-5, Done(HOME, 10, 9e-6)),
    ) == [
        [Work(range(1), 1e-3)],
        [Give(range(1)), Work(range(1, 10), 1e-3)],
        [Give(range(1, 10)), Finish()],
    ]


def test_nothing_to_do():
    assert tell(Run(Limits(2)), (0.0, Begin(0))) == [[Finish()]]
    assert tell(Run(Limits(2)), (0.0, Begin(None)), (0.0, Pulled(0, last=True))) == [
        [Pull(1)],
        [Finish()],
    ]


def test_a_single_item_is_not_watched():
    run = Run(Limits(2))
    tell(run, (0.0, Begin(1, 1)))
    assert run.deadline is None


def test_a_long_first_item_delays_nobody():
    run = Run(Limits(2), Pace(launch=0.001))
    tell(run, (0.0, Begin(10, 10)))
    assert run.deadline == pytest.approx(0.003)
    assert tell(run, (0.003, Tick()), (0.01, Joined(1)), (0.01, Joined(2))) == [
        [Start(2)],
        [Send(1, range(1, 2))],
        [Send(2, range(2, 3))],
    ]
    assert run.deadline is None


def test_a_stuck_caller_is_asked_about_again_when_the_time_has_doubled():
    run = Run(Limits(2), Pace(launch=1.0))
    assert tell(run, (0.0, Begin(10, 10)), (0.004, Tick()))[1] == []
    assert run.deadline == pytest.approx(0.008)


def test_work_that_pays_starts_workers_and_the_caller_goes_on():
    run = Run(Limits(2), Pace(launch=0.025))
    told = answers(run, (0.0, Begin(100, 100)), (0.01, Done(HOME, 1, 0.01)))
    assert told == [Give(range(1)), Start(2), Work(range(1, 2), 1e-3)]
    told = tell(run, (0.02, Done(HOME, 2, 0.01)), (0.025, Joined(1)), (0.025, Joined(2)))
    assert told == [
        [Give(range(1, 2)), Work(range(2, 3), 1e-3)],
        [Send(1, range(3, 4))],
        [Send(2, range(4, 5))],
    ]
    assert answers(run, (0.03, Done(HOME, 3, 0.01))) == [Give(range(2, 3))]


def test_warm_workers_are_waited_for():
    run = Run(Limits(2), Pace(launch=150e-6))
    told = answers(run, (0.0, Begin(100, 100)), (0.01, Done(HOME, 1, 0.01)))
    assert told == [Give(range(1)), Start(2)]


def test_a_remembered_price_decides_at_once():
    run = Run(Limits(2), Pace(item=0.01, launch=0.025))
    assert answers(run, (0.0, Begin(100, 100))) == [Start(2), Work(range(1), 1e-3)]
    run = Run(Limits(2), Pace(item=1e-6, launch=0.025))
    assert answers(run, (0.0, Begin(100, 100))) == [Work(range(100), 2e-3)]


def test_without_workers_the_caller_does_it_alone():
    run = Run(Limits(2), Pace(item=0.01, launch=150e-6))
    told = tell(run, (0.0, Begin(100, 100)), (0.0, Refused(2)))
    assert told == [[Start(2)], [Work(range(1), 2.5e-3)]]


# Workers.


def test_no_more_workers_than_items():
    assert answers(Run(Limits(8, home=False)), (0.0, Begin(3, 3))) == [Start(3)]


def test_a_place_that_grew_is_filled():
    run = Run(Limits(2, home=False))
    told = tell(run, (0.0, Begin(9, 9)), (0.0, Refused(1)), (0.1, Offered(3)), (0.2, Offered(9)))
    assert told == [[Start(2)], [], [Start(3)], [Start(5)]]


def test_a_second_chunk_waits_only_behind_a_short_one():
    run = staffed(1000, chunksize=10)
    assert answers(run, (0.1, Done(1, 10, 1e-3))) == [
        Give(range(10)),
        Send(1, range(20, 30)),
        Send(1, range(30, 40)),
        Send(2, range(40, 50)),
    ]
    run = staffed(1000, chunksize=10)
    assert answers(run, (0.1, Done(1, 10, 0.1))) == [Give(range(10)), Send(1, range(20, 30))]


def test_a_part_is_given_and_the_rest_goes_on():
    run = staffed(10, workers=1, chunksize=10)
    assert tell(run, (0.1, Done(1, 4, 0.1)), (0.2, Done(1, 10, 0.1))) == [
        [Give(range(4))],
        [Give(range(4, 10)), Finish()],
    ]


def test_workers_that_cannot_be_started():
    run = Run(Limits(2, home=False))
    assert tell(run, (0.0, Begin(9, 9)), (0.0, Refused(1)), (0.0, Lost(1)), (0.0, Refused(1))) == [
        [Start(2)],
        [],
        [Start(1)],
        [Fail(0, "unstaffed")],
    ]


def test_workers_that_do_not_stay():
    run = Run(Limits(1, home=False))
    told = tell(run, (0.0, Begin(9, 9)), *[(0.0, Lost(worker)) for worker in (1, 2, 3, 4)])
    assert told == [[Start(1)]] * 4 + [[Fail(0, "unstaffed")]]


def test_workers_that_go_together_are_one_loss():
    run = Run(Limits(2, home=False))
    told = tell(run, (0.0, Begin(9, 9)), *[(0.0, Lost(worker, swept=True)) for worker in range(9)])
    assert told == [[Start(2)]] + [[Start(1)]] * 9
    told = tell(run, *[(0.0, Lost(worker)) for worker in range(9, 14)])
    assert told == [[Start(1)]] * 4 + [[]]
    assert answers(run, (0.0, Lost(14))) == [Fail(0, "unstaffed")]


# Failures.


def test_a_failure_waits_for_those_before_it():
    run = staffed(10)
    assert tell(run, (1.0, Done(2, 2, 1.0, failed=(1,))), (1.05, Done(1, 1, 1.05, (0,)))) == [
        [],
        [Fail(0, "raised")],
    ]


def test_a_failure_waits_no_longer_than_the_grace():
    run = staffed(10, grace=0.5)
    assert answers(run, (1.0, Done(2, 2, 1.0, failed=(1,)))) == []
    assert run.deadline == 1.5
    assert tell(run, (1.5, Tick()), (1.6, Tick())) == [[Fail(1, "raised")], []]


def test_without_order_and_grace_a_failure_is_told_at_once():
    run = staffed(10, ordered=False, grace=0.0, chunksize=2)
    assert answers(run, (1.0, Done(2, 4, 1.0, (3,)))) == [Give(range(2, 3)), Fail(3, "raised")]


def test_a_kept_failure_is_a_block_of_its_own():
    run = staffed(6, workers=1, keep_errors=True, chunksize=6)
    assert answers(run, (1.0, Done(1, 6, 1.0, failed=(4, 2)))) == [
        Give(range(2)),
        Give(range(2, 3)),
        Give(range(3, 4)),
        Give(range(4, 5)),
        Give(range(5, 6)),
        Finish(),
    ]


def test_a_retry_is_alone():
    run = staffed(6, workers=1, retries=1, chunksize=3)
    assert answers(run, (1.0, Done(1, 3, 1.0, (0,)))) == [Send(1, range(1))]


def test_a_lost_worker_costs_the_item_it_was_on():
    run = staffed(6, workers=1, chunksize=3, keep_errors=True)
    assert tell(run, (1.0, Lost(1, range(1, 2))), (1.0, Joined(2))) == [
        [Start(1)],
        [Send(2, range(1))],
    ]
    assert run.failures.causes == {1: "died"}


def test_several_suspects_are_each_tried_alone():
    run = staffed(3, workers=1, chunksize=3)
    assert tell(
        run,
        (1.0, Lost(1, range(2))),
        (1.0, Joined(2)),
        (1.0, Done(2, 1, 1.0)),
        (1.0, Lost(2, range(1, 2))),
    ) == [
        [Start(1)],
        [Send(2, range(1))],
        [Give(range(1)), Send(2, range(1, 2))],
        [Fail(1, "died")],
    ]


def test_two_deaths_end_an_item_however_many_retries():
    run = staffed(1, workers=1, retries=5)
    told = tell(run, (1.0, Lost(1, range(1))), (1.0, Joined(2)), (1.0, Lost(2, range(1))))
    assert told == [[Start(1)], [Send(2, range(1))], [Fail(0, "died")]]


def test_a_late_item_costs_its_worker():
    run = staffed(3, workers=1, timeout=0.7, keep_errors=True)
    assert run.deadline == 0.7
    assert tell(run, (0.7, Tick()), (0.8, Done(1, 1, 0.8)), (0.8, Lost(1, range(1)))) == [
        [Kill(1), Give(range(1))],
        [],
        [Start(1)],
    ]
    assert run.failures.causes == {0: "late"}


def test_a_caller_who_gives_up():
    run = staffed(10, chunksize=2)
    told = tell(run, (1.0, Done(1, 2, 1.0)), (1.0, Cancel()), (1.0, Done(2, 4, 1.0)))
    assert told[1:] == [[Fail(2, "cancelled")], []]


def test_what_is_hopeless_is_not_tried_again():
    run = staffed(4, workers=1, retries=3, chunksize=2, keep_errors=True)
    told = answers(run, (1.0, Done(1, 2, 1.0, (0, 1), hopeless=(1,))))
    assert told == [Send(1, range(1))]
    assert run.failures.causes == {1: "raised"}


# Input and output.


def test_no_further_ahead_than_allowed():
    run = staffed(100, workers=1, chunksize=2, ahead=2)
    assert tell(run, (1.0, Done(1, 2, 1.0)), (1.0, Done(1, 4, 1.0)), (1.0, Taken(2))) == [
        [Give(range(2)), Send(1, range(2, 4))],
        [Give(range(2, 4))],
        [Send(1, range(4, 6))],
    ]


def test_a_slow_input_is_asked_for_what_is_needed_now():
    run = Run(Limits(2, home=False))
    assert tell(
        run,
        (0.0, Begin(None)),
        (1.0, Pulled(1, last=False)),
        (1.0, Joined(1)),
        (2.0, Pulled(1, last=False)),
    ) == [[Pull(1)], [Start(1)], [Send(1, range(1)), Pull(1)], [Start(1)]]


def test_a_story_replays():
    run = Run(Limits(4))
    Machine([1e-3] * 40, launch=1e-3).play(run, 40)
    again = Run(Limits(4))
    assert all(again.handle(event, now) == told for now, event, told in run.story)
    assert again.ended == run.ended


@pytest.mark.parametrize("length", [64, None])
def test_dear_items_all_run_at_once(length: int | None):
    played = Machine([1.0] * 64, launch=0.025).play(Run(Limits(64)), length)
    assert isinstance(played.end, Finish)
    assert played.seconds < 1.05  # virtual seconds: no clock is read


def test_what_cannot_travel_together_is_run_again_one_by_one():
    run = staffed(3, workers=1, chunksize=3)
    assert tell(
        run,
        (1.0, Done(1, 3, 0.0, doubtful=True)),
        (2.0, Done(1, 1, 1.0)),
        (3.0, Done(1, 2, 1.0, (1,))),
    ) == [
        [Send(1, range(1))],
        [Give(range(1)), Send(1, range(1, 2))],
        [Fail(1, "raised")],
    ]


def test_a_run_goes_on_where_its_caller_is() -> None:
    run = Run(Limits(2), Pace(launch=1.0))
    assert run.handle(Begin(10, 10, done=4), 0.0) == [Work(range(4, 5), PROBE)]
    assert run.handle(Done(HOME, 5, 1e-6), 0.1)[:1] == [Give(range(4, 5))]
    run.check()


def test_a_caller_who_is_stuck_when_the_run_begins_has_others_do_the_rest() -> None:
    run = Run(Limits(2), Pace(launch=1e-3))
    assert run.handle(Begin(10, 10, done=4, held=2), 5.0) == []
    run.check()
    assert run.deadline == 5.0
    assert run.handle(Tick(), 5.0) == [Start(2)]
    given = run.handle(Done(HOME, 6, 5e-3), 5.1)
    assert Give(range(4, 6)) in given
    run.check()


def test_a_run_of_which_all_is_done_is_over() -> None:
    assert Run(Limits(2)).handle(Begin(4, 4, done=4), 0.0) == [Finish()]
