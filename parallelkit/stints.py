"""The calls of one chunk, in a thread that is somebody else's: a `Stint`.

An engine's worker runs it, or a thread of the caller's own process.  It ends before the chunk does
when an item failed and that is to be told at once, or when it has lasted for so long that what is
done had better be safe; the caller sends the rest again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter
from typing import Any

from .guests import lodged
from .seeding import Kept, Seeded

SPELL = 2.0
"""Seconds after which what is finished of a chunk is handed in though the chunk goes on: what a
worker that dies can lose, and far more than the longest chunk was meant to take."""

_LOOK = 100e-6  # seconds between two looks at the clock, which take 0.1 us each

_generators = threading.RLock()  # the global ones are one for all threads of a process

_lent: ContextVar[Any] = ContextVar("lent", default=None)
"""While an item has the generators, the lock of threads that work for it, as it waits for them."""


@dataclass(slots=True)
class Stint:
    """What was done of a chunk: `failures` by offset within `values`, in `seconds` seconds."""

    values: list[Any] = field(default_factory=list)
    failures: dict[int, BaseException] = field(default_factory=dict)
    seconds: float = 0.0

    def run(
        self,
        fn: Callable[..., Any],
        calls: Iterator[Any],
        count: int,
        single: bool,
        urgent: bool = False,
        over: Callable[[], bool] = bool,
    ) -> None:
        """Call `fn` with each of `count` arguments, tuples of them unless `single`.

        With `urgent`, the first failure ends the stint; `over` says whether nobody waits for it.
        """
        call = _each if single else _each_several
        values, stride = self.values, 1
        began = now = perf_counter()
        end = began + SPELL
        marked = lodged.set(True)
        try:
            while len(values) < count and now < end:
                if (urgent and self.failures) or (values and over()):
                    break
                before = len(values)
                self._go(call, fn, islice(calls, min(stride, count - before)))
                then, now = now, perf_counter()
                stride = 2 * stride if now - then < _LOOK else max(1, stride // 2)
        finally:
            lodged.reset(marked)
        self.seconds = now - began

    def _go(self, call: Callable[..., None], fn: Callable[..., Any], some: Iterator[Any]) -> None:
        values = self.values
        before = len(values)
        try:
            call(fn, some, values.append)
        except BaseException as error:  # SystemExit and KeyboardInterrupt are the item's too
            self.failures[len(values)] = error
            values.append(None)
        if len(values) == before:  # the arguments ran out, which must not go on for ever
            self.failures[before] = RuntimeError("an item got lost on its way")
            values.append(None)


def seeded(
    items: Iterable[Any], seed: int | None, start: int
) -> tuple[Iterator[Any], AbstractContextManager[Any]]:
    """Return the items, each after a reset of the generators, and what must surround their calls.

    Other threads wait meanwhile: the generators are the process's, and so are the numbers drawn.
    """
    if seed is None:
        return iter(items), nullcontext()
    return iter(Seeded(items, seed, start)), _Turn()


class _Turn:
    """A `with` block that has the global generators to itself, and leaves them as they were."""

    def __init__(self) -> None:
        self.kept = Kept()
        self.lock = _lent.get() or _generators
        self.lent: Token[Any] | None = None

    def __enter__(self) -> None:
        self.lock.acquire()
        self.lent = _lent.set(threading.RLock())
        self.kept.__enter__()

    def __exit__(self, *_: object) -> None:
        self.kept.__exit__()
        if self.lent is not None:
            _lent.reset(self.lent)
        self.lock.release()


def _each(fn: Callable[..., Any], items: Iterable[Any], keep: Callable[[Any], None]) -> None:
    # A loop, not map(): a StopIteration from `fn` would end a map() as if the items had.
    for item in items:
        keep(fn(item))


def _each_several(
    fn: Callable[..., Any], items: Iterable[Any], keep: Callable[[Any], None]
) -> None:
    for arguments in items:
        keep(fn(*arguments))
