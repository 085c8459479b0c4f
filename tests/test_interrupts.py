"""Whoever is ended from outside, and whenever: one clean end, and nothing stays.

Ctrl-C goes to the whole group, as a terminal sends it; SIGTERM and SIGKILL to the caller; SIGKILL
to the zygote.  That processes are gone and temporary files with them is checked after each test.
"""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import faults
import psutil
import pytest
from faults import STARTS, Live, live

import parallelkit

pytestmark = pytest.mark.slow

PYTHONS_END = "Exception ignored in(?: atexit callback: <function shutdown |: <module 'threading')"
"""How Python tells of an exception in what it does last: to end logging, to wait for threads."""


@pytest.fixture(params=STARTS)
def start(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each way of starting workers, and not for ever."""
    with faults.limited():
        yield request.param


# Scripts say "now" when it is time: `say` writes past Python's buffers, so each line at once.
PRELUDE = """
    import itertools, os, sys, time
    from parallelkit import imap, pmap, preduce

    def say(word):
        os.write(1, f"{word}\\n".encode())

    def hang(x):
        say("now")
        time.sleep(3600)

    def spin(x):
        say("now")
        while True:
            pass

    def forever():
        for x in itertools.count():
            if x == 20000:
                say("now")
            yield x

    def pour(x):
        if x == 40:
            say("now")
        return [str(x) * 50_000] * 10

    def at_the_prompt(x):
        if x == 2:
            say("now")
            time.sleep(3600)
        return x
"""

MOMENTS = {
    "starting": 'say("now"); pmap(hang, range(4), workers=2)',
    "starting several": 'say("now"); pmap(abs, range(10**9), workers=8, chunksize=1)',
    "in a long item": "pmap(hang, range(4), workers=2)",
    "in a busy item": "pmap(spin, range(4), workers=2)",
    "with a time limit": "pmap(hang, range(4), workers=2, timeout=1000)",
    "dispatching": "pmap(abs, forever(), workers=2, chunksize=1)",
    "in an item of the caller": "pmap(hang, range(4))",
    "in a busy item of the caller": "pmap(spin, range(4))",
    "in an iterator": "list(imap(at_the_prompt, range(9), workers=2))",
    "beside an iterator": (
        "results = imap(abs, itertools.count(), workers=2); next(results); hang(0)"
    ),
    "while results pour in": "for _ in imap(pour, itertools.count(), workers=2): pass",
    "in a reduction": "preduce(max, range(4), map=hang, workers=2)",
    "when all is done": "pmap(abs, range(9), workers=2); hang(0)",
    "in the input": "pmap(abs, map(hang, range(9)), workers=2)",
}


def assert_one_clean_traceback(err: str) -> None:
    """Fail unless the caller's traceback, of a KeyboardInterrupt, is all there is."""
    assert err.count("Traceback (most recent call last)") == 1, err
    assert err.startswith("Traceback (most recent call last)"), err
    assert err.rstrip().endswith("KeyboardInterrupt"), err
    assert err.count("KeyboardInterrupt") == 1, err
    assert "Exception ignored" not in err, err
    assert "Warning" not in err, err


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_ctrl_c_ends_everything(start: str, tmp_path: Path, moment: str) -> None:
    with live(f"{PRELUDE}\n    {moment}\n", tmp_path, PARALLELKIT_START=start) as script:
        script.hear("now")
        script.interrupt()
        status, _, err = script.end()

    assert status == -signal.SIGINT
    assert_one_clean_traceback(err)


@pytest.mark.parametrize("moment", ["starting", "in a long item", "dispatching", "in an iterator"])
def test_ctrl_c_by_the_impatient(start: str, tmp_path: Path, moment: str) -> None:
    with live(f"{PRELUDE}\n    {MOMENTS[moment]}\n", tmp_path, PARALLELKIT_START=start) as script:
        script.hear("now")
        script.interrupt()
        script.interrupt()
        script.interrupt()
        status, _, err = script.end()

    assert status == -signal.SIGINT
    # Each that is noticed by itself has a traceback, of the caller's; one that comes while Python
    # ends, or has nothing left to print to, is told in Python's own words.
    err, *ending = re.split(PYTHONS_END, err, maxsplit=1)
    assert err.rstrip().endswith(("KeyboardInterrupt", "lost sys.stderr")), err
    assert "Exception ignored" not in err, err
    assert not any(str(Path(parallelkit.__file__).parent) in each for each in ending), ending
    assert "Traceback in worker" not in err


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_the_next_call_after_ctrl_c_is_right(start: str, tmp_path: Path, moment: str) -> None:
    source = f"""{PRELUDE}
    for turn in range(3):
        try:
            {moment}
        except KeyboardInterrupt:
            say("caught")
        assert pmap(lambda x: x + turn, range(300), workers=2) == [x + turn for x in range(300)]
    say("right")
    """
    with live(source, tmp_path, PARALLELKIT_START=start) as script:
        for _ in range(3):
            script.hear("now")
            script.interrupt()
            script.hear("caught")
        script.hear("right")
        status, _, err = script.end()

    assert (status, err) == (0, "")


ENDS = {"SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_the_end_of_the_caller_is_the_end_of_all(
    start: str, tmp_path: Path, moment: str, end: str
) -> None:
    with live(f"{PRELUDE}\n    {moment}\n", tmp_path, PARALLELKIT_START=start) as script:
        script.hear("now")
        script.process.send_signal(ENDS[end])
        status, _, err = script.end()

    assert (status, err) == (-ENDS[end], "")


def test_exit_in_the_midst_of_an_iterator(start: str, tmp_path: Path) -> None:
    source = f"""{PRELUDE}
    results = imap(at_the_prompt, range(9), workers=2)
    assert next(results) == 0
    sys.exit(3)
    """
    with live(source, tmp_path, PARALLELKIT_START=start) as script:
        status, _, err = script.end()

    assert (status, err) == (3, "")


def zygote_of(script: Live) -> psutil.Process:
    """Return the one child of the caller that forks workers."""
    found = []
    for child in psutil.Process(script.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # or a zombie, which has no command either
            if "parallelkit.zygote" in " ".join(child.cmdline()):
                found.append(child)
    (zygote,) = found
    return zygote


@pytest.mark.parametrize("on_error", ["raise", "return"])
def test_the_end_of_the_zygote_costs_no_item(tmp_path: Path, on_error: str) -> None:
    source = f"""{PRELUDE}
    def work(x):
        if x == 50:
            say("now")
        while x > 50 and not os.path.exists("gone"):
            pass
        return -x

    found = pmap(work, range(300), workers=2, chunksize=1, on_error="{on_error}")
    assert found == [-x for x in range(300)], found
    say("right")
    """
    with faults.limited(), live(source, tmp_path, PARALLELKIT_START="zygote") as script:
        script.hear("now")
        zygote = zygote_of(script)
        zygote.kill()
        (tmp_path / "gone").write_text("")
        status, out, err = script.end()

    # What was running runs again, so there may be another "now".
    assert (status, out.splitlines()[-1], err) == (0, "right", "")


def test_the_end_of_the_zygote_between_two_calls(tmp_path: Path) -> None:
    source = f"""{PRELUDE}
    for turn in range(3):
        assert pmap(abs, range(300), workers=2) == list(range(300))
        say("now")
        sys.stdin.readline()
        while not os.path.exists(f"gone{{turn}}"):
            pass
    say("right")
    """
    with faults.limited(), live(source, tmp_path, PARALLELKIT_START="zygote") as script:
        for turn in range(3):
            script.hear("now")
            # There is none if the call was so short that workers whose zygote was dying did it.
            with contextlib.suppress(ValueError) if turn else contextlib.nullcontext():
                zygote_of(script).kill()
            (tmp_path / f"gone{turn}").write_text("")
        status, out, err = script.end()

    assert (status, out, err) == (0, "right\n", "")


@pytest.mark.parametrize("doing", ["pmap(hang, range(4), workers=2)", "pmap(hang, range(4))"])
def test_a_daemon_that_still_maps_at_the_end_says_nothing(
    start: str, tmp_path: Path, doing: str
) -> None:
    source = f"""{PRELUDE}
    import threading

    def hang(x):
        open(f"here{{x}}", "w").close()
        time.sleep(3600 if x else 0.2)

    for _ in range(2):
        threading.Thread(target=lambda: {doing}, daemon=True).start()
    while not os.path.exists("here1"):
        time.sleep(0.01)
    """
    with live(source, tmp_path, PARALLELKIT_START=start) as script:
        status, _, err = script.end()

    assert (status, err) == (0, "")
