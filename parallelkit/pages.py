"""Short calls that travel together, and the page by which worker and caller follow them.

A task is one call, and nothing may hold it up: not a call before it that takes long, not one behind
it whose result is awaited first.  So a worker that was given several writes each result where the
caller sees it, and says which call it is on, and the caller can take back what is not begun.

The worker says what it begins and then looks whether it may; the caller says how far it may go and
then, after a while, looks what it has begun.  The while (`SETTLED`) stands in for the fence that
Python does not have: what one wrote a millisecond ago the other sees.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Iterator
from typing import Any

from . import segments

SIZE = 1 << 14
"""Bytes of a page: room for some hundred numbers, or a few arrays of a hundred."""

SETTLED = 1e-3  # seconds after which a write is seen: a store waits in a buffer for nanoseconds

_END, _BEGUN, _DONE = range(3)  # the words of a page: calls it may begin, is on, has written
_HEAD = 64  # bytes before the results: one cache line
_LENGTH = 4  # bytes before each result, which say how long it is

Place = tuple[tuple[Any, ...], int]
"""Where a worker finds its page: the segment's handle, and the page's number."""

Rows = list[tuple[tuple[Any, ...], dict[str, Any]]]


class Page:
    """One worker's page, from either side."""

    def __init__(self, memory: memoryview, number: int) -> None:
        self.bytes = memory[number * SIZE : (number + 1) * SIZE]
        self.words = self.bytes[:_HEAD].cast("q")
        self.number = number
        self.at = _HEAD  # where the next result is read
        self.read = 0  # how many were

    # The caller's side.

    def open(self, count: int) -> None:
        """Make ready for `count` calls."""
        self.at, self.read = _HEAD, 0
        self.words[_DONE], self.words[_BEGUN], self.words[_END] = 0, -1, count

    @property
    def begun(self) -> int:
        """Which call the worker is on, or was on last; -1 if it has begun none."""
        return self.words[_BEGUN]

    @property
    def end(self) -> int:
        """Before which call it stops, if it has not begun that when it sees this."""
        return self.words[_END]

    @end.setter
    def end(self, end: int) -> None:
        self.words[_END] = end

    def results(self, end: int) -> Iterator[bytes]:
        """Yield the results of the calls before `end` that are there and were not read yet."""
        while self.read < min(end, self.words[_DONE]):
            start = self.at + _LENGTH
            stop = start + int.from_bytes(self.bytes[self.at : start], "little")
            self.at, self.read = stop, self.read + 1
            yield bytes(self.bytes[start:stop])

    # The worker's side.

    def may(self, number: int) -> bool:
        """Say that call `number` is begun, and return whether it may be."""
        self.words[_BEGUN] = number
        return number < self.words[_END]

    def write(self, number: int, value: Any) -> bool:
        """Write the result of call `number`; return False if it is not for here."""
        try:
            result = pickle.dumps(value, 5)
        except Exception:  # there are better ways than plain pickle, and other places to say why
            return False
        start = self.at + _LENGTH
        stop = start + len(result)
        if stop > SIZE:
            return False
        self.bytes[self.at : start] = len(result).to_bytes(_LENGTH, "little")
        self.bytes[start:stop] = result
        self.at = stop
        self.words[_DONE] = number + 1
        return True


class Pages:
    """The pages of an executor's workers, in one segment."""

    def __init__(self, count: int) -> None:
        self.segment = segments.create(count * SIZE)
        self.memory = memoryview(self.segment)
        self.free = list(range(count))
        self.taken: dict[int, Page] = {}

    def of(self, worker: int, used: Collection[int]) -> Page:
        """Return the page of a worker, from now on its own; one in `used` is another's still.

        Raises:
            LookupError: There is none.
        """
        page = self.taken.get(worker)
        if page is None:
            number = next((each for each in self.free if each not in used), None)
            if number is None:
                raise LookupError("all pages are in use")
            self.free.remove(number)
            page = self.taken[worker] = Page(self.memory, number)
        return page

    def place(self, page: Page) -> Place:
        """Return where the worker finds it."""
        return tuple(self.segment.handle()), page.number

    def leave(self, worker: int) -> None:
        """Let another have the page of a worker that is gone."""
        page = self.taken.pop(worker, None)
        if page is not None:
            self.free.append(page.number)


_seen: dict[str, memoryview] = {}


def run(place: Place, fn: Callable[..., Any], rows: Rows) -> tuple[int, bool, Any]:
    """Call `fn` on each row, as far as it goes.

    Returns:
        The number of the last call, whether it was made, and its result; the results of the calls
        before it lie on the page.  What a call raises is raised, and the page says which it was.
    """
    page = _page(place)
    last = len(rows) - 1
    for number, (args, kwargs) in enumerate(rows):
        if not page.may(number):
            return number, False, None
        value = fn(*args, **kwargs)
        if number == last or not page.write(number, value):
            return number, True, value
    raise AssertionError("there are no rows")


def _page(place: Place) -> Page:
    handle = segments.Handle(*place[0])
    if handle.token not in _seen:
        _seen.clear()  # a worker serves one executor at a time
        _seen[handle.token] = memoryview(segments.attach(handle))
    return Page(_seen[handle.token], place[1])
