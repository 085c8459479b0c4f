"""How a worker process is started, in the two ways there are.

`ZygoteStarter` has a zygote fork them (POSIX); `SpawnStarter` starts each as a fresh interpreter
(everywhere).  Neither imports the user's `__main__`, needs a guard in it, forks the caller, or
listens on an address.  A started worker is a `WorkerProcess`: a process with multiprocessing's
interface, and the caller's end of its socket.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import threading
from multiprocessing import process
from typing import TYPE_CHECKING, Any, Protocol

from .. import stacks, zygote
from ..ahead import command, pair, taken, untaken
from ..board import Board

if TYPE_CHECKING:
    import subprocess  # loaded where it is needed: it brings `locale`, which all workers would load

PATIENCE = 0.2
"""Seconds that a process may take to its end once it has begun: it closes its socket a little
before, and telling a stack takes some milliseconds."""

_LAST_CALL = 2.0  # seconds for a zygote to end its workers and itself, which takes milliseconds


class Starter(Protocol):
    """A way to start workers, which all write on one board."""

    board: Board

    def start(self, number: int) -> tuple[socket.socket, Popen]:
        """Start worker `number`; OSError when there is no room for it."""

    def alive(self) -> bool:
        """Return whether workers can still be started."""

    def close(self) -> None:
        """End what it takes to start workers; with a zygote, the workers as well."""

    def forget(self) -> None:
        """In a forked copy of the caller: let go of what belongs to the original."""


class Popen:
    """What `multiprocessing.process.BaseProcess` asks of a running process.

    `pid` and `sentinel` are None until the worker has introduced itself.
    """

    def __init__(self) -> None:
        self.pid: int | None = None
        self.sentinel: int | None = None
        self.stack = -1
        self.returncode: int | None = None
        self.owner = os.getpid()  # a forked copy of the caller must not end what is not its own

    def poll(self) -> int | None:
        """Return the exit code (minus the signal for a killed process), None while it runs."""
        if self.returncode is None and self.pid is not None and self.owner == os.getpid():
            self.returncode = self._ask()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait up to `timeout` seconds for the end, and return the exit code."""
        sentinel = self.sentinel
        if self.returncode is None and sentinel is not None:
            # At the interpreter's end a thread that still maps may let go of it meanwhile.
            with contextlib.suppress(OSError), selectors.DefaultSelector() as waiter:
                waiter.register(sentinel, selectors.EVENT_READ)
                waiter.select(timeout)
        return self.poll()

    def kill(self) -> None:
        """End the process at once."""
        self.signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)

    def terminate(self) -> None:
        """Ask the process to end."""
        self.signal(signal.SIGTERM)

    def close(self) -> None:
        """Let go of the sentinel."""
        if self.sentinel is not None and self.owner == os.getpid():
            os.close(self.sentinel)
            self.sentinel = None

    def forget(self) -> None:
        """In a forked copy of the caller, once: let go of what belongs to the original.

        The sentinel's number stays: a selector that the copy inherited still knows it by that.
        """
        if self.sentinel is not None:
            os.close(self.sentinel)

    def _ask(self) -> int | None:
        raise NotImplementedError

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it is still there."""
        if self.returncode is not None or self.owner != os.getpid():
            return
        # By descriptor, because a number can by now be another process's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self.sentinel is not None and hasattr(signal, "pidfd_send_signal"):
                signal.pidfd_send_signal(self.sentinel, number)
            elif self.pid is not None:
                os.kill(self.pid, number)


class WorkerProcess(process.BaseProcess):
    """A worker as a `multiprocessing` process: pid, sentinel, exitcode, is_alive, join, kill."""

    def __init__(self, number: int, popen: Popen) -> None:
        super().__init__(name=f"parallelkit-{number}", daemon=True)
        self._popen = popen

    @property
    def sentinel(self) -> int | None:  # type: ignore[override]
        """A descriptor that is ready to read when the process has ended, where there is one."""
        return self._popen.sentinel

    def introduce(self, pid: int, sentinel: int | None, stack: int) -> None:
        """Record what the worker said of itself."""
        self._popen.pid = pid
        self._popen.sentinel = sentinel
        self._popen.stack = stack

    def last_words(self) -> str:
        """End the process, and return the stack it was in (innermost frame first), if it told."""
        words = ""
        number = stacks.telling_signal()
        popen: Popen = self._popen
        if number is not None and popen.pid is not None and popen.stack >= 0:
            with stacks.Telling(popen.pid, popen.stack) as telling:
                popen.signal(number)
                popen.wait(PATIENCE)
            words = telling.text
        self.kill()
        return words

    def ended(self, timeout: float) -> int | None:
        """Wait up to `timeout` seconds for the end, and return the exit code if it came."""
        code: int | None = self._popen.wait(timeout)
        return code

    def let_go(self) -> None:
        """Free what this end holds of the process."""
        self._popen.close()

    def forget(self) -> None:
        """In a forked copy of the caller, once: free what was copied of that."""
        self._popen.forget()


class ForkedPopen(Popen):
    """A process that the zygote forked, and reaps."""

    def __init__(self, starter: ZygoteStarter) -> None:
        super().__init__()
        self.starter = starter

    def _ask(self) -> int | None:
        assert self.pid is not None
        return self.starter.status(self.pid)


class ZygoteStarter:
    """Starts workers by way of a zygote, itself started at once."""

    def __init__(self) -> None:
        launch = taken()
        discard()  # who cannot be taken now never will be
        self.board, self.pid = launch.board, launch.pid
        self.control = socket.socket(fileno=launch.control)
        self.control.settimeout(None)  # whatever the default is
        self.lock = threading.Lock()

    def start(self, number: int) -> tuple[socket.socket, Popen]:
        """Have the zygote fork worker `number`."""
        ours, theirs = pair()
        with theirs, self.lock:
            request = zygote.REQUEST.pack(zygote.FORK, number)
            try:
                socket.send_fds(self.control, [request], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        return ours, ForkedPopen(self)

    def status(self, pid: int) -> int | None:
        """Return the exit code of a worker, None while it runs; unknown ones count as killed."""
        with self.lock:
            try:
                self.control.sendall(zygote.REQUEST.pack(zygote.STATUS, pid))
                reply = self.control.recv(zygote.REPLY.size)
            except OSError:
                reply = b""
        if len(reply) < zygote.REPLY.size:  # the zygote is dead, and so are its workers
            return -signal.SIGKILL
        (status,) = zygote.REPLY.unpack(reply)
        return None if status == zygote.RUNNING else status

    def alive(self) -> bool:
        """Return whether the zygote still listens."""
        try:
            return bool(self.control.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """End the zygote and every worker, and wait for that."""
        if self.control.fileno() < 0:  # it was closed: the number can be another's by now
            return
        self.control.close()
        self.board.close()
        with contextlib.suppress(ChildProcessError):  # someone else's os.wait() was faster
            _wait_or_kill(self.pid)

    def forget(self) -> None:
        """In a forked copy of the caller: let go of what belongs to the original."""
        self.control.close()
        self.board.close()


def discard() -> None:
    """End what was launched ahead, if nobody has taken it."""
    for launch in untaken():
        launch.forget()
        with contextlib.suppress(ChildProcessError):  # someone else's os.wait() was faster
            _wait_or_kill(launch.pid)


def _wait_or_kill(child: int) -> None:
    """Wait for the end of a child of ours that is about to end; end it if it is stopped."""
    try:
        pidfd = os.pidfd_open(child)
    except ProcessLookupError:  # someone else's os.wait() reaped it
        return
    except (AttributeError, OSError):  # another system, an old kernel: it is not kept waiting for
        os.kill(child, signal.SIGKILL)
    else:
        with selectors.DefaultSelector() as waiter:
            waiter.register(pidfd, selectors.EVENT_READ)
            if not waiter.select(_LAST_CALL):
                os.kill(child, signal.SIGKILL)
        os.close(pidfd)
    os.waitpid(child, 0)


class SpawnedPopen(Popen):
    """A process of the caller's own.  Its standard input tells it that the caller is gone."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        super().__init__()
        self.child = child

    def _ask(self) -> int | None:
        return self.child.poll()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait up to `timeout` seconds for the end, and return the exit code."""
        import subprocess

        with contextlib.suppress(subprocess.TimeoutExpired):
            self.returncode = self.child.wait(timeout)
        return self.returncode

    def close(self) -> None:
        """Let go of the process, which ends if it has not."""
        super().close()
        if self.owner == os.getpid():
            self._cut()
            self.child.kill()
            self.returncode = self.child.wait()

    def forget(self) -> None:
        """In a forked copy of the caller, once: let go of what belongs to the original."""
        super().forget()
        self._cut()
        self.child.returncode = 0  # or it would warn that it is still running

    def _cut(self) -> None:
        assert self.child.stdin is not None
        self.child.stdin.close()

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it is still there."""
        if self.owner == os.getpid():
            self.child.send_signal(number)


class SpawnStarter:
    """Starts every worker as an interpreter of its own."""

    def __init__(self) -> None:
        self.board = Board(portable=True)

    def start(self, number: int) -> tuple[socket.socket, Popen]:
        """Start an interpreter as worker `number`."""
        ours, theirs = pair()
        with theirs:
            try:
                child = self._spawn(theirs, number)
            except OSError:
                ours.close()
                raise
        return ours, SpawnedPopen(child)

    def _spawn(self, theirs: socket.socket, number: int) -> subprocess.Popen[bytes]:
        import subprocess

        if os.name == "posix":
            arguments = f"{theirs.fileno()}, {self.board.fd}, {number}, {os.getpid()}"
            passed = (theirs.fileno(), self.board.fd)
            line = command("spawned", arguments)
            before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
            try:  # Ctrl-C must wait until the worker has a handler, so it begins with it blocked
                return subprocess.Popen(line, stdin=subprocess.PIPE, pass_fds=passed)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        line = command("spawned", f"-1, {self.board.name!r}, {number}, {os.getpid()}")
        child = subprocess.Popen(line, stdin=subprocess.PIPE)
        assert child.stdin is not None
        shared = theirs.share(child.pid)  # type: ignore[attr-defined]  # Windows has it
        child.stdin.write(len(shared).to_bytes(4, "little") + shared)
        child.stdin.flush()
        return child

    def alive(self) -> bool:
        """Return True: an interpreter can be started at any time."""
        return True

    def close(self) -> None:
        """Nothing but the board is kept: workers see their sockets close."""
        self.board.close()

    forget = close


def default() -> type[Any]:
    """Return the way of starting workers for this system, or the one the environment names."""
    name = os.environ.get("PARALLELKIT_START") or ("zygote" if os.name == "posix" else "spawn")
    starters = {"zygote": ZygoteStarter, "spawn": SpawnStarter}
    if name not in starters:
        raise ValueError(f"PARALLELKIT_START must be zygote or spawn, got {name!r}")
    return starters[name]
