"""CPython's own tests of what has our faces are green on ours, but for those set apart here."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 240  # for one of the scripts: a test of theirs that fails may wait for ever

PRIVATE = "looks at private attributes of the standard one"
APART = {
    "test_context_manager_shutdown": PRIVATE,
    "test_del_shutdown": PRIVATE,
    "test_idle_process_reuse_multiple": PRIVATE,
    "test_idle_process_reuse_one": PRIVATE,
    "test_make_pool": PRIVATE,
    "test_max_tasks_per_child": PRIVATE,
    "test_max_tasks_per_child_defaults_to_spawn_context": PRIVATE,
    "test_processes_terminate": PRIVATE,
    "test_saturation": PRIVATE,
    "test_shutdown_deadlock_pickle": PRIVATE,
    "test_shutdown_no_wait": PRIVATE,
    "test_killed_child": "a dead worker breaks no executor of ours (and looks at `_processes`)",
    "test_python_finalization_error": "there is no second thread that could fail to start",
    "test_error_at_task_unpickle": "the task's own error, where there everything breaks",
    "test_exit_at_task_unpickle": "the task's own error, where there everything breaks",
    "test_exit_during_result_pickle_on_worker": "a PicklingError that tells of the exit",
    "test_error_during_result_unpickle_in_result_handler": "the task's own error, as above",
    "test_traceback": "the worker's traceback is a note, and no cause of a private class",
    "test_map_unplicklable": "a PicklingError that names the part to blame, not what that raised",
    "test_resource_warning": "a forgotten pool ends without a warning",
    # The log is in the caller; and a multiprocessing.Queue must be inherited.
    "test_initializer": "reports by a multiprocessing.Queue in initargs, which cannot be passed",
}
WORDS = "shows itself in other words"
ONLY_THREADS = "only the namesake in `threading` or `queue` has it, not that in `multiprocessing`"
NEGATIVE = "a time below zero is over, as in `multiprocessing`; `queue` refuses it"
SYNC_APART = {
    "ProcessesQueueTest.test_queue_feeder_donot_stop_onexc": "`put` itself tells what cannot go",
    "ProcessesQueueTest.test_task_done": "there is no JoinableQueue, which a killed reader spoils",
    "ThreadsQueueTest.test_task_done": "there is no JoinableQueue, which a killed reader spoils",
    "SimpleQueueTest.test_closed": PRIVATE,
    "SimpleQueueTest.test_empty_exceptions": "there is no SimpleQueue; Queue does what Queue does",
    # What `threading` and `queue` have otherwise.
    "BarrierTest.test_repr": WORDS,
    "BoundedSemaphoreTest.test_acquire_timeout": "may have a timeout and not block, as there",
    "BoundedSemaphoreTest.test_repr": WORDS,
    "ConditionAsRLockTest.test__is_owned": PRIVATE,
    "ConditionAsRLockTest.test_locked_repr": WORDS,
    "ConditionAsRLockTest.test_recursion_count": PRIVATE,
    "ConditionAsRLockTest.test_release_save_unacquired": PRIVATE,
    "ConditionAsRLockTest.test_repr": WORDS,
    "ConditionAsRLockTest.test_timeout": "may have a timeout and not block, as there",
    "ConditionTest.test_acquire": "a `threading.Lock` keeps no process out",
    "EventTest.test_at_fork_reinit": PRIVATE,
    "EventTest.test_repr": WORDS,
    "LockTest.test_at_fork_reinit": PRIVATE,
    "LockTest.test_locked_repr": WORDS,
    "LockTest.test_repr": WORDS,
    "LockTest.test_state_after_timeout": "the parameter is `block`, as in `multiprocessing`",
    "LockTest.test_timeout": "may have a timeout and not block, as there",
    "QueueTest.test_basic": ONLY_THREADS,  # `maxsize`
    "QueueTest.test_negative_timeout_raises_exception": NEGATIVE,
    "QueueTest.test_queue_join": ONLY_THREADS,
    "QueueTest.test_queue_task_done": ONLY_THREADS,
    "RLockTest.test__is_owned": PRIVATE,
    "RLockTest.test_locked_repr": WORDS,
    "RLockTest.test_recursion_count": PRIVATE,
    "RLockTest.test_release_save_unacquired": PRIVATE,
    "RLockTest.test_repr": WORDS,
    "RLockTest.test_timeout": "may have a timeout and not block, as there",
    "SemaphoreTest.test_acquire_timeout": "may have a timeout and not block, as there",
    "SemaphoreTest.test_repr": WORDS,
    "SimpleQueueOfThreadsTest.test_negative_timeout_raises_exception": NEGATIVE,
}
# How many tests run at least, lest a change of names leave none.
FEWEST_POOLS, FEWEST_ALL = 30, 85
FEWEST_SYNC = {"threads": 140, "fork": 40, "spawn": 40, "forkserver": 40}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("test") is None
        or importlib.util.find_spec("test._test_multiprocessing") is None,
        reason="needs CPython's own tests",
    ),
]


def failures(where: Path, name: str, *arguments: str) -> tuple[int, list[str]]:
    """Run one of the scripts; return how many tests ran, and the names of those that failed."""
    script = Path(__file__).with_name(name)
    command = [sys.executable, "-W", "ignore", str(script), *arguments]
    done = subprocess.run(
        command, cwd=where, check=False, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    ran, *failed = done.stdout.split()
    return int(ran), failed


def test_those_of_pools_and_executors(tmp_path):
    ran, failed = failures(tmp_path, "cpython_faces.py")

    executors = importlib.util.find_spec("test.test_concurrent_futures")
    assert ran >= (FEWEST_POOLS if executors is None else FEWEST_ALL)
    assert [name for name in failed if name.split(".")[1] not in APART] == []


@pytest.mark.parametrize("start", FEWEST_SYNC)
def test_those_of_locks_queues_and_the_like(tmp_path, start):
    ran, failed = failures(tmp_path, "cpython_sync.py", start)

    assert ran >= FEWEST_SYNC[start]
    assert [name for name in failed if name not in SYNC_APART] == []
