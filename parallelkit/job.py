"""One run, as a worker sees it: how it is to be run, its function, and what was done of a chunk."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from .arenas import Arena
from .codec import Replica, missing
from .context import address_space, limit_memory, serially
from .failures import pack_error
from .folding import Eager, fold
from .leases import Berth


class Settings(NamedTuple):
    """How a run wants its chunks run."""

    run: int = 0  # the caller's number for it, repeated in answers that could come too late
    context: bytes | None = None  # None: as in this worker's run before
    seed: int | None = None
    urgent: bool = True  # a failure is sent at once, since it ends the run
    max_memory: int | None = None  # bytes that the function may take
    timed: bool = False  # no chunk is sent before the worker says that it is ready to run it
    hushed: bool = False  # the worker need not say so, since chunks are sent all the same


class Job:
    """One run, as a worker sees it."""

    def __init__(self, settings: Settings, arena: Arena | None, berth: Berth) -> None:
        self.settings = settings
        self.replica = Replica(arena, berth)
        self.fn: Any = None
        self.op: Callable[[Any, Any], Any] | None = None
        self.broken: bytes | None = None
        self.stride = 1
        self.gaps: frozenset[int] = frozenset()  # positions whose items could not be sent
        self.most: int | None = None  # bytes of address space there may be while the function runs
        if settings.max_memory is not None:
            self.most = address_space() + settings.max_memory

    def learn(self, blob: bytes | bytearray) -> None:
        """Take in a definition; the first is the function, with what goes with it."""
        before = 0 if self.most is None else address_space()
        with serially():  # what is imported may map something at its top level
            root = self.replica.learn(blob)
        if self.most is not None:  # what the function brings along is not what it takes
            self.most += address_space() - before
        self.adopt(root)

    def adopt(self, root: Any) -> None:
        """Take what a definition held for what the run is about, if it is the first."""
        if self.fn is None:
            self.fn, make_state, self.op = root
            if make_state is not None:
                self.fn = partial(self.fn, make_state())

    def confined(self, act: Callable[..., Any], *arguments: Any) -> Any:
        """Return `act(*arguments)`, which may take no more memory than the function may.

        Only so long: without room to read an item or to tell of an error, a worker would die.
        """
        if self.most is None:
            return act(*arguments)
        limit_memory(self.most)
        try:
            return act(*arguments)
        finally:
            limit_memory(None)

    def calls(self, columns: tuple[Any, ...], start: int) -> Iterator[Any]:
        """Return an iterator of the arguments of each call, each a tuple if there are several."""
        self.gaps = frozenset(start + offset for offset in missing(columns))
        items: Iterable[Any] = columns[0] if len(columns) == 1 else zip(*columns, strict=True)
        if self.settings.seed is not None:
            from .seeding import Seeded

            items = Seeded(items, self.settings.seed, start)
        return iter(items)

    def attempt(self, run: Run, calls: Iterator[Any], part: Part) -> None:
        """Have `run` make some calls of the function, and `part` keep what comes of them."""
        before = len(part.values)
        try:
            self.confined(run, self.fn, calls, part.values)
        except BaseException as error:  # SystemExit and KeyboardInterrupt are the item's too
            part.fail(pack_error(error, self.replica))
        if len(part.values) == before:  # the arguments ran out, which must not go on for ever
            part.fail(pack_error(RuntimeError("an item got lost on its way"), self.replica))

    def pack(
        self,
        start: int,
        values: list[Any],
        failures: dict[int, bytes],
        eager: Eager | None = None,
    ) -> tuple[bytes, int]:
        """Return the outcomes as bytes, and how many of them are failures.

        Before the values may come some that were folded already, by `eager`.
        """
        count = len(values) + (0 if eager is None else eager.count)
        folded = self.op is not None and not failures
        if self.op is not None and folded:
            values = fold(self.op, start, values) if eager is None else eager.blocks(values)
        body, unsendable = self.replica.dumps_values(values)
        if folded and unsendable:  # what was folded from many items is the failure of them all
            unreturned = tuple(range(count))
            error = next(iter(unsendable.values()))
            return self.pack_failed(count, error, unreturned=unreturned), count
        unsent = tuple(offset for offset in failures if start + offset in self.gaps)
        failures.update(unsendable)
        if failures:
            body = pickle.dumps((body, failures, unsent, tuple(unsendable)), 5)
        return body, len(failures)

    def pack_failed(
        self,
        count: int,
        error: bytes,
        unsent: tuple[int, ...] = (),
        unreturned: tuple[int, ...] = (),
    ) -> bytes:
        """Return as bytes the outcomes of `count` items that failed together, with one error."""
        nothing = self.replica.dumps([None] * count)
        failures = dict.fromkeys(range(count), error)
        return pickle.dumps((nothing, failures, unsent, unreturned), 5)


Run = Callable[[Callable[..., Any], Iterator[Any], list[Any]], None]


class Part:
    """What was done of a chunk, from position `start` on, and has not been sent.

    In a reduction, `eager` folds what is large or much as it comes; `values`, and the offsets of
    failures, are those of what comes after that.
    """

    __slots__ = ("eager", "failures", "since", "start", "values")

    def __init__(self, start: int, since: float, op: Callable[[Any, Any], Any] | None) -> None:
        self.start = start
        self.since = since  # the time at which the first of its calls began
        self.values: list[Any] = []
        self.failures: dict[int, bytes] = {}
        self.eager = None if op is None else Eager(op, start)

    @property
    def stop(self) -> int:
        """The position before which it ends."""
        return self.start + len(self.values) + (0 if self.eager is None else self.eager.count)

    def fail(self, error: bytes) -> None:
        """Keep a failure as the outcome of the next item."""
        self.failures[len(self.values)] = error
        self.values.append(None)

    def pressing(self, urgent: bool) -> bool:
        """Return whether it is to be sent at once, where failures are `urgent`."""
        failed = self.eager is not None and self.eager.error is not None
        return failed or (urgent and bool(self.failures))

    def folded(self) -> Part | None:
        """Fold what is large; return what was folded before an item failed, as a part of its own.

        With a failure goes each value itself, for the caller to fold what lies around it.
        """
        eager = self.eager
        if eager is None:
            return None
        if not self.failures:
            eager.take(self.values)
            return None
        self.eager = None
        if not eager.count:
            return None
        ahead = Part(self.start, self.since, None)
        ahead.eager = eager
        self.start += eager.count
        return ahead
