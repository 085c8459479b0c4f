"""`branches`: selectors that share one wait."""

from __future__ import annotations

import os
from selectors import EVENT_READ, EVENT_WRITE

import pytest

from parallelkit.branches import Branch, Trunk


@pytest.fixture
def trunk():
    trunk = Trunk()
    yield trunk
    trunk.close()


@pytest.fixture
def pipes():
    ends = [os.pipe() for _ in range(2)]
    yield ends
    for pair in ends:
        for end in pair:
            os.close(end)


def test_each_branch_sees_its_own(trunk, pipes):
    branches = [Branch(trunk, name) for name in "ab"]
    for branch, (end, _) in zip(branches, pipes, strict=True):
        branch.register(end, EVENT_READ, end)
    os.write(pipes[1][1], b".")

    assert trunk.wait(0) == ["b"]
    assert branches[0].select() == []
    ((key, mask),) = branches[1].select()
    assert (key.fileobj, key.data, key.events, mask) == (*[pipes[1][0]] * 2, EVENT_READ, EVENT_READ)
    assert branches[1].select() == []


def test_a_branch_is_a_selector(trunk, pipes):
    branch = Branch(trunk, "a")
    end = pipes[0][1]
    branch.register(end, EVENT_READ, 1)
    assert trunk.wait(0) == []

    branch.modify(end, EVENT_WRITE, 2)
    assert trunk.wait(0) == ["a"]
    assert branch.get_key(end).data == 2
    assert list(branch.get_map()) == [end]

    branch.unregister(end)
    assert trunk.wait(0) == []
    with pytest.raises(KeyError):
        branch.unregister(end)
    with pytest.raises(KeyError):
        branch.get_key(end)


def test_who_closes_a_branch_leaves_the_others(trunk, pipes):
    branches = [Branch(trunk, name) for name in "ab"]
    for branch, (_, end) in zip(branches, pipes, strict=True):
        branch.register(end, EVENT_WRITE)
    branches[0].close()

    assert branches[0].get_map() is None
    assert trunk.wait(0) == ["b"]
    branches[1].close()
