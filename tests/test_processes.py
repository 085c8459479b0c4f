"""The driver of local workers: what it reports, whatever becomes of the workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from parallelkit import pmap
from parallelkit.backends import Block, warm
from parallelkit.backends.processes import Processes, launch
from parallelkit.backends.start import ZygoteStarter
from parallelkit.backends.warm import Link, Pool
from parallelkit.events import Done, Event, Joined, Lost

LIMIT = 30.0  # seconds until a test gives up waiting


def double(x: int) -> int:
    return 2 * x


def misbehave(x: int) -> int:
    if x == 1:
        os._exit(3)
    if x == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if x == 3:
        os.closerange(3, 64)
        signal.pause()
    return x


def opened(fn: object, workers: int) -> Processes:
    place = Processes((fn, None, None), workers, 1)
    place.start(workers)
    return place


def heard(place: Processes, count: int) -> Iterator[tuple[Event, Block | None]]:
    """Yield the next `count` things that happen."""
    deadline = time.monotonic() + LIMIT
    while count:
        assert time.monotonic() < deadline, "nothing happens"
        for event, block in place.wait(1.0):
            count -= 1
            yield event, block


def test_chunks_come_back_in_the_order_of_each_worker() -> None:
    place = opened(double, 2)
    assert [type(event) for event, _ in heard(place, 2)] == [Joined, Joined]
    for worker in (1, 2):
        for start in (0, 5):
            place.send(worker, range(start, start + 5), (list(range(start, start + 5)),))
    stops: dict[int, list[int]] = {1: [], 2: []}
    for event, block in heard(place, 4):
        assert isinstance(event, Done)
        assert block == Block([2 * x for x in range(event.stop - 5, event.stop)], {})
        stops[event.worker].append(event.stop)
    assert stops == {1: [5, 10], 2: [5, 10]}
    place.close()


@pytest.mark.parametrize(
    ("item", "ending"),
    [
        (1, "ended with exit code 3"),
        (2, "was killed by SIGKILL"),
        (3, "closed its socket, and so had to be ended,"),
    ],
)
def test_a_lost_worker_is_reported_with_its_item(item: int, ending: str) -> None:
    place = opened(misbehave, 1)
    list(heard(place, 1))
    place.send(1, range(10, 13), ([0, item, 0],))
    events = [event for event, _ in heard(place, 1)]
    (lost,) = [event for event in events if isinstance(event, Lost)]
    assert 11 in lost.suspects
    assert place.obituary(1) == ending
    place.send(1, range(3), ([0, 0, 0],))  # the run may not have heard of it yet
    place.close()


def test_killed_workers_are_lost() -> None:
    place = opened(double, 2)
    place.kill(1)  # it has not even introduced itself
    seen = [event for event, _ in heard(place, 2)]
    assert Lost(1) in seen
    assert Joined(2) in seen
    place.kill(2)
    assert [event for event, _ in heard(place, 1)] == [Lost(2)]
    place.kill(2)
    place.close()


def test_a_run_that_ends_early_leaves_its_workers_to_the_next() -> None:
    opened(double, 2).close()  # before they were up
    place = opened(double, 2)
    assert {type(event) for event, _ in heard(place, 2)} == {Joined}
    place.close()
    assert launch(2) < launch(4)


def test_a_worker_that_hangs_is_ended_with_its_run() -> None:
    place = opened(lambda _: signal.pause(), 1)
    list(heard(place, 1))
    (link,) = place.links.values()
    place.send(1, range(1), ([3600],))
    place.close()
    assert link.process.pid is not None
    deadline = time.monotonic() + LIMIT
    while os.path.exists(f"/proc/{link.process.pid}"):
        assert time.monotonic() < deadline


@pytest.mark.skipif(os.name != "posix", reason="zygotes are POSIX")
def test_zygotes_that_are_killed_at_the_start_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    zygotes: list[ZygoteStarter] = []

    class Short(ZygoteStarter):
        def __init__(self) -> None:
            super().__init__()
            zygotes.append(self)
            if len(zygotes) <= 2:  # before it can have started anybody
                os.kill(self.pid, signal.SIGKILL)

    monkeypatch.setattr(warm, "default", lambda: Short)
    assert pmap(double, range(20), workers=6) == [2 * x for x in range(20)]
    assert len(zygotes) == 3
    warm.shut()


def test_workers_that_go_with_their_zygote_are_one_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLELKIT_START", "zygote")
    place = opened(double, 4)
    assert [type(event) for event, _ in heard(place, 4)] == [Joined] * 4
    assert isinstance(place.pool.starter, ZygoteStarter)
    os.kill(place.pool.starter.pid, signal.SIGKILL)

    lost = [event for event, _ in heard(place, 4)]
    assert sorted(event.swept for event in lost if isinstance(event, Lost)) == [False] + [True] * 3
    place.close()


@pytest.mark.parametrize(
    ("owner", "step"),
    [(Link, "alive"), (Pool, "start"), (Processes, "_adopt"), (Processes, "_leave")],
)
def test_ctrl_c_between_two_workers_leaves_none_that_is_nobodys(
    owner: type, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm.shut()
    idle = 2 if step in {"alive", "_leave"} else 1
    assert pmap(double, range(idle), workers=idle, chunksize=1) == [0, 2][:idle]
    done, turns = getattr(owner, step), []

    def interrupted(*arguments: object) -> object:
        turns.append(step)
        if len(turns) == (step == "_adopt") + 1:
            raise KeyboardInterrupt
        return done(*arguments)

    place = Processes((double, None, None), 2, 1)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(owner, step, interrupted)
        place.start(2)
        place.close()
    place.close()
    assert not warm.pool().busy


def test_what_a_worker_was_on_before_is_not_of_the_next_run() -> None:
    warm.shut()
    place = opened(double, 1)
    list(heard(place, 1))
    (link,) = place.links.values()
    place.close()
    link.slot.stamp(5, 3, 1)  # as where it was killed just after it answered
    place = opened(double, 1)
    assert list(place.links.values()) == [link]
    assert not link.slot.read()
    place.close()
