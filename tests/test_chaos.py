"""While workers and zygotes are killed at random, a call ends with every result right.

What can be claimed, with `retries` high: an item's outcome is its result, or, if two workers died
on it, a `WorkerDied`.  A death makes run again what its worker was on, and what it had finished and
not sent yet, which is less than a chunk; nothing else runs twice.
"""

from __future__ import annotations

import operator
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import faults
import pytest
from chaos import Toll, chaos
from faults import noted
from toil import toil

from parallelkit import imap, pmap, preduce
from parallelkit.errors import WorkerDied

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the killer finds them in /proc"),
]

WORKERS = 4


@pytest.fixture(autouse=True)
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Zygotes: spawned workers would all be killed before they are up."""
    monkeypatch.setenv("PARALLELKIT_START", "zygote")
    pmap(abs, range(9), workers=WORKERS)  # the zygote takes a moment to come
    with faults.limited():
        yield


def check(found: list[Any], log: str, toll: Toll | None, chunksize: int | None) -> None:
    """Check outcomes, and runs against how many were killed."""
    runs = Counter(map(int, noted(log)))
    for x, outcome in enumerate(found):
        assert outcome == -x or (isinstance(outcome, WorkerDied) and runs[x] >= 2)
    assert set(runs) == set(range(len(found)))
    if toll is None:
        return
    assert toll.workers
    deaths = toll.workers + WORKERS * toll.zygotes
    if chunksize is not None:
        assert sum(runs.values()) - len(runs) <= deaths * chunksize
    assert max(runs.values()) <= 1 + deaths


@pytest.mark.parametrize("chunksize", [1, 10, None])
@pytest.mark.parametrize("zygotes", [0, 3000])
def test_every_result_is_right(chunksize: int | None, zygotes: int, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    with chaos(log, zygotes=zygotes) as toll:
        found = pmap(
            partial(toil, log),
            range(2000),
            workers=WORKERS,
            chunksize=chunksize,
            retries=99,
            on_error="return",
        )

    check(found, log, toll, chunksize)


def test_every_result_of_an_iterator_is_right(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    with chaos(log, zygotes=3000) as toll:
        results = imap(
            partial(toil, log), iter(range(2000)), workers=WORKERS, retries=99, on_error="return"
        )
        found = list(results)

    check(found, log, toll, None)


def test_a_reduction_is_right(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    with chaos(log):
        total = preduce(
            operator.add, range(1000), map=partial(toil, log), workers=WORKERS, retries=99
        )

    assert total == -sum(range(1000))


def test_many_short_calls_are_right(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    with chaos(log, zygotes=1000) as toll:
        for _ in range(40):
            check(
                pmap(partial(toil, log), range(50), workers=WORKERS, retries=99, on_error="return"),
                log,
                None,
                None,
            )

    assert toll.workers
