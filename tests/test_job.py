"""What a worker keeps of a chunk until it is sent."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import pytest

from parallelkit.codec import Definitions
from parallelkit.failures import unpack_error
from parallelkit.job import Job, Part, Settings
from parallelkit.leases import Berth


def job_of(fn: Callable[..., Any], op: Callable[[Any, Any], Any] | None) -> Job:
    job = Job(Settings(), None, Berth())
    for blob in Definitions((fn, None, op)).blobs:
        job.learn(blob)
    return job


def each(fn: Callable[..., Any], items: Iterable[Any], values: list[Any]) -> None:
    for item in items:
        values.append(fn(item))  # noqa: PERF401


def large(number: int) -> bytes:
    """Return 20,000 bytes, but for 13, of which it fails."""
    return bytes([abs(number // (number - 13))]) * 20_000


def joined(left: bytes, right: bytes) -> bytes:
    return left[:1] + right


def refused(left: bytes, right: bytes) -> bytes:
    raise ValueError(f"{len(left)} and {len(right)}")


def tried(job: Job, calls: Iterator[Any], start: int) -> list[Part]:
    """Make the calls one by one; return the parts, the last one what is left in the end."""
    parts, part = [], Part(start, 0.0, job.op)
    while (item := next(calls, None)) is not None:
        job.attempt(each, iter([item]), part)
        if (ahead := part.folded()) is not None:
            parts.append(ahead)
    return [*parts, part]


def packed(job: Job, part: Part) -> tuple[Any, dict[int, BaseException]]:
    """Return the values of a part as they arrive, and its failures."""
    body, failed = job.pack(part.start, part.values, part.failures, part.eager)
    if not failed:
        return job.replica.loads(body), {}
    body, failures, _, _ = pickle.loads(body)
    return job.replica.loads(body), {at: unpack_error(each) for at, each in failures.items()}


def test_outcomes_are_kept_in_order() -> None:
    job, part = job_of(int, None), Part(4, 0.0, None)
    items = iter(["1", "x", "3"])
    for _ in range(2):
        job.attempt(each, items, part)
    assert (part.start, part.stop, part.values) == (4, 7, [1, None, 3])
    assert part.folded() is None
    assert not part.pressing(urgent=False)
    assert part.pressing(urgent=True)
    values, failures = packed(job, part)
    assert values == [1, None, 3]
    assert isinstance(failures[1], ValueError)


def test_arguments_that_run_out_are_a_failure() -> None:
    job, part = job_of(int, None), Part(0, 0.0, None)
    job.attempt(each, islice(iter([]), 1), part)
    assert "an item got lost" in str(packed(job, part)[1][0])


def test_what_was_folded_before_a_failure_goes_without_it() -> None:
    job = job_of(large, joined)
    first, second = tried(job, iter(range(8, 16)), 8)
    assert (first.start, first.stop, second.start, second.stop) == (8, 13, 13, 16)
    blocks, failures = packed(job, first)
    assert [tuple(block)[:2] for block in blocks] == [(8, 4), (12, 1)]
    assert not failures
    values, failures = packed(job, second)
    assert [None if value is None else len(value) for value in values] == [None, 20_000, 20_000]
    assert isinstance(failures[0], ZeroDivisionError)


def test_a_failure_at_once_leaves_nothing_to_go_ahead() -> None:
    (part,) = tried(job_of(large, joined), iter(range(13, 16)), 13)
    assert list(part.failures) == [0]
    assert len(part.values) == 3


def test_an_operation_that_raises_makes_the_part_pressing() -> None:
    job, part = job_of(large, refused), Part(0, 0.0, refused)
    for presses in (False, True):
        job.attempt(each, iter([20]), part)
        assert part.folded() is None
        assert part.pressing(urgent=False) == presses
    with pytest.raises(ValueError, match="20000 and 20000"):
        packed(job, part)
