"""`feeding`: items read in the loop, as they are asked for."""

from __future__ import annotations

import asyncio

import pytest

from parallelkit import feeding
from parallelkit.feeding import listed, supply
from parallelkit.loops import running
from parallelkit.source import Indexed


async def numbers(count, read=None):
    for number in range(count):
        if read is not None:
            read.append(number)
        yield number


class Sent:
    """What a feeder sent, for a test that asks for it."""

    def __init__(self):
        self.rows, self.last, self.error = [], False, None

    def __call__(self, rows, last, error):
        self.rows += rows
        self.last, self.error = last, error

    async def until(self, count):
        while len(self.rows) < count and not self.last:
            await running().pause()


def fed(count, *iterables):
    """Return what comes when `count` items are asked for again and again."""

    async def main():
        items, feeder = supply(iterables, running())
        sent = Sent()
        while not sent.last:
            before = len(sent.rows)
            feeder.more(count, sent)
            await sent.until(before + 1)
        feeder.close()
        return items, sent

    return asyncio.run(main())


def test_lists_are_not_read():
    async def main():
        return supply(([1, 2], range(3)), running())

    items, feeder = asyncio.run(main())

    assert feeder is None
    assert isinstance(items, Indexed)
    assert items.length == 2


@pytest.mark.parametrize("count", [1, 3, 100])
def test_iterators_are_read_to_the_end(count):
    items, sent = fed(count, iter(range(7)))
    assert (sent.rows, sent.error, items.length) == (list(range(7)), None, None)

    items, sent = fed(count, {4: 1, 5: 2}, [6, 7, 8])
    assert (sent.rows, sent.error, items.length) == ([(4, 6), (5, 7)], None, 2)

    assert fed(count, iter(()), [1])[1].rows == []


@pytest.mark.parametrize("count", [1, 3, 100])
def test_async_iterators_are_read_alone_or_beside_others(count):
    assert fed(count, numbers(7))[1].rows == list(range(7))
    assert fed(count, "abc", numbers(7))[1].rows == [("a", 0), ("b", 1), ("c", 2)]
    assert fed(count, numbers(2), numbers(7))[1].rows == [(0, 0), (1, 1)]


def failing():
    yield 1
    raise LookupError("no more")


async def failing_too():
    for each in failing():
        yield each


@pytest.mark.parametrize("items", [failing, failing_too])
def test_an_input_that_raises_ends_there(items):
    _, sent = fed(10, items())

    assert sent.rows == [1]
    assert repr(sent.error) == "LookupError('no more')"


def test_no_more_is_read_than_was_asked_for():
    async def main():
        read, sent = [], Sent()
        _, feeder = supply((numbers(10, read),), running())
        feeder.more(3, sent)
        await sent.until(3)
        for _ in range(10):
            await running().pause()
        feeder.close()
        return read

    assert asyncio.run(main()) == [0, 1, 2]


def test_iterators_are_read_for_a_short_time_only(monkeypatch):
    monkeypatch.setattr(feeding, "BRIEF", -1.0)

    async def main():
        sent = Sent()
        _, feeder = supply((iter(range(10)),), running())
        feeder.more(10, sent)
        return sent.rows

    assert asyncio.run(main()) == [0]


def test_who_closes_has_the_reading_task_end():
    async def main():
        never, ended = asyncio.Event(), []

        async def waiting():
            try:
                await never.wait()
                yield 1
            finally:
                ended.append(True)

        _, feeder = supply((waiting(),), running())
        feeder.more(1, Sent())
        await running().pause()
        feeder.close()
        while not ended:
            await running().pause()
        return len(asyncio.all_tasks())

    assert asyncio.run(main()) == 1


def test_a_list_can_be_had_of_both_kinds():
    async def main():
        return await listed(numbers(3)), await listed((1, 2))

    assert asyncio.run(main()) == ([0, 1, 2], (1, 2))
