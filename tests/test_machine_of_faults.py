"""Any sequence of calls, faults and ends on one real pool: results stay right, and nothing hangs.

Hypothesis writes the sequences.  Workers and zygotes are killed between calls and during iterators,
items raise, die and run out of time, iterators are abandoned, and the pool is shut in between.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import faults
import pytest
from chaos import staff
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from toil import misbehave

from parallelkit import imap, pmap, preduce
from parallelkit.backends import warm
from parallelkit.errors import ItemTimeout, WorkerDied

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="workers are found in /proc"),
]

STEP = 30  # seconds for one step, however busy the machine

TIMEOUT = 1.0  # seconds of an item that may hang; the others take microseconds

COUNTS = st.integers(0, 40)
SIZES = st.one_of(st.none(), st.integers(1, 9))
CREWS = st.integers(1, 3)
FAULTS = st.sampled_from(["raise", "die"])
CHOSEN = st.dictionaries(st.integers(0, 39), FAULTS, max_size=3)


def matches(outcome: Any, x: int, fault: str | None) -> bool:
    """Tell whether an outcome is what item `x` with its fault must come to."""
    if fault == "raise":
        return isinstance(outcome, ValueError) and outcome.args == (x,)
    if fault == "die":
        return isinstance(outcome, WorkerDied)
    if fault == "hang":
        return isinstance(outcome, ItemTimeout)
    return bool(outcome == -x)


class Calls(RuleBasedStateMachine):
    """A user who has bad luck."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[Iterator[Any], int]] = []  # iterators, and how far they are

    @rule(count=COUNTS, workers=CREWS, chunksize=SIZES, bad=CHOSEN, retries=st.integers(0, 2))
    def map(
        self, count: int, workers: int, chunksize: int | None, bad: dict[int, str], retries: int
    ) -> None:
        with faults.limited(STEP):
            found = pmap(
                partial(misbehave, bad),
                range(count),
                workers=workers,
                chunksize=chunksize,
                retries=retries,
                on_error="return",
            )
        assert len(found) == count
        assert all(matches(each, x, bad.get(x)) for x, each in enumerate(found))

    @rule(count=st.integers(1, 9), workers=CREWS, late=st.integers(0, 8), bad=CHOSEN)
    def map_with_a_time_limit(
        self, count: int, workers: int, late: int, bad: dict[int, str]
    ) -> None:
        bad = {**bad, late: "hang"}
        with faults.limited(STEP):
            found = pmap(
                partial(misbehave, bad),
                range(count),
                workers=workers,
                timeout=TIMEOUT,
                on_error="return",
            )
        assert all(matches(each, x, bad.get(x)) for x, each in enumerate(found))

    @rule(count=st.integers(1, 40), workers=CREWS, chunksize=SIZES, position=st.integers(0, 39))
    def map_that_ends_early(
        self, count: int, workers: int, chunksize: int | None, position: int
    ) -> None:
        fn = partial(misbehave, {position % count: "raise"})
        with faults.limited(STEP), pytest.raises(ValueError) as caught:  # noqa: PT011
            pmap(fn, range(count), workers=workers, chunksize=chunksize)
        assert caught.value.args == (position % count,)

    @rule(count=st.integers(0, 99))
    def map_at_home(self, count: int) -> None:
        with faults.limited(STEP):
            assert pmap(partial(misbehave, {}), range(count)) == [-x for x in range(count)]

    @rule(count=st.integers(1, 60), workers=CREWS)
    def reduce(self, count: int, workers: int) -> None:
        with faults.limited(STEP):
            assert preduce(max, range(count), workers=workers) == count - 1

    @rule(workers=CREWS, chunksize=SIZES)
    def begin_iterator(self, workers: int, chunksize: int | None) -> None:
        fn = partial(misbehave, {})
        results = imap(fn, iter(range(10**6)), workers=workers, chunksize=chunksize, retries=9)
        self.open.append((results, 0))

    @precondition(lambda self: self.open)
    @rule(number=st.integers(0, 9), count=st.integers(1, 30))
    def read_iterator(self, number: int, count: int) -> None:
        results, position = self.open.pop(number % len(self.open))
        with faults.limited(STEP):
            for x in range(position, position + count):
                assert next(results) == -x
        self.open.append((results, position + count))

    @precondition(lambda self: self.open)
    @rule(number=st.integers(0, 9))
    def abandon_iterator(self, number: int) -> None:
        with faults.limited(STEP):
            del self.open[number % len(self.open)]

    @rule(number=st.integers(0, 9))
    def kill_worker(self, number: int) -> None:
        _, workers = staff(os.getpid())
        # One that an iterator has may be on an item, for which two such deaths are the end.
        if workers and not self.open:
            with contextlib.suppress(ProcessLookupError):  # its zygote may just have been killed
                os.kill(workers[number % len(workers)], 9)

    @rule()
    def kill_zygote(self) -> None:
        for zygote in staff(os.getpid())[0]:
            os.kill(zygote, 9)

    @rule()
    def shut(self) -> None:
        with faults.limited(STEP):
            warm.shut()

    @invariant()
    def nobody_is_there_unasked(self) -> None:
        assert len(staff(os.getpid())[1]) <= 3 * (len(self.open) + 1) + 3

    def teardown(self) -> None:
        with faults.limited(STEP):
            self.open.clear()
            warm.shut()


@pytest.mark.parametrize("start", faults.STARTS)
def test_any_sequence_is_survived(start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLELKIT_START", start)
    examples = int(os.environ.get("PARALLELKIT_EXAMPLES", "6"))
    bounds = settings(
        max_examples=examples,
        stateful_step_count=12,
        suppress_health_check=list(HealthCheck),
    )
    case = Calls.TestCase
    case.settings = bounds
    case().runTest()
    assert not staff(os.getpid())[1]
