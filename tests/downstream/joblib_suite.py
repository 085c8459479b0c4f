"""joblib's own tests of its backends, turned on ours at run time; names those that fail.

    python tests/downstream/joblib_suite.py FOLDER

They are adapted in FOLDER, where their scripts and the workers of joblib's own backends find the
name of ours as well.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import joblib.test

import parallelkit

THEIRS = 'PROCESS_BACKENDS = ["multiprocessing", "loky"]'
OURS = 'PROCESS_BACKENDS = ["parallelkit"]'
# Not those with a backend of joblib's inside ours.
CHOSEN = "arallelkit and not loky and not multiprocessing and not nested_exception"
REGISTER = """
try:
    import parallelkit.joblib
except ImportError:  # an interpreter without our packages
    pass
else:
    parallelkit.joblib.register()
"""


def main() -> None:
    """Adapt and run them; print how many passed, and the names of those that failed."""
    folder = Path(sys.argv[1])
    text = (Path(joblib.test.__file__).parent / "test_parallel.py").read_text()
    assert text.count(THEIRS) == 1, "joblib's tests name its backends in another way"
    text = text.replace(THEIRS, OURS).replace("from ._openmp", "from joblib.test._openmp")
    text = text.replace("timeout=10,", "timeout=100,")  # of scripts, on a busy machine
    (folder / "test_parallel.py").write_text(text)
    (folder / "conftest.py").write_text(REGISTER)
    (folder / "sitecustomize.py").write_text(REGISTER)
    path = [str(folder), str(Path(parallelkit.__file__).parent.parent)]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [f"--basetemp={folder / 'tmp'}", "-k", CHOSEN]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    with (folder / "said").open("w+") as said:
        run = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=said, start_new_session=True
        )
        run.wait()
        # joblib's own workers outlive, for some minutes, those of ours that had them.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
    text = (folder / "said").read_text()
    passed = re.search(r"(\d+) passed", text)
    print(passed[1] if passed else 0, *sorted(set(re.findall(r"FAILED \S+::(\w+)", text))))


if __name__ == "__main__":
    main()
