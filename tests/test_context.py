"""A worker's surroundings become the caller's, as they are now."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from parallelkit import context
from parallelkit.context import capture, put_in_force

THREADS = context._THREADS
NAMES = ("PARALLELKIT_WORKERS", "LOKY_MAX_CPU_COUNT")

# A fresh process puts in force, one after the other, what comes in, and says what it is then.
WORKER = """
import json, os, pickle, sys, warnings
from parallelkit.context import put_in_force
for captured in pickle.load(sys.stdin.buffer):
    put_in_force(captured)
logging = sys.modules.get("logging")
levels = {name: logging.getLogger(name).level for name in ("", "one", "one.two")} if logging else {}
filters = [
    (action, getattr(text, "pattern", text), category.__qualname__, line)
    for action, text, category, module, line in warnings.filters
]
print(json.dumps([sys.path, sys.argv, os.getcwd(), dict(os.environ), levels, filters]))
"""


class Ours(UserWarning):
    """A warning that only a script knows."""


def seen(*captured: bytes, **extra: str) -> tuple:
    """Return path, argv, directory, environment, levels and filters of a fresh process."""
    ended = subprocess.run(
        [sys.executable, "-c", WORKER],
        input=pickle.dumps(captured),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(context.__file__).parents[1]), **extra},
        check=True,
    )
    return tuple(json.loads(ended.stdout))


def test_everything_arrives(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [*sys.path, "/some/where"])
    monkeypatch.setattr(sys, "argv", ["script.py", "--option"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLOUR", "bl\u00fce")

    path, argv, directory, environment, _, _ = seen(capture(1))

    assert path == sys.path
    assert argv == ["script.py", "--option"]
    assert directory == str(tmp_path)
    assert environment["COLOUR"] == "bl\u00fce"


def test_what_the_caller_removed_is_removed(monkeypatch):
    monkeypatch.delenv("COLOUR", raising=False)
    environment = seen(capture(1), COLOUR="red", OTHER="x")[3]

    assert "COLOUR" not in environment
    assert "OTHER" not in environment
    assert environment.keys() - os.environ.keys() <= {*THREADS, *NAMES, "LC_CTYPE"}


def test_libraries_are_told_their_share_unless_the_user_told_them(monkeypatch):
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("PARALLELKIT_WORKERS", "9")

    environment = seen(capture(3))[3]

    assert environment["OMP_NUM_THREADS"] == "7"
    assert {environment[name] for name in THREADS} == {"3", "7"}
    assert environment["PARALLELKIT_WORKERS"] == "3"
    assert "MKL_NUM_THREADS" not in os.environ


def test_a_directory_that_was_deleted(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    captured = capture(1)
    os.chdir(tmp_path)

    assert seen(captured)[2] == str(tmp_path)


def test_a_directory_that_is_gone_when_it_arrives(monkeypatch, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    captured = capture(1)
    os.chdir(tmp_path)
    gone.rmdir()

    assert seen(captured)[2] == str(tmp_path)


@pytest.fixture
def loggers():
    kept = {name: logging.getLogger(name).level for name in ("", "one", "one.two")}
    yield
    for name, level in kept.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.usefixtures("loggers")
def test_levels_of_loggers_come_and_go():
    logging.getLogger().setLevel(logging.WARNING)
    plain = capture(1)
    logging.getLogger().setLevel(logging.ERROR)
    logging.getLogger("one.two").setLevel(5)
    changed = capture(1)

    assert seen(changed)[4] == {"": logging.ERROR, "one": 0, "one.two": 5}
    assert seen(changed, plain)[4] == {"": logging.WARNING, "one": 0, "one.two": 0}


def test_logging_is_not_loaded_for_nothing(monkeypatch):
    monkeypatch.delitem(sys.modules, "logging")
    assert seen(capture(1))[4] == {}


def test_filters_of_warnings_replace_what_was_there():
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.filterwarnings("error", "careful.*", DeprecationWarning)
        warnings.simplefilter("ignore", ResourceWarning, 12)

        filters = seen(capture(1))[5]

    assert filters == [
        ["ignore", None, "ResourceWarning", 12],
        ["error", "careful.*", "DeprecationWarning", 0],
    ]


def test_categories_that_nobody_else_can_know_are_left_out(monkeypatch):
    local = type("Local", (UserWarning,), {"__qualname__": "function.<locals>.Local"})
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("ignore", UserWarning)
        monkeypatch.setattr(Ours, "__module__", "__main__")
        warnings.simplefilter("error", Ours)
        warnings.simplefilter("error", local)

        assert seen(capture(1))[5] == [["ignore", None, "UserWarning", 0]]


def test_a_category_from_a_module_that_the_new_path_leads_to(monkeypatch, tmp_path):
    (tmp_path / "warn_here.py").write_text("class Mine(UserWarning): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import warn_here  # type: ignore[import-not-found]

    try:
        with warnings.catch_warnings():
            warnings.resetwarnings()
            warnings.simplefilter("error", warn_here.Mine)
            captured = capture(1)
    finally:
        del sys.modules["warn_here"]

    assert seen(captured)[5] == [["error", None, "Mine", 0]]


def test_a_category_whose_module_fails_is_left_out(monkeypatch, tmp_path):
    (tmp_path / "warn_badly.py").write_text("class Mine(UserWarning): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import warn_badly  # type: ignore[import-not-found]

    try:
        with warnings.catch_warnings():
            warnings.resetwarnings()
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("error", warn_badly.Mine)
            captured = capture(1)
    finally:
        del sys.modules["warn_badly"]
    (tmp_path / "warn_badly.py").write_text("raise RuntimeError('not here')\n")

    assert seen(captured)[5] == [["ignore", None, "UserWarning", 0]]


def test_what_was_shown_once_is_shown_again():
    code = """
import warnings
from parallelkit.context import capture, put_in_force
def warn():
    warnings.warn("look")
warnings.simplefilter("default")
warn(); warn()
put_in_force(capture(1))
warn()
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(context.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(re.findall("UserWarning: look", ended.stderr)) == 2


def test_the_same_surroundings_are_the_same_bytes():
    assert capture(2) == capture(2)
    assert capture(2) != capture(1)


def test_putting_in_force_what_holds_changes_nothing(monkeypatch):
    for name in (*THREADS, *NAMES):
        monkeypatch.setenv(name, "1")
    path, argv, environment = [*sys.path], [*sys.argv], dict(os.environ)
    captured = capture(1)
    with warnings.catch_warnings():
        filters = [*warnings.filters]
        put_in_force(captured)

        assert [each[2] for each in warnings.filters] == [each[2] for each in filters]
    context._set_levels({})  # which lets go of what it noted

    assert (sys.path, sys.argv, dict(os.environ)) == (path, argv, environment)


def test_what_another_thread_sets_meanwhile_is_seen_next(monkeypatch):
    class Entry:  # of sys.path, which is read after the environment
        def __str__(self):
            os.environ.setdefault("SET_MEANWHILE", "1")
            return "/nowhere"

    monkeypatch.setenv("SET_MEANWHILE", "0")
    del os.environ["SET_MEANWHILE"]
    monkeypatch.setattr(sys, "path", [*sys.path, Entry()])
    capture(1)
    assert pickle.loads(capture(1))[3]["SET_MEANWHILE"] == "1"
