"""Places of another engine as a run's workers: one driver for all engines.

An engine is a `Venue`: so many places, a way to have a function called in one of them, a future for
each call.  A worker of the run is a slot: it holds one chunk at a time, which the engine runs where
it likes.  There are more slots than places, so that the next chunks wait there while results are on
their way here.  Futures are done in threads of the engine's; they queue up, and one `wait` takes
what is there.  What a chunk is on its way is `cargo`'s.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count as numbering
from typing import Any, Literal, NamedTuple, Protocol

from ..errors import NoWorkers
from ..events import Done, Event, Joined, Lost, Offered, Refused
from . import Block
from .cargo import Cargo, Store

DEPTH = 2
"""Slots for each place: one chunk is run, another is there when it is done."""

_TRIES = 3  # times that a chunk is sent again which got lost on its way

Fate = Literal["died", "fell", "strayed", "over"]
"""What an engine's error means: a worker died on this chunk; one died, and with it others fell that
may be innocent; the chunk was lost through no fault of its own; there is no engine any more."""


class Future(Protocol):
    """What an engine promises: `concurrent.futures.Future` is one."""

    def add_done_callback(self, fn: Callable[[Any], Any], /) -> object:
        """Have `fn` called with this future when it is done, in any thread."""

    def result(self) -> Any:
        """Return what was returned, or raise what was raised."""

    def cancel(self) -> object:
        """Have it not run, if that is still possible."""


class Verdict(NamedTuple):
    """What an error of an engine's means, and words for it that go on after "a worker"."""

    fate: Fate
    words: str


class Venue(Store, Protocol):
    """An engine: what a backend for one has to know.

    `journey` is the seconds that a task costs besides what it does, which decides how large chunks
    are.  Workers of one that is `inside` are threads of this process, and are handed objects as
    they are.  Only one that `ends` what it runs can have timeouts.
    """

    name: str
    journey: float
    inside: bool
    ends: bool

    def capacity(self) -> int:
        """Return how many tasks can run at a time now, at least 1.

        Raises:
            NoWorkers: The engine is gone.
        """

    def greet(self) -> tuple[str, ...]:
        """See that workers can do their part, before anything is sent.

        Return the modules, loaded here, that they cannot import.

        Raises:
            NoWorkers: They cannot, and why.
        """

    def submit(self, fn: Callable[..., Any], *args: Any) -> Future:
        """Have a worker call `fn(*args)`, where handles that `put` returned are their blobs."""

    def reserve(self) -> Future | None:
        """Have one more place for this run alone, where what is submitted begins at once.

        The future is done when it is there.  None if there is no such thing.
        """

    def judge(self, error: BaseException) -> Verdict:
        """Say what an error means that `submit` or a future raised."""

    def kill(self, future: Future) -> None:
        """End what runs for `future`, if this engine can."""

    def close(self) -> None:
        """Leave the engine; end it, if it was started here."""


class Inbox(queue.SimpleQueue[Any]):
    """What landed, and None for a `wake`; `bell` is rung for who does not wait here."""

    def __init__(self) -> None:
        self.bell: Callable[[], object] = bool

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Take what landed, from any thread."""
        super().put(item, block, timeout)
        self.bell()


@dataclass(slots=True)
class Flight:
    """A chunk on its way; its future is None while it waits to be sent on."""

    chunk: range
    columns: tuple[Any, ...]
    future: Future | None = None
    tries: int = 0
    whole: bool = False  # whether all definitions go along
    lone: bool = False  # whether no other was out with it


def slots(capacity: int, named: int | None, timed: bool) -> tuple[int, int]:
    """Return how many workers a run is to have, and how many of them share a place.

    Example:
        >>> slots(4, None, False), slots(4, 2, False), slots(4, None, True)
        ((8, 2), (2, 1), (4, 1))
    """
    depth = 1 if timed else DEPTH
    most = capacity * depth
    if named is not None:
        most = min(most, named)
    return most, max(1, most // capacity)


class Terms(NamedTuple):
    """What decides how many slots there are for each place."""

    named: int | None
    timed: bool


class Slots:
    """Workers of one run, at most `named` of them, on an engine."""

    def __init__(
        self, venue: Venue, cargo: Cargo, most: int, named: int | None, timed: bool
    ) -> None:
        self.venue = venue
        self.cargo = cargo
        self.terms = Terms(named, timed)
        self.allowed = most  # how many the run thinks there may be
        self.flights: dict[int, Flight | None] = {}
        self.unsent: list[int] = []  # whose chunk is to be sent on
        # Positions of which one may have killed a worker.  Until they are done, one chunk is out at
        # a time: who falls then is to blame.
        self.suspects: set[int] = set()
        self.deaths: dict[int, str] = {}
        self.numbers = numbering(1)
        self.inbox = Inbox()
        self.happened: list[tuple[Event, Block | None]] = []
        self.over: NoWorkers | None = None

    def start(self, count: int) -> None:
        """Have `count` more slots, as far as there are places."""
        if self.over is not None:
            raise self.over
        granted = min(count, max(0, self.allowed - len(self.flights)))
        if granted < count:
            self.allowed = max(0, self.allowed - (count - granted))
            self.happened.append((Refused(count - granted), None))
        for number in [next(self.numbers) for _ in range(granted)]:
            self.flights[number] = None
            # Where time counts, a place must be there before what is to be timed is sent.
            place = self.venue.reserve() if self.terms.timed else None
            if place is None:
                self.happened.append((Joined(number), None))
            else:
                place.add_done_callback(partial(_land, self.inbox, number))

    def send(self, worker: int, chunk: range, columns: tuple[Any, ...]) -> int:
        """Have the engine run a chunk; return how many bytes travel."""
        if worker not in self.flights:  # it is lost, as the run is about to hear
            return 0
        flight = self.flights[worker] = Flight(chunk, columns)
        return self._submit(worker, flight)

    def _submit(self, worker: int, flight: Flight) -> int:
        flight.lone = bool(self.suspects)
        if flight.lone and any(each and each.future for each in self.flights.values()):
            self.unsent.append(worker)
            return 0
        (fn, args), size = self.cargo.load(flight.chunk, flight.columns, flight.whole)
        try:
            flight.future = future = self.venue.submit(fn, *args)
        except Exception as error:
            self._fall(worker, flight, error)
        else:
            future.add_done_callback(partial(_land, self.inbox, worker))
        return size

    def wait(self, timeout: float | None) -> list[tuple[Event, Block | None]]:
        """Return what happened, waiting up to `timeout` seconds for something to happen."""
        unsent, self.unsent = self.unsent, []
        for worker in unsent:
            flight = self.flights.get(worker)
            if flight is not None:
                self._submit(worker, flight)
        try:
            landed = self.inbox.get(not self.happened, timeout)
            while True:
                if landed is not None:
                    self._landed(*landed)
                landed = self.inbox.get_nowait()
        except queue.Empty:
            happened, self.happened = self.happened, []
        return happened

    def wakeable(self) -> None:
        """It is."""

    def wake(self) -> None:
        """Make a `wait` that another thread is in return now."""
        self.inbox.put(None)

    def _landed(self, worker: int, future: Future) -> None:
        flight = self.flights.get(worker)
        if flight is None and worker in self.flights:
            self._joined(worker, future)
            return
        if flight is None or flight.future is not future:  # nobody waits for it any more
            return
        flight.future = None
        try:
            answer = future.result()
        except BaseException as error:  # a cancelled one's is no Exception in some engines
            self._fall(worker, flight, error)
            return
        landed = self.cargo.unload(flight.chunk, answer)
        if landed.needy:
            flight.whole = True
            self.unsent.append(worker)
            return
        chunk, stop, block = flight.chunk, landed.stop, landed.block
        self.flights[worker] = None
        self.suspects.difference_update(range(chunk.start, stop))
        if stop < chunk.stop:
            columns = tuple([_rest(column, stop - chunk.start) for column in flight.columns])
            self.flights[worker] = Flight(range(stop, chunk.stop), columns)
            self.unsent.append(worker)
        if block is None:
            self.happened.append((Done(worker, stop, 0.0, doubtful=True), None))
            return
        failed = tuple(chunk.start + offset for offset in sorted(block.failures))
        event = Done(worker, stop, landed.seconds, failed, weight=landed.weight)
        self.happened.append((event, block))

    def _joined(self, worker: int, place: Future) -> None:
        try:
            place.result()
        except BaseException as error:
            fate, words = self.venue.judge(error)
            if fate == "over":
                self._end(NoWorkers(words), error)
            else:
                self._lose(worker, range(0), words)
        else:
            self.happened.append((Joined(worker), None))

    # Ends.

    def _fall(self, worker: int, flight: Flight, error: BaseException) -> None:
        """See what became of a chunk whose future failed."""
        fate, words = self.venue.judge(error)
        if fate == "over":
            self._end(NoWorkers(words), error)
            return
        flight.tries += 1
        if self.terms.timed:  # its place is gone, and a chunk that waits for one has time running
            self._lose(worker, range(0) if fate == "strayed" else flight.chunk, words)
            return
        if fate == "strayed" and flight.tries <= _TRIES:
            self.cargo.renew()
            self.unsent.append(worker)
            return
        if fate == "fell" and not flight.lone:  # it may have been a neighbour's fault
            self.suspects.update(flight.chunk)
            self._lose(worker, range(0), words, swept=True)
            return
        if len(flight.chunk) == 1:
            self.suspects.discard(flight.chunk.start)
        self._lose(worker, flight.chunk, words)

    def _end(self, over: NoWorkers, cause: BaseException) -> None:
        """Lose everything, and start no more: the engine is gone."""
        if self.over is None:
            self.over = over
            self.over.__cause__ = cause
        for worker in tuple(self.flights):
            self._lose(worker, range(0), str(over), swept=True)

    def _lose(self, worker: int, suspects: range, words: str, swept: bool = False) -> None:
        del self.flights[worker]
        self.deaths[worker] = words
        self.happened.append((Lost(worker, suspects, swept), None))

    def kill(self, worker: int) -> None:
        """Give up what `worker` runs, and end it if the engine can."""
        flight = self.flights.get(worker)
        if worker not in self.flights:  # it has ended already, and `wait` says so
            return
        if flight is not None and flight.future is not None:
            self.venue.kill(flight.future)
        self._lose(worker, range(0), "")

    def obituary(self, worker: int) -> str:
        """Say how a lost worker ended."""
        return self.deaths.get(worker, "ended")

    def weigh(self) -> None:
        """See whether there are more places now, and whether there is an engine at all."""
        if self.over is not None:
            return
        try:
            most, _ = slots(self.venue.capacity(), *self.terms)
        except NoWorkers as over:
            self._end(over, over.__cause__ or over)
            return
        if most > self.allowed:
            self.happened.append((Offered(most - self.allowed), None))
            self.allowed = most

    def close(self) -> None:
        """End the run: what was not begun is cancelled, and nothing is left with the engine."""
        flights, self.flights = self.flights, {}
        for flight in flights.values():
            if flight is not None and flight.future is not None:
                if self.venue.ends:
                    self.venue.kill(flight.future)
                else:
                    flight.future.cancel()
        self.cargo.close()
        self.venue.close()


def _land(inbox: Inbox, worker: int, future: Future) -> None:
    inbox.put((worker, future))


def _rest(column: Any, start: int) -> Any:
    """Return a column's items from `start` on."""
    return column[start:] if isinstance(column, list | range) else list(column)[start:]
