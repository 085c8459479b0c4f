"""What goes to a worker of another engine and comes back: pickled, or handed over as it is.

`Shipped` is for workers in other processes: they learn the run's definitions once, which travel
with a chunk where they are small, else by the engine's own ways.  `Handed` is for threads of this
process, who need no pickling.  Both are told of a chunk and give what is to be called for it.
"""

from __future__ import annotations

import pickle
import sys
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, NamedTuple, Protocol

from .. import remote
from ..codec import Definitions
from ..failures import unpack_error
from ..folding import fold
from ..job import Settings
from ..remote import DONE, DOUBTFUL, NEEDY, Order
from ..stints import Stint, seeded
from . import Block, Unlearned

SMALL = 32 << 10
"""Bytes of definitions that travel with each chunk.  Any engine moves them in less time than a task
costs it besides, and a worker that joins late has them."""

Call = tuple[Callable[..., Any], tuple[Any, ...]]


class Landed(NamedTuple):
    """What came of a chunk: outcomes up to `stop`, none if its items must come one by one.

    Where `needy`, nothing came of it, as the worker lacks a definition.
    """

    stop: int
    seconds: float = 0.0
    block: Block | None = None
    weight: int = 0
    needy: bool = False


class Cargo(Protocol):
    """The side of one run that travels."""

    def load(self, chunk: range, columns: tuple[Any, ...], whole: bool) -> tuple[Call, int]:
        """Return what a worker is to call for a chunk, and how many bytes travel.

        With `whole`, all definitions go along.
        """

    def unload(self, chunk: range, answer: Any) -> Landed:
        """Return what a worker's answer means.

        Raises:
            Unlearned: What workers were told of the run cannot be loaded there.
        """

    def renew(self) -> None:
        """What was put somewhere is lost: put it there again when it is needed."""

    def close(self) -> None:
        """The run is over."""


class Store(Protocol):
    """An engine's ways for what many workers need."""

    def put(self, blob: bytes) -> Any:
        """Return what stands for `blob` among a task's arguments; None if there is no such way."""

    def drop(self, run: str, handles: list[Any]) -> None:
        """Need nothing more of a run, and of what was put somewhere for it."""


class Shipped:
    """One run, for workers in other processes."""

    def __init__(
        self, root: tuple[Any, ...], settings: Settings, by_value: tuple[str, ...], store: Store
    ) -> None:
        self.run = uuid.uuid4().hex
        self.settings = settings
        self.store = store
        self.definitions = Definitions(root, by_value, ashore=True)
        self.handles: dict[int, Any] = {}

    def load(self, chunk: range, columns: tuple[Any, ...], whole: bool) -> tuple[Call, int]:
        """Return what a worker is to call for a chunk, and how many bytes travel."""
        body = self.definitions.dumps_salvaging(columns)
        blobs = self.definitions.blobs
        further: list[Any] = []
        told: list[bytes | int | None] = list(blobs)
        if not whole and sum(map(len, blobs)) > SMALL:
            told = [self._place(number, further) for number in range(len(blobs))]
        settings = self.settings
        order = Order(
            self.run, chunk.start, len(chunk), settings.seed, settings.urgent, tuple(told)
        )
        header = pickle.dumps(tuple(order), 5)
        return (remote.serve, (header, body, *further)), len(header) + len(body)

    def _place(self, number: int, further: list[Any]) -> int | None:
        """Return which of the `further` arguments a definition is, None if it goes on demand."""
        if number not in self.handles:
            self.handles[number] = self.store.put(self.definitions.blobs[number])
        if self.handles[number] is None:
            return None
        further.append(self.handles[number])
        return len(further) - 1

    def unload(self, chunk: range, answer: remote.Answer) -> Landed:
        """Return what a worker's answer means."""
        kind, stop, failed, seconds, body = answer
        if kind == NEEDY:
            return Landed(chunk.start, needy=True)
        if kind == DOUBTFUL:
            return Landed(stop)
        if kind != DONE:
            raise Unlearned(unpack_error(body, self.definitions))
        return Landed(stop, seconds, self._unpack(body, failed, stop - chunk.start), len(body))

    def _unpack(self, body: bytes, failed: int, count: int) -> Block | None:
        failures: dict[int, BaseException] = {}
        unsent: tuple[int, ...] = ()
        unreturned: tuple[int, ...] = ()
        try:
            if failed:
                body, packed, unsent, unreturned = pickle.loads(body)
                once = {
                    id(error): unpack_error(error, self.definitions) for error in packed.values()
                }
                failures = {offset: once[id(error)] for offset, error in packed.items()}
            values: Any = self.definitions.loads(body)
        except Exception as error:  # a result's own __setstate__ can raise anything
            return Block([None], {0: error}, unreturned=(0,)) if count == 1 else None
        return Block(values, failures, unsent, unreturned)

    def renew(self) -> None:
        """Put again what was put somewhere, when it is needed."""
        self.handles.clear()

    def close(self) -> None:
        """Need nothing more of what was put somewhere."""
        handles = [handle for handle in self.handles.values() if handle is not None]
        self.handles.clear()
        self.definitions.close(arrived=True)
        self.store.drop(self.run, handles)


class Handed:
    """One run, for threads of this process: each makes a state of its own."""

    def __init__(self, root: tuple[Any, ...], settings: Settings) -> None:
        self.fn, self.make_state, self.op = root
        self.settings = settings
        self.context = copy_context()  # the caller's: how it calculates with decimals, say
        self.own = threading.local()
        self.broken: BaseException | None = None
        self.closed = False

    def load(self, chunk: range, columns: tuple[Any, ...], _: bool) -> tuple[Call, int]:
        """Return what a thread is to call for a chunk; nothing travels."""
        # A copy, since a context can be in use in one thread only.
        return (self.context.copy().run, (self.serve, chunk, columns)), 0

    def serve(self, chunk: range, columns: tuple[Any, ...]) -> Landed | None:
        """Run one chunk in this thread; None if the run is over, or cannot be."""
        if self.closed or self.broken is not None:
            return None
        _calculate_alone()
        try:
            fn = self._function()
        except BaseException as error:
            self.broken = error
            return None
        items = columns[0] if len(columns) == 1 else zip(*columns, strict=True)
        calls, surroundings = seeded(items, self.settings.seed, chunk.start)
        stint = Stint()
        with surroundings:
            stint.run(fn, calls, len(chunk), len(columns) == 1, self.settings.urgent, self.over)
        values, failures = stint.values, stint.failures
        if self.op is not None and not failures:
            try:
                values = fold(self.op, chunk.start, values)
            except BaseException as error:
                failures = dict.fromkeys(range(len(values)), error)
                values = [None] * len(failures)
        stop = chunk.start + len(stint.values)
        return Landed(stop, stint.seconds, Block(values, failures))

    def over(self) -> bool:
        """Return whether nobody waits for the rest."""
        return self.closed

    def _function(self) -> Callable[..., Any]:
        if self.make_state is None:
            return self.fn  # type: ignore[no-any-return]
        with suppress(AttributeError):
            return self.own.fn  # type: ignore[no-any-return]
        self.own.fn = partial(self.fn, self.make_state())
        return self.own.fn  # type: ignore[no-any-return]

    def unload(self, _: range, answer: Landed | None) -> Landed:
        """Return what came of a chunk."""
        if answer is None:
            assert self.broken is not None, "a run that is over was asked for more"
            raise Unlearned(self.broken)
        return answer

    def renew(self) -> None:
        """Nothing was put anywhere."""

    def close(self) -> None:
        """Begin no further item."""
        self.closed = True


def _calculate_alone() -> None:
    """Have a decimal context like the caller's, not the same one: items may change it."""
    decimal = sys.modules.get("decimal")
    if hasattr(decimal, "getcontext"):  # loaded, and not just being so
        decimal.setcontext(decimal.getcontext().copy())  # type: ignore[union-attr]
