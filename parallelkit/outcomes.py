"""What became of each item, between the worker that ran it and the caller who asked.

Values are kept in blocks, cut just as the run will give them; failures by position, each an
exception that says which item it was, can be looked into, and can be had again with `replay()`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pickle import PicklingError
from typing import Any, NamedTuple, NoReturn

from .backends import Block
from .chunking import split
from .errors import ItemTimeout, ParallelError, WorkerDied, shortened
from .events import Done
from .failures import inscribe, note, uninscribe, variables
from .folding import fold
from .ledgers import curtail
from .records import dataclass
from .source import Source

_NOTE = "parallelkit: raised by "


class Work(NamedTuple):
    """What a run does with each item."""

    fn: Callable[..., Any]
    worker_state: Callable[[], Any] | None = None
    op: Callable[[Any, Any], Any] | None = None  # folds the results of neighbours, for a reduction
    seed: int | None = None
    retry_on: type[BaseException] | tuple[type[BaseException], ...] = Exception


class Replay:
    """Runs one item again, here and now: call it under a debugger."""

    def __init__(self, work: Work, arguments: tuple[Any, ...], position: int) -> None:
        self.work = work
        self.arguments = arguments
        self.position = position

    def __call__(self) -> Any:
        """Call the function on the item as a worker would, under the same seed."""
        fn, make_state, seed = self.work.fn, self.work.worker_state, self.work.seed
        state = () if make_state is None else (make_state(),)
        if seed is None:
            return fn(*state, *self.arguments)
        from .seeding import Kept, reset

        with Kept():
            reset(seed, self.position)
            return fn(*state, *self.arguments)

    def __repr__(self) -> str:
        return f"<replay of item {self.position}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception that has one travels and can be kept in a file, but the items stay here.
        return _elsewhere, (self.position,)


def _elsewhere(position: int) -> Replay:
    return Replay(Work(_refuse), (), position)


def _refuse() -> NoReturn:
    raise ParallelError("an item can be replayed only in the process that mapped it")


@dataclass(slots=True)
class Strays:
    """How many items did not travel, or had a result that did not, and words for the first."""

    count: int = 0
    first: int = 0
    item: str = ""
    why: str = ""

    def add(self, position: int, item: Callable[[int], str], error: BaseException) -> None:
        """Record one, which `item` can describe, and the error that says why."""
        if not self.count or position < self.first:
            self.first, self.item = position, item(position)
            kind = "" if isinstance(error, PicklingError) else f"{type(error).__name__}: "
            self.why = f"{kind}{error}"
        self.count += 1


class Outcomes:
    """The outcomes of one run that the caller does not have yet, and who is to bring the others.

    With `home`, what does not travel is no failure: the caller runs it.
    """

    def __init__(self, work: Work, source: Source, home: bool = False) -> None:
        self.work = work
        self.source = source
        self.home = home
        self.strays = Strays()
        self.blocks: dict[int, Block] = {}
        self.errors: dict[int, BaseException] = {}
        self.doubtful: set[int] = set()  # those that were one of several suspects, so far
        self.sent: dict[int, deque[range]] = {}

    def send(self, worker: int, chunk: range) -> None:
        """Expect outcomes of `chunk` from `worker`, after those it already owes."""
        self.sent.setdefault(worker, deque()).append(chunk)

    def forget(self, worker: int) -> deque[range] | None:
        """Expect nothing more from `worker`; return what it owed, None if it is forgotten."""
        return self.sent.pop(worker, None)

    def reclaim(self, worker: int, stop: int | None) -> None:
        """Expect nothing from `stop` on, in the order of its chunks, from `worker`."""
        chunks = self.sent.get(worker)
        if chunks is not None:
            curtail(chunks, stop)

    def keep(self, event: Done, block: Block | None) -> None:
        """Store the outcomes of a part in the pieces in which the run will give them.

        The event learns which of its failures must not be tried again, and which did not travel.
        """
        chunks = self.sent.get(event.worker)
        if chunks is None:  # it finished in the moment it was ended for being late
            return
        start = chunks[0].start
        if event.cut or event.stop == chunks[0].stop:
            chunks.popleft()
        else:
            chunks[0] = range(event.stop, chunks[0].stop)
        if block is None:  # doubtful: its items run again; or there are none
            return
        if not event.failed:
            self.blocks[start] = block
            return
        event.unsent = tuple(start + offset for offset in block.unsent)
        event.unreturned = tuple(start + offset for offset in block.unreturned)
        strays = {*block.unsent, *block.unreturned} if self.home else ()
        for offset, error in block.failures.items():
            if offset in strays:
                self.strays.add(start + offset, self.item, error)
                continue
            self.errors[start + offset] = self.inscribed(error, start + offset)
            # As `except` does: not by `__class__`, which is an attribute of the user's.
            if not issubclass(type(error), self.work.retry_on):
                event.hopeless = (*event.hopeless, start + offset)
        op = self.work.op
        for part in split(range(start, event.stop), event.failed):
            values = block.values[part.start - start : part.stop - start]
            self.blocks[part.start] = Block(fold(op, part.start, values) if op else values, {})

    def take(self, chunk: range) -> Block:
        """Return the outcomes of `chunk`, which is as the run gave it, and keep them no longer."""
        if chunk.start in self.blocks:
            return self.blocks.pop(chunk.start)
        return Block([None], {0: self.errors.pop(chunk.start)})

    def died(self, position: int, how: str, doubtful: bool = False) -> None:
        """Record that a worker died, and how, on the item at `position`, or near it."""
        self.doubtful.discard(position)
        if doubtful:
            self.doubtful.add(position)
        text = (
            f"a worker {how} while it ran {self.item(position)}; "
            "retries= and on_error= say what becomes of such an item"
        )
        self.errors[position] = self.inscribed(WorkerDied(text), position)

    def late(self, position: int, timeout: float | None, stack: str) -> None:
        """Record that the item at `position` ran out of time, and where it was then."""
        text = f"{self.item(position)} ran longer than timeout={timeout!r} seconds, and was ended"
        error = ItemTimeout(text)
        if stack:
            error.add_note(f"It was here (innermost call first):\n{stack}")
        self.errors[position] = self.inscribed(error, position)

    def item(self, position: int) -> str:
        """Return words for the item at `position`."""
        text = ", ".join(shortened(each) for each in self._arguments(position))
        return f"item {position} ({text})"

    def _arguments(self, position: int) -> tuple[Any, ...]:
        columns = self.source.columns(range(position, position + 1))
        return tuple(column[0] for column in columns)

    def inscribed(self, error: BaseException, position: int) -> BaseException:
        """Have `error` tell the item at `position`: in a note, and as attributes.

        A class of the user's may have attributes of these names, which then are left alone.  What
        a run within the item has told of its own items makes room.
        """
        before = variables(error).get("replay")
        if isinstance(before, Replay) and before.work is self.work:
            return error
        uninscribe(error)
        arguments = self._arguments(position)
        if type(error) not in (WorkerDied, ItemTimeout):
            note(error, f"{_NOTE}{self.item(position)}")
        replay = Replay(self.work, arguments, position)
        item = arguments[0] if len(arguments) == 1 else arguments
        inscribe(error, index=position, item=item, replay=replay)
        return error

    def summed_up(self, error: BaseException, given: list[Any]) -> None:
        """Have the error that ends a run tell what else there is: `given` are the first results."""
        results = dict(enumerate(given)) if self.work.op is None else {}
        for start, block in self.blocks.items() if self.work.op is None else ():
            results.update(enumerate(block.values, start))
        # A suspect that the end of the run kept from being tried alone has not failed.
        cleared = {at for at in self.doubtful if isinstance(self.errors.get(at), WorkerDied)}
        cleared.update(results)
        failures = {at: each for at, each in sorted(self.errors.items()) if at not in cleared}
        inscribe(error, results=results, failures=failures)
