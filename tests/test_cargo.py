"""What goes to another engine's workers and comes back, pickled or as it is."""

from __future__ import annotations

import threading

import pytest

from parallelkit import remote
from parallelkit.backends import Unlearned
from parallelkit.backends.cargo import SMALL, Handed, Landed, Shipped
from parallelkit.job import Settings


class Store:
    """Keeps blobs, unless it is `idle`, and hands out their keys."""

    def __init__(self, idle: bool = False) -> None:
        self.idle = idle
        self.kept: list[bytes] = []
        self.dropped: list[tuple[str, list[object]]] = []

    def put(self, blob):
        if self.idle:
            return None
        self.kept.append(blob)
        return blob

    def drop(self, run, handles):
        self.dropped.append((run, handles))


def shipped(fn, store=None, **how):
    return Shipped((fn, None, None), Settings(**how), (), store or Store())


def go(cargo, chunk, items, whole=False):
    """Send a chunk and return what came of it."""
    (fn, args), size = cargo.load(chunk, (items,), whole)
    return cargo.unload(chunk, fn(*args)), size


@pytest.fixture(autouse=True)
def forgotten():
    yield
    remote._runs.clear()


def test_a_small_function_goes_with_each_chunk():
    store = Store()
    cargo = shipped(lambda x: x + 1, store)

    found, size = go(cargo, range(5, 7), [1, 2])

    assert (found.stop, found.block.values) == (7, [2, 3])
    assert 0 < size < SMALL
    assert not store.kept
    cargo.close()
    assert store.dropped == [(cargo.run, [])]


def test_a_large_one_is_put_somewhere_once():
    store, table = Store(), bytes(2 * SMALL)
    cargo = shipped(lambda x: table[x], store)

    for start in range(3):
        found, size = go(cargo, range(start, start + 1), [start])
        assert (found.block.values, size < SMALL) == ([0], True)

    assert len(store.kept) == 1
    cargo.renew()
    go(cargo, range(1), [0])
    assert len(store.kept) == 2
    handle = store.kept[-1]
    cargo.close()
    assert store.dropped == [(cargo.run, [handle])]


def test_without_such_a_place_it_goes_to_who_asks():
    table = bytes(2 * SMALL)
    cargo = shipped(lambda x: table[x], Store(idle=True))

    assert go(cargo, range(1), [0])[0] == Landed(0, needy=True)
    assert go(cargo, range(1), [0], whole=True)[0].block.values == [0]
    assert go(cargo, range(1, 2), [1])[0].block.values == [0]


def test_failures_come_as_exceptions():
    found, _ = go(shipped(lambda x: 6 // x), range(3), [1, 0, 3])

    assert type(found.block.failures[1]) is ZeroDivisionError


def test_a_result_that_does_not_load_comes_alone():
    class Refuses:
        def __reduce__(self):
            return int, ("no number",)

    cargo = shipped(lambda _: Refuses())

    assert go(cargo, range(2), [1, 2])[0].block is None
    found, _ = go(cargo, range(1), [1])
    assert (type(found.block.failures[0]), found.block.unreturned) == (ValueError, (0,))


def test_a_function_that_does_not_load_is_no_items_fault():
    class Refuses:
        def __reduce__(self):
            return int, ("no number",)

    refuses = Refuses()

    with pytest.raises(Unlearned) as caught:
        go(shipped(lambda _: refuses), range(1), [1])
    assert type(caught.value.error) is ValueError


def test_threads_get_things_themselves():
    things = [object(), object()]
    cargo = Handed((lambda x: x, None, None), Settings())

    found, size = go(cargo, range(2), things)

    assert all(a is b for a, b in zip(found.block.values, things, strict=True))
    assert size == 0


def test_each_thread_makes_its_state_once():
    cargo = Handed((lambda kept, _: id(kept), object, None), Settings())
    seen = []

    def work():
        pair = [go(cargo, range(1), [0])[0].block.values[0] for _ in range(2)]
        seen.append((pair[0], pair[1], cargo.own.fn))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()

    assert all(first == second for first, second, _ in seen)
    assert seen[0][0] != seen[1][0]


def test_a_state_that_cannot_be_made_is_no_items_fault():
    cargo = Handed((abs, lambda: 1 // 0, None), Settings())

    for _ in range(2):
        with pytest.raises(Unlearned) as caught:
            go(cargo, range(1), [0])
        assert type(caught.value.error) is ZeroDivisionError


def test_threads_fold_and_fail_together():
    fold = Handed((abs, None, lambda a, b: a + b), Settings())
    fail = Handed((abs, None, lambda a, b: a / (b - b)), Settings())

    assert go(fold, range(4), [1, 2, 3, 4])[0].block.values == [(0, 4, 10)]
    assert set(go(fail, range(2), [1, 2])[0].block.failures) == {0, 1}


def test_nothing_is_begun_when_the_run_is_over():
    begun = []
    cargo = Handed((begun.append, None, None), Settings())
    (fn, args), _ = cargo.load(range(2), ([1, 2],), False)
    cargo.close()

    assert fn(*args) is None
    assert not begun
