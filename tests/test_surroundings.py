"""What a function finds in a worker, and what may be sent there, each as a real process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from scripts import STARTS, script


@pytest.fixture(params=STARTS)
def start(request: pytest.FixtureRequest) -> str:
    """Each way of starting workers."""
    return str(request.param)


def test_changed_surroundings(tmp_path: Path, start: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "late.py").write_text("VALUE = 42\n")
    source = """
        import os, sys
        from parallelkit import pmap

        def look(_):
            return os.getcwd(), os.environ.get("COLOUR"), os.environ.get("HOME_TOWN")

        os.environ["HOME_TOWN"] = "Oslo"
        before = pmap(look, range(4), workers=2)
        os.chdir("elsewhere")
        os.environ["COLOUR"] = "red"
        del os.environ["HOME_TOWN"]
        after = pmap(look, range(4), workers=2)
        assert set(before) == {(os.path.dirname(os.getcwd()), None, "Oslo")}, before
        assert set(after) == {(os.getcwd(), "red", None)}, after

        sys.path.insert(0, os.getcwd())
        import late

        print(pmap(lambda x: late.VALUE + x, range(3), workers=2))
    """
    assert script(source, where=tmp_path, PARALLELKIT_START=start) == "[42, 43, 44]\n"


def test_classes_of_main_keep_their_identity(tmp_path: Path, start: str) -> None:
    source = """
        import enum
        from dataclasses import dataclass
        from parallelkit import pmap

        class Colour(enum.Enum):
            RED = 1
            BLUE = 2

        @dataclass
        class Point:
            x: int
            colour: Colour

            def moved(self):
                return Point(self.x + 1, Colour.BLUE)

        class Trouble(Exception):
            def __init__(self, code, text):
                super().__init__(text)
                self.code = code

        points = pmap(Point.moved, [Point(x, Colour.RED) for x in range(50)], workers=2)
        assert all(type(point) is Point for point in points)
        assert all(point.colour is Colour.BLUE for point in points)
        assert points == [Point(x + 1, Colour.BLUE) for x in range(50)]

        def fail(x):
            raise Trouble(7, "no")

        for error in pmap(fail, range(3), on_error="return", workers=2):
            assert isinstance(error, Exception), error
        print("same")
    """
    assert script(source, where=tmp_path, PARALLELKIT_START=start) == "same\n"


def test_cached_functions_and_lazy_globals(tmp_path: Path, start: str) -> None:
    source = """
        import functools, os
        from parallelkit import pmap

        @functools.lru_cache(maxsize=None)
        def fibonacci(n):
            return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

        assert pmap(fibonacci, range(60), workers=2)[59] == 956722026041

        model = None
        loads = []

        def load():
            global model
            if model is None:
                loads.append(os.getpid())
                model = "loaded"
            return model

        def use(x):
            load()
            return os.getpid(), len(loads)

        seen = pmap(use, range(200), workers=2, chunksize=5)
        assert {count for _, count in seen} == {1}, seen
        print("once")
    """
    assert script(source, where=tmp_path, PARALLELKIT_START=start) == "once\n"


def test_inputs_of_every_kind(tmp_path: Path, start: str) -> None:
    source = """
        from itertools import count, islice
        from parallelkit import imap, pmap, preduce

        assert pmap(abs, []) == pmap(abs, [], workers=2) == []
        assert pmap(abs, [-1]) == pmap(abs, [-1], workers=2) == [1]
        assert pmap(abs, (x for x in [-1, -2]), workers=2) == [1, 2]
        assert pmap(pow, [1, 2, 3], (x for x in [2, 2]), workers=2) == [1, 4]
        assert pmap(str, {"a": 1, "b": 2}, workers=2) == ["a", "b"]
        squares = imap(lambda x: x * x, count(), workers=2)
        assert list(islice(squares, 50)) == [x * x for x in range(50)]
        assert sorted(imap(abs, range(-50, 0), ordered=False, workers=2)) == list(range(1, 51))
        assert pmap(lambda pair: pair[1], [(1, 2)], workers=2) == [2]
        print(preduce(lambda a, b: a + b, (str(x) for x in range(12)), workers=2))
    """
    assert script(source, where=tmp_path, PARALLELKIT_START=start) == "01234567891011\n"


def test_redirected_closed_and_replaced_output(tmp_path: Path, start: str) -> None:
    source = """
        import io, os, sys
        from parallelkit import pmap

        def shout(x):
            print("item", x)
            return x

        pmap(shout, range(2), workers=1)
        out = os.open("out.txt", os.O_CREAT | os.O_WRONLY)
        kept = os.dup(1)
        os.dup2(out, 1)
        pmap(shout, range(2, 4), workers=1)
        os.dup2(kept, 1)
        sys.stdout = io.StringIO()
        assert pmap(shout, range(4, 6), workers=1) == [4, 5]
        sys.stdout = None
        assert pmap(shout, range(6, 8), workers=1) == [6, 7]
    """
    output = script(source, where=tmp_path, PARALLELKIT_START=start)
    assert output == "item 0\nitem 1\nitem 4\nitem 5\nitem 6\nitem 7\n"
    assert (tmp_path / "out.txt").read_text() == "item 2\nitem 3\n"


@pytest.mark.parametrize("closed", ["0<&-", ">&-", "2>&-", "0<&- >&- 2>&-"])
def test_started_with_closed_descriptors(tmp_path: Path, start: str, closed: str) -> None:
    source = """
        from parallelkit import pmap

        def shout(x):
            print("item", x)
            return x

        with open("result.txt", "w") as file:
            file.write(repr(pmap(shout, range(3), workers=2)))
    """
    line = f"{sys.executable} script.py {closed}"
    script(source, where=tmp_path, command=["sh", "-c", line], PARALLELKIT_START=start)
    assert (tmp_path / "result.txt").read_text() == "[0, 1, 2]"


def test_managers_know_a_worker_as_one_of_the_family(tmp_path: Path, start: str) -> None:
    source = """
        from multiprocessing import Manager
        from parallelkit import pmap

        def put(item):
            shared, position = item
            shared[position] = position

        if __name__ == "__main__":
            with Manager() as manager:
                shared = manager.dict()
                pmap(put, [(shared, position) for position in range(5)], workers=2)
                print(sorted(shared.items()) == [(i, i) for i in range(5)])
    """
    assert script(source, where=tmp_path, PARALLELKIT_START=start) == "True\n"
