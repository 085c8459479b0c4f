"""CPython's own tests of executors and pools are green on ours, but for those in `APART`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

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
FEWEST = 85  # tests that run, lest a change of names leave none


def installed() -> bool:
    """Return whether the interpreter came with the tests, as they are since 3.12."""
    if sys.version_info < (3, 12) or importlib.util.find_spec("test") is None:
        return False
    return importlib.util.find_spec("test.test_concurrent_futures") is not None


@pytest.mark.slow
@pytest.mark.skipif(not installed(), reason="needs CPython's own tests, of 3.12 or newer")
def test_cpython_s_tests_are_green_on_our_faces(tmp_path):
    script = Path(__file__).with_name("cpython_faces.py")
    command = [sys.executable, "-W", "ignore", str(script)]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ran, *failed = done.stdout.split()

    assert int(ran) >= FEWEST
    assert [name for name in failed if name.split(".")[1] not in APART] == []
