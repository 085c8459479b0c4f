"""`amap` and `arun`: what `pmap` does, in an event loop that goes on meanwhile."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from contextlib import aclosing
from pickle import PicklingError

import pytest
from errands import meet
from eventloops import each_loop
from hypothesis import given, settings
from hypothesis import strategies as st

import parallelkit
from parallelkit import amap, arun, pmap
from parallelkit.errors import ItemTimeout, WorkerDied
from parallelkit.loops import running


async def numbers(count):
    for number in range(count):
        yield number


def run(coroutine):
    return asyncio.run(coroutine)


def gather(*arguments, **options):
    """Return what awaiting an `amap` gives."""

    async def main():
        return await amap(*arguments, **options)

    return run(main())


def each(*arguments, **options):
    """Return what iterating over an `amap` gives."""

    async def main():
        return [result async for result in amap(*arguments, **options)]

    return run(main())


both = pytest.mark.parametrize("have", [gather, each])


# The same results.


@each_loop
def test_it_gives_what_pmap_gives_in_every_loop(run):
    async def main():
        whole = await amap(lambda x: x * x, range(100))
        one_by_one = [each async for each in amap(lambda x: x * x, numbers(100))]
        return whole, one_by_one, await arun(divmod, 7, 2)

    squares = [x * x for x in range(100)]
    assert run(main) == (squares, squares, (3, 1))


@both
def test_items_come_from_anywhere(have):
    assert have(abs, [-1, 2]) == [1, 2]
    assert have(abs, (x for x in (-1, 2))) == [1, 2]
    assert have(abs, {-1: 0, 2: 0}) == [1, 2]
    assert have(abs, []) == have(abs, iter(())) == have(abs, numbers(0)) == []
    assert have(pow, [2, 3], numbers(5)) == [1, 3]
    assert have(pow, numbers(3), [2, 3]) == [0, 1]
    assert have(lambda pair: pair, [(1, 2)]) == [(1, 2)]


@settings(max_examples=20)
@given(
    count=st.integers(0, 300),
    kind=st.sampled_from([list, iter, "async"]),
    chunksize=st.sampled_from([None, None, 1, 7]),
    workers=st.sampled_from([None, 1, 2]),
)
def test_any_input_gives_the_loop_s_results(count, kind, chunksize, workers):
    items = range(count)
    make = (lambda _: numbers(count)) if kind == "async" else kind
    options = {"chunksize": chunksize, "workers": workers}

    assert gather(lambda x: -x, make(items), **options) == [-x for x in items]
    assert each(lambda x: -x, make(items), **options) == [-x for x in items]
    assert sorted(each(lambda x: -x, make(items), ordered=False, **options)) == sorted(
        -x for x in items
    )


@both
def test_random_numbers_are_pmap_s(have):
    def draw(_):
        return random.random()

    assert have(draw, range(50), seed=5) == pmap(draw, range(50), seed=5)


def test_a_call_takes_any_arguments():
    async def main():
        return await arun(lambda *args, **names: (args, names), 1, fn=2, self=3)

    assert run(main()) == ((1,), {"fn": 2, "self": 3})


def test_no_item_runs_in_the_caller():
    async def main():
        return {await arun(os.getpid), *await amap(lambda _: os.getpid(), range(20))}

    assert os.getpid() not in run(main())


def test_the_serial_backend_runs_everything_here(monkeypatch):
    assert gather(lambda _: os.getpid(), numbers(2), backend="serial") == [os.getpid()] * 2
    assert each(lambda _: os.getpid(), [1], backend="serial") == [os.getpid()]

    monkeypatch.setenv("PARALLELKIT_BACKEND", "serial")
    assert run(arun(os.getpid)) == os.getpid()


# Options and failures.


@both
def test_an_item_that_fails_is_told(have):
    with pytest.raises(ZeroDivisionError) as caught:
        have(lambda x: 1 / x, [1, 0, 2])

    assert caught.value.index == 1
    assert caught.value.__notes__[-1] == "parallelkit: raised by item 1 (0)"


def test_what_came_before_a_failure_comes_first():
    async def main():
        seen = []
        with pytest.raises(ZeroDivisionError):
            async for each in amap(lambda x: 1 / x, [1, 2, 0]):
                seen.append(each)  # noqa: PERF401 - it raises
        return seen

    assert run(main()) == [1.0, 0.5]


@both
def test_failures_stand_in_their_place_or_are_left_out(have):
    first, second = have(lambda x: 1 / x, [0, 1], on_error="return")

    assert (type(first), second) == (ZeroDivisionError, 1.0)
    assert have(lambda x: 1 / x, [0, 1], on_error="skip") == [1.0]


@both
def test_an_input_that_raises_does_so_in_its_place(have):
    def items():
        yield 1
        raise LookupError("no more")

    async def too():
        for each in items():
            yield each

    for make in (items, too):
        with pytest.raises(LookupError, match=r"^no more$"):
            have(abs, make())


def test_options_do_what_they_do_in_pmap(tmp_path):
    def fail_once(x):
        path = tmp_path / str(x)
        if path.exists():
            return x
        path.touch()
        raise OSError(x)

    assert gather(fail_once, range(3), retries=1, retry_on=OSError) == [0, 1, 2]
    assert gather(lambda state, x: state + x, [1, 2], worker_state=lambda: 10) == [11, 12]
    with pytest.raises(ItemTimeout):
        gather(lambda _: threading.Event().wait(), [0], timeout=0.2)
    with pytest.raises(ValueError, match=r"^workers must be at least 1, got 0$"):
        amap(abs, [], workers=0)
    with pytest.raises(TypeError, match=r"^amap\(\) needs an iterable of items after the function"):
        amap(abs)
    with pytest.raises(TypeError, match=r"^amap\(\) needs something to iterate over as argument 2"):
        amap(abs, 3)


def test_a_worker_that_dies_costs_its_item():
    assert gather(lambda x: x or os._exit(3), [1, 0, 2], on_error="skip") == [1, 2]


def test_a_call_that_fails_says_which_it_was():
    async def main():
        with pytest.raises(ZeroDivisionError) as raised:
            await arun(divmod, 1, 0)
        with pytest.raises(WorkerDied) as died:
            await arun(os._exit, 3)
        return raised.value.__notes__[-1], str(died.value)

    assert run(main()) == (
        "parallelkit: raised by divmod(1, 0)",
        "a worker ended with exit code 3 while it ran _exit(3)",
    )


def test_what_cannot_be_pickled_is_an_error_of_its_call_alone():
    async def main():
        lock = threading.Lock()
        results = await asyncio.gather(
            arun(abs, -1), arun(id, lock), amap(abs, [lock]), return_exceptions=True
        )
        with pytest.raises(PicklingError, match="lock"):
            await amap(lambda _: lock, [1])
        return results

    one, *errors = run(main())
    assert one == 1
    assert ["lock" in str(error) for error in errors] == [True, True]


# Manners.


def test_it_can_be_had_once():
    async def main():
        results = amap(abs, [1])
        await results
        with pytest.raises(RuntimeError) as caught:
            aiter(results)
        return str(caught.value)

    message = "an amap() can be awaited or iterated over only once: call it again"
    assert run(main()) == message


def test_nothing_begins_before_it_is_awaited():
    read = []

    async def main():
        amap(abs, (read.append(x) for x in range(3)))
        aiter(amap(abs, (read.append(x) for x in range(3))))

    run(main())
    assert read == []


def test_input_is_read_no_further_than_results_are():
    read = []

    def items():
        for number in range(100_000):
            read.append(number)
            yield number

    async def main():
        async with aclosing(aiter(amap(lambda x: x, items(), workers=1, chunksize=1))) as results:
            assert await anext(results) == 0

    run(main())
    assert len(read) < 100


def test_the_loop_goes_on_while_results_come(tmp_path):
    there, back = str(tmp_path / "there"), str(tmp_path / "back")
    os.mkfifo(there)
    os.mkfifo(back)

    def talk():
        meet(there, "w")
        return meet(back, "r")

    async def main():
        result = asyncio.ensure_future(arun(talk))
        await asyncio.to_thread(meet, there, "r")  # the worker is in the call
        for _ in range(10):
            await running().pause()
        done = result.done()
        await asyncio.to_thread(meet, back, "w")
        return done, await result

    assert run(main()) == (False, "r")


def test_many_calls_at_once_all_end():
    async def main():
        maps = [amap(lambda x: x + 1, range(10)) for _ in range(100)]
        calls = [arun(abs, -number) for number in range(100)]

        async def awaited(results):
            return await results

        return await asyncio.gather(*map(awaited, maps)), await asyncio.gather(*calls)

    maps, calls = run(main())
    assert maps == [list(range(1, 11))] * 100
    assert calls == list(range(100))


def test_loops_in_several_threads_share_the_workers():
    found = {}

    def work(number):
        found[number] = gather(lambda x: x * number, range(50))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == {number: [x * number for x in range(50)] for number in range(4)}


def test_the_names_are_public():
    assert {"amap", "arun"} <= set(parallelkit.__all__)
