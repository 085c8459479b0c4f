"""What functions raise, however odd, arrives: as itself if it can travel, else as its text."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import faults
import pytest

from parallelkit import imap, pmap
from parallelkit.errors import RemoteError


@pytest.fixture(params=faults.STARTS, autouse=True)
def start(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PARALLELKIT_START", request.param)
    with faults.limited():
        yield


class Holding(Exception):
    """Has an attribute that cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Demanding(Exception):
    """Takes other arguments than it hands on."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class Unreduced(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle of me")


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Closed(Exception):
    """Tells nothing of itself, as a proxy whose object is gone."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


class Unmarkable(Exception):
    """Takes neither notes nor attributes."""

    def add_note(self, note: str) -> None:
        raise KeyboardInterrupt

    def __setattr__(self, name: str, value: object) -> None:
        raise RuntimeError(f"no {name}")


class Quit(BaseException):
    pass


def deep(x: int) -> int:
    return deep(x + 1)


def chained(x: int) -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error
    except ValueError as error:
        error.add_note("a note of mine")
        raise LookupError("third")  # noqa: B904  its context is what is tested


def fail(name: str) -> Any:
    errors = {
        "holding": lambda: Holding("held"),
        "demanding": lambda: Demanding(7, reason="why"),
        "unreduced": lambda: Unreduced("plain"),
        "speechless": lambda: Speechless("quiet"),
        "closed": lambda: Closed("shut"),
        "unmarkable": lambda: Unmarkable("clean"),
        "group": lambda: ExceptionGroup("all", [ValueError(1), TypeError("two")]),
        "quit": lambda: Quit("now"),
        "interrupt": lambda: KeyboardInterrupt("odd"),
        "exit": lambda: GeneratorExit("odder"),
        "stop": lambda: StopIteration("over"),
        "system": lambda: SystemExit(9),
    }
    if name in errors:
        error = errors[name]()
        raise error
    if name == "deep":
        return deep(0)
    return chained(0)


def caught(name: str) -> Any:
    """Return what `fail` raises as it arrives, alone and among others; both must be the same."""
    (alone,) = pmap(fail, [name], workers=1, on_error="return")
    among = pmap(fail, [name] * 3, workers=2, chunksize=2, on_error="return")
    assert {(type(each), each.args) for each in among} == {(type(alone), alone.args)}
    assert [each.index for each in among] == [0, 1, 2]
    (again,) = imap(fail, [name], workers=1, on_error="return")
    assert type(again) is type(alone)
    return alone


def test_what_cannot_be_pickled_is_told() -> None:
    error = caught("holding")
    assert type(error) is RemoteError
    assert str(error).startswith("test_raised.Holding: held\n(sent as text, because ")
    assert "_thread.lock" in str(error)
    assert any("in fail" in note for note in error.__notes__)


def test_other_arguments_are_no_hindrance() -> None:
    error = caught("demanding")
    assert (type(error), str(error), error.code) == (Demanding, "7: why", 7)


def test_what_refuses_to_be_pickled_is_told() -> None:
    error = caught("unreduced")
    assert type(error) is RemoteError
    assert str(error) == (
        "test_raised.Unreduced: plain\n(sent as text, because RuntimeError: no pickle of me)"
    )


def test_what_cannot_be_shown_arrives() -> None:
    error = caught("speechless")
    assert type(error) is Speechless
    assert error.args == ("quiet",)


def test_what_tells_nothing_of_itself_costs_no_worker() -> None:
    why = "(sent as text, because RuntimeError: no __cause__)"
    for options in ({"workers": 2, "on_error": "return"}, {"workers": 2}, {}):
        try:
            error: Any = pmap(fail, ["closed"], **options)[0]
        except Exception as raised:
            error = raised
        assert type(error) is (RemoteError if options else Closed)
        assert str(error) == ("test_raised.Closed: shut\n" + why if options else "shut")


def test_what_refuses_notes_and_attributes_has_them_all_the_same() -> None:
    error = caught("unmarkable")
    assert type(error) is Unmarkable
    assert error.item == "unmarkable"
    assert error.__notes__[-1] == "parallelkit: raised by item 0 ('unmarkable')"


def test_a_group_arrives_with_its_members() -> None:
    (alone,) = pmap(fail, ["group"], workers=1, on_error="return")
    assert type(alone) is ExceptionGroup
    assert [(type(each), each.args) for each in alone.exceptions] == [
        (ValueError, (1,)),
        (TypeError, ("two",)),
    ]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("quit", Quit),
        ("interrupt", KeyboardInterrupt),
        ("exit", GeneratorExit),
        ("stop", StopIteration),
        ("system", SystemExit),
    ],
)
def test_what_is_no_exception_is_an_error_of_its_item_too(name: str, kind: Any) -> None:
    assert type(caught(name)) is kind
    with pytest.raises(kind) as raised:
        pmap(fail, [name], workers=1)
    assert raised.value.index == 0


def test_deep_recursion_arrives_with_both_ends_of_its_traceback() -> None:
    error = caught("deep")
    assert type(error) is RecursionError
    told = "\n".join(error.__notes__)
    assert "in fail" in told
    assert "frames left out" in told
    assert len(told) < 20_000
    assert sys.getrecursionlimit() >= 1000


def test_causes_contexts_and_notes_arrive() -> None:
    error = caught("chained")
    assert (type(error), error.args) == (LookupError, ("third",))
    assert type(error.__context__) is ValueError
    assert error.__context__.__notes__[0] == "a note of mine"
    assert type(error.__context__.__cause__) is KeyError
    assert "parallelkit: raised by item 0 ('chained')" in error.__notes__


# What cannot be sent.


class Tank:
    def __init__(self) -> None:
        self.parts = {"valve": [threading.Lock()]}


def same(x: Any) -> Any:
    return x


def make(x: int) -> Any:
    return Tank() if x == 2 else x


def test_an_item_that_cannot_be_sent_is_named_to_its_part() -> None:
    items = [0, 1, Tank(), 3]
    found = pmap(same, items, workers=2, chunksize=4, on_error="return")

    assert found[:2] + found[3:] == [0, 1, 3]
    text = str(found[2])
    assert text.startswith(
        "item of type Tank cannot be sent to another process: item.parts['valve'][0]: "
    )
    assert "make it inside the function" in text
    assert (found[2].index, found[2].item) == (2, items[2])


def test_a_result_that_cannot_be_sent_is_named_to_its_part() -> None:
    found = pmap(make, range(5), workers=2, chunksize=5, on_error="return")

    assert found[:2] + found[3:] == [0, 1, 3, 4]
    assert str(found[2]).startswith(
        "result of type Tank cannot be sent to another process: result.parts['valve'][0]: "
    )


def test_the_traceback_shows_the_users_own_lines() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}  # goes by value, as a script's functions
    source = "def fails(x):\n    return inner(x)\n\n\ndef inner(x):\n    return 1 // x\n"
    exec(compile(source, __file__, "exec"), namespace)

    with pytest.raises(ZeroDivisionError) as caught:
        pmap(namespace["fails"], [0], workers=1)
    told = "".join(caught.value.__notes__)
    assert f'File "{__file__}", line 2, in fails' in told
    assert f'File "{__file__}", line 6, in inner' in told
    assert told.count("File ") == 2
