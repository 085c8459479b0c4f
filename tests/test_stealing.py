"""From whom work is taken back, when, and how a run goes on from there."""

from __future__ import annotations

import pytest
from outside import answers, staffed, tell
from simulator import Machine

from parallelkit.chunking import JOURNEY, Pace
from parallelkit.events import (
    Begin,
    Done,
    Finish,
    Give,
    Joined,
    Lost,
    Reclaim,
    Reclaimed,
    Send,
    Settle,
    Start,
    Tick,
)
from parallelkit.ledgers import Staff
from parallelkit.scheduler import Limits, Run
from parallelkit.stealing import LEAST, ROUND, SETTLING, Stealing


def stealing(*loads: int, item: float | None = 0.1) -> Stealing:
    """Return the ledger of workers, numbered from 1, which got so many items at 0, 1, 2 ..."""
    staff = Staff(allowed=len(loads), timed=True, starting=len(loads))
    for number, load in enumerate(loads):
        staff.join(number + 1)
        if load:
            del staff.idle[number + 1]
            staff.send(number + 1, range(100 * number, 100 * number + load), now=float(number))
    return Stealing(Pace(item=item), staff)


def test_whoever_will_be_busy_for_longest_is_asked():
    ledger = stealing(20, 50, 0)
    assert list(ledger.look(2.5)) == [Reclaim(2, 0.5)]
    assert list(ledger.look(2.5)) == []
    assert ledger.deadline() == 2.5 + SETTLING


def test_one_may_be_asked_to_share_with_many():
    assert list(stealing(50, 0, 0, 0).look(1.0)) == [Reclaim(1, 0.25)]
    assert list(stealing(50, 50, 0, 0).look(1.0)) == [Reclaim(2, 0.5), Reclaim(1, 0.5)]


def test_who_was_asked_is_gone_also_where_all_began_and_should_have_ended_at_0():
    ledger = stealing(50, 0, item=None)
    assert list(ledger.look(1.0)) == [Reclaim(1, 0.5)]
    ledger.staff.starting += 1
    ledger.staff.join(3)
    assert list(ledger.look(2.0)) == []


def test_what_cannot_be_shared_is_left_alone():
    ledger = stealing(1, 0)
    assert list(ledger.look(0.0)) == []
    assert ledger.deadline() is None


def test_what_is_nearly_done_is_looked_at_again_when_it_is_late():
    ledger = stealing(2, 0, item=LEAST / 4)
    assert list(ledger.look(0.0)) == []
    assert ledger.due == 2 * LEAST
    ledger.due = None
    assert list(ledger.look(2 * LEAST)) == [Reclaim(1, 0.5)]
    assert ledger.due is None


def test_among_many_an_exchange_must_be_worth_more():
    many = stealing(9, *[0] * 999, item=1e-3)
    assert list(many.look(0.0)) == []
    assert many.due == 2 * ROUND * 1000 * JOURNEY


def test_the_newest_items_tell_what_is_left():
    ledger = stealing(30, 0, item=1e-6)
    assert list(ledger.look(0.0)) == []
    ledger.heard(1, 3, seconds=3.0)
    assert list(ledger.look(0.0)) == [Reclaim(1, 0.5)]


def test_the_time_to_hear_is_waited_for():
    ledger = stealing(20, 0)
    list(ledger.look(0.0))
    assert list(ledger.settling(SETTLING / 2)) == []
    assert list(ledger.settling(SETTLING)) == [1]
    assert list(ledger.settling(SETTLING)) == []


def test_the_unstarted_end_of_a_chunk_goes_to_the_idle():
    run = staffed(40, chunksize=20, stealing=True)
    told = tell(
        run,
        (1.0, Done(2, 40, 1.0)),
        (1.0 + SETTLING, Tick()),
        (1.1, Reclaimed(1, 12)),
        (1.2, Done(1, 12, 1.2)),
        (1.5, Done(2, 20, 0.4)),
    )
    assert told == [
        [Reclaim(1, 0.5)],
        [Settle(1)],
        [Send(2, range(12, 20))],
        [Give(range(12)), Reclaim(2, 0.5)],
        [Give(range(12, 20)), Give(range(20, 40)), Finish()],
    ]


def test_a_worker_may_be_faster_than_its_answer_is_asked_for():
    run = staffed(40, chunksize=20, stealing=True)
    told = tell(run, (1.0, Done(2, 40, 1.0)), (1.0, Done(1, 10, 1.0, cut=True)))
    assert told == [
        [Reclaim(1, 0.5)],
        [Give(range(10)), Send(1, range(10, 20)), Reclaim(1, 0.5)],
    ]


def test_a_worker_may_have_begun_everything():
    run = staffed(40, chunksize=20, stealing=True)
    told = tell(run, (1.0, Done(2, 40, 1.0)), (1.5, Tick()), (1.5, Reclaimed(1, None)))
    assert told == [[Reclaim(1, 0.5)], [Settle(1)], []]
    assert run.deadline is None
    assert answers(run, (2.0, Done(1, 20, 2.0)))[-1] == Finish()


def test_nothing_is_asked_of_the_dead():
    run = staffed(40, chunksize=20, stealing=True)
    tell(run, (1.0, Done(2, 40, 1.0)))
    told = answers(run, (1.0, Lost(1, range(5, 6))))
    assert told == [Start(1), Send(2, range(5))]
    assert run.stealing.owed == {}
    assert run.stealing.deadline() is None


@pytest.mark.parametrize(
    "limits", [{"stealing": False}, {"stealing": True, "timeout": 9.0}, {"stealing": True}]
)
def test_only_what_can_be_taken_back_is(limits: dict[str, object]):
    run = staffed(4, chunksize=2, **limits)
    told = answers(run, (1.0, Done(2, 2 if "timeout" in limits else 4, 1.0)))
    assert (Reclaim(1, 0.5) in told) == (limits == {"stealing": True})


def test_an_idle_worker_that_comes_late_gets_its_share():
    run = Run(Limits(2, home=False, chunksize=50, stealing=True), Pace(item=0.1))
    told = tell(run, (0.0, Begin(50, 50)), (0.1, Joined(1)), (0.2, Joined(2)))
    assert told[1:] == [[Send(1, range(50))], [Reclaim(1, 0.5)]]


@pytest.mark.parametrize("workers", [2, 16])
def test_dear_items_at_the_end_of_a_chunk_are_shared(workers: int):
    costs = [1e-4] * 1000 + [1.0] * 64
    run = Run(Limits(workers, home=False, chunksize=1064, stealing=True))
    played = Machine(costs, launch=1e-3).play(run, len(costs))
    assert isinstance(played.end, Finish)
    assert played.seconds < 1.1 * sum(costs) / workers + 1.0  # virtual seconds: no clock is read
