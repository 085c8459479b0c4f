"""The items of an async call: read in its event loop, and handed on as they are asked for.

What lies in lists is not read here at all, but sliced where it is sent.  Iterators are, since they
may be the caller's own code; a bit at a time, so that the loop goes on.  Async iterators are read
by a task of their own, so that results are handed over while an item is awaited.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from time import perf_counter
from typing import Any, Protocol, TypeGuard

from .loops import BRIEF, Loop, running
from .source import Indexed, Pulled, Source, source
from .visits import Fed

Items = Iterable[Any] | AsyncIterable[Any]
Send = Callable[[list[Any], bool, Exception | None], None]
"""Hands over items, whether these are the last, and what the input raised, if it did."""

_END = object()  # what stands for an argument when there are no more


class Feeder(Protocol):
    """Reads items when it is told to."""

    def more(self, count: int, send: Send) -> None:
        """Read up to `count` items, at least one, and hand them over; this may be later."""

    def close(self) -> None:
        """Read no more."""


class Reader:
    """Reads iterators, for no longer than `BRIEF` at a time, if the iterators let it."""

    def __init__(self, items: Pulled) -> None:
        self.items = items
        self.position = 0

    def more(self, count: int, send: Send) -> None:
        """Read items and hand them over."""
        items, start = self.items, self.position
        end, last = perf_counter() + BRIEF, False
        while not last and self.position - start < count:
            got, last = items.pull(1)
            self.position += got
            if perf_counter() > end:
                break
        chunk = range(start, self.position)
        columns = items.columns(chunk) if chunk else ((),)
        rows = list(columns[0]) if len(columns) == 1 else list(zip(*columns, strict=True))
        items.drop(chunk)
        send(rows, last, items.error)

    def close(self) -> None:
        """Nothing goes on beside."""


class AsyncReader:
    """Reads async iterators, perhaps together with others, in a task of its own."""

    def __init__(self, iterables: tuple[Items, ...], loop: Loop) -> None:
        self.iterators = [_iterator(each) for each in iterables]
        self.loop = loop
        self.bell = running()
        self.wanted = 0
        self.cancel: Callable[[], object] | None = None

    def more(self, count: int, send: Send) -> None:
        """Have so many items read and handed over, each when it comes."""
        self.wanted = count
        if self.cancel is None:
            self.cancel = self.loop.spawn(lambda: self._read(send))
        else:
            self.bell.ring()

    def close(self) -> None:
        """Read no more."""
        if self.cancel is not None:
            self.cancel()

    async def _read(self, send: Send) -> None:
        row: Any = None
        try:
            while (row := await self._row()) is not _END:
                self.wanted -= 1
                send([row], False, None)
                while self.wanted <= 0:
                    self.bell.quiet()
                    if self.wanted <= 0:
                        await self.bell.heard()
            send([], True, None)
        except Exception as error:  # the input's own, for the caller to hear in its place
            send([], True, error)

    async def _row(self) -> Any:
        row = []
        for each in self.iterators:
            if isinstance(each, AsyncIterator):
                item = await anext(each, _END)
            else:
                item = next(each, _END)
            if item is _END:
                return _END
            row.append(item)
        return row[0] if len(row) == 1 else tuple(row)


def is_async(items: Items) -> TypeGuard[AsyncIterable[Any]]:
    """Return whether items are iterated over with `async for`."""
    return hasattr(type(items), "__aiter__")


def _iterator(items: Any) -> AsyncIterator[Any] | Iterator[Any]:
    return aiter(items) if is_async(items) else iter(items)


async def listed(items: Items) -> Iterable[Any]:
    """Return items, those of an async iterable as a list."""
    if is_async(items):
        return [each async for each in items]
    assert isinstance(items, Iterable), "checked at the call"
    return items


def supply(iterables: tuple[Items, ...], loop: Loop) -> tuple[Source, Feeder | None]:
    """Return the items of a call, and who feeds them, if they must be read here."""
    several = len(iterables) > 1
    if any(map(is_async, iterables)):
        return Fed(several), AsyncReader(iterables, loop)
    items = source(iterables)  # type: ignore[arg-type]
    if isinstance(items, Indexed):
        return items, None
    assert isinstance(items, Pulled)
    return Fed(several, items.length), Reader(items)
