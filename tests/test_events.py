"""The words between a run and the world can be told apart."""

from __future__ import annotations

import inspect
import typing

import pytest

from parallelkit import events

WORDS = [
    each
    for _, each in inspect.getmembers(events, inspect.isclass)
    if each.__module__ == events.__name__
]


def made(word):
    return word(*range(1, 1 + len(inspect.signature(word).parameters)))


def test_each_word_is_an_event_or_a_command():
    said = typing.get_args(events.Event), typing.get_args(events.Command)

    assert not set(said[0]) & set(said[1])
    assert set(said[0]) | set(said[1]) == set(WORDS)


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_true_small_and_equal_to_its_like_alone(word):
    assert made(word)
    assert not hasattr(made(word), "__dict__")
    assert [other for other in WORDS if made(other) == made(word)] == [word]


def test_the_caller_is_no_worker():
    assert events.HOME == 0
