"""Slots of an engine that does only what a test says: every way in which a chunk can come back."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from parallelkit.backends import Block, Unlearned
from parallelkit.backends.cargo import Landed
from parallelkit.backends.slots import Slots, Verdict, slots
from parallelkit.errors import NoWorkers
from parallelkit.events import Done, Joined, Lost, Offered, Refused


class Engine:
    """An engine whose calls wait for the test.  An error's text is its fate."""

    name, journey, inside, ends = "engine", 1e-3, False, False

    def __init__(self) -> None:
        self.places = 2
        self.calls: list[tuple[Future[Any], Any]] = []
        self.killed: list[Future[Any]] = []
        self.reserved: list[Future[Any]] = []
        self.closed = self.gone = False

    def reserve(self) -> Future[Any] | None:
        if not self.ends:
            return None
        self.reserved.append(Future())
        return self.reserved[-1]

    def capacity(self) -> int:
        if self.gone:
            raise NoWorkers("it is gone")
        return self.places

    def submit(self, fn: Any, *args: Any) -> Future[Any]:
        if self.gone:
            raise RuntimeError("over")
        future: Future[Any] = Future()
        self.calls.append((future, (fn, *args)))
        return future

    def judge(self, error: BaseException) -> Verdict:
        return Verdict(str(error), f"met its {error}")  # type: ignore[arg-type]

    def kill(self, future: Future[Any]) -> None:
        self.killed.append(future)

    def close(self) -> None:
        self.closed = True


class Freight:
    """Hands over chunks as they are."""

    def __init__(self) -> None:
        self.renewed = 0
        self.closed = False

    def load(self, chunk, columns, whole):
        return (abs, (chunk, *columns, whole)), 7

    def unload(self, chunk, answer):
        if isinstance(answer, Exception):
            raise answer
        return answer

    def renew(self) -> None:
        self.renewed += 1

    def close(self) -> None:
        self.closed = True


class Scene:
    """Four slots on two places."""

    def __init__(self, timed: bool = False) -> None:
        self.engine, self.freight = Engine(), Freight()
        self.engine.ends = timed
        self.slots = Slots(self.engine, self.freight, 4, None, timed)  # type: ignore[arg-type]
        self.slots.start(4)
        self.joined = self.events()

    def events(self) -> list[Any]:
        return [event for event, _ in self.slots.wait(0)]

    def send(self, worker: int, start: int, stop: int) -> Future[Any]:
        assert self.slots.send(worker, range(start, stop), (list(range(start, stop)),)) == 7
        return self.engine.calls[-1][0]


@pytest.fixture
def scene():
    return Scene()


def landed(stop: int, count: int, **failures: BaseException) -> Landed:
    broken = {int(at[1:]): error for at, error in failures.items()}
    return Landed(stop, 0.5, Block(list(range(count)), broken), 9)


def test_how_many_slots_there_are():
    assert slots(4, None, timed=False) == (8, 2)
    assert slots(4, 5, timed=False) == (5, 1)
    assert slots(4, 99, timed=False) == (8, 2)
    assert slots(4, None, timed=True) == (4, 1)


def test_slots_join_at_once_and_no_more_than_there_are(scene):
    scene.slots.start(2)

    assert scene.joined == [Joined(number) for number in (1, 2, 3, 4)]
    assert scene.events() == [Refused(2)]


def test_a_chunk_that_is_done_is_told(scene):
    scene.send(1, 0, 3).set_result(landed(3, 3))

    ((event, block),) = scene.slots.wait(0)
    assert event == Done(1, 3, 0.5, weight=9)
    assert block.values == [0, 1, 2]


def test_failures_are_positions(scene):
    scene.send(1, 10, 13).set_result(landed(13, 3, _2=ValueError()))

    assert scene.events() == [Done(1, 13, 0.5, (12,), weight=9)]


def test_what_came_back_early_is_told_and_the_rest_sent_on(scene):
    scene.send(1, 10, 14).set_result(landed(12, 2))

    assert scene.events() == [Done(1, 12, 0.5, weight=9)]
    assert scene.events() == []
    future, call = scene.engine.calls[-1]
    assert call == (abs, range(12, 14), [12, 13], False)
    future.set_result(landed(14, 2))
    assert scene.events() == [Done(1, 14, 0.5, weight=9)]


def test_doubtful_items_are_told(scene):
    scene.send(1, 0, 3).set_result(Landed(3))

    assert scene.events() == [Done(1, 3, 0.0, doubtful=True)]


def test_a_needy_worker_gets_all(scene):
    scene.send(1, 0, 3).set_result(Landed(0, needy=True))

    assert scene.events() == []
    assert scene.events() == []
    assert scene.engine.calls[-1][1] == (abs, range(3), [0, 1, 2], True)


def test_what_workers_cannot_learn_is_raised(scene):
    scene.send(1, 0, 3).set_result(Unlearned(ValueError("no")))

    with pytest.raises(Unlearned):
        scene.slots.wait(0)


def test_who_died_for_certain_is_lost_with_its_chunk(scene):
    scene.send(1, 0, 3).set_exception(OSError("died"))

    assert scene.events() == [Lost(1, range(3))]
    assert scene.slots.obituary(1) == "met its died"


def test_a_stray_chunk_is_sent_again_a_few_times(scene):
    scene.send(1, 0, 3)
    for turn in range(3):
        scene.engine.calls[-1][0].set_exception(OSError("strayed"))
        assert scene.events() == []
        assert scene.events() == []
        assert len(scene.engine.calls) == turn + 2
    scene.engine.calls[-1][0].set_exception(OSError("strayed"))

    assert scene.events() == [Lost(1, range(3))]
    assert scene.freight.renewed == 3


def test_who_fell_together_are_run_one_by_one(scene):
    both = [scene.send(1, 0, 2), scene.send(2, 2, 4)]
    for future in both:
        future.set_exception(OSError("fell"))
    assert scene.events() == [Lost(1, swept=True), Lost(2, swept=True)]

    scene.slots.send(3, range(2), ([0, 1],))
    scene.slots.send(4, range(2, 4), ([2, 3],))
    assert len(scene.engine.calls) == 3  # the other waits
    scene.engine.calls[-1][0].set_exception(OSError("fell"))
    assert scene.events() == [Lost(3, range(2))]
    assert scene.events() == []
    assert len(scene.engine.calls) == 4
    scene.engine.calls[-1][0].set_result(landed(4, 2))
    assert scene.events() == [Done(4, 4, 0.5, weight=9)]


def test_one_suspect_that_falls_alone_is_to_blame_and_then_all_run_again(scene):
    scene.send(1, 5, 6).set_exception(OSError("fell"))
    assert scene.events() == [Lost(1, swept=True)]
    scene.send(2, 5, 6).set_exception(OSError("fell"))
    assert scene.events() == [Lost(2, range(5, 6))]

    scene.send(3, 0, 1)
    scene.send(4, 1, 2)
    assert len(scene.engine.calls) == 4


def test_the_end_of_the_engine_loses_all_and_says_why(scene):
    first = scene.send(1, 0, 3)
    scene.send(2, 3, 6)
    first.set_exception(OSError("over"))

    assert scene.events() == [Lost(number, swept=True) for number in (1, 2, 3, 4)]
    with pytest.raises(NoWorkers, match=r"^met its over$"):
        scene.slots.start(1)


def test_a_submit_that_fails_is_judged(scene):
    scene.engine.gone = True
    scene.slots.send(1, range(3), ([0, 1, 2],))

    assert scene.events() == [Lost(number, swept=True) for number in (1, 2, 3, 4)]


def test_a_look_shows_new_places_and_an_engine_that_is_gone(scene):
    scene.slots.weigh()
    assert scene.events() == []
    scene.engine.places = 3
    scene.slots.weigh()
    assert scene.events() == [Offered(2)]
    scene.engine.gone = True
    scene.slots.weigh()
    assert scene.events() == [Lost(number, swept=True) for number in (1, 2, 3, 4)]


def test_one_that_is_killed_is_given_up(scene):
    future = scene.send(1, 0, 1)
    scene.slots.kill(1)
    future.set_result(landed(1, 1))

    assert scene.engine.killed == [future]
    assert scene.events() == [Lost(1)]
    assert scene.slots.send(1, range(1), ([0],)) == 0


def test_a_wait_can_be_woken(scene):
    scene.slots.wakeable()
    scene.slots.wake()

    assert scene.slots.wait(60) == []


def test_who_listens_elsewhere_hears_a_bell(scene):
    rung = []
    scene.slots.inbox.bell = lambda: rung.append(True)
    scene.send(1, 0, 3).set_result(landed(3, 3))

    assert rung == [True]


def test_closing_cancels_what_has_not_begun(scene):
    waiting, running = scene.send(1, 0, 1), scene.send(2, 1, 2)
    running.set_running_or_notify_cancel()
    scene.slots.close()

    assert waiting.cancelled()
    assert not running.cancelled()
    assert scene.freight.closed
    assert scene.engine.closed


def test_closing_kills_where_that_can_be(scene):
    scene.engine.ends = True
    future = scene.send(1, 0, 1)
    scene.slots.close()

    assert scene.engine.killed == [future]


# Where time counts.


@pytest.fixture
def timed():
    return Scene(timed=True)


def test_a_slot_joins_when_its_place_is_there(timed):
    assert timed.joined == []

    timed.engine.reserved[2].set_result(None)
    timed.engine.reserved[0].set_result(None)

    assert timed.events() == [Joined(3), Joined(1)]


def test_places_that_are_reserved_are_for_time_limits_only():
    engine = Engine()
    engine.ends = True
    unlimited = Slots(engine, Freight(), 4, None, timed=False)  # type: ignore[arg-type]
    unlimited.start(4)

    assert len(unlimited.wait(0)) == 4
    assert not engine.reserved


def test_a_place_that_does_not_come_is_a_worker_lost(timed):
    timed.engine.reserved[0].set_exception(OSError("died"))
    assert timed.events() == [Lost(1)]

    timed.engine.reserved[1].set_exception(OSError("over"))
    assert timed.events() == [Lost(number, swept=True) for number in (2, 3, 4)]
    with pytest.raises(NoWorkers, match=r"^met its over$"):
        timed.slots.start(1)


@pytest.mark.parametrize(
    ("fate", "suspects"), [("strayed", range(0)), ("fell", range(7, 8)), ("died", range(7, 8))]
)
def test_a_lost_place_is_not_waited_for(timed, fate, suspects):
    for place in timed.engine.reserved:
        place.set_result(None)
    timed.events()
    timed.send(1, 7, 8).set_exception(OSError(fate))

    assert timed.events() == [Lost(1, suspects)]
    assert len(timed.engine.calls) == 1
