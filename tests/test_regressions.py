"""What a review found broken, each pinned as a user would meet it."""

from __future__ import annotations

import contextlib
import locale
import os
import pickle
import resource
import sys
import textwrap
import threading
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripts import script

from parallelkit import imap, pmap, preduce
from parallelkit.backends import warm
from parallelkit.backends.start import Popen
from parallelkit.codec import Definitions, Replica
from parallelkit.errors import ParallelError

PLACES: list[dict[str, Any]] = [{}, {"workers": 2}, {"backend": "serial"}]
each_place = pytest.mark.parametrize("place", PLACES, ids=str)


@dataclass(frozen=True)
class Frozen(Exception):
    """Refuses attributes, as `add_note`, pickle and we would set them."""

    code: int


def refuse(x: int) -> int:
    if x == 3:
        raise Frozen(x) from KeyError("why")
    return x


@each_place
def test_an_exception_that_is_a_frozen_dataclass(place: dict[str, Any]) -> None:
    with pytest.raises(Frozen) as caught:
        pmap(refuse, range(6), **place)

    error: Any = caught.value
    assert (error.code, error.index, error.item) == (3, 3, 3)
    assert type(error.__cause__) is KeyError
    assert error.__notes__[-1] == "parallelkit: raised by item 3 (3)"


def within(y: int) -> list[int]:
    return pmap(refuse, range(2, 4), workers=1)


@each_place
def test_an_exception_from_a_map_within_a_map(place: dict[str, Any]) -> None:
    with pytest.raises(Frozen) as caught:
        pmap(within, [7], **place)  # one, for of several the first to fail ends a call

    error: Any = caught.value
    notes = [each for each in error.__notes__ if each.startswith("parallelkit")]
    assert notes == [f"parallelkit: raised by item {at}" for at in ("1 (3)", "0 (7)")]
    assert (error.index, error.item) == (0, 7)
    assert error.failures[0] is error
    assert error.results == {}


def test_errors_that_were_returned_can_be_sent_and_kept() -> None:
    results: list[Any] = pmap(int, ["1", "x", "3"], workers=2, on_error="return")
    again = pickle.loads(pickle.dumps(results))

    assert pmap(type, results, workers=2) == [int, ValueError, int]
    assert (again[1].index, again[1].item) == (1, "x")
    with pytest.raises(ParallelError, match="only in the process that mapped it"):
        again[1].replay()


def third(_: int) -> str:
    return str(Decimal(1) / 3)


@each_place
def test_decimals_are_as_precise_as_the_callers(place: dict[str, Any]) -> None:
    with localcontext(Context(prec=40)):
        assert pmap(third, range(8), **place) == ["0." + "3" * 40] * 8
    assert pmap(third, range(8), **place) == ["0." + "3" * 28] * 8


def infinite(_: int) -> float:
    return float(np.float64(1) / np.float64(0))


@each_place
def test_floating_point_errors_are_what_the_caller_makes_of_them(place: dict[str, Any]) -> None:
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        pmap(infinite, range(2), **place)
    with np.errstate(divide="ignore"):
        assert pmap(infinite, range(2), **place) == [float("inf")] * 2


def depth(left: int) -> int:
    return 1 + depth(left - 1) if left else 0


def digits(count: int) -> int:
    return len(str(10**count))


@each_place
def test_limits_of_the_interpreter_are_the_callers(place: dict[str, Any]) -> None:
    before = sys.getrecursionlimit(), sys.get_int_max_str_digits()
    sys.setrecursionlimit(5000)
    sys.set_int_max_str_digits(6000)
    try:
        assert pmap(depth, [3000] * 2, **place) == [3000] * 2
        assert pmap(digits, [5000] * 2, **place) == [5001] * 2
    finally:
        sys.setrecursionlimit(before[0])
        sys.set_int_max_str_digits(before[1])
    with pytest.raises(RecursionError):
        pmap(depth, [3000], **place)
    with pytest.raises(ValueError, match="Exceeds the limit"):
        pmap(digits, [5000], **place)


def here(_: int) -> str:
    return locale.setlocale(locale.LC_ALL)


def test_the_locale_is_the_callers() -> None:
    before = locale.setlocale(locale.LC_ALL)
    try:
        for place in ("C.UTF-8", "C"):
            locale.setlocale(locale.LC_ALL, place)
            assert set(pmap(here, range(2), workers=2)) == {place}
    finally:
        locale.setlocale(locale.LC_ALL, before)


def test_the_locale_is_the_callers_in_a_call_within_a_call() -> None:
    def inner(_: int) -> str:
        import _locale

        return _locale.setlocale(_locale.LC_ALL)

    def outer(number: int) -> list[str]:
        return pmap(inner, [number], workers=1)

    before = locale.setlocale(locale.LC_ALL)
    try:
        for place in ("C.UTF-8", "C"):
            locale.setlocale(locale.LC_ALL, place)
            assert pmap(outer, range(2), workers=2) == [[place]] * 2
    finally:
        locale.setlocale(locale.LC_ALL, before)


def move(_: int) -> None:
    os.chdir("/")
    os.environ["MOVED"] = "yes"
    os.environ.pop("PATH", None)
    sys.path.clear()


def look(_: int) -> tuple[str, str | None, str | None, bool]:
    return os.getcwd(), os.environ.get("MOVED"), os.environ.get("PATH"), bool(sys.path)


def test_what_a_function_does_to_its_surroundings_ends_with_its_run(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        pmap(move, range(2), workers=2)
        assert set(pmap(look, range(4), workers=2)) == {
            (str(tmp_path), None, os.environ["PATH"], True)
        }


class Text(str):
    """A string whose class only this file knows."""

    __slots__ = ()


def test_arguments_and_paths_that_are_no_plain_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Text, "__module__", "__main__")
    monkeypatch.setattr(sys, "argv", [Text("script"), lambda: None, None])
    monkeypatch.setattr(sys, "path", [*sys.path, Text("/none"), Path("/none")])

    assert pmap(abs, range(3), workers=2) == [0, 1, 2]


def address_space(_: int) -> tuple[int, int]:
    return resource.getrlimit(resource.RLIMIT_AS)


def test_a_limit_on_memory_that_the_user_has_set_stays() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = 1 << 44 if before[0] == resource.RLIM_INFINITY else before[0]
    warm.shut()  # workers have the limits of the one they were forked from
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        for given in (None, 1 << 50, None):
            assert pmap(address_space, [0], workers=1, max_memory=given) == [(most, before[1])]
    finally:
        warm.shut()
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("place", [{}, {"backend": "serial"}], ids=str)
def test_a_list_that_the_function_empties(place: dict[str, Any]) -> None:
    items = list(range(100))
    with pytest.raises(RuntimeError, match="made shorter while it was being mapped"):
        pmap(lambda _: items.pop(), items, **place)


def test_a_list_that_the_reader_empties() -> None:
    items = list(range(1000))
    results = imap(abs, items, workers=2, chunksize=1)
    next(results)
    items.clear()

    with pytest.raises(RuntimeError, match="made shorter while it was being mapped"):
        list(results)


def locked(left: Any, right: Any) -> Any:
    return threading.Lock() if (left, right) == (4, 5) else left + right


def test_a_fold_that_cannot_be_sent_is_the_failure_of_all_its_items() -> None:
    with pytest.raises(pickle.PicklingError, match=r"cannot pickle '_thread\.lock' object"):
        preduce(locked, range(6), workers=1, chunksize=6)


def test_a_context_variable_in_a_function() -> None:
    colour: ContextVar[str] = ContextVar("colour")
    with pytest.raises(pickle.PicklingError, match=r"'s variable colour: .*\npass its value"):
        pmap(lambda x: (x, colour.get()), range(3), workers=2)


MAPS_AT_IMPORT = {
    "alone.py": """
        from parallelkit import pmap

        class Point:
            def __init__(self, x):
                self.x = x

        POINTS = pmap(Point, range(3), workers=2)
        SAME = all(type(point) is Point for point in POINTS)
    """,
    "package/__init__.py": """
        from . import part
        from parallelkit import pmap

        NUMBERS = pmap(part.half, range(0, 6, 2), workers=2)
    """,
    "package/part.py": """
        import package
        from . import other

        def half(x):
            return other.divided(x, 2)
    """,
    "package/other.py": """
        def divided(x, by):
            return x // by
    """,
}


def test_a_map_at_the_top_level_of_a_module(tmp_path: Path) -> None:
    for name, source in MAPS_AT_IMPORT.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(source))
    source = """
        import alone, package

        print(alone.SAME, package.NUMBERS)
    """
    assert script(source, where=tmp_path) == "True [0, 1, 2]\n"


def test_waiting_for_a_process_that_another_thread_lets_go_of() -> None:
    popen = Popen()
    popen.sentinel, other = os.pipe()
    os.close(popen.sentinel)
    os.close(other)

    assert popen.wait(0) is None


class Exits:
    """Ends the program when it is pickled, as its author did not mean it to."""

    def __reduce__(self) -> Any:
        raise SystemExit(3)


def test_what_exits_when_it_is_pickled_fails_alone() -> None:
    definitions = Definitions(len)
    (column,) = Replica().loads(definitions.dumps_salvaging(([1, Exits(), 3],)))
    items = iter(column)
    assert next(items) == 1
    with pytest.raises(pickle.PicklingError, match="SystemExit: 3"):
        next(items)
    assert next(items) == 3

    body, failures = Replica().dumps_values([1, Exits(), 3])
    assert definitions.loads(body) == [1, None, 3]
    assert list(failures) == [1]
