"""`Pool` in real processes: what `multiprocessing.Pool` promises, and where that one hangs."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import pickle
import signal
import sys
import threading

import pytest
from scripts import script

from parallelkit import Executor, Pool
from parallelkit.errors import ParallelError, RemoteError, WorkerDied

SECONDS = 60  # how long a test waits before it fails: far above what it takes


def square(x):
    return x * x


@pytest.fixture
def pool():
    with Pool(2) as pool:
        yield pool
    pool.join()


def test_one_call(pool):
    assert pool.apply(divmod, (7, 2)) == (3, 1)
    assert pool.apply(lambda x, *, y: x - y, (5,), {"y": 3}) == 2
    assert pool.apply_async(square, [3]).get(SECONDS) == 9


@pytest.mark.parametrize("chunksize", [None, 1, 3, 100])
def test_many_calls(pool, chunksize):
    rows = [(x, 2) for x in range(10)]

    assert pool.map(square, range(10), chunksize) == [x * x for x in range(10)]
    assert pool.map(square, iter(range(10)), chunksize) == [x * x for x in range(10)]
    assert pool.starmap(pow, rows, chunksize) == [x * x for x in range(10)]
    assert pool.map(square, [], chunksize) == []


@pytest.mark.parametrize("chunksize", [1, 3])
def test_result_by_result(pool, chunksize):
    assert list(pool.imap(square, range(10), chunksize)) == [x * x for x in range(10)]
    assert sorted(pool.imap_unordered(square, range(10), chunksize)) == [x * x for x in range(10)]
    assert list(pool.imap(square, iter([]), chunksize)) == []


def test_the_input_may_be_endless(pool):
    results = pool.imap(square, itertools.count())

    assert list(itertools.islice(results, 5)) == [0, 1, 4, 9, 16]
    assert results.next(timeout=SECONDS) == 25


def test_what_the_input_raises_comes_after_the_results_before_it(pool):
    def items():
        yield 2
        raise KeyError("no")

    results = pool.imap(square, items())

    assert next(results) == 4
    with pytest.raises(KeyError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_a_result_to_come(pool, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    result = pool.apply_async(os.open, (str(tmp_path / "fifo"), os.O_RDONLY))

    result.wait(0.01)
    assert not result.ready()
    with pytest.raises(ValueError, match=r"not ready$"):
        result.successful()
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(0.01)
    pool.apply(os.open, (str(tmp_path / "fifo"), os.O_WRONLY))
    assert isinstance(result.get(SECONDS), int)
    assert result.ready()
    assert result.successful()


def test_an_iterator_waits_only_so_long(pool):
    results = pool.imap(lambda _: signal.pause(), [1])

    with pytest.raises(multiprocessing.TimeoutError):
        results.next(0.01)


def test_callbacks_run_here_before_the_result_is_told(pool):
    seen = []

    pool.map_async(square, range(3), callback=seen.append).wait(SECONDS)
    failed = pool.apply_async(divmod, (1, 0), error_callback=seen.append)
    failed.wait(SECONDS)

    assert seen[0] == [0, 1, 4]
    assert isinstance(seen[1], ZeroDivisionError)
    assert not failed.successful()


def test_a_callback_that_raises_hides_no_result(pool, caplog):
    result = pool.apply_async(square, (3,), callback=lambda _: 1 / 0)

    assert result.get(SECONDS) == 9
    assert "exception calling callback" in caplog.text


def test_what_one_item_raises_is_raised_and_tells_the_call(pool):
    with pytest.raises(ZeroDivisionError) as caught:
        pool.starmap(divmod, [(1, 1), (1, 0)])

    assert "parallelkit: raised by divmod(1, 0)" in caught.value.__notes__


class Twisted(Exception):
    """Cannot be unpickled as it is pickled, so the standard pool waits for it for ever."""

    def __init__(self, a, b):
        super().__init__(a)
        self.lock = threading.Lock()


def twist(_):
    raise Twisted(1, 2)


def test_what_hangs_elsewhere_is_an_error(pool):
    with pytest.raises(WorkerDied):
        pool.map(lambda _: os.kill(os.getpid(), signal.SIGKILL), [1])
    with pytest.raises(RemoteError):
        pool.map(twist, [1])
    with pytest.raises(SystemExit):
        pool.apply(sys.exit, (3,))
    with pytest.raises(pickle.PicklingError):
        pool.map(square, [threading.Lock()])
    assert pool.map(square, [3]) == [9]


def test_what_was_not_done_when_the_pool_was_terminated_is_an_error():
    pool = Pool(1)
    results = [pool.apply_async(signal.pause) for _ in range(3)]
    stream = pool.imap(lambda _: signal.pause(), itertools.count())
    pool.terminate()
    pool.join()

    for get in [*(result.get for result in results), stream.next]:
        with pytest.raises((ParallelError, RuntimeError)):
            get(SECONDS)
    with pytest.raises(ValueError, match=r"^Pool not running$"):
        pool.map(square, [1])


def test_a_closed_pool_finishes_what_nobody_reads(tmp_path):
    pool = Pool(2)
    names = (str(tmp_path / f"{number}") for number in range(300))
    pool.imap_unordered(os.mkdir, names)
    pool.close()
    pool.join()

    assert len(list(tmp_path.iterdir())) == 300
    with pytest.raises(ValueError, match=r"^Pool not running$"), pool:
        pass


def test_a_running_pool_cannot_be_joined(pool):
    with pytest.raises(ValueError, match=r"^Pool is still running$"):
        pool.join()


def remember(value):
    globals()["remembered"] = value


def recall():
    return globals().get("remembered"), os.getpid()


def test_workers_are_made_ready_and_replaced():
    with Pool(1, remember, (5,), maxtasksperchild=2) as pool:
        seen = [pool.apply(recall) for _ in range(4)]

    assert [value for value, _ in seen] == [5] * 4
    assert seen[0] == seen[1] != seen[2] == seen[3]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"processes": 0}, "Number of processes must be at least 1"),
        ({"maxtasksperchild": 0}, "maxtasksperchild must be a positive int or None"),
        ({"initializer": 5}, "initializer must be a callable"),
    ],
)
def test_a_pool_that_cannot_be_is_refused(options, error):
    with pytest.raises((TypeError, ValueError)) as caught:
        Pool(**options)

    assert str(caught.value) == error


def test_chunks_have_a_size(pool):
    with pytest.raises(ValueError, match=r"^Chunksize must be 1\+, not 0$"):
        pool.imap(square, [1], chunksize=0)
    with pytest.raises(ValueError, match=r"^Chunksize must be 1\+, not -1$"):
        pool.map(square, [1], chunksize=-1)


def test_a_pool_stays_where_it_is(pool):
    assert repr(pool) == "<parallelkit.Pool state=RUN pool_size=2>"
    with pytest.raises(NotImplementedError, match=r"^pool objects cannot be passed"):
        pickle.dumps(pool)


def test_a_forgotten_pool_ends_what_it_runs():
    pool = Pool(1)
    result = pool.apply_async(signal.pause)
    (helper,) = [each for each in threading.enumerate() if each.name == "parallelkit-executor"]
    del pool
    gc.collect()

    with pytest.raises(ParallelError):
        result.get(SECONDS)
    helper.join(SECONDS)
    assert not helper.is_alive()


def test_a_script_that_ends_ends_its_pool(tmp_path):
    code = """
        import itertools, signal
        from parallelkit import Pool
        pool = Pool(2)
        print(pool.map(abs, [-1, 2]))
        pool.apply_async(signal.pause)
        endless = pool.imap(abs, itertools.count())
    """
    assert script(code, where=tmp_path) == "[1, 2]\n"


def lengthen(items):
    items.append(1)
    return len(items)


def test_tasks_that_name_one_list_do_not_see_each_others_writes():
    shared = []
    with Executor(2) as executor:
        for _ in range(3):  # the function is known to be short after the first round
            assert {f.result() for f in [executor.submit(lengthen, shared) for _ in range(50)]} == {
                1
            }
    assert shared == []
