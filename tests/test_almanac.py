"""What functions cost is left for the next process, in a file that may be lost or broken."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from parallelkit import almanac
from parallelkit.almanac import Almanac


def double(x: int) -> int:
    return 2 * x


KEY = (double.__code__, int, None)
COSTS = (1e-3, 2e-6, 8.0)
posix = pytest.mark.skipif(os.name != "posix", reason="files have no modes")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "costs")


def left(path: str, key: Any = KEY, costs: Any = COSTS) -> None:
    """Have a process leave what it has learned."""
    book = Almanac(path)
    book.remember(key, costs)
    book.save()


def test_what_one_left_another_finds(path: str) -> None:
    left(path)
    assert Almanac(path).recall(KEY) == COSTS
    assert Almanac(path).recall((double.__code__, str, None)) is None


def test_what_was_not_measured_is_not_known(path: str) -> None:
    left(path, costs=(1e-3, None, 0.0))
    assert Almanac(path).recall(KEY) == (1e-3, None, 0.0)


def test_nothing_learned_writes_nothing(path: str) -> None:
    Almanac(path).save()
    assert not os.path.exists(path)


def test_each_adds_to_what_the_others_left(path: str) -> None:
    books = [Almanac(path) for _ in range(3)]
    keys = [(compile(str(number), "test", "eval"), int, None) for number in range(3)]
    for book, key in zip(books, keys, strict=True):
        book.remember(key, COSTS)
    for book in books:
        book.save()
    assert [Almanac(path).recall(key) for key in keys] == [COSTS] * 3
    assert os.listdir(os.path.dirname(path)) == ["costs"]


def test_the_oldest_make_room(path: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(almanac, "MOST", 2)
    keys = [(compile(str(number), "test", "eval"), int, None) for number in range(3)]
    for key in keys:
        left(path, key)
    assert [Almanac(path).recall(key) for key in keys] == [None, COSTS, COSTS]


@posix
def test_it_is_for_its_owner_alone(path: str) -> None:
    left(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


@posix
@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_one_that_another_could_have_written_is_not_read(path: str, mode: int) -> None:
    left(path)
    os.chmod(path, mode)
    assert Almanac(path).recall(KEY) is None


BROKEN = [
    *(b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000),
    json.dumps({"functions": [1]}).encode(),
]


@pytest.mark.parametrize("content", BROKEN)
def test_one_that_is_broken_is_empty(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)
    os.chmod(path, 0o600)
    assert Almanac(path).found == {}
    left(path)
    assert Almanac(path).recall(KEY) == COSTS


@pytest.mark.parametrize(
    "entry",
    [
        3,
        [],
        [1, 2],
        [None, 1, 1],
        ["1", 1, 1],
        [-1, 1, 1],
        [1, 1, 1e999],
        [10**400, 1, 1],
        [1, 1, 10**400],
    ],
)
def test_an_entry_that_is_no_price_is_left_out(path: str, entry: Any) -> None:
    name = almanac.digest(KEY)
    Path(path).write_text(json.dumps({"functions": {name: entry, "other": [1, None, 0]}}))
    os.chmod(path, 0o600)
    assert Almanac(path).found == {"other": [1, None, 0]}


def test_where_nothing_can_be_written_nobody_is_told(tmp_path: Path) -> None:
    left(str(tmp_path / "no" / "such" / "folder"))
    assert os.listdir(tmp_path) == []


def test_a_forked_copy_leaves_nothing(path: str) -> None:
    book = Almanac(path)
    book.remember(KEY, COSTS)
    book.pid += 1
    book.save()
    assert not os.path.exists(path)


CALLS = """
from parallelkit import learned, pmap
def f(x):
    return x + 1
known = learned.recall((f.__code__, int, None))
pmap(f, range(10))
print(known is not None)
"""


def test_a_process_knows_what_the_one_before_it_learned(path: str) -> None:
    def run(**named: str) -> str:
        command = [sys.executable, "-c", CALLS]
        env = {**os.environ, **named}
        return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout

    assert [run(PARALLELKIT_CACHE=path) for _ in range(2)] == ["False\n", "True\n"]
    assert run() == "False\n"


def test_one_that_was_left_half_written_is_in_nobodys_way(path: str) -> None:
    Path(f"{path}.{os.getpid()}").write_text("{")
    left(path)
    assert Almanac(path).recall(KEY) == COSTS


def test_what_cannot_be_written_whole_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "costs"
    path.mkdir()  # which no file can replace
    left(str(path))
    assert [*tmp_path.iterdir()] == [path]


@posix
def test_a_pipe_is_not_waited_for(path: str) -> None:
    os.mkfifo(path, 0o600)
    assert Almanac(path).found == {}


LOST = """
import os, tempfile
directory = tempfile.mkdtemp()
os.chdir(directory)
os.rmdir(directory)
os.environ["PARALLELKIT_CACHE"] = "costs"
from parallelkit import pmap
print(pmap(abs, [-1]))
"""


@posix
def test_a_path_that_leads_nowhere_is_none() -> None:
    run = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("[1]\n", "")
