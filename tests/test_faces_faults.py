"""Whatever face a call has: a bad item costs that item, nothing hangs, and nothing is left behind.

What `pmap` promises (docs/explanation/failure.md) in every other way to call.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from functools import partial
from multiprocessing import TimeoutError as PoolTimeout
from pathlib import Path
from pickle import PicklingError
from typing import Any

import faults
import misdeeds
import pytest
from faults import DEATHS, STUCK, live
from misdeeds import perform

pytest.importorskip("joblib")

from faces import FACES

from parallelkit import Executor, Pool, arun, preduce
from parallelkit.errors import ItemTimeout, RemoteError, WorkerDied

pytestmark = pytest.mark.slow
each_face = pytest.mark.parametrize("face", FACES)


@pytest.fixture(autouse=True)
def limited() -> Iterator[None]:
    """Let nothing wait for ever."""
    with faults.limited():
        yield


def check(face: str, bad: dict[Any, Any], **options: Any) -> None:
    """Run the bad items among good ones; each must come to what stands beside it.

    That is a value, or the type of an error and words in its text.
    """
    items = [each for item in bad for each in (1, item)] + [2]
    found = FACES[face](items, **options)
    assert len(found) == len(items)
    for item, came in zip(items, found, strict=True):
        wanted = bad[item] if callable(item) else -item
        if isinstance(wanted, tuple):
            kind, words = wanted
            assert isinstance(came, kind), (item, came)
            assert words in str(came), (item, came)
        else:
            assert came == wanted, (item, came)


@each_face
def test_deaths(face: str) -> None:
    check(face, {death: (WorkerDied, f"a worker {how}") for death, how in DEATHS.items()})


@each_face
def test_what_is_raised(face: str) -> None:
    check(
        face,
        {
            misdeeds.leave_politely: (SystemExit, "3"),
            misdeeds.be_awkward: (misdeeds.Awkward, "7: no"),
            misdeeds.be_rigid: (RemoteError, "rigid"),
            misdeeds.interrupt: (KeyboardInterrupt, ""),
            misdeeds.recurse: (RecursionError, "maximum recursion depth exceeded"),
        },
    )


@each_face
def test_what_does_not_travel(face: str) -> None:
    check(
        face,
        {
            misdeeds.give_a_lock: (PicklingError, "lock"),
            partial(misdeeds.perform, threading.Lock()): (PicklingError, "lock"),
        },
    )


@each_face
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_what_harms_the_worker(face: str) -> None:
    bad = {
        misdeeds.hold_threads: 1,
        misdeeds.fork_and_return: 1,
        misdeeds.fork_and_die: (WorkerDied, "a worker was killed by SIGKILL"),
        misdeeds.close_descriptors: (WorkerDied, "closed descriptors not its own"),
    }
    check(face, bad)


@each_face
def test_the_zygote_is_killed(face: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLELKIT_START", "zygote")
    check(face, {partial(misdeeds.end_parent, str(tmp_path / "log")): 1})


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.parametrize(
    "face", ["pmap", "imap", "preduce", "Executor.submit", "Executor.map", "amap", "async for"]
)
def test_more_memory_than_allowed(face: str) -> None:
    check(face, {misdeeds.take_much: (MemoryError, "")}, max_memory=1 << 28)


# Time limits, where the face has them; there are no good items, which would have to keep them too.


@pytest.mark.parametrize("face", ["pmap", "imap", "Executor.submit", "amap", "async for"])
def test_what_takes_too_long(face: str) -> None:
    found = FACES[face](STUCK, workers=4, timeout=0.5)
    for item, came in zip(STUCK, found, strict=True):
        assert isinstance(came, ItemTimeout), (item, came)


LATE = {
    "preduce": (ItemTimeout, lambda: preduce(max, STUCK, map=perform, workers=4, timeout=0.5)),
    "Executor.map": (TimeoutError, lambda: mapped(Executor(4), timeout=0.5)),
    "Executor(timeout=)": (ItemTimeout, lambda: mapped(Executor(4, timeout=0.5))),
    "Pool.map": (PoolTimeout, lambda: waited(Pool(4))),
    "arun": (TimeoutError, lambda: asyncio.run(asyncio.wait_for(arun(faults.hang), 0.5))),
    "arun, stopped": (TimeoutError, lambda: asyncio.run(asyncio.wait_for(arun(faults.stop), 0.5))),
    "joblib": (PoolTimeout, lambda: FACES["joblib"](STUCK, whole=True, workers=4, timeout=0.5)),
}


def mapped(executor: Executor, timeout: float | None = None) -> None:
    try:
        list(executor.map(perform, STUCK, timeout=timeout))
    finally:
        executor.kill_workers()


def waited(pool: Any) -> None:
    with pool:  # which is terminated
        pool.map_async(perform, STUCK, chunksize=1).get(timeout=0.5)


@pytest.mark.parametrize("face", LATE)
def test_a_call_that_takes_too_long(face: str) -> None:
    kind, call = LATE[face]
    with pytest.raises(kind):
        call()


def test_running_tasks_are_cancelled_wherever_they_are() -> None:
    with Executor(4) as executor:
        group = [executor.submit(item) for item in STUCK]
        for future in group:
            while not future.running():
                futures.wait([future], timeout=0.001)
        assert all(future.cancel(kill=True) for future in group)
        assert executor.submit(abs, -3).result() == 3


# The end of the caller, in the middle of a call.

PRELUDE = """
    import asyncio, os, signal, sys, time
    from parallelkit import Executor, Pool, amap, arun, imap, pmap, preduce

    def hang(x):
        os.write(1, b"now\\n")
        time.sleep(3600)

    async def listed(results):
        return [each async for each in results]

    async def awaited(result):
        return await result

    def by_joblib():
        import joblib, parallelkit.joblib
        parallelkit.joblib.register()
        with joblib.parallel_config("parallelkit"):
            joblib.Parallel(n_jobs=2)(joblib.delayed(hang)(x) for x in range(4))
"""
CALLS = {
    "pmap": "pmap(hang, range(4), workers=2)",
    "imap": "list(imap(hang, range(4), workers=2))",
    "preduce": "preduce(max, range(4), map=hang, workers=2)",
    "Executor.submit": "Executor(2).submit(hang, 1).result()",
    "Executor.map": "list(Executor(2).map(hang, range(4)))",
    "with Executor": "with Executor(2) as executor: executor.submit(hang, 1).result()",
    "Pool.apply": "Pool(2).apply(hang, (1,))",
    "with Pool": "with Pool(2) as pool: pool.map(hang, range(4))",
    "amap": "asyncio.run(awaited(amap(hang, range(4), workers=2)))",
    "async for": "asyncio.run(listed(amap(hang, range(4), workers=2)))",
    "arun": "asyncio.run(arun(hang, 1))",
    "joblib": "by_joblib()",
}


@pytest.mark.parametrize("end", ["SIGINT", "SIGTERM", "SIGKILL"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_end_of_the_caller(tmp_path: Path, call: str, end: str) -> None:
    with live(f"{PRELUDE}\n    {call}\n", tmp_path) as script:
        script.hear("now")
        if end == "SIGINT":
            script.interrupt()
        else:
            script.process.send_signal(signal.Signals[end])
        status, _, err = script.end()

    assert status == -signal.Signals[end]
    if end != "SIGINT":
        assert err == ""
        return
    assert err.rstrip().endswith("KeyboardInterrupt"), err
    for word in ("Exception ignored", "Traceback in worker", "Warning"):
        assert word not in err


def test_ctrl_c_while_the_interpreter_finishes_what_was_submitted(tmp_path: Path) -> None:
    with live(f"{PRELUDE}\n    Executor(1).submit(hang, 1); Executor(1)\n", tmp_path) as script:
        script.hear("now")
        script.interrupt()
        _, _, err = script.end()

    assert "Traceback in worker" not in err
    assert "KeyboardInterrupt" in err
