"""What stands in for dataclasses does as these do."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from parallelkit import records


def classes(dataclass: Any, field: Any) -> tuple[Any, Any]:
    @dataclass(slots=True)
    class Open:
        """Has a default of each kind, and more to do when it is made."""

        one: int
        two: str = "b"
        three: list[int] = field(default_factory=list)

        def __post_init__(self) -> None:
            self.three.append(self.one)

        def first(self) -> int:
            return self.three[0]

    @dataclass(frozen=True, slots=True)
    class Closed:
        one: int
        two: tuple[int, ...] = ()

    return Open, Closed


OURS, THEIRS = (
    classes(records.dataclass, records.field),
    classes(dataclasses.dataclass, dataclasses.field),
)
CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1,), {}),
    ((1, "x"), {}),
    ((1, "x", [7]), {}),
    ((), {"two": "y", "one": 3}),
]


@pytest.mark.parametrize(("given", "named"), CALLS)
def test_they_are_made_and_told_alike(given: Any, named: Any) -> None:
    ours, theirs = OURS[0](*given, **named), THEIRS[0](*given, **named)
    assert [getattr(ours, name) for name in ("one", "two", "three")] == [
        getattr(theirs, name) for name in ("one", "two", "three")
    ]
    assert repr(ours).rpartition(".")[2] == repr(theirs).rpartition(".")[2]
    assert ours.first() == theirs.first()
    assert not hasattr(ours, "__dict__")
    assert OURS[0].__match_args__ == THEIRS[0].__match_args__
    assert OURS[0].__doc__ == THEIRS[0].__doc__


@pytest.mark.parametrize(("given", "named"), [((), {}), ((1, 2, 3, 4), {}), ((1,), {"four": 4})])
def test_what_does_not_fit_is_a_type_error(given: Any, named: Any) -> None:
    for each in OURS[0], THEIRS[0]:
        with pytest.raises(TypeError):
            each(*given, **named)


def test_each_has_its_own_default_list() -> None:
    assert OURS[0](1).three == [1]
    assert OURS[0](2).three == [2]


def test_equal_are_those_of_one_class_with_equal_values() -> None:
    opened, closed = OURS
    assert opened(1) == opened(1)
    assert opened(1) != opened(2)
    assert closed(1) != opened(1)
    assert hash(closed(1, (2,))) == hash(closed(1, (2,)))
    with pytest.raises(TypeError, match="unhashable"):
        hash(opened(1))


def test_one_that_is_frozen_cannot_be_changed() -> None:
    closed = OURS[1](1)
    with pytest.raises(AttributeError, match=r"^cannot change 'one' of Closed$"):
        closed.one = 2
    with pytest.raises(AttributeError, match=r"^cannot change 'one' of Closed$"):
        del closed.one
    assert closed.one == 1


def test_they_load_nothing() -> None:
    code = "import sys, parallelkit.records; print('dataclasses' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0]={sys.path}\n{code}"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout == "False\n"
