"""What holds around every test: it leaves nothing behind, and it cannot fail by luck."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator

import leaks
import numpy as np
import pytest
from hypothesis import settings

# The first large product starts the threads of the BLAS, which live until the process ends or is
# forked; so one comes before each test, lest a test's own be the first.  Smaller ones start none.
SQUARE = np.ones((128, 128))

# The same examples each time, for a test that fails must fail again; no deadline, for a machine
# may be slow; no database, for nothing is left behind.  HYPOTHESIS_PROFILE=explore looks further.
settings.register_profile("steady", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", deadline=None, database=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))


def shut() -> None:
    """Close the pool that stays warm between calls, if a test made one."""
    warm = sys.modules.get("parallelkit.backends.warm")
    if warm is not None:
        warm.shut()


@pytest.fixture(scope="session")
def outer_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the folder of the tests' TMPDIRs, short because a Unix socket's path may lie in it."""
    tmp_path_factory.getbasetemp()  # made now, or it would be made in the first test's TMPDIR
    folder = tempfile.mkdtemp(prefix="pk-")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def leaves_nothing(outer_folder: str) -> Iterator[None]:
    """Fail a test that leaves anything behind, naming what."""
    tmpdir, tempdir = os.environ.get("TMPDIR"), tempfile.tempdir
    folder = os.path.join(outer_folder, str(len(os.listdir(outer_folder))))
    os.mkdir(folder)
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    SQUARE @ SQUARE
    before = leaks.take(folder)
    try:
        yield
        shut()
        remains = leaks.settle(before, folder)
    finally:
        tempfile.tempdir = tempdir
        if tmpdir is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = tmpdir
    if not remains:
        os.rmdir(folder)  # the next test gets the same name, so that the path stays short
    assert not remains, "the test left behind:\n  " + "\n  ".join(remains)
