"""Every value that cannot be used is refused at once, with a message that names it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from parallelkit import imap, pmap, preduce
from parallelkit.machine import cpu_count
from parallelkit.options import Options, check_call, plan

INTEGER = "must be an integer or None, got"
ON_ERROR = 'on_error must be "raise", "return" or "skip", got'
STATE = "worker_state must be a function that makes the state, got"

WRONG = [
    ({"workers": 0}, ValueError, "workers must be at least 1, got 0"),
    ({"workers": -3}, ValueError, "workers must be at least 1, got -3"),
    ({"workers": 1.0}, TypeError, f"workers {INTEGER} 1.0"),
    ({"workers": True}, TypeError, f"workers {INTEGER} True"),
    ({"workers": "2"}, TypeError, f"workers {INTEGER} '2'"),
    ({"workers": np.array([2])}, TypeError, f"workers {INTEGER} array([2])"),
    ({"chunksize": 0}, ValueError, "chunksize must be at least 1, got 0"),
    (
        {"chunksize": np.int64(-1)},
        ValueError,
        f"chunksize must be at least 1, got {np.int64(-1)!r}",
    ),
    ({"chunksize": 2.5}, TypeError, f"chunksize {INTEGER} 2.5"),
    ({"chunksize": False}, TypeError, f"chunksize {INTEGER} False"),
    ({"seed": 1.5}, TypeError, f"seed {INTEGER} 1.5"),
    ({"seed": "x"}, TypeError, f"seed {INTEGER} 'x'"),
    ({"seed": True}, TypeError, f"seed {INTEGER} True"),
    ({"on_error": "ignore"}, ValueError, f"{ON_ERROR} 'ignore'"),
    ({"on_error": None}, ValueError, f"{ON_ERROR} None"),
    ({"on_error": np.array([1, 2])}, ValueError, f"{ON_ERROR} array([1, 2])"),
    ({"worker_state": 3}, TypeError, f"{STATE} 3"),
    ({"worker_state": [1]}, TypeError, f"{STATE} [1]"),
]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("PARALLELKIT_BACKEND", "PARALLELKIT_WORKERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("options", "kind", "message"), WRONG, ids=[str(each[0]) for each in WRONG]
)
def test_a_wrong_value_is_named(options, kind, message):
    with pytest.raises(kind) as caught:
        plan(Options(**options))

    assert str(caught.value) == message


def test_options_are_refused_at_the_call_and_not_at_the_first_result():
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        imap(abs, [1], workers=0)


def test_a_backend_of_the_environment(monkeypatch):
    monkeypatch.setenv("PARALLELKIT_BACKEND", "serial")
    assert plan(Options()).serial
    assert not plan(Options(backend="processes")).serial

    monkeypatch.setenv("PARALLELKIT_BACKEND", "")
    assert not plan(Options()).serial


def test_what_follows_from_nothing():
    found = plan(Options())

    assert found.workers == cpu_count()
    assert found.home
    assert not found.serial
    assert (found.chunksize, found.seed, found.on_error) == (None, None, "raise")


@pytest.mark.parametrize(
    "options",
    [{"workers": 1}, {"on_error": "return"}, {"on_error": "skip"}, {"worker_state": list}],
    ids=str,
)
def test_what_only_a_worker_can_honour_keeps_the_caller_out(options):
    assert not plan(Options(**options)).home
    assert plan(Options(**options, backend="serial")).home


def test_numbers_of_any_integer_kind():
    found = plan(Options(workers=np.int32(3), chunksize=np.uint8(4), seed=np.int64(-5)))

    assert (found.workers, found.chunksize, found.seed) == (3, 4, -5)
    assert {type(found.workers), type(found.chunksize), type(found.seed)} == {int}


def test_serial_is_one_worker():
    assert plan(Options(workers=7, backend="serial")).workers == 1


CALLS = [
    (3, ([1],), "pmap() needs a function to call as its first argument, got 3"),
    (None, ([1],), "pmap() needs a function to call as its first argument, got None"),
    (abs, (), "pmap() needs an iterable of items after the function"),
    (abs, (3,), "pmap() needs something to iterate over as argument 2, got 3"),
    (abs, ([1], None), "pmap() needs something to iterate over as argument 3, got None"),
]


@pytest.mark.parametrize(("fn", "iterables", "message"), CALLS, ids=[each[2] for each in CALLS])
def test_a_wrong_call_is_named(fn, iterables, message):
    for call in (lambda: check_call("pmap", fn, iterables), lambda: pmap(fn, *iterables)):
        with pytest.raises(TypeError) as caught:
            call()

        assert str(caught.value) == message


def test_a_wrong_map_is_named():
    with pytest.raises(TypeError) as caught:
        preduce(max, [1], map=3)

    assert str(caught.value) == "map must be a function or None, got 3"


def test_another_engine_has_slots_for_its_places():
    with ThreadPoolExecutor(3) as executor:
        found = plan(Options(backend=executor))
        two = plan(Options(backend=executor, workers=2))

    assert (found.workers, found.backend.depth, found.home) == (6, 2, False)
    assert (two.workers, two.backend.depth) == (2, 1)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            {"timeout": 1.0},
            (
                "timeout needs a backend that can end an item which runs, and threads cannot: "
                'leave out timeout=, or use backend="processes"'
            ),
        ),
        (
            {"max_memory": 1},
            (
                "max_memory needs workers of parallelkit's own, not those of threads: "
                'leave out max_memory=, or use backend="processes"'
            ),
        ),
    ],
    ids=str,
)
def test_what_another_engine_cannot_do_is_refused(option, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is asserted whole
        plan(Options(backend="threads", **option))

    assert str(caught.value) == message
