"""joblib and scikit-learn on our workers: as joblib's own do it, and what they do not."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from multiprocessing import TimeoutError as Late
from pathlib import Path
from pickle import PicklingError

import numpy as np
import pytest
from errands import die, square
from scripts import script

import parallelkit
from parallelkit.errors import WorkerDied

joblib = pytest.importorskip("joblib")

import parallelkit.joblib  # noqa: E402  now that it is sure to be found

Parallel, delayed = joblib.Parallel, joblib.delayed
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def known():
    parallelkit.joblib.register()
    yield
    del joblib.parallel.BACKENDS["parallelkit"]


@pytest.fixture
def two():
    with joblib.parallel_config("parallelkit", n_jobs=2):
        yield


def pids(**options):
    calls = [delayed(os.getpid)()] * 8
    return set(Parallel(backend="parallelkit", **options)(calls))


# How many.


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_tasks_run_in_workers_unless_there_is_but_one(n_jobs):
    assert (os.getpid() in pids(n_jobs=n_jobs)) == (n_jobs == 1)


def test_no_jobs_are_an_error():
    with pytest.raises(ValueError, match=r"^n_jobs == 0 in Parallel has no meaning$"):
        pids(n_jobs=0)


@pytest.mark.parametrize(
    ("n_jobs", "count"), [(None, 4), (-1, 4), (-2, 3), (-4, 1), (-9, 1), (1, 1), (7, 7)]
)
def test_negative_numbers_count_back_from_the_cpus(monkeypatch, n_jobs, count):
    monkeypatch.setenv("PARALLELKIT_WORKERS", "4")

    assert parallelkit.joblib.ParallelkitBackend().effective_n_jobs(n_jobs) == count
    with joblib.parallel_config("parallelkit"):
        assert joblib.effective_n_jobs(n_jobs) == count


def test_joblib_s_own_limit_counts(monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    monkeypatch.delenv("PARALLELKIT_WORKERS", raising=False)

    assert pids(n_jobs=-1) == {os.getpid()}


def test_where_all_is_serial_so_is_this(monkeypatch):
    monkeypatch.setenv("PARALLELKIT_BACKEND", "serial")

    assert pids(n_jobs=2) == {os.getpid()}


# What comes back.


@pytest.mark.parametrize("pre_dispatch", ["2 * n_jobs", "all", 3])
@pytest.mark.parametrize("batch_size", ["auto", 1, 7])
def test_results_are_the_loop_s(two, pre_dispatch, batch_size):
    parallel = Parallel(pre_dispatch=pre_dispatch, batch_size=batch_size)

    assert parallel(delayed(pow)(x, 2) for x in range(300)) == [x * x for x in range(300)]


def test_lambdas_and_closures_will_do(two):
    base = 10
    tasks = (delayed(lambda x, *, y: base + x - y)(x, y=1) for x in range(3))

    assert Parallel()(tasks) == [9, 10, 11]


def test_no_tasks_no_results(two):
    assert Parallel()([]) == []


def test_a_parallel_that_is_kept_runs_call_after_call(two):
    with Parallel() as parallel:
        first, second = (parallel(delayed(square)(x) for x in range(5)) for _ in range(2))

    assert first == second == [0, 1, 4, 9, 16]


def test_workers_stay_warm_between_calls(two):
    assert pids() & pids()


def test_generators(two):
    ordered = Parallel(return_as="generator")(delayed(square)(x) for x in range(20))
    unordered = Parallel(return_as="generator_unordered")(delayed(square)(x) for x in range(20))

    assert list(ordered) == sorted(unordered) == [x * x for x in range(20)]


def test_an_unordered_generator_gives_first_what_is_done_first(two, tmp_path):
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)

    def wait_or_go(name):
        if name == "slow":
            with open(fifo, "rb") as file:
                file.read()
        return name

    tasks = (delayed(wait_or_go)(name) for name in ("slow", "fast"))
    results = Parallel(return_as="generator_unordered", batch_size=1)(tasks)

    assert next(results) == "fast"
    with open(fifo, "wb"):
        pass
    assert list(results) == ["slow"]


def test_the_input_is_read_as_results_come(two):
    read = []

    def endless():
        for x in itertools.count():
            read.append(x)
            yield delayed(square)(x)

    parallel = Parallel(return_as="generator", batch_size=1, pre_dispatch=3)
    results = parallel(endless())
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    with pytest.warns(UserWarning, match="tasks"):  # joblib's own, about what was not used
        results.close()

    stopped = len(read)
    assert Parallel()(delayed(square)(x) for x in range(3)) == [0, 1, 4]
    assert len(read) == stopped


# When things go wrong.


def test_what_a_task_raises_arrives_as_itself_and_tells_the_task(two):
    def inverse(x):
        return 1 / x

    with pytest.raises(ZeroDivisionError) as caught:
        Parallel(batch_size=4)(delayed(inverse)(x) for x in (4, 2, 0, 1))

    notes = "\n".join(caught.value.__notes__)
    assert "parallelkit: raised by " in notes
    assert "inverse(0)" in notes
    assert "Traceback in worker" in notes


def test_an_error_ends_what_runs(two, tmp_path):
    path = tmp_path / "pid"
    os.mkfifo(path)

    def stuck_or_broken(x):
        if x == 0:
            path.write_text(str(os.getpid()))
            signal.pause()
        raise KeyError(path.read_text())

    with pytest.raises(KeyError) as caught:
        Parallel(batch_size=1)(delayed(stuck_or_broken)(x) for x in range(2))

    with pytest.raises(ProcessLookupError):
        os.kill(int(caught.value.args[0]), 0)


def test_a_timeout_ends_what_runs(two):
    with pytest.raises(Late):
        Parallel(timeout=0.2)(delayed(signal.pause)() for _ in range(4))

    assert Parallel()(delayed(square)(x) for x in range(3)) == [0, 1, 4]


def test_a_worker_that_dies_is_told_with_its_task(two):
    with pytest.raises(WorkerDied, match=r"killed by SIGKILL while it ran die\(7\)"):
        Parallel(batch_size=1)(delayed(die if x == 7 else square)(x) for x in range(9))
    with pytest.raises(WorkerDied, match=r"while it ran 9 tasks, the first square\(4\)"):
        tasks = (delayed(die if x == 7 else square)(x) for x in range(4, 40))
        Parallel(batch_size=9, pre_dispatch="all")(tasks)

    assert Parallel()(delayed(square)(x) for x in range(3)) == [0, 1, 4]


def test_what_cannot_be_sent_is_an_error_that_names_it(two):
    with pytest.raises(PicklingError, match=r"items\[0\]\[1\]\[0\]: cannot pickle '_thread.lock'"):
        Parallel()(delayed(square)(threading.Lock()) for _ in range(2))


def test_the_input_s_own_error_arrives(two):
    def broken():
        yield delayed(square)(1)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        Parallel()(broken())


# Levels.


def test_inside_a_worker_the_first_level_has_threads_the_second_none():
    def kind():
        return type(joblib.parallel.get_active_backend()[0]).__name__

    def inside(_):
        deeper = Parallel(n_jobs=2)(delayed(kind)() for _ in range(2))
        return kind(), set(deeper)

    with joblib.parallel_config("parallelkit", n_jobs=2):
        found = Parallel()(delayed(inside)(x) for x in range(2))

    assert found == [("ThreadingBackend", {"SequentialBackend"})] * 2


def test_who_must_share_memory_gets_threads(two):
    seen = []

    Parallel(n_jobs=2, require="sharedmem")(delayed(seen.append)(x) for x in range(4))

    assert sorted(seen) == [0, 1, 2, 3]


SHARES = """
import joblib, os, parallelkit.joblib

def shares(_):
    pids = parallelkit.pmap(lambda _: os.getpid(), range(50))
    return parallelkit.cpu_count(), joblib.cpu_count(), len(set(pids))

parallelkit.joblib.register()
count = joblib.cpu_count() + 1
tasks = (joblib.delayed(shares)(x) for x in range(4))
for found in joblib.Parallel(n_jobs=count, backend="BACKEND")(tasks):
    print(*found)
"""


@pytest.mark.parametrize(("backend", "joblib_s"), [("parallelkit", 1), ("loky", None)])
def test_inside_a_worker_a_map_has_its_share_of_the_cpus(tmp_path, monkeypatch, backend, joblib_s):
    monkeypatch.delenv("PARALLELKIT_WORKERS", raising=False)

    said = script(SHARES.replace("BACKEND", backend), where=tmp_path)

    found = [tuple(map(int, line.split())) for line in said.splitlines()]
    assert found == [(1, joblib_s or joblib.cpu_count(), 1)] * 4


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_numerical_libraries_have_the_threads_that_were_asked_for(monkeypatch, threads):
    pytest.importorskip("threadpoolctl")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)

    def count(_):
        import threadpoolctl

        np.ones((4, 4)) @ np.ones((4, 4))
        pools = [each for each in threadpoolctl.threadpool_info() if each["user_api"] == "blas"]
        return os.environ["OMP_NUM_THREADS"], {each["num_threads"] for each in pools}

    jobs = parallelkit.cpu_count() + 1
    with joblib.parallel_config("parallelkit", n_jobs=jobs, inner_max_num_threads=threads):
        found = Parallel()(delayed(count)(x) for x in range(4))

    assert found == [(str(threads or 1), {threads or 1})] * 4


# Arrays.


def test_large_arrays_are_sent_once_and_are_the_task_s_own(two):
    table = np.zeros(1 << 18)

    def work(array, x):
        before = array[0]
        array[0] = x + 1
        return float(before), type(array).__name__

    assert Parallel(batch_size=1)(delayed(work)(table, x) for x in range(9)) == [(0, "ndarray")] * 9
    assert not table.any()


def test_what_is_changed_between_calls_is_sent_anew(two):
    table = np.zeros(1 << 18)
    with Parallel() as parallel:
        for x in range(3):
            table[:] = x
            assert parallel(delayed(np.max)(table) for _ in range(4)) == [x] * 4


# Where it stands.


def test_importing_the_package_does_not_import_joblib():
    code = "import parallelkit.executor, sys; print('joblib' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )

    assert run.stdout == "False\n"
