"""The engine, with a backend whose workers are threads of this process."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelkit.backends import Block
from parallelkit.chunking import Pace
from parallelkit.engine import Engine
from parallelkit.errors import InternalError, ItemTimeout, NoWorkers, WorkerDied
from parallelkit.events import Done, Event, Joined, Lost, Refused
from parallelkit.outcomes import Work
from parallelkit.scheduler import Limits
from parallelkit.source import source


class Threads:
    """A place whose workers are threads; `mortal` items kill the worker that meets them."""

    def __init__(self, fn: Any, mortal: tuple[int, ...] = (), room: int = 99) -> None:
        self.fn = fn
        self.mortal = mortal
        self.room = room
        self.inbox: queue.SimpleQueue[tuple[Event, Block | None] | None] = queue.SimpleQueue()
        self.work: dict[int, queue.SimpleQueue[Any]] = {}
        self.threads: list[threading.Thread] = []
        self.killed: set[int] = set()
        self.closed = False

    def start(self, count: int) -> None:
        for _ in range(count):
            if len(self.threads) >= self.room:
                self.inbox.put((Refused(1), None))
                continue
            number = len(self.threads) + 1
            self.work[number] = queue.SimpleQueue()
            thread = threading.Thread(target=self._serve, args=(number,))
            self.threads.append(thread)
            thread.start()
            self.inbox.put((Joined(number), None))

    def _serve(self, number: int) -> None:
        while (task := self.work[number].get()) is not None:
            chunk, (items,) = task
            values: list[Any] = []
            failures: dict[int, BaseException] = {}
            for position, item in zip(chunk, items, strict=True):
                if item in self.mortal:
                    self.inbox.put((Lost(number, range(position, position + 1)), None))
                    return
                try:
                    values.append(self.fn(item))
                except Exception as error:
                    failures[len(values)] = error
                    values.append(None)
            failed = tuple(chunk.start + offset for offset in failures)
            self.inbox.put((Done(number, chunk.stop, 1e-3, failed), Block(values, failures)))

    def send(self, worker: int, chunk: range, columns: tuple[Any, ...]) -> int:
        self.work[worker].put((chunk, columns))
        return 0

    def wait(self, timeout: float | None) -> list[tuple[Event, Block | None]]:
        try:
            happened = self.inbox.get(timeout=timeout)
        except queue.Empty:
            return []
        return [] if happened is None else [happened]

    def wakeable(self) -> None:
        pass

    def wake(self) -> None:
        self.inbox.put(None)

    def kill(self, worker: int) -> None:
        self.killed.add(worker)
        self.inbox.put((Lost(worker), None))

    def weigh(self) -> None:
        pass

    def obituary(self, worker: int) -> str:
        return "met its end" if worker not in self.killed else ""

    def close(self) -> None:
        self.closed = True
        for tasks in self.work.values():
            tasks.put(None)
        for thread in self.threads:
            thread.join()


def results(
    fn: Any, items: Any, place: Threads | None = None, **limits: Any
) -> tuple[Engine, list[Any]]:
    """Run to the end; return the engine, and each outcome or the error in its place."""
    place = place or Threads(fn)
    limits = {"workers": 3, "home": False, **limits}
    engine = Engine(Work(fn), source((items,)), Limits(**limits), Pace(launch=1e-4), lambda: place)
    found: list[Any] = []
    for block in engine.results():
        outcomes = [block.failures.get(i, value) for i, value in enumerate(block.values)]
        found.extend(outcomes)
    assert place.closed or not place.threads
    return engine, found


def shaky(x: int) -> int:
    if x % 7 == 3:
        raise ValueError(x)
    return -x


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 40), max_size=80),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.one_of(st.none(), st.integers(1, 9)),
)
def test_every_item_has_its_outcome(
    items: list[int], home: bool, lazy: bool, ordered: bool, size: int | None
) -> None:
    _, found = results(
        shaky,
        iter(items) if lazy else items,
        home=home,
        keep_errors=True,
        ordered=ordered,
        chunksize=size,
        ahead=4 if lazy else None,
    )
    told = [str(x) if isinstance(x, Exception) else -x for x in found]
    expected = [str(x) if x % 7 == 3 else x for x in items]
    assert told == expected if ordered else sorted(map(str, told)) == sorted(map(str, expected))


def test_a_failure_names_its_item() -> None:
    engine, found = results(shaky, range(20), chunksize=1)
    assert isinstance(engine.failure, ValueError)
    assert engine.failure.args == (3,)
    assert engine.failure.__notes__ == ["parallelkit: raised by item 3 (3)"]
    assert found[:3] == [0, -1, -2][: len(found)]


def test_a_death_names_the_worker_and_the_item() -> None:
    place = Threads(abs, mortal=(5,))
    engine, _ = results(abs, range(10), place)
    assert isinstance(engine.failure, WorkerDied)
    assert str(engine.failure) == (
        "a worker met its end while it ran item 5 (5); "
        "retries= and on_error= say what becomes of such an item"
    )


def test_deaths_can_be_kept_and_retried() -> None:
    place = Threads(abs, mortal=(5,))
    _, found = results(abs, range(10), place, keep_errors=True, retries=3)
    assert [x for x in found if not isinstance(x, WorkerDied)] == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert isinstance(found[5], WorkerDied)
    assert len(place.threads) <= 3 + 2  # two deaths end an item


def test_an_item_past_its_timeout() -> None:
    release = threading.Event()

    def slow(x: int) -> int:
        if x == 2:
            release.wait(30)
        return x

    class Releasing(Threads):
        def close(self) -> None:
            release.set()
            super().close()

    engine, _ = results(slow, range(4), Releasing(slow), timeout=0.05)
    assert isinstance(engine.failure, ItemTimeout)
    assert str(engine.failure) == ("item 2 (2) ran longer than timeout=0.05 seconds, and was ended")


def test_without_any_worker() -> None:
    engine, _ = results(abs, range(4), Threads(abs, room=0))
    assert isinstance(engine.failure, NoWorkers)
    assert "could be started" in str(engine.failure)
    _, found = results(abs, range(4), Threads(abs, room=0), home=True)
    assert found == [0, 1, 2, 3]


def test_a_run_that_waits_for_nobody_is_our_own_error() -> None:
    engine = Engine(Work(abs), source(([1],)), Limits(1), Pace(), lambda: Threads(abs))
    engine.events.clear()
    with pytest.raises(InternalError, match="waits for nobody"):
        engine.step()
