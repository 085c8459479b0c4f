"""Outcomes are kept as the run will give them, and failures say which item, and can be replayed."""

from __future__ import annotations

import operator
import pickle
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelkit.backends import Block
from parallelkit.chunking import split
from parallelkit.errors import ItemTimeout, ParallelError, WorkerDied
from parallelkit.events import Done
from parallelkit.folding import fold
from parallelkit.outcomes import Outcomes, Replay, Work, inscribe
from parallelkit.source import source


def made(fn: Any = operator.neg, count: int = 20, **work: Any) -> Outcomes:
    return Outcomes(Work(fn, **work), source((range(count),)))


def done(worker: int, stop: int, failed: tuple[int, ...] = ()) -> Done:
    return Done(worker, stop, 0.0, failed)


@given(st.integers(1, 20), st.sets(st.integers(0, 19)), st.lists(st.integers(1, 19)), st.booleans())
def test_each_piece_is_there_when_it_is_given(
    count: int, bad: set[int], cuts: list[int], folded: bool
) -> None:
    op = operator.add if folded else None
    outcomes = made(count=count, op=op)
    outcomes.send(1, range(count))
    bad = {x for x in bad if x < count}
    stops = sorted({cut for cut in cuts if cut < count} | {count})
    given_: dict[int, Any] = {}
    start = 0
    for stop in stops:
        failed = tuple(x for x in range(start, stop) if x in bad)
        values = [None if x in bad else -x for x in range(start, stop)]
        failures: dict[int, BaseException] = {x - start: ValueError(x) for x in failed}
        if op is not None and not failed:
            values = fold(op, start, values)
        outcomes.keep(done(1, stop, failed), Block(values, failures))
        pieces = split(range(start, stop), failed) if failed else [range(start, stop)]
        for piece in [*pieces, *(range(x, x + 1) for x in failed)]:
            block = outcomes.take(piece)
            given_[piece.start] = block.failures.get(0) or block.values
        start = stop

    assert not outcomes.blocks
    assert not outcomes.errors
    assert {x for x, each in given_.items() if isinstance(each, ValueError)} == bad
    if op is None:
        good = [x for each in given_.values() if isinstance(each, list) for x in each]
        assert sorted(good, reverse=True) == [-x for x in range(count) if x not in bad]


def test_what_an_ended_worker_still_said_is_not_kept() -> None:
    outcomes = made()
    outcomes.send(1, range(5))
    outcomes.send(1, range(5, 9))
    owed = outcomes.forget(1)

    assert owed is not None
    assert list(owed) == [range(5), range(5, 9)]
    assert outcomes.forget(1) is None
    outcomes.keep(done(1, 5), Block([0] * 5, {}))
    assert not outcomes.blocks


def test_a_part_of_a_chunk_is_kept_and_the_rest_is_owed() -> None:
    outcomes = made()
    outcomes.send(1, range(5))
    outcomes.keep(done(1, 2), Block([0, -1], {}))

    assert outcomes.take(range(2)) == Block([0, -1], {})
    owed = outcomes.forget(1)
    assert owed is not None
    assert list(owed) == [range(2, 5)]


def test_a_failure_tells_its_item() -> None:
    outcomes = made()
    error: Any = outcomes.inscribed(ValueError("no"), 7)

    assert error.__notes__ == ["parallelkit: raised by item 7 (7)"]
    assert (error.index, error.item, error.replay()) == (7, 7, -7)
    assert outcomes.inscribed(error, 3) is error  # it told already, when it was retried
    assert error.index == 7


def test_several_arguments_are_one_item() -> None:
    outcomes = Outcomes(Work(operator.add), source((range(5), "abcde")))
    error: Any = outcomes.inscribed(ValueError("no"), 2)

    assert error.__notes__ == ["parallelkit: raised by item 2 (2, 'c')"]
    assert error.item == (2, "c")


def test_a_death_and_a_timeout_are_told_in_full() -> None:
    outcomes = made()
    outcomes.died(3, "was killed by SIGKILL")
    outcomes.late(4, 2.5, '  File "job.py", line 1 in f')

    died, late = (outcomes.take(range(at, at + 1)).failures[0] for at in (3, 4))
    assert type(died) is WorkerDied
    assert str(died) == (
        "a worker was killed by SIGKILL while it ran item 3 (3); "
        "retries= and on_error= say what becomes of such an item"
    )
    assert type(late) is ItemTimeout
    assert str(late) == "item 4 (4) ran longer than timeout=2.5 seconds, and was ended"
    assert late.__notes__ == ['It was here (innermost call first):\n  File "job.py", line 1 in f']
    assert (died.index, late.index) == (3, 4)


class Own(Exception):
    index = "mine"

    @property
    def item(self) -> str:
        return "mine too"


class Slotted(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


def test_attributes_of_the_users_are_left_alone() -> None:
    error: Any = made().inscribed(Own(), 7)
    assert (error.index, error.item, error.replay()) == ("mine", "mine too", -7)

    inscribe(Slotted(), index=3)
    assert not hasattr(Slotted(), "index")


def test_the_error_that_ends_a_run_has_all_that_is_known() -> None:
    outcomes = made()
    outcomes.send(1, range(4, 8))
    outcomes.keep(done(1, 8, (5,)), Block([-4, None, -6, -7], {1: ValueError(5)}))
    error: Any = outcomes.errors[5]
    outcomes.summed_up(error, ["a", "b"])

    assert error.results == {0: "a", 1: "b", 4: -4, 6: -6, 7: -7}
    assert error.failures == {5: error}


def test_a_suspect_that_was_not_tried_alone_has_not_failed() -> None:
    outcomes = made()
    for position in (2, 3, 4):
        outcomes.died(position, "was killed by SIGKILL", doubtful=True)
    outcomes.died(3, "was killed by SIGKILL")
    outcomes.errors[4] = ValueError("tried alone, it raised")
    error: Any = outcomes.errors[3]
    outcomes.summed_up(error, [])

    assert [*error.failures] == [3, 4]


def test_a_reduction_has_no_results_by_position() -> None:
    outcomes = made(op=operator.add)
    outcomes.send(1, range(4))
    outcomes.keep(done(1, 4), Block([-6], {}))
    error: Any = ValueError("no")
    outcomes.summed_up(error, [])

    assert error.results == {}


def test_a_replay_has_the_state_and_the_seed_of_its_item() -> None:
    import random

    def draw(state: list[int], x: int) -> tuple[list[int], int, float]:
        return state, x, random.random()

    before = random.getstate()
    replay = Replay(Work(draw, list, None, seed=3), (5,), 5)
    first, again = replay(), replay()

    assert first == again
    assert first[:2] == ([], 5)
    assert replay() != Replay(Work(draw, list, None, seed=3), (5,), 6)()
    assert random.getstate() == before
    assert repr(replay) == "<replay of item 5>"


def test_a_replay_stays_where_the_items_are() -> None:
    copy = pickle.loads(pickle.dumps(Replay(Work(abs), (1,), 5)))

    assert repr(copy) == "<replay of item 5>"
    with pytest.raises(ParallelError) as caught:
        copy()
    assert str(caught.value) == "an item can be replayed only in the process that mapped it"


def test_what_was_reclaimed_is_expected_of_somebody_else():
    outcomes = made()
    outcomes.send(1, range(10))
    outcomes.send(1, range(10, 15))
    outcomes.reclaim(1, 4)
    outcomes.reclaim(1, None)
    outcomes.reclaim(2, 0)
    outcomes.send(2, range(4, 15))
    outcomes.keep(done(2, 15), Block([-x for x in range(4, 15)], {}))
    outcomes.keep(done(1, 4), Block([0, -1, -2, -3], {}))
    assert outcomes.take(range(4)).values == [0, -1, -2, -3]
    assert outcomes.take(range(4, 15)).values[0] == -4
    assert not any(outcomes.sent.values())


def test_a_chunk_that_is_cut_owes_nothing_more():
    outcomes = made()
    outcomes.send(1, range(10))
    outcomes.send(1, range(10, 12))
    outcomes.keep(Done(1, 3, 0.0, cut=True), Block([0, -1, -2], {}))
    assert outcomes.sent[1] == deque([range(10, 12)])
    outcomes.keep(Done(1, 10, 0.0, cut=True), None)
    assert not outcomes.sent[1]
