"""What a worker runs for an executor."""

from __future__ import annotations

import pickle
from multiprocessing.process import current_process

import pytest

from parallelkit.tasks import Initial, Key, call, call_each, told


def shift(x, *, by=0):
    return x + by


def test_a_task_is_called_as_it_was_submitted():
    assert call(None, (shift, (3,), {"by": 4})) == 7


def test_a_task_that_was_cancelled_on_its_way_is_nothing():
    assert call(None, None) is None


def test_an_initializer_gets_its_arguments():
    seen = []

    Initial(seen.append, (5,))()
    Initial(None, ())()

    assert seen == [5]


def test_several_calls_give_several_results():
    assert call_each(shift, [(1,), (2,)]) == [1, 2]


def test_what_one_of_several_calls_raises_tells_which():
    with pytest.raises(ZeroDivisionError) as caught:
        call_each(divmod, [(1, 1), (1, 0)])

    assert caught.value.__notes__ == ["parallelkit: raised by divmod(1, 0)"]


def test_a_key_that_arrives_is_the_process_s_own():
    before = current_process().authkey
    try:
        pickle.loads(pickle.dumps(Key(b"family")))

        assert bytes(current_process().authkey) == b"family"
    finally:
        current_process().authkey = before


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ((pow, (2, 5), {"mod": 3}), "pow(2, 5, mod=3)"),
        ((print, tuple(range(8)), {}), "print(0, 1, 2, 3, 4, 5, and 2 more)"),
        ((call_each, (pow, [(1, 2), (3, 4)]), {}), "2 calls, the first pow(1, 2)"),
    ],
)
def test_a_call_is_told_in_words(task, words):
    assert told(task) == words
