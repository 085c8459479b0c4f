"""pmap in the places where people call it, each as a real process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import MARK, STARTS, assert_gone, environment, script


@pytest.fixture(params=STARTS)
def start(request: pytest.FixtureRequest) -> str:
    """Each way of starting workers."""
    return str(request.param)


def test_script_without_a_guard(tmp_path: Path, start: str) -> None:
    source = """
        import os
        from parallelkit import pmap

        print("top level")

        def square(x):
            return x * x, os.getpid()

        results = pmap(square, range(100), workers=2)
        assert [value for value, _ in results] == [x * x for x in range(100)]
        assert os.getpid() not in {pid for _, pid in results}
        print("done")
    """
    assert script(source, where=tmp_path, PARALLELKIT_START=start) == "top level\ndone\n"


def test_command_line_program(tmp_path: Path, start: str) -> None:
    text = "from parallelkit import pmap; print(pmap(lambda x: x + 1, range(3), workers=2))"
    command = [sys.executable, "-c", text]
    assert script("", where=tmp_path, command=command, PARALLELKIT_START=start) == "[1, 2, 3]\n"


def test_standard_input(tmp_path: Path, start: str) -> None:
    program = (
        "from parallelkit import pmap\n"
        "def f(x):\n    return x + 1\n"
        "print(pmap(f, range(3), workers=2))\n"
    )
    env = environment(PARALLELKIT_START=start)
    ended = subprocess.run(
        [sys.executable, "-"],
        input=program,
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert_gone(env[MARK])
    assert (ended.stdout, ended.stderr) == ("[1, 2, 3]\n", "")


def test_module_with_relative_imports(tmp_path: Path, start: str) -> None:
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("def double(x):\n    return 2 * x\n")
    (package / "mod.py").write_text(
        "from parallelkit import pmap\n"
        "from .helper import double\n"
        "def f(x):\n"
        "    from . import helper\n"
        "    return double(x) + helper.double(x)\n"
        "print(pmap(f, range(3), workers=2), pmap(double, range(3), workers=2))\n"
    )
    command = [sys.executable, "-m", "pkg.mod"]
    output = script("", where=tmp_path, command=command, PARALLELKIT_START=start)
    assert output == "[0, 4, 8] [0, 2, 4]\n"


def test_module_beside_the_script(tmp_path: Path, start: str) -> None:
    (tmp_path / "beside.py").write_text(
        "class Box:\n    def __init__(self, x):\n        self.x = x\n"
    )
    source = """
        from beside import Box
        from parallelkit import pmap

        boxes = pmap(lambda box: Box(box.x + 1), [Box(1), Box(2)], workers=2)
        assert all(type(box) is Box for box in boxes)
        print([box.x for box in boxes])
    """
    assert script(source, where=tmp_path, PARALLELKIT_START=start) == "[2, 3]\n"


def test_threads(tmp_path: Path, start: str) -> None:
    source = """
        import threading
        from parallelkit import pmap

        results = {}

        def work(name):
            for turn in range(5):
                results[name, turn] = pmap(lambda x: (name, x), range(50), workers=2)

        threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for (name, turn), result in results.items():
            assert result == [(name, x) for x in range(50)]
        print(len(results))
    """
    assert script(source, where=tmp_path, PARALLELKIT_START=start) == "15\n"


def test_inside_asyncio(tmp_path: Path, start: str) -> None:
    source = """
        import asyncio
        from parallelkit import pmap

        async def main():
            here = pmap(lambda x: -x, range(5), workers=2)
            there = await asyncio.to_thread(pmap, lambda x: x * 2, range(5), workers=2)
            return here, there

        print(asyncio.run(main()))
    """
    expected = "([0, -1, -2, -3, -4], [0, 2, 4, 6, 8])\n"
    assert script(source, where=tmp_path, PARALLELKIT_START=start) == expected


def test_inside_itself(tmp_path: Path, start: str) -> None:
    source = """
        import os
        from parallelkit import pmap

        def inner(x):
            return x + 1, os.getpid()

        def outer(x):
            plain = pmap(inner, range(x))
            asked = pmap(inner, range(x), workers=1)
            assert {pid for _, pid in plain} <= {os.getpid()}
            assert os.getpid() not in {pid for _, pid in asked}
            return sum(value for value, _ in plain + asked)

        print(pmap(outer, range(1, 6), workers=2))
    """
    assert script(source, where=tmp_path, PARALLELKIT_START=start) == "[2, 6, 12, 20, 30]\n"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_inside_a_daemon_of_multiprocessing(tmp_path: Path, start: str, method: str) -> None:
    (tmp_path / "child.py").write_text(
        "from parallelkit import pmap\n"
        "def run(pipe):\n"
        "    pipe.send(pmap(lambda x: x * 3, range(4), workers=2))\n"
    )
    source = f"""
        import multiprocessing
        import child
        from parallelkit import pmap

        if __name__ == "__main__":
            assert pmap(lambda x: x, range(4), workers=2) == [0, 1, 2, 3]
            context = multiprocessing.get_context("{method}")
            ours, theirs = context.Pipe()
            process = context.Process(target=child.run, args=(theirs,), daemon=True)
            process.start()
            print(ours.recv())
            process.join()
            assert process.exitcode == 0, process.exitcode
            assert pmap(lambda x: x, range(4), workers=2) == [0, 1, 2, 3]
    """
    assert script(source, where=tmp_path, PARALLELKIT_START=start) == "[0, 3, 6, 9]\n"


def test_named_workers_run_every_item(tmp_path: Path, start: str) -> None:
    source = """
        import os, time
        from parallelkit import pmap

        def who(x):
            deadline = time.monotonic() + 30
            open(f"{os.getpid()}.seen", "w").close()
            while len([name for name in os.listdir() if name.endswith(".seen")]) < 2:
                assert time.monotonic() < deadline
            return os.getpid()

        pids = pmap(who, range(20), workers=2)
        assert os.getpid() not in pids
        print(len(set(pids)))
    """
    assert script(source, where=tmp_path, PARALLELKIT_START=start) == "2\n"


def test_a_long_first_item_delays_nobody(tmp_path: Path, start: str) -> None:
    source = """
        import os, time
        from parallelkit import pmap

        def work(x):
            if x:
                open(f"{x}.seen", "w").close()
                return os.getpid()
            deadline = time.monotonic() + 30
            while not all(os.path.exists(f"{x}.seen") for x in range(1, 64)):
                assert time.monotonic() < deadline, "the others waited for item 0"
                time.sleep(0.01)
            return os.getpid()

        pids = pmap(work, range(64))
        print(pids[0] == os.getpid(), os.getpid() in pids[1:])
    """
    extra = {"PARALLELKIT_START": start, "PARALLELKIT_WORKERS": "2"}
    assert script(source, where=tmp_path, **extra) == "True False\n"


def test_small_work_starts_no_process(tmp_path: Path) -> None:
    source = """
        import psutil
        from parallelkit import pmap

        for count in (0, 1, 10, 1000):
            assert pmap(lambda x: x + 1, range(count)) == list(range(1, count + 1))
        print(psutil.Process().children(recursive=True))
    """
    assert script(source, where=tmp_path, PARALLELKIT_WORKERS="2") == "[]\n"


def test_under_pytest(tmp_path: Path, start: str) -> None:
    (tmp_path / "nested").mkdir()
    (tmp_path / "nested" / "test_inner.py").write_text(
        "from dataclasses import dataclass\n"
        "from parallelkit import pmap\n"
        "@dataclass\n"
        "class Box:\n    x: int\n"
        "def grow(box):\n    return Box(box.x + 1)\n"
        "def test_it():\n"
        "    assert pmap(grow, [Box(1), Box(2)], workers=2) == [Box(2), Box(3)]\n"
    )
    for mode in ("prepend", "importlib"):
        options = ["-q", "-p", "no:cacheprovider", f"--import-mode={mode}", "nested"]
        command = [sys.executable, "-m", "pytest", *options]
        assert "1 passed" in script("", where=tmp_path, command=command, PARALLELKIT_START=start)


def test_in_a_notebook(tmp_path: Path, start: str) -> None:
    pytest.importorskip("ipykernel")
    cells = {
        "from parallelkit import pmap": [],
        "def f(x):\n    return x + 1": [],
        "pmap(f, range(4), workers=2)": ["[1, 2, 3, 4]"],
        "def f(x):\n    return x * 10": [],  # edited and run again
        "pmap(f, range(4), workers=2) ": ["[0, 10, 20, 30]"],
        "class Point:\n    def __init__(self, x):\n        self.x = x": [],
        "all(type(p) is Point for p in pmap(Point, range(4), workers=2))": ["True"],
        "offset = 5\npmap(lambda x: x + offset, range(2), workers=2)": ["[5, 6]"],
        "offset = 7\npmap(lambda x: x + offset, range(2), workers=2)": ["[7, 8]"],
    }
    assert in_a_kernel(list(cells), tmp_path, start) == list(cells.values())


def in_a_kernel(cells: list[str], where: Path, start: str, *more: str) -> list[list[str]]:
    """Return what each cell shows, run one after the other in a kernel."""
    env = environment(PARALLELKIT_START=start)
    program = Path(__file__).with_name("notebook.py")
    ended = subprocess.run(
        [sys.executable, str(program), json.dumps(cells), *more],
        env=env,
        cwd=where,
        stdout=subprocess.PIPE,  # not stderr, where the kernel gives advice
        text=True,
        timeout=120,
        check=True,
    )
    assert_gone(env[MARK])
    shown: list[list[str]] = json.loads(ended.stdout)
    return shown


def test_interrupted_in_a_notebook(tmp_path: Path, start: str) -> None:
    pytest.importorskip("ipykernel")
    cells = [
        "from parallelkit import pmap",
        "import time\ndef stuck(x):\n    open('begun', 'w').close()\n    time.sleep(3600)",
        "pmap(stuck, range(4), workers=2)",
        "pmap(abs, range(4), workers=2)",
    ]
    *before, interrupted, after = in_a_kernel(cells, tmp_path, start, str(tmp_path / "begun"))
    assert before == [[], []]
    assert "KeyboardInterrupt" in interrupted[0]
    assert after == ["[0, 1, 2, 3]"]


def test_at_the_prompt(tmp_path: Path, start: str) -> None:
    lines = (
        "from parallelkit import pmap\n"
        "def f(x):\n    return x + 1\n\n"
        "pmap(f, range(3), workers=2)\n"
        "def f(x):\n    return x * 10\n\n"
        "pmap(f, range(3), workers=2)\n"
    )
    env = environment(PARALLELKIT_START=start)
    ended = subprocess.run(
        [sys.executable, "-i", "-q"],
        input=lines,
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert_gone(env[MARK])
    assert ended.stdout == "[1, 2, 3]\n[0, 10, 20]\n"
    assert "Traceback" not in ended.stderr
