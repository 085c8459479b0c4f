"""Items that the caller runs itself, as long as workers would not end the run sooner."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any, NamedTuple

from .backends import Block
from .folding import Operation, fold
from .seeding import Kept, Seeded
from .source import Source

_SAMPLE = 64  # items and results that are pickled to learn what carrying one costs
_WORTH_WEIGHING = 1e-3  # seconds the caller must have worked before that is worth knowing
_CHEAP = 50e-6
_PER_BYTE = 3e-10  # seconds to copy a byte of an array into memory that was used before, and around


class Turn(NamedTuple):
    """What the caller did: outcomes up to `stop`, and what they cost."""

    block: Block
    stop: int
    seconds: float
    failed: tuple[int, ...]
    carriage: float | None


class Home:
    """The caller as a worker.

    `sink`, where there is one, is the list that the caller is to have in the end.  While it ends
    just where a turn begins, results go straight into it, and the turn's block is empty: copying
    them there later would cost fast items 2 % more.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        source: Source,
        seed: int | None,
        op: Operation | None,
    ) -> None:
        self.op = op
        self.fn = fn
        self.source = source
        self.seed = seed
        self.stride = 1
        self.seconds = 0.0
        self.weighed = False
        self.sink: list[Any] | None = None

    def work(self, chunk: range, budget: float) -> Turn:
        """Run items of `chunk` for about `budget` seconds, at least one, as the loop would."""
        sink = self.sink
        direct = sink is not None and len(sink) == chunk.start
        values: list[Any] = sink if direct and sink is not None else []
        before = len(values)
        failures: dict[int, BaseException] = {}
        began = perf_counter()
        try:
            if self.seed is None:
                self._run(chunk, budget, values)
            else:
                with Kept():
                    self._run(chunk, budget, values)
        except Exception as error:
            failures[len(values) - before] = error
            values.append(None)
        seconds = perf_counter() - began
        self.seconds += seconds
        stop = chunk.start + len(values) - before
        failed = tuple(chunk.start + offset for offset in failures)
        carriage = None if failed else self._weigh(chunk, values[before : before + _SAMPLE])
        if direct:
            # A failure is for the run to judge, so what came before it in this turn goes along.
            values = _cut(values, before) if failed else []
        elif self.op is not None and not failed:
            values = fold(self.op, chunk.start, values)
        return Turn(Block(values, failures), stop, seconds, failed, carriage)

    def _run(self, chunk: range, budget: float, values: list[Any]) -> None:
        """Run items a stride at a time: a look at the clock for each would cost fast items dear."""
        keep, fn, stop = values.append, self.fn, chunk.stop
        position, now = chunk.start, perf_counter()
        end = now + budget
        while position < stop and (now < end or position == chunk.start):
            size = min(self.stride, stop - position)
            columns = self.source.columns(range(position, position + size))
            if len(columns) == 1:
                for item in self._items(columns[0], position):
                    keep(fn(item))
            else:
                for arguments in self._items(zip(*columns, strict=True), position):
                    keep(fn(*arguments))
            position += size
            before, now = now, perf_counter()
            self._adapt(size, now - before, budget)

    def _items(self, items: Iterable[Any], position: int) -> Iterable[Any] | Iterator[Any]:
        return items if self.seed is None else Seeded(items, self.seed, position)

    def _adapt(self, size: int, seconds: float, budget: float) -> None:
        """Choose the stride, so that it takes about a tenth of the budget, from the last one."""
        if seconds > budget / 5:
            self.stride = max(1, size // 2)
        elif seconds < budget / 20 and size == self.stride:
            self.stride *= 2

    def _weigh(self, chunk: range, values: list[Any]) -> float | None:
        """Return, once per run, the seconds to pickle and unpickle an item and its result.

        Plain pickle stands in for the real journey; where it refuses, the run's default stands.
        """
        if self.weighed or self.seconds < _WORTH_WEIGHING:
            return None
        self.weighed = True
        try:
            # One first: if that is dear, more would make a short run longer than the plain loop.
            price = min(self._price(chunk, values[:1]) for _ in range(2))  # the first is cold
            if price < _CHEAP and len(values) > 1:
                price = self._price(chunk, values)
        except KeyboardInterrupt:
            raise
        except BaseException:  # the user's own __reduce__ can raise anything
            return None
        return price

    def _price(self, chunk: range, sample: list[Any]) -> float:
        columns = self.source.columns(range(chunk.start, chunk.start + len(sample)))
        large: list[pickle.PickleBuffer] = []
        began = perf_counter()
        pickle.dumps((columns, sample), 5, buffer_callback=large.append)
        seconds = 2 * (perf_counter() - began)  # taking apart costs as much as putting together
        seconds += _PER_BYTE * sum(buffer.raw().nbytes for buffer in large)
        return seconds / len(sample)


def _cut(values: list[Any], at: int) -> list[Any]:
    """Take what stands from `at` on off the end of a list, and return it."""
    taken = values[at:]
    del values[at:]
    return taken
