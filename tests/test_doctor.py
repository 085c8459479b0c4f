"""The doctor, run as its user runs it: it tells what is so, and says plainly what is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import LIMIT, MARK, assert_gone, environment

from parallelkit import __main__ as doctor
from parallelkit import __version__, cpu_count

DOCTOR = [sys.executable, "-m", "parallelkit"]
# Runs the doctor with another program in the place of the interpreter that workers are.
WITH = (
    "import sys, runpy; sys.executable = sys.argv.pop(1); "
    "runpy.run_module('parallelkit', run_name='__main__', alter_sys=True)"
)
posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")


def doctored(*command: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end, see that nothing stays, and return what it said."""
    env = environment(**extra)
    done = subprocess.run(
        command,
        env=env,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert_gone(env[MARK])
    return done


def reported(*options: str, **extra: str) -> dict[str, object]:
    """Return the report of a doctor that found everything well."""
    done = doctored(*DOCTOR, "--json", *options, **extra)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return json.loads(done.stdout)


def told(**extra: str) -> str:
    """Return the page of a doctor that found everything well."""
    done = doctored(*DOCTOR, **extra)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


def refused(executable: str, *options: str, **extra: str) -> dict[str, object]:
    """Return the report of a doctor whose workers cannot be."""
    done = doctored(sys.executable, "-c", WITH, executable, "--json", *options, **extra)
    assert done.returncode == 1, done.stderr
    return json.loads(done.stdout)


def test_the_object_has_every_key_in_order():
    assert tuple(reported()) == doctor.KEYS


def test_the_object_says_what_is_so():
    report = reported()

    assert report["works"] is True
    assert report["failure"] is None
    assert report["parallelkit"] == __version__
    assert report["cpus"] == cpu_count()
    assert report["start"] == os.environ.get("PARALLELKIT_START", report["start"])
    assert report["large_data_beside"] is True
    assert report["memory_total_bytes"] >= report["memory_available_bytes"] > 0


def test_every_cost_is_a_positive_number():
    report = reported()

    measured = [name for name in report if name.endswith(("_seconds", "_per_second"))]
    assert len(measured) == 6
    assert all(0 < report[name] < LIMIT * 1e12 for name in measured)


def test_break_even_is_told_for_each_length():
    rows = reported(PARALLELKIT_WORKERS="2")["break_even"]

    assert [row["items"] for row in rows] == [10, 100, 1000]
    assert all(row["first_call_item_seconds"] > 0 < row["warm_call_item_seconds"] for row in rows)


@pytest.mark.parametrize("start", ["zygote", "spawn"] if os.name == "posix" else ["spawn"])
def test_the_page_is_one_screen(start):
    text = told(PARALLELKIT_START=start)

    lines = text.splitlines()
    assert lines[0].startswith(f"parallelkit {__version__} on ")
    assert len(lines) < 30
    assert max(map(len, lines)) <= 120
    assert f"  started by              {start} " in text
    assert "  a real call             works " in text
    assert "None" not in text


def test_one_cpu_is_told_that_workers_never_pay():
    text = told(PARALLELKIT_WORKERS="1")

    assert "  1000 items              never       never\n" in text
    assert text.endswith("With one CPU they never do: pmap is the loop.\n")


def test_a_backend_without_workers_is_told():
    text = told(PARALLELKIT_BACKEND="serial")

    assert "PARALLELKIT_BACKEND=serial is set, so pmap starts none by itself\n" in text


def test_a_backend_that_there_is_not_is_told():
    text = told(PARALLELKIT_BACKEND="many")

    assert "PARALLELKIT_BACKEND=many names no backend, so pmap raises ValueError\n" in text


@pytest.mark.parametrize("name", ["PARALLELKIT_START", "PARALLELKIT_WORKERS"])
def test_a_variable_that_cannot_be_used_is_named(name):
    done = doctored(*DOCTOR, **{name: "many"})

    assert (done.returncode, done.stderr) == (1, "")
    assert f"  a real call             FAILED      ValueError: {name} must be " in done.stdout


@pytest.mark.parametrize("start", ["zygote", "spawn"])
@posix
def test_an_interpreter_that_is_not_there_is_a_failure(start, tmp_path):
    report = refused(str(tmp_path / "nothing"), PARALLELKIT_START=start)

    assert report["works"] is False
    assert report["failure"]
    assert report["first_call_seconds"] is report["break_even"] is None
    assert report["cpus"] == cpu_count(), "what could be told is told"


@posix
def test_workers_that_never_answer_are_a_failure(tmp_path):
    # It reads what the caller will not write, and so ends when the caller does.
    mute = tmp_path / "mute"
    mute.write_text("#!/bin/sh\nexec cat\n")
    mute.chmod(0o700)

    report = refused(str(mute), "--limit", "0.2", PARALLELKIT_START="spawn")

    assert report["failure"] == "workers were started, but did not answer within 0.2 seconds"


@posix
def test_a_reader_that_has_gone_is_no_failure():
    reader, writer = os.pipe()
    os.close(reader)
    env = environment()
    with subprocess.Popen(DOCTOR, stdout=writer, stderr=subprocess.PIPE, env=env) as process:
        os.close(writer)
        complaint = process.communicate(timeout=LIMIT)[1]

    assert (process.returncode, complaint) == (0, b"")
    assert_gone(env[MARK])


def test_help_names_the_options():
    done = doctored(*DOCTOR, "--help")

    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m parallelkit ")
    assert "--json" in done.stdout


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "never"),
        (2.44e-7, "0.24 us"),
        (45.2e-6, "45 us"),
        (0.0004, "400 us"),
        (0.1194, "119 ms"),
        (1.5, "1.5 s"),
        (2000.0, "2000 s"),
    ],
)
def test_times_are_told_in_the_unit_that_fits(seconds, text):
    assert doctor._time(seconds) == text


def test_break_even_is_where_the_rule_turns():
    least = doctor._least(0.05, 100, 2)

    assert not doctor.Pace(item=least * 0.98, launch=0.05).worthwhile(100, 2)
    assert doctor.Pace(item=least, launch=0.05).worthwhile(100, 2)


def test_a_machine_that_tells_little_still_has_a_page():
    nothing = dict.fromkeys(doctor.KEYS) | {"works": False, "failure": "X", "backend": "processes"}

    assert "  CPUs to use             unknown\n" in doctor.page(nothing)


def test_large_data_that_must_go_in_messages_is_told():
    report = reported() | {"large_data_beside": False}

    assert "each way, by shared memory" in doctor.page(reported())
    assert "each way, in messages: there is no room in shared memory" in doctor.page(report)


def test_results_that_the_loop_would_not_give_are_refused():
    right = [(49, 1), *((item * item, 1) for item in range(100))]

    doctor._check(right)
    with pytest.raises(RuntimeError, match="other results than the loop"):
        doctor._check([(50, 1), *right[1:]])
    with pytest.raises(RuntimeError, match="in the calling process"):
        doctor._check([(square, os.getpid()) for square, _ in right])


def test_the_page_of_the_how_to_shows_the_rows_of_the_doctor():
    page = Path(__file__).parent.parent / "docs/how-to/check-this-machine.md"
    shown = page.read_text()

    rows = [line[:26] for line in told().splitlines() if line.startswith("  ")]
    assert not [row for row in rows if row not in shown]
