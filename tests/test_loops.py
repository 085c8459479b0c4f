"""`loops`: what is needed of an event loop, in each kind that is there."""

from __future__ import annotations

import threading

import pytest
from eventloops import each_loop

from parallelkit.loops import Mailbox, running


@each_loop
def test_words_come_from_another_thread_in_order(run):
    async def main():
        mailbox = Mailbox()

        def write():
            for word in range(1000):
                mailbox.put(word)

        thread = threading.Thread(target=write)
        thread.start()
        words = [await mailbox.take() for _ in range(1000)]
        thread.join()
        return words

    assert run(main) == list(range(1000))


@each_loop
def test_others_have_their_turn_while_words_abound(run):
    async def main():
        mailbox, turns = Mailbox(), []

        async def other():
            while len(turns) < 3:
                turns.append(1)
                await mailbox.loop.pause()

        mailbox.loop.spawn(other)
        count = 0
        while len(turns) < 3:
            mailbox.put(count)
            assert await mailbox.take() == count
            count += 1
        return turns

    assert run(main) == [1, 1, 1]


@each_loop
def test_what_goes_on_beside_can_be_cancelled(run):
    async def main():
        loop, ended = running(), []

        async def other():
            try:
                ended.append("begun")
                await running().heard()
            finally:
                ended.append("ended")

        cancel = loop.spawn(other)
        while "begun" not in ended:
            await loop.pause()
        cancel()
        while "ended" not in ended:
            await loop.pause()
        return ended

    assert run(main) == ["begun", "ended"]


@each_loop
def test_a_loop_that_is_no_more_cannot_be_woken(run):
    async def main():
        return Mailbox()

    mailbox = run(main)

    with pytest.raises(RuntimeError):
        mailbox.put(1)


def test_without_a_loop_there_is_nobody_to_wait():
    with pytest.raises(RuntimeError) as caught:
        running()

    assert str(caught.value) == "amap() and arun() need a running asyncio or trio event loop"
