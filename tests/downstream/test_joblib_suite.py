"""joblib's own tests of its backends are green on ours, but for those in `APART`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("joblib.test")

APART = {
    "test_auto_memmap_on_arrays_from_generator": "arrays travel without a numpy.memmap",
    "test_memmapping_leaks": "arrays travel without a numpy.memmap",
    "test_backend_batch_statistics_reset": "looks at private attributes of joblib's own",
}
FEWEST = 100  # tests that pass, lest a change of names leave none


@pytest.mark.slow
def test_joblib_s_tests_are_green_on_our_backend(tmp_path):
    root = Path(__file__).parents[2]
    command = [sys.executable, str(Path(__file__).with_name("joblib_suite.py")), str(tmp_path)]
    env = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    passed, *failed = done.stdout.split()

    assert [name for name in failed if name not in APART] == []
    assert int(passed) >= FEWEST
