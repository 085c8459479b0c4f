"""`amap` and `arun`: what `pmap` does, for code that runs in an event loop.

Each call is a run of its own, as any map's, so that it has every option, blame and zero-copy; one
thread (`host`) serves all of them, and has them share as many workers as there are CPUs.  Here is
the caller's side, in the loop: results are handed over, and who stops waiting says so.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
)
from contextlib import closing
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from .backends import Block
from .calls import begin, conclude
from .chunking import WAIT
from .engine import Engine
from .events import Pull
from .feeding import Feeder, is_async, listed, supply
from .host import host
from .loops import Mailbox
from .maps import AHEAD, kept
from .options import Exceptions, OnError, Options, Plan, check_call, plan
from .outcomes import Work
from .source import source
from .visits import Errand, Visit, Words

P = ParamSpec("P")
R = TypeVar("R")

Items = Iterable[Any] | AsyncIterable[Any]


def amap(
    fn: Callable[..., R],
    *iterables: Items,
    ordered: bool = True,
    workers: int | None = None,
    chunksize: int | None = None,
    backend: Any = None,
    timeout: float | None = None,
    retries: int = 0,
    retry_on: Exceptions = Exception,
    backoff: float = 0.0,
    on_error: OnError = "raise",
    seed: int | None = None,
    worker_state: Callable[[], Any] | None = None,
    max_memory: int | None = None,
) -> AsyncMap[R]:
    """Await the list that `pmap` would return, or iterate over its results as they become ready.

    The event loop (asyncio's, uvloop's or trio's) goes on meanwhile: every item runs in a worker
    process, and what travels is pickled in another thread.  Whoever stops waiting ends the work: a
    cancelled task, a timeout, a loop that is left.  Then nothing more is begun, and what runs is
    ended after a tenth of a second.

    All calls of a process share as many workers as there are CPUs, and none waits for more than its
    turn: workers go round, between two items, and a call that came late has its share at once.

    Args:
        fn: As for `pmap`, and so are the options that are not named here.
        *iterables: The items, from any mix of iterables and async iterables.  They are read in the
            event loop, only so far ahead as keeps the workers busy; lists are read elsewhere.
        ordered: Whether an iteration gives results in the order of the items (default) or as they
            are ready.
        workers: How many processes at most.  More than there are CPUs are there for all calls, as
            long as this one goes on.

    Returns:
        What can be awaited, or iterated over with `async for`, once.

    Example:
        >>> import asyncio
        >>> async def main():
        ...     async for root in amap(lambda x: x**0.5, [4, 9]):
        ...         print(root)
        ...     return await amap(abs, [-1, 2, -3])
        >>> asyncio.run(main())
        2.0
        3.0
        [1, 2, 3]
    """
    knobs = (workers, chunksize, backend, timeout, retries, retry_on, backoff, on_error, seed)
    checked = plan(Options(*knobs, worker_state, max_memory))
    # What is async stands for itself.
    check_call("amap", fn, tuple(() if is_async(each) else each for each in iterables))
    work = Work(fn, worker_state, None, checked.seed, checked.retry_on)
    return AsyncMap(checked, work, iterables, ordered)


async def arun(fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Return what `fn(*args, **kwargs)` returns, called in a worker process.

    The event loop goes on meanwhile.  Workers are shared with all other calls of `arun` and `amap`,
    and what is said there of who stops waiting holds here.

    Raises:
        Exception: What `fn` raised, with the worker's traceback.
        WorkerDied: The worker was killed or crashed.

    Example:
        >>> import asyncio
        >>> asyncio.run(arun(divmod, 7, 2))
        (3, 1)
    """
    checked = plan(Options())
    if checked.serial:
        return fn(*args, **kwargs)
    mailbox: Mailbox[Words] = Mailbox()
    errand = Errand(checked._replace(home=False), (fn, args, kwargs), mailbox.put)
    with closing(_Served(errand, mailbox)) as blocks:
        async for block in blocks:
            result: R = block.values[0]
            return result
    assert errand.failure is not None, "a call ended without an outcome"
    raise errand.failure


class AsyncMap(Generic[R]):
    """The results of an `amap`: await it for the list, or iterate over it, once."""

    def __init__(
        self, checked: Plan, work: Work, iterables: tuple[Items, ...], ordered: bool
    ) -> None:
        self._checked = checked._replace(home=checked.serial)
        self._work = work
        self._iterables: tuple[Items, ...] | None = iterables
        self._ordered = ordered

    def __await__(self) -> Generator[Any, None, list[R]]:
        """Begin, and wait for all results."""
        return self._gathered(self._taken()).__await__()

    def __aiter__(self) -> AsyncIterator[R]:
        """Begin when the first result is asked for, and give results one by one."""
        return self._each(self._taken())

    def _taken(self) -> tuple[Items, ...]:
        iterables, self._iterables = self._iterables, None
        if iterables is None:
            raise RuntimeError("an amap() can be awaited or iterated over only once: call it again")
        return iterables

    async def _gathered(self, iterables: tuple[Items, ...]) -> list[R]:
        results: list[R] = []
        run, blocks = await _begun(self._checked, self._work, iterables)
        with closing(blocks):
            async for block in blocks:
                results.extend(self._kept(block))
        conclude(run, results)
        return results

    async def _each(self, iterables: tuple[Items, ...]) -> AsyncGenerator[R, None]:
        how = self._ordered, AHEAD, None if self._ordered else 0.0
        run, blocks = await _begun(self._checked, self._work, iterables, *how)
        with closing(blocks):
            async for block in blocks:
                for result in self._kept(block):
                    yield result
        conclude(run, [])

    def _kept(self, block: Block) -> Iterable[R]:
        return kept(block, self._checked) if block.failures else block.values


async def _begun(
    checked: Plan,
    work: Work,
    iterables: tuple[Items, ...],
    ordered: bool = True,
    ahead: int | None = None,
    grace: float | None = WAIT,
) -> tuple[Engine, Blocks]:
    """Return the run of a call, and its outcomes as they come; it begins with the first."""
    mailbox: Mailbox[Words] = Mailbox()
    if checked.serial:
        items = source(tuple([await listed(each) for each in iterables]))
        engine = begin(checked, work, items, ordered, ahead, grace)
        return engine, _Here(engine, mailbox)
    stock, feeder = supply(iterables, mailbox.loop)
    visit = Visit(checked, work, stock, mailbox.put, ordered, ahead, grace)
    return visit, _Served(visit, mailbox, feeder)


class Blocks(Protocol):
    """The outcomes of one run, as they come."""

    def __aiter__(self) -> AsyncIterator[Block]:
        """Return itself."""

    def close(self) -> None:
        """Want no more of them."""


# Not async generators: in CPython before 3.13, one that a coroutine is in when it is closed for
# good is not closed with it.


class _Here:
    """Everything is run in the loop itself, where there are to be no workers."""

    def __init__(self, engine: Engine, mailbox: Mailbox[Words]) -> None:
        self.blocks = engine.results()
        self.mailbox = mailbox
        self.close = self.blocks.close

    def __aiter__(self) -> _Here:
        return self

    async def __anext__(self) -> Block:
        await self.mailbox.loop.pause()
        block = next(self.blocks, None)
        if block is None:
            raise StopAsyncIteration
        return block


class _Served:
    """A visit to the host, which is told here what it asks.  It ends with whoever holds this."""

    def __init__(self, visit: Visit, mailbox: Mailbox[Words], feeder: Feeder | None = None) -> None:
        self.visit = visit
        self.mailbox = mailbox
        self.feeder = feeder
        self.unread = 0  # items of which the caller has the outcomes only now
        self.host = host()
        self.host.enter(visit)

    def __aiter__(self) -> _Served:
        return self

    async def __anext__(self) -> Block:
        visit = self.visit
        if self.unread and visit.run.limits.ahead is not None:
            self.host.post(visit, visit.taken, self.unread)
        while (words := await self.mailbox.take()) is not None:
            if isinstance(words, Pull):
                assert self.feeder is not None, "what is in lists needs no feeding"
                self.feeder.more(words.count, self.send)
            else:
                block, self.unread = words
                return block
        raise StopAsyncIteration

    def send(self, rows: list[Any], last: bool, error: Exception | None) -> None:
        """Hand over items."""
        self.host.post(self.visit, self.visit.feed, rows, last, error)

    def close(self) -> None:
        """Leave, unless the visit is over."""
        if self.feeder is not None:
            self.feeder.close()
        if not self.visit.over:
            self.host.post(self.visit, self.visit.leave)

    def __del__(self) -> None:
        if not self.visit.over:
            self.host.post(self.visit, self.visit.leave)
