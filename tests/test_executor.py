"""`Executor` in real processes: what `concurrent.futures` promises, and what it does not."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
import weakref
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool

import pytest
from errands import SECONDS, die, meet, raise_it, square, stuck
from scripts import script

import parallelkit
from parallelkit import Executor


@pytest.fixture
def executor():
    with Executor(2) as executor:
        yield executor


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return str(path)


# The standard one's promises.


def test_submitting_gives_a_future(executor):
    future = executor.submit(divmod, 7, 2)

    assert isinstance(future, futures.Future)
    assert future.result(SECONDS) == (3, 1)
    assert executor.submit(lambda x, *, y: x - y, 5, y=3).result(SECONDS) == 2


def test_any_keyword_goes_to_the_function(executor):
    future = executor.submit(lambda **names: names, fn=1, self=2)

    assert future.result(SECONDS) == {"fn": 1, "self": 2}


def test_what_is_raised_arrives_as_itself_and_tells_the_call(executor):
    error = executor.submit(raise_it, KeyError("no")).exception(SECONDS)

    assert type(error) is KeyError
    assert error.args == ("no",)
    assert error.__notes__[0].startswith("Traceback in worker ")
    assert error.__notes__[1] == "parallelkit: raised by raise_it(KeyError('no'))"


def test_exits_are_exceptions_of_their_tasks(executor):
    assert executor.submit(raise_it, SystemExit(3)).exception(SECONDS).code == 3
    assert executor.submit(square, 2).result(SECONDS) == 4


def test_what_cannot_be_pickled_fails_its_own_future(executor):
    lock = threading.Lock()

    assert "lock" in str(executor.submit(square, lock).exception(SECONDS))
    assert "lock" in str(executor.submit(threading.Lock).exception(SECONDS))
    assert executor.submit(square, 2).result(SECONDS) == 4


@pytest.mark.parametrize("options", [{}, {"chunksize": 3}, {"buffersize": 2}])
def test_mapping_gives_results_in_order(executor, options):
    assert list(executor.map(pow, range(10), [2] * 10, **options)) == [x * x for x in range(10)]


def test_mapping_raises_in_place(executor):
    results = executor.map(divmod, [1, 1, 1], [2, 0, 1])

    assert next(results) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_buffered_map_reads_as_it_is_read(executor):
    read = []
    items = (read.append(x) or x for x in range(100))

    results = executor.map(square, items, buffersize=3)
    assert read == [0, 1, 2]
    assert [next(results), next(results)] == [0, 1]
    assert len(read) <= 5
    results.close()


def test_a_map_gives_up_after_its_timeout(executor):
    results = executor.map(signal.pause.__call__, timeout=0.01)
    assert list(results) == []  # no iterables, nothing to call

    results = executor.map(lambda _: signal.pause(), [1], timeout=0.01)
    with pytest.raises(TimeoutError):
        next(results)
    executor.kill_workers()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"chunksize": 0}, "chunksize must be >= 1."),
        ({"buffersize": 0}, "buffersize must be None or > 0"),
        ({"buffersize": 1.5}, "buffersize must be an integer or None, got 1.5"),
    ],
)
def test_a_map_that_cannot_be_is_refused(executor, options, error):
    with pytest.raises((TypeError, ValueError)) as caught:
        executor.map(square, [1], **options)

    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_workers": 0}, "max_workers must be greater than 0"),
        ({"initializer": 5}, "initializer must be a callable"),
        ({"max_tasks_per_child": 0}, "max_tasks_per_child must be >= 1"),
        ({"max_tasks_per_child": 1.5}, "max_tasks_per_child must be an integer"),
        ({"timeout": 0}, "timeout must be a number of seconds above 0, got 0"),
    ],
)
def test_an_executor_that_cannot_be_is_refused(options, error):
    with pytest.raises((TypeError, ValueError)) as caught:
        Executor(**options)

    assert str(caught.value) == error


def test_tasks_that_wait_for_each_other_run_at_once(executor, fifo):
    list(executor.map(square, range(200)))  # their price is known to be low

    pairs = [executor.submit(meet, fifo, mode) for mode in ("r", "w")]

    assert [future.result(SECONDS) for future in pairs] == ["r", "w"]


def test_what_is_done_is_told_while_others_run(executor):
    for _ in range(20):
        executor.submit(square, 2).result(SECONDS)
    blocked = stuck(executor)

    assert list(executor.map(square, range(20))) == [x * x for x in range(20)]
    assert not blocked.done()
    blocked.cancel(kill=True)


def test_a_pending_task_can_be_cancelled_and_never_runs(tmp_path):
    with Executor(1) as executor:
        blocked = stuck(executor)
        pending = executor.submit(os.mkdir, tmp_path / "made")

        assert pending.cancel()
        assert not blocked.cancel()
        blocked.cancel(kill=True)

    assert pending.cancelled()
    assert not (tmp_path / "made").exists()


def test_shutting_down_waits_for_what_was_submitted():
    executor = Executor(2)
    results = [executor.submit(square, x) for x in range(20)]
    executor.shutdown()

    assert [future.result(0) for future in results] == [x * x for x in range(20)]
    with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
        executor.submit(square, 1)


def test_shutting_down_can_cancel_what_waits():
    executor = Executor(1)
    blocked = stuck(executor)
    pending = [executor.submit(square, x) for x in range(50)]

    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in pending)
    blocked.cancel(kill=True)
    executor.shutdown()


def test_shutting_down_unused_or_twice_is_fine():
    executor = Executor()
    executor.shutdown()
    executor.shutdown()

    assert not threads()


def test_leaving_by_ctrl_c_does_not_wait():
    with pytest.raises(KeyboardInterrupt), Executor(1) as executor:
        blocked = stuck(executor)
        pending = executor.submit(square, 2)
        raise KeyboardInterrupt

    assert blocked.cancelled()
    assert pending.cancelled()


def test_killing_the_workers_cancels_everything():
    executor = Executor(1)
    blocked, pending = stuck(executor), executor.submit(square, 2)

    executor.kill_workers()
    executor.shutdown()

    assert blocked.cancelled()
    assert pending.cancelled()


def test_callbacks_run_here(executor):
    seen = []
    done = threading.Event()
    future = executor.submit(square, 3)

    def call_back(future):
        seen.append((os.getpid(), future.result()))
        done.set()

    future.add_done_callback(call_back)

    assert done.wait(SECONDS)
    assert seen == [(os.getpid(), 9)]


def test_callbacks_may_submit_and_shut_down():
    executor = Executor(2)
    second = []
    done = threading.Event()

    def go_on(future):
        if future.result() < 1000:
            executor.submit(square, future.result()).add_done_callback(go_on)
        else:
            second.append(future.result())
            executor.shutdown(wait=True)
            done.set()

    executor.submit(square, 3).add_done_callback(go_on)

    assert done.wait(SECONDS)
    assert second == [6561]
    executor.shutdown()


def test_many_threads_may_submit(executor):
    def work(number):
        return [executor.submit(square, number + x).result(SECONDS) for x in range(20)]

    with futures.ThreadPoolExecutor(8) as threads:
        results = list(threads.map(work, range(8)))

    assert results == [[(n + x) ** 2 for x in range(20)] for n in range(8)]


def test_waiting_and_completing_know_these_futures(executor):
    group = [executor.submit(square, x) for x in range(5)]

    assert futures.wait(group, SECONDS).not_done == set()
    assert sorted(f.result() for f in futures.as_completed(group)) == [0, 1, 4, 9, 16]


def test_an_event_loop_can_use_it(executor):
    async def main():
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(executor, square, x) for x in range(5)]
        return await asyncio.gather(*calls)

    assert asyncio.run(main()) == [0, 1, 4, 9, 16]


def test_without_workers_submitting_runs_the_task(monkeypatch):
    monkeypatch.setenv("PARALLELKIT_BACKEND", "serial")
    seen = []

    with Executor(2, initializer=seen.append, initargs=(5,)) as executor:
        assert executor.submit(os.getpid).result(0) == os.getpid()
        assert isinstance(executor.submit(divmod, 1, 0).exception(0), ZeroDivisionError)
    assert seen == [5]


# Initializers and limited workers.


def remember(value):
    globals()["remembered"] = value


def recall():
    return globals().get("remembered")


def test_an_initializer_is_called_in_each_worker():
    with Executor(2, initializer=remember, initargs=(5,)) as executor:
        assert {executor.submit(recall).result(SECONDS) for _ in range(10)} == {5}
    with Executor(2) as executor:
        assert executor.submit(recall).result(SECONDS) is None


def test_an_initializer_that_raises_breaks_the_executor(caplog):
    executor = Executor(2, None, raise_it, (ValueError("no"),))
    with caplog.at_level(logging.CRITICAL, "concurrent.futures"):
        error = executor.submit(square, 1).exception(SECONDS)

    said = "the initializer failed, so the executor runs nothing: ValueError: no"
    assert isinstance(error, BrokenProcessPool)
    assert isinstance(error, parallelkit.errors.ParallelError)
    assert (str(error), type(error.__cause__)) == (said, ValueError)
    with pytest.raises(BrokenProcessPool, match=f"^{said}$"):
        executor.submit(square, 1)
    assert "Exception in initializer:" in caplog.text
    executor.shutdown()


def test_an_initializer_that_kills_breaks_the_executor():
    with Executor(2, initializer=die) as executor:
        error = executor.submit(square, 1).exception(SECONDS)

    assert isinstance(error, BrokenProcessPool)


def test_a_worker_can_be_limited_to_some_tasks():
    with Executor(1, max_tasks_per_child=3) as executor:
        pids = [executor.submit(os.getpid).result(SECONDS) for _ in range(7)]

    assert pids[0] == pids[1] == pids[2] != pids[3]
    assert pids[3] == pids[4] == pids[5] != pids[6]


def test_limited_workers_lose_nothing():
    with Executor(2, max_tasks_per_child=1) as executor:
        assert list(executor.map(square, range(20))) == [x * x for x in range(20)]


# Nothing is kept, nothing stays.


class Token:
    """Something whose end can be seen."""


def test_arguments_and_results_are_not_kept(executor):
    argument = Token()
    gone = threading.Event()
    weakref.finalize(argument, gone.set)
    executor.submit(isinstance, argument, int).result(SECONDS)
    del argument
    assert gone.wait(SECONDS)

    for result in executor.map(lambda _: Token(), range(3)):
        reference = weakref.ref(result)
        del result
        gc.collect()
        assert reference() is None


def threads():
    return [each for each in threading.enumerate() if each.name.startswith("parallelkit")]


def test_there_is_one_helper_thread_and_then_none():
    with Executor(2) as executor:
        assert not threads()
        executor.submit(square, 1).result(SECONDS)
        assert len(threads()) == 1

    assert not threads()


def test_a_forgotten_executor_finishes_and_leaves():
    executor = Executor(2)
    group = [executor.submit(square, x) for x in range(20)]
    (helper,) = threads()
    del executor
    gc.collect()

    assert [future.result(SECONDS) for future in group] == [x * x for x in range(20)]
    helper.join(SECONDS)
    assert not helper.is_alive()


def test_a_script_without_a_guard_finishes_its_tasks_at_its_end(tmp_path):
    code = """
        from parallelkit import Executor
        executor = Executor(2)
        def say(text):
            print(text, flush=True)
        executor.submit(say, "done")
    """
    said = script(code, where=tmp_path)

    assert said == "done\n"


def test_nothing_can_be_submitted_when_the_interpreter_ends(tmp_path):
    code = """
        import atexit
        from parallelkit import Executor
        executor = Executor(2)
        @atexit.register
        def late():
            try:
                executor.submit(abs, -1)
            except RuntimeError as error:
                print(error)
        print(executor.submit(abs, -3).result())
    """
    said = script(code, where=tmp_path)

    assert said == "3\ncannot schedule new futures after interpreter shutdown\n"


def test_a_forked_copy_says_that_it_is_one(tmp_path):
    code = """
        import os, warnings
        from parallelkit import Executor
        warnings.simplefilter("ignore")
        executor = Executor(2)
        print(executor.submit(abs, -3).result(), flush=True)
        if os.fork() == 0:
            try:
                executor.submit(abs, -1)
            except RuntimeError as error:
                print(error, flush=True)
            executor.shutdown()
        else:
            os.wait()
            print(executor.submit(abs, -4).result())
    """
    said = script(code, where=tmp_path)

    assert said == (
        "3\nthis executor belongs to the process that made it, of which this one is a forked "
        "copy: make an executor here\n4\n"
    )
