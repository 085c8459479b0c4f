"""What an engine's worker runs: orders in any sequence, from several runs, in several threads."""

from __future__ import annotations

import pickle
import threading

import pytest

from parallelkit import remote
from parallelkit.codec import Definitions
from parallelkit.failures import unpack_error
from parallelkit.remote import BROKEN, DONE, DOUBTFUL, NEEDY, Order, forget, serve


class Run:
    """The caller's side of one run."""

    def __init__(self, name, fn, worker_state=None, op=None, seed=None):
        self.name = name
        self.seed = seed
        self.definitions = Definitions((fn, worker_state, op), ashore=True)

    def order(self, start, items, blobs=None, further=(), urgent=False):
        body = self.definitions.dumps_salvaging((items,))
        told = tuple(self.definitions.blobs) if blobs is None else blobs
        order = Order(self.name, start, len(items), self.seed, urgent, told)
        return serve(pickle.dumps(tuple(order), 5), body, *further)

    def values(self, answer):
        assert answer[:3] == (DONE, answer[1], 0)
        return self.definitions.loads(answer[4])


@pytest.fixture(autouse=True)
def forgotten():
    yield
    remote._runs.clear()


def test_a_chunk_is_run():
    run = Run("a", lambda x: x * x)

    assert run.values(run.order(10, [1, 2, 3])) == [1, 4, 9]


def test_what_was_learned_need_not_come_again():
    run = Run("b", lambda x: x + 1)
    run.order(0, [1])

    assert run.values(run.order(1, [2], blobs=(None,))) == [3]


def test_what_was_not_learned_is_asked_for():
    run = Run("c", abs)

    assert run.order(4, [1], blobs=(None,))[:2] == (NEEDY, 4)
    assert run.values(run.order(4, [-1])) == [1]


def test_a_definition_may_be_a_further_argument():
    run = Run("d", lambda x: -x)
    (blob,) = run.definitions.blobs

    assert run.values(run.order(0, [1], blobs=(0,), further=(bytearray(blob),))) == [-1]


def test_a_failure_says_where_and_what():
    run = Run("e", lambda x: 6 // x)

    kind, stop, failed, _, body = run.order(5, [1, 0, 3])
    _, packed, _, _ = pickle.loads(body)

    assert (kind, stop, failed) == (DONE, 8, 1)
    assert type(unpack_error(packed[1], run.definitions)) is ZeroDivisionError


def test_an_urgent_failure_leaves_the_rest():
    run = Run("f", lambda x: 6 // x)

    assert run.order(5, [1, 0, 3], urgent=True)[1] == 7


class Refuses:
    def __reduce__(self):
        return int, ("no number",)


def test_items_that_do_not_load_are_to_come_one_by_one():
    run = Run("g", abs)

    assert run.order(0, [1, Refuses()])[:2] == (DOUBTFUL, 2)
    kind, _, failed, _, body = run.order(1, [Refuses()])
    _, _, unsent, _ = pickle.loads(body)
    assert (kind, failed, unsent) == (DONE, 1, (0,))


def test_an_item_that_could_not_be_sent_is_told_as_such():
    run = Run("h", type)

    _, _, failed, _, body = run.order(0, [1, threading.Lock(), 3])
    _, packed, unsent, _ = pickle.loads(body)

    assert (failed, unsent) == (1, (1,))
    assert "cannot pickle '_thread.lock' object" in str(unpack_error(packed[1]))


def test_a_state_that_cannot_be_made_is_the_end_of_the_run():
    run = Run("i", lambda _, x: x, worker_state=lambda: 1 // 0)

    for _ in range(2):
        kind, _, _, _, body = run.order(0, [1])
        assert kind == BROKEN
        assert type(unpack_error(body, run.definitions)) is ZeroDivisionError


def test_a_state_is_made_once():
    run = Run("j", lambda kept, x: (id(kept), x), worker_state=object)
    answers = []

    def work(start):
        answers.append(run.values(run.order(start, [start])))

    threads = [threading.Thread(target=work, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(x for ((_, x),) in answers) == list(range(8))
    assert len({kept for ((kept, _),) in answers}) == 1


def test_results_of_neighbours_are_folded():
    run = Run("k", abs, op=lambda a, b: a + b)

    (block,) = run.values(run.order(0, [1, 2, 3, 4]))

    assert block == (0, 4, 10)


def test_an_operation_that_raises_fails_them_all():
    run = Run("l", abs, op=lambda a, b: a / (b - b))

    assert run.order(0, [1, 2])[2] == 2


def test_old_runs_are_forgotten_and_any_on_demand():
    runs = [Run(f"run {number}", abs) for number in range(9)]
    for run in runs:
        run.order(0, [1])

    assert list(remote._runs) == [f"run {number}" for number in range(4, 9)]
    forget("run 8")
    assert runs[8].order(0, [1], blobs=(None,))[0] == NEEDY
