"""The part of an object that cannot be pickled is found, named, and advised on."""

from __future__ import annotations

import pickle
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import cloudpickle
import pytest

from parallelkit import Executor, Pool
from parallelkit.culprits import ADVICE, DEPTH, PARTS, unpicklable

LOCK = threading.Lock()
ON_LOCKS = ADVICE["_thread.lock"]


class Plain:
    def __init__(self, **attributes):
        vars(self).update(attributes)


class Slotted:
    __slots__ = ("lock",)

    def __init__(self):
        self.lock = LOCK


class Hostile:
    @property
    def __dict__(self):
        raise RuntimeError

    def __reduce__(self):
        raise ZeroDivisionError("mine")


def message(obj: object, attempt=cloudpickle.dumps) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011  # any that pickling raises
        attempt(obj)
    return str(unpicklable(obj, "item", caught.value, attempt))


def local(lock=LOCK):
    return lambda: lock


@pytest.mark.parametrize(
    ("obj", "path"),
    [
        (LOCK, "item"),
        ([1, LOCK], "item[1]"),
        ({"a": (1, LOCK)}, "item['a'][1]"),
        (Plain(config=Plain(lock=LOCK)), "item.config.lock"),
        (Slotted(), "item.lock"),
        (partial(print, a=LOCK), "item.keywords['a']"),
        (partial(print, LOCK), "item.args[0]"),
        (Plain(lock=LOCK).__eq__, "item.__self__.lock"),
        (local(), "item's variable lock"),
        (lambda lock=LOCK: lock, "item's default of lock"),
        (ValueError(LOCK), "item.args[0]"),
    ],
)
def test_the_path_leads_to_the_culprit(obj, path):
    kind = type(obj).__qualname__

    assert message(obj) == (
        f"item of type {kind} cannot be sent to another process: {path}: "
        f"cannot pickle '_thread.lock' object\n{ON_LOCKS}"
    )


def test_a_global_of_a_function_is_found():
    scope = {"LOCK": LOCK, "__name__": "__main__"}
    exec("def f(): return LOCK", scope)

    assert "item's global LOCK: cannot pickle '_thread.lock'" in message(scope["f"])


def test_each_kind_gets_its_advice():
    with socket.socket() as connection:
        assert message([connection]).endswith("\n" + ADVICE["socket.socket"])
    assert message(n for n in "a").endswith("\npass a list of what it yields")
    assert message(threading.local()).endswith("\nmake it inside the function")


@pytest.mark.parametrize("make", [lambda: Pool(1), lambda: Executor(1), ThreadPoolExecutor])
def test_a_pool_is_named_and_not_what_it_is_made_of(make):
    with make() as pool:
        path, advice = message(Plain(pool=pool)).split("\n")

    assert path.partition(" cannot be sent to another process: ")[2].startswith("item.pool: ")
    assert advice == ADVICE["parallelkit.pool."]


def test_hostile_objects_are_told_as_they_are():
    assert message(Hostile()) == (
        "item of type Hostile cannot be sent to another process: item: ZeroDivisionError: mine"
    )


def test_deep_nesting_is_told_and_not_descended():
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]

    told = message(deep, pickle.dumps)

    assert told == (
        "item of type list cannot be sent to another process: item: it is nested too deeply to be "
        "pickled; sys.setrecursionlimit() can raise the limit"
    )
    while deep:
        deep = deep.pop()  # or freeing it would need as many frames of C


def test_the_search_is_bounded():
    steps: object = LOCK
    for _ in range(2 * DEPTH):
        steps = [steps]
    wide = [*range(PARTS), LOCK]

    assert f"item{'[0]' * DEPTH}: cannot pickle" in message(steps)
    assert "item: cannot pickle" in message(wide)
