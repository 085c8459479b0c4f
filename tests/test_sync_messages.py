"""What a queue carries arrives equal; what only `__main__` has goes by value and comes home."""

from __future__ import annotations

import functools
import pickle
import subprocess
import sys
import threading
import types

import pytest
from scripts import STARTS, script

from parallelkit.sync import messages


def test_plain_things_go_as_in_any_pickle():
    thing = {"a": [1, (2.5, b"x")], "f": len, "c": ValueError("no")}
    again = messages.unpacked(messages.packed(thing))
    assert repr(again) == repr(thing)
    assert len(messages.packed(len)) < 60


def test_what_pickle_cannot_do_goes_by_value():
    add = 3
    assert messages.unpacked(messages.packed(lambda x: x + add))(4) == 7


def test_what_nothing_can_do_says_so():
    with pytest.raises(TypeError, match="lock"):
        messages.packed(threading.Lock())


@pytest.fixture
def main(monkeypatch):
    """A `__main__` with a class, a function, and a function behind a cache."""
    module = types.ModuleType("__main__")
    source = "class Job:\n    def __init__(self, x): self.x = x\ndef twice(x): return 2 * x\n"
    exec(source, module.__dict__)
    module.cached = functools.lru_cache(module.twice)
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


def elsewhere(frame: bytes, expression: str) -> str:
    code = f"from parallelkit.sync.messages import unpacked\nm = unpacked({frame!r})\n"
    command = [sys.executable, "-c", f"{code}print({expression})"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_what_is_of_main_goes_by_value(main):
    assert elsewhere(messages.packed([main.Job(3)]), "m[0].x") == "3"
    assert elsewhere(messages.packed(main.twice), "m(4)") == "8"
    assert elsewhere(messages.packed(main.cached), "m(4)") == "8"


def test_here_a_class_of_main_is_itself(main):
    again = messages.unpacked(messages.packed((main.Job, main.Job(5))))
    assert again[0] is main.Job
    assert type(again[1]) is main.Job
    assert again[1].x == 5


def test_messages_of_one_sender_have_one_class(main):
    frames = [messages.packed(main.Job(x)) for x in range(2)]
    text = f"pickle, type(messages.unpacked({frames[1]!r})) is type(m)"
    text = text.replace("pickle, messages", "messages").replace("messages.unpacked", "unpacked")
    assert elsewhere(frames[0], text.removeprefix("pickle, ")) == "True"


@pytest.mark.parametrize("way", STARTS)
def test_jobs_of_a_script_go_there_and_back(way, tmp_path):
    source = """
        from dataclasses import dataclass
        from parallelkit import Queue, pmap

        @dataclass
        class Job:
            x: int

        jobs, done = Queue(), Queue()
        for x in range(20):
            jobs.put(Job(x))

        def work(_):
            job = jobs.get()
            done.put(Job(2 * job.x))

        pmap(work, range(20), workers=2)
        print(sorted(done.get().x for _ in range(20)) == [2 * x for x in range(20)])
        done.put(Job(1))
        print(isinstance(done.get(), Job), done.qsize())
    """
    assert script(source, where=tmp_path, PARALLELKIT_START=way) == "True\nTrue 0\n"


def test_a_class_that_main_does_not_have_comes_from_the_frame():
    assert messages.class_here("Nobody.Has.This", pickle.dumps(int)) is int
