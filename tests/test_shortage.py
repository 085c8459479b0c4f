"""A lack of memory is told before it is met, and rarely asked about."""

from __future__ import annotations

import pytest

from parallelkit import machine, shortage
from parallelkit.shortage import LOOK


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give a computer with 1 GiB; the list tells how often it was looked at."""
    seen: list[int] = []

    def look() -> machine.Memory:
        seen.append(1)
        return machine.Memory(1 << 32, None, 1 << 30, "paper")

    monkeypatch.setattr(machine, "memory", look)
    monkeypatch.setattr(shortage, "_room", 0)
    return seen


def test_many_small_arrays_are_asked_for_together(looks: list[int]) -> None:
    for _ in range(2 * LOOK // 1000):
        shortage.check(1000)
    assert 2 <= len(looks) <= 3


def test_large_arrays_are_asked_for_one_by_one(looks: list[int]) -> None:
    for _ in range(3):
        shortage.check(LOOK + 1)
    assert len(looks) == 3


def test_more_than_there_is_is_refused(looks: list[int]) -> None:
    shortage.check(1 << 30)
    with pytest.raises(MemoryError) as caught:
        shortage.check((1 << 30) + 1)
    assert str(caught.value) == (
        "a shared array of 1.00 GiB (1073741825 bytes) does not fit: "
        "1.00 GiB (1073741824 bytes) are available (paper)\n"
        "share a part of it, or use a smaller dtype"
    )
    assert len(looks) == 2
