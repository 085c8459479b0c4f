"""`amap` and `arun` in real processes: who leaves ends the work, and nothing stays."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import signal
import sys
import threading
from contextlib import aclosing, suppress

import psutil
import pytest
from errands import SECONDS, meet
from eventloops import each_loop, run_trio
from scripts import STARTS, script

from parallelkit import amap, arun, host, visits
from parallelkit.loops import running


@pytest.fixture
def fifos(tmp_path):
    """Give the paths of two fifos."""
    paths = [str(tmp_path / name) for name in ("there", "back")]
    for path in paths:
        os.mkfifo(path)
    return paths


def pause(path):
    """Tell who this is, and never end."""
    tell(path)
    signal.pause()


def tell(path):
    with open(path, "w") as file:
        file.write(str(os.getpid()))


async def told(path):
    """Return who told."""

    def read():
        with open(path) as file:
            return psutil.Process(int(file.read()))

    return await asyncio.to_thread(read)


def served():
    """Return the threads that serve."""
    return [each for each in threading.enumerate() if each.name == "parallelkit-host"]


async def unserved():
    """Wait until nobody is served any more."""
    while served():
        await running().pause()


async def ended(process):
    """Wait for the end of a process, and return whether that came."""
    gone, _ = await asyncio.to_thread(psutil.wait_procs, [process], SECONDS)
    return bool(gone)


# Who stops waiting.


async def awaiting(path):
    return await arun(pause, path)


async def mapping(path):
    return await amap(pause, [path] + [os.devnull] * 1000, workers=1)


async def iterating(path):
    async for _ in amap(pause, itertools.repeat(path), workers=1):
        pass


async def feeding(path):
    async def items():
        yield path
        await asyncio.Event().wait()

    async for _ in amap(pause, items(), workers=1):
        pass


@pytest.mark.parametrize("waiting", [awaiting, mapping, iterating, feeding])
def test_who_is_cancelled_ends_the_work(waiting, fifos):
    async def main():
        task = asyncio.create_task(waiting(fifos[0]))
        worker = await told(fifos[0])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await ended(worker)
        await unserved()

    asyncio.run(main())


def test_a_timeout_ends_the_work(fifos):
    async def main():
        worker = asyncio.create_task(told(fifos[0]))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.0):
                await amap(pause, [fifos[0]])
        assert await ended(await worker)

    asyncio.run(main())


def test_a_loop_that_ends_ends_the_work(fifos):
    async def main():
        kept.append(asyncio.create_task(arun(pause, fifos[0])))
        return await told(fifos[0])

    kept = []
    worker = asyncio.run(main())

    assert asyncio.run(ended(worker))
    kept.clear()


def test_who_stops_iterating_ends_the_work(fifos):
    async def main():
        async for _ in amap(
            lambda x: x or pause(fifos[0]), itertools.chain([1], itertools.repeat(0))
        ):
            break
        return await ended(await told(fifos[0]))

    assert asyncio.run(main())


def test_a_loop_left_without_a_word_ends_the_work(fifos):
    loop = asyncio.new_event_loop()
    task = loop.create_task(arun(pause, fifos[0]))
    worker = loop.run_until_complete(told(fifos[0]))
    task._log_destroy_pending = False
    loop.close()
    del task
    gc.collect()

    assert asyncio.run(ended(worker))


def test_trio_s_cancellation_ends_the_work(fifos):
    trio = pytest.importorskip("trio")

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(arun, pause, fifos[0])
            text = b""
            while not text:
                await running().pause()
                with suppress(BlockingIOError):  # it is open, but nothing is written yet
                    text = os.read(end, 99)
            nursery.cancel_scope.cancel()
        return psutil.Process(int(text))

    end = os.open(fifos[0], os.O_RDONLY | os.O_NONBLOCK)
    worker = run_trio(main)
    os.close(end)

    assert asyncio.run(ended(worker))


def test_what_is_not_begun_never_is(fifos, tmp_path):
    def note(x):
        if x == 0:
            pause(fifos[0])
        (tmp_path / f"item {x}").touch()

    async def main():
        tasks = [
            asyncio.create_task(amapped()),
            *(asyncio.create_task(arun(note, 1)) for _ in "abc"),
        ]
        worker = await told(fifos[0])
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert await ended(worker)

    async def amapped():
        await amap(note, range(100), workers=1, chunksize=10)

    asyncio.run(main())
    assert not list(tmp_path.glob("item [2-9]*"))


def test_what_ends_within_the_grace_costs_no_worker(fifos, monkeypatch):
    monkeypatch.setattr(visits, "GRACE", float(SECONDS))

    def talk(paths):
        tell(paths[0])
        return meet(paths[1], "r")

    async def main():
        task = asyncio.create_task(arun(talk, fifos))
        worker = await told(fifos[0])
        task.cancel()
        with await asyncio.to_thread(open, fifos[1], "w"):
            pass
        await unserved()
        return worker.pid, set(await amap(lambda _: os.getpid(), range(10), workers=1))

    worker, others = asyncio.run(main())
    assert others == {worker}


# Who has the workers.


def test_an_endless_map_leaves_others_their_share(monkeypatch):
    monkeypatch.setenv("PARALLELKIT_WORKERS", "1")

    async def main():
        async def endless():
            async for number in amap(lambda x: x, itertools.count()):
                counted.append(number)  # noqa: PERF401 - it never ends

        counted = []
        tasks = [asyncio.create_task(endless()) for _ in range(3)]
        while not counted:
            await running().pause()
        results = await amap(abs, range(-100, 0)), await arun(abs, -1)
        before = len(counted)
        while len(counted) < before + 1000:
            await running().pause()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return results

    assert asyncio.run(main()) == ([*range(100, 0, -1)], 1)


def test_all_together_have_as_many_workers_as_there_are_cpus(monkeypatch):
    monkeypatch.setenv("PARALLELKIT_WORKERS", "2")

    async def main():
        async def pids():
            return set(await amap(lambda _: os.getpid(), range(200), chunksize=1))

        return set.union(*await asyncio.gather(*(pids() for _ in range(10))))

    assert 1 <= len(asyncio.run(main())) <= 2


def test_who_names_a_number_has_so_many(fifos, monkeypatch):
    monkeypatch.setenv("PARALLELKIT_WORKERS", "1")

    async def main():  # each waits for the other, so both must run
        return await amap(meet, [fifos[0], fifos[0]], ["r", "w"], workers=2)

    assert asyncio.run(main()) == ["r", "w"]


def test_no_more_take_turns_than_are_admitted(monkeypatch):
    monkeypatch.setattr(host, "ADMITTED", 2)

    async def main():
        tasks = [asyncio.create_task(arun(abs, -number)) for number in range(50)]
        await running().pause()
        tasks[30].cancel()  # which waits outside
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(main())
    assert type(results.pop(30)) is asyncio.CancelledError
    assert results == [number for number in range(50) if number != 30]


# What stays.


@each_loop
def test_the_thread_is_gone_when_nobody_is_served(run):
    async def main():
        assert await amap(abs, [-1]) == [1]
        async with aclosing(aiter(amap(abs, itertools.count()))) as results:
            assert await anext(results) == 0
            assert len(served()) == 1
        await unserved()

    run(main)


@pytest.mark.parametrize("start", STARTS)
def test_a_script_may_end_in_the_middle(tmp_path, start):
    source = """
        import asyncio, itertools, time
        from parallelkit import amap, arun

        async def first():
            global results, call
            call = asyncio.ensure_future(arun(time.sleep, 1000))
            results = aiter(amap(lambda x: x + 1, itertools.count()))
            return await anext(results)

        loop = asyncio.new_event_loop()
        print(loop.run_until_complete(first()))
        call._log_destroy_pending = False
        loop.close()
        """

    assert script(source, where=tmp_path, PARALLELKIT_START=start) == "1\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_copy_has_its_own(tmp_path):
    source = """
        import asyncio, itertools, os, warnings
        from parallelkit import amap, arun

        async def main():
            results = aiter(amap(lambda x: x, itertools.count()))
            await anext(results)
            warnings.simplefilter("ignore")  # there are threads, as is the point
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
                await results.aclose()
                print(await arun(abs, -2))
            else:
                asyncio.events._set_running_loop(None)
                print(asyncio.run(child()), flush=True)
                os._exit(0)

        async def child():
            return await amap(abs, [-1, 2])

        asyncio.run(main())
        """

    assert script(source, where=tmp_path) == "[1, 2]\n2\n"


def test_importing_brings_no_asyncio(tmp_path):
    source = "import sys, parallelkit.amaps; print({'asyncio', 'trio'} & set(sys.modules))"

    command = [sys.executable, "-S", "-c", source] if not sys.flags.no_site else None
    assert script("", where=tmp_path, command=command) == "set()\n"
