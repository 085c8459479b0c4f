"""The first process that workers need, started before the caller has loaded what it needs itself.

A zygote takes as long to be up as the caller takes to load its half of the machinery, so both had
better go on at the same time.  Holds how a zygote is launched, and one that was launched ahead.
"""

from __future__ import annotations

import os
import sys

from .board import Board, above_standard

TYPE_CHECKING = False  # type checkers take it for true, and importing `typing` costs 5 ms
if TYPE_CHECKING:
    import socket
    from typing import Any

_BOOT = (
    "import gc, sys; gc.disable(); sys.path[:] = {path!r}; "
    "from parallelkit.{room} import main; main({arguments})"
)
"""Without the collector, which finds nothing where modules are loaded and takes 3 ms for it; `main`
has it work again."""


_ALWAYS = {"hash_randomization", "int_max_str_digits"}
"""Flags of an interpreter that was given none."""


class Launch:
    """A zygote that was launched, and what the caller has of it: `control` is a descriptor."""

    def __init__(self) -> None:
        import _socket  # what `socket` adds takes 5 ms to load

        self.streams = streams()
        self.board = Board()
        ends = _socket.socketpair()
        for end in ends:
            end.setblocking(True)  # whatever socket.setdefaulttimeout() says
        self.control, theirs = (above_standard(end.detach()) for end in ends)
        try:
            self.pid = self._spawn(theirs)
        except OSError:
            self.forget()
            raise
        finally:
            os.close(theirs)

    def _spawn(self, theirs: int) -> int:
        from _signal import SIGINT  # type: ignore[import-not-found]  # as in Launch.__init__

        # Numbers above both: the copies made for the zygote overwrite neither original.
        control = max(theirs, self.board.fd) + 1
        return os.posix_spawn(
            sys.executable,
            command("zygote", f"{control}, {control + 1}, {os.getpid()}"),
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs, control),
                (os.POSIX_SPAWN_DUP2, self.board.fd, control + 1),
            ],
            # Whatever the thread that starts us blocks.  Ctrl-C waits until there is a handler.
            setsigmask=(SIGINT,),
        )

    def forget(self) -> None:
        """Let go of it, which ends it unless a copy of this process has it too."""
        os.close(self.control)
        self.board.close()


_launched: list[Launch] = []


def prepare() -> None:
    """Launch a zygote, if workers are sure to be wanted and there is none."""
    there = "parallelkit.backends.warm" in sys.modules  # whose pool knows better
    if there or _launched or os.name != "posix" or os.environ.get("PARALLELKIT_START"):
        return
    try:
        _launched.append(Launch())
    except OSError:  # who wants it will say so
        return


def taken() -> Launch:
    """Return the zygote that was launched ahead, or a new one if it prints elsewhere than we do."""
    here = streams()
    for launch in _launched[:]:
        if launch.streams == here:
            try:
                _launched.remove(launch)
            except ValueError:  # another thread was faster
                continue
            return launch
    return Launch()


def untaken() -> list[Launch]:
    """Return what was launched ahead, which then is the caller's to end."""
    found = _launched[:]
    _launched.clear()
    return found


def streams() -> tuple[object, object]:
    """Return what standard output and error lead to: workers print there."""
    return _identity(1), _identity(2)


def _identity(fd: int) -> object:
    if (sys.__stdout__ if fd == 1 else sys.__stderr__) is None:  # the number is free for anything
        return None
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets, neither of which has the number of a standard stream."""
    import socket

    ends = socket.socketpair()
    if os.name != "posix":  # where sockets have no such numbers
        return ends
    ours, theirs = (socket.socket(fileno=above_standard(end.detach())) for end in ends)
    return ours, theirs


def command(room: str, arguments: str) -> list[str]:
    """Return the command line of an interpreter like this one that runs `main` of `room`."""
    if not sys.executable:
        raise OSError("sys.executable is empty, so there is no Python to start workers with")
    given: list[Any] = list(sys.path)
    path = [each for each in given if isinstance(each, str)]  # imports ignore other things
    boot = _BOOT.format(path=path, room=room, arguments=arguments)
    return [sys.executable, *_flags(), "-c", boot]


def _flags() -> list[str]:
    """Return flags like -W, -X and -I as they were given to this interpreter."""
    given = {name: getattr(sys.flags, name) for name in type(sys.flags).__match_args__}
    plain = not any(value for name, value in given.items() if name not in _ALWAYS)
    if plain and not sys.warnoptions and not getattr(sys, "_xoptions", {}):
        return []  # as mostly, and `subprocess` takes 8 ms to load
    import subprocess

    # Private, and what multiprocessing uses itself.
    found: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
    return found


def _forget() -> None:
    """In a forked copy of the process: it is the original's."""
    while _launched:
        _launched.pop().forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
