"""A zygote that is launched ahead is the one that is used, and is gone if it is not."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import Any

import psutil
import pytest
import scripts

from parallelkit import ahead

posix = pytest.mark.skipif(os.name != "posix", reason="a zygote forks")


def script(text: str, **environment: str) -> str:
    """Return what a fresh interpreter prints, which loads this parallelkit."""
    run = subprocess.run(
        [sys.executable, "-c", text],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert run.stderr == ""
    return run.stdout


USED = """
import os
from parallelkit import ahead
ahead.prepare()
ahead.prepare()  # once is enough
(launch,) = ahead._launched
from parallelkit import pmap
assert len(set(pmap(lambda _: os.getppid(), range(4), workers=2))) == 1
assert pmap(lambda _: os.getppid(), [0], workers=2) == [launch.pid]
assert not ahead._launched
"""


@posix
def test_the_one_that_was_launched_ahead_is_used() -> None:
    assert script(USED) == ""


UNUSED = """
import os, psutil
from parallelkit import ahead
ahead.prepare()
print(ahead._launched[0].pid)
"""


@posix
def test_one_that_nobody_wants_ends_with_its_caller() -> None:
    pid = int(script(UNUSED))
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(30)
    assert not psutil.pid_exists(pid)


def test_none_is_launched_where_workers_are_started_otherwise() -> None:
    text = "from parallelkit import ahead; ahead.prepare(); print(ahead._launched)"
    assert script(text, PARALLELKIT_START="spawn") == "[]\n"


FAILS = """
from parallelkit import pmap
try:
    pmap(lambda x: 1 // x, [1, 0])
except ZeroDivisionError as error:
    print(error.index)
import psutil
print(psutil.Process().children())
"""


def test_an_error_of_a_small_call_launches_nothing() -> None:
    assert script(FAILS) == "1\n[]\n"


@posix
def test_where_none_can_be_launched_the_one_who_wants_it_is_told(monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "executable", "")
    monkeypatch.delitem(sys.modules, "parallelkit.backends.warm", raising=False)
    ahead.prepare()
    assert not ahead._launched
    with pytest.raises(OSError, match=r"^sys\.executable is empty"):
        ahead.taken()


DISCARDED = """
import psutil
from parallelkit import ahead
ahead.prepare()
from parallelkit.backends import warm
warm.shut()
print(ahead._launched, psutil.Process().children())
"""


@posix
def test_one_that_nobody_wants_ends_with_the_workers() -> None:
    assert script(DISCARDED) == "[] []\n"


ELSEWHERE = """
import parallelkit
from parallelkit import ahead, pmap
with parallelkit.backend("threads"):
    print(pmap(abs, [-1], workers=2), *parallelkit.imap(abs, [-1], workers=2))
print(ahead._launched)
"""


def test_none_is_launched_where_another_backend_was_chosen() -> None:
    assert script(ELSEWHERE) == "[1] 1\n[]\n"


REDIRECTED = """
import os, psutil
from parallelkit import ahead, pmap
ahead.prepare()
(launch,) = ahead._launched
with open(os.environ["WHERE"], "w") as file:
    os.dup2(file.fileno(), 1)
pmap(print, ["from a worker"], workers=2)
assert not ahead._launched
assert launch.pid not in {child.pid for child in psutil.Process().children()}
"""


@posix
def test_one_that_prints_elsewhere_is_not_used(tmp_path: Any) -> None:
    where = tmp_path / "output"
    assert script(REDIRECTED, WHERE=str(where)) == ""
    assert where.read_text() == "from a worker\n"


def test_flags_are_handed_on() -> None:
    text = "from parallelkit import pmap; print(pmap(lambda _: FLAGS(), [0], workers=1))"
    text = "import sys\ndef FLAGS(): return sys.flags.optimize, sys._xoptions\n" + text
    run = subprocess.run(
        [sys.executable, "-O", "-X", "faulthandler", "-c", text],
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout == "[(1, {'faulthandler': True})]\n"


@pytest.mark.parametrize("start", ["zygote", "spawn"])
def test_workers_collect_garbage(start: str) -> None:
    text = "import gc\nfrom parallelkit import pmap\n"
    text += "print(pmap(lambda _: gc.isenabled(), [0], workers=1))"
    given = {"PARALLELKIT_START": "spawn"} if start == "spawn" else {}
    assert script(text, **given) == "[True]\n"


def test_what_cannot_be_a_number_of_workers_launches_nothing() -> None:
    text = """
from parallelkit import ahead, pmap
for workers in 0, -1, "2", True, 2.0:
    try:
        pmap(abs, [1], workers=workers)
    except (TypeError, ValueError):
        assert not ahead._launched, workers
try:
    pmap(abs, 5, workers=2)
except TypeError:
    assert not ahead._launched
"""
    assert script(text) == ""


def test_a_default_timeout_of_sockets_is_not_waited_for(tmp_path: Any) -> None:
    source = """
        import socket
        socket.setdefaulttimeout(1000)
        from parallelkit import pmap
        print(pmap(abs, [-1, -2], workers=2))
    """
    assert scripts.script(source, where=tmp_path) == "[1, 2]\n"
