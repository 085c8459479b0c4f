"""Items that the caller runs itself, as long as workers would not end the run sooner.

Most calls load this room, so it loads next to nothing itself.
"""

from __future__ import annotations

from time import perf_counter

TYPE_CHECKING = False  # type checkers take it for true, and importing `typing` costs 5 ms
if TYPE_CHECKING:
    import pickle
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from .backends import Block
    from .folding import Operation
    from .source import Source

_SAMPLE = 64  # items and results that are pickled to learn what carrying one costs
_WORTH_WEIGHING = 1e-3  # seconds the caller must have worked before that is worth knowing
_CHEAP = 50e-6
_PER_BYTE = 3e-10  # seconds to copy a byte of an array into memory that was used before, and around


class Turn:
    """What the caller did: outcomes up to `stop`, and what they cost."""

    __slots__ = ("block", "carriage", "failed", "seconds", "stop")

    def __init__(
        self,
        block: Block,
        stop: int,
        seconds: float,
        failed: tuple[int, ...],
        carriage: float | None,
    ) -> None:
        self.block = block
        self.stop = stop
        self.seconds = seconds
        self.failed = failed
        self.carriage = carriage


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
        self.until = 0  # the position at which the items end that are run without a look around
        self.halted = False  # whether the turn is to end there, since others have what lies beyond
        self.seconds = 0.0
        self.weighed = False
        self.sink: list[Any] | None = None

    def work(self, chunk: range, budget: float) -> Turn:
        """Run items of `chunk` for about `budget` seconds, at least one, as the loop would."""
        sink = self.sink
        direct = sink is not None and len(sink) == chunk.start
        values: list[Any] = sink if direct and sink is not None else []
        before = len(values)
        failure: BaseException | None = None
        began = perf_counter()
        try:
            if self.seed is None:
                self.run(chunk, budget, values)
            else:
                from .seeding import Kept

                with Kept():
                    self.run(chunk, budget, values)
        except Exception as error:
            failure = error
        return self.told(chunk, values, before, perf_counter() - began, failure)

    def told(
        self,
        chunk: range,
        values: list[Any],
        before: int,
        seconds: float,
        failure: BaseException | None,
    ) -> Turn:
        """Return what became of `chunk`, whose results `values` holds from `before` on."""
        from .backends import Block

        stop, failures, carriage = chunk.start + len(values) - before, {}, None
        direct = values is self.sink
        if failure is not None:
            failures[stop - chunk.start] = failure
            stop += 1
            # A failure is for the run to judge, so what came before it in this turn goes along.
            values = [*(_cut(values, before) if direct else values), None]
            self.seconds += seconds
        else:
            sample = values[before : before + _SAMPLE]
            if direct:
                values = []
            elif self.op is not None:
                from .folding import fold

                began = perf_counter()
                values = fold(self.op, chunk.start, values)
                seconds += perf_counter() - began
            self.seconds += seconds
            carriage = self.weigh(chunk.start, sample)
        failed = tuple([chunk.start + offset for offset in failures])
        return Turn(Block(values, failures), stop, seconds, failed, carriage)

    def run(self, chunk: range, budget: float, values: list[Any]) -> None:
        """Add the results of `chunk` to `values`, for about `budget` seconds but at least one.

        Items are run a stride at a time: a look at the clock for each would cost fast items dear.
        """
        fn, stop = self.fn, chunk.stop
        position, now = chunk.start, perf_counter()
        end = now + budget
        while position < stop and (now < end or position == chunk.start):
            size = min(self.stride, stop - position)
            columns = self.source.columns(range(position, position + size))
            self.until = position + size  # first, then the look: whoever halts us does the reverse
            if self.halted and position > chunk.start:
                self.until = position
                break
            # `append` is looked up each time, since that is quicker than calling one looked up.
            if len(columns) == 1:
                for item in self._items(columns[0], position):
                    values.append(fn(item))  # noqa: PERF401  results so far must outlive an error
            else:
                for arguments in self._items(zip(*columns, strict=True), position):
                    values.append(fn(*arguments))  # noqa: PERF401
            position += size
            before, now = now, perf_counter()
            self._adapt(size, now - before, budget)

    def _items(self, items: Iterable[Any], position: int) -> Iterable[Any] | Iterator[Any]:
        if self.seed is None:
            return items
        from .seeding import Seeded

        return Seeded(items, self.seed, position)

    def _adapt(self, size: int, seconds: float, budget: float) -> None:
        """Choose the stride, so that it takes about a tenth of the budget, from the last one."""
        if seconds > budget / 5:
            self.stride = max(1, size // 2)
        elif seconds < budget / 20 and size == self.stride:
            self.stride *= 2

    def weigh(self, position: int, values: list[Any]) -> float | None:
        """Return, once per run, the seconds to pickle and unpickle an item and its result.

        `values` are the first results from `position` on.  Plain pickle stands in for the real
        journey; where it refuses, the run's default stands.
        """
        if self.weighed or self.seconds < _WORTH_WEIGHING:
            return None
        self.weighed = True
        try:
            # One first: if that is dear, more would make a short run longer than the plain loop.
            # The first is cold.
            price = min(self._price(position, values[:1]) for _ in range(2))
            if price < _CHEAP and len(values) > 1:
                first, price = price, self._price(position, values)
                if self.op is not None:  # a range takes the same time whatever its length
                    price = max(0.0, price - first / len(values))
        except KeyboardInterrupt:
            raise
        except BaseException:  # the user's own __reduce__ can raise anything
            return None
        return price

    def _price(self, position: int, sample: list[Any]) -> float:
        import pickle

        columns = self.source.columns(range(position, position + len(sample)))
        large: list[pickle.PickleBuffer] = []
        began = perf_counter()
        # What is folded does not travel item by item.
        travels = (columns, sample if self.op is None else None)
        pickle.dumps(travels, 5, buffer_callback=large.append)
        seconds = 2 * (perf_counter() - began)  # taking apart costs as much as putting together
        seconds += _PER_BYTE * sum(buffer.raw().nbytes for buffer in large)
        return seconds / len(sample)


def _cut(values: list[Any], at: int) -> list[Any]:
    """Take what stands from `at` on off the end of a list, and return it."""
    taken = values[at:]
    del values[at:]
    return taken
