"""Every public call refuses every option that cannot be used, at once, and in the same words."""

from __future__ import annotations

import operator
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np
import pytest

from parallelkit import imap, pmap, preduce
from parallelkit.errors import shortened

HUGE = 10**5000  # has more digits than Python agrees to show
COUNT = "must be an integer or None, got"
SECONDS = "must be a number of seconds or None, got"
ABOVE = "must be a number of seconds above 0, got"
KINDS = "retry_on must be an exception class or a tuple of them, got"
BACKEND = (
    "backend must be a name, an address, a concurrent.futures.Executor, a function that makes one, "
    "or a client of Dask, got 3"
)
MODES = 'on_error must be "raise", "return" or "skip", got'

WRONG: list[tuple[str, Any, type[Exception], str]] = [
    ("workers", 0, ValueError, "workers must be at least 1, got 0"),
    ("workers", -HUGE, ValueError, f"workers must be at least 1, got {shortened(-HUGE)}"),
    ("workers", 2.0, TypeError, f"workers {COUNT} 2.0"),
    ("chunksize", -1, ValueError, "chunksize must be at least 1, got -1"),
    ("chunksize", "9", TypeError, f"chunksize {COUNT} '9'"),
    ("timeout", 0, ValueError, f"timeout {ABOVE} 0"),
    ("timeout", -1.5, ValueError, f"timeout {ABOVE} -1.5"),
    ("timeout", float("nan"), ValueError, f"timeout {ABOVE} nan"),
    ("timeout", float("inf"), ValueError, f"timeout {ABOVE} inf"),
    ("timeout", 10**400, ValueError, f"timeout {SECONDS} {shortened(10**400)}"),
    ("timeout", Decimal("sNaN"), ValueError, f"timeout {SECONDS} Decimal('sNaN')"),
    ("timeout", "3", TypeError, f"timeout {SECONDS} '3'"),
    ("timeout", True, TypeError, f"timeout {SECONDS} True"),
    ("timeout", [1], TypeError, f"timeout {SECONDS} [1]"),
    ("retries", -1, ValueError, "retries must be at least 0, got -1"),
    ("retries", 1.0, TypeError, f"retries {COUNT} 1.0"),
    ("retries", True, TypeError, f"retries {COUNT} True"),
    ("retry_on", "ValueError", TypeError, f"{KINDS} 'ValueError'"),
    ("retry_on", int, TypeError, f"{KINDS} <class 'int'>"),
    ("retry_on", (ValueError, 3), TypeError, f"{KINDS} (<class 'ValueError'>, 3)"),
    ("retry_on", [ValueError], TypeError, f"{KINDS} [<class 'ValueError'>]"),
    ("retry_on", None, TypeError, f"{KINDS} None"),
    (
        "backoff",
        -0.1,
        ValueError,
        "backoff must be a number of seconds, 0 or more, got -0.1",
    ),
    ("backoff", None, TypeError, "backoff must be a number of seconds, got None"),
    ("seed", 1.5, TypeError, f"seed {COUNT} 1.5"),
    (
        "worker_state",
        3,
        TypeError,
        "worker_state must be a function that makes the state, got 3",
    ),
    ("max_memory", 0, ValueError, "max_memory must be at least 1, got 0"),
    ("max_memory", 1e9, TypeError, f"max_memory {COUNT} 1000000000.0"),
    ("on_error", "ignore", ValueError, f"{MODES} 'ignore'"),
    ("on_error", np.array([1]), ValueError, f"{MODES} array([1])"),
    ("backend", 3, TypeError, BACKEND),
]

CALLS: dict[str, Callable[..., Any]] = {
    "pmap": partial(pmap, abs, [1]),
    "imap": partial(imap, abs, [1]),
    "preduce": partial(preduce, operator.add, [1]),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("option", "value", "kind", "message"),
    WRONG,
    ids=[f"{one[0]}={shortened(one[1])}" for one in WRONG],
)
def test_a_wrong_value_is_refused_at_the_call(
    name: str, option: str, value: Any, kind: type[Exception], message: str
) -> None:
    if option == "on_error" and name == "preduce":
        kind, message = TypeError, "preduce() got an unexpected keyword argument 'on_error'"

    with pytest.raises(kind) as caught:
        CALLS[name](**{option: value})

    assert type(caught.value) is kind
    assert str(caught.value) == message


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("option", ["timeout", "max_memory"])
def test_what_needs_a_process_is_refused_where_there_is_none(name: str, option: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is asserted whole
        CALLS[name](backend="serial", **{option: 1})

    assert str(caught.value) == (
        f'{option} needs worker processes, but backend is "serial": leave out {option}='
    )


@pytest.mark.parametrize("name", CALLS)
def test_an_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'worker'"):
        CALLS[name](worker=1)
