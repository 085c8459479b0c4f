"""Other processes for the tests of `sync`: forks of this one that do one thing and are killed.

`Fork` runs a function and holds still until it is told to go; `killed_at_each_step` runs one again
and again and kills it one step further each time, `interrupted_at_each_step` raises there instead.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Self

import parallelkit

ROOMS = str(Path(parallelkit.__file__).parent / "sync")


def fork() -> int:
    with warnings.catch_warnings():  # of threads: pytest's watchdog is one, and needs no lock
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


class Fork:
    """A copy of this process that calls `action` and then waits to be killed."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self.answer, there = os.pipe()
        here, self.hold = os.pipe()
        self.pid = fork()
        if not self.pid:
            try:
                os.close(self.answer)
                os.close(self.hold)
                try:
                    result: Any = action()
                except BaseException as error:
                    result = error
                os.write(there, pickle.dumps(result))
                os.close(there)
                os.read(here, 1)
            finally:
                os._exit(0)
        os.close(there)
        os.close(here)

    def result(self) -> Any:
        """Return what the action returned, or raise what it raised."""
        with os.fdopen(os.dup(self.answer), "rb") as file:
            result = pickle.load(file)
        if isinstance(result, BaseException):
            raise result
        return result

    def kill(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        os.close(self.answer)
        os.close(self.hold)


def killed_at_each_step(action: Callable[[], object]) -> Iterator[int]:
    """Yield after each death of a process that was killed one instruction further into `action`.

    The last was not killed.
    """
    step = 0
    while True:
        pid = fork()
        if not pid:
            try:
                sys.settrace(_Killer(step).begin)
                action()
            finally:
                os._exit(0)
        died = os.waitpid(pid, 0)[1] != 0
        yield step
        if not died:
            return
        step += 1


class _Killer:
    def __init__(self, step: int) -> None:
        self.left = step

    def begin(self, frame: FrameType, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(ROOMS):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self.step

    def step(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "opcode":
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
        return self.step


def interrupted_at_each_step(action: Callable[[], object]) -> Iterator[int]:
    """Yield after each `KeyboardInterrupt` where Python could raise one: a step further each time.

    That is where a function begins, and where a call has returned.
    """
    step = 0
    while True:
        left = step

        def strike(frame: FrameType, event: str, arg: object) -> None:
            nonlocal left
            if event in {"call", "c_return"} and frame.f_code.co_filename.startswith(ROOMS):
                left -= 1
                if left < 0:
                    sys.setprofile(None)
                    raise KeyboardInterrupt

        sys.setprofile(strike)
        try:
            action()
        except KeyboardInterrupt:
            yield step
        else:
            return
        finally:
            sys.setprofile(None)
        step += 1
