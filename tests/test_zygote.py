"""The zygote forks, reaps and watches; whoever is killed, nobody stays behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from scripts import LIMIT, environment, script

from parallelkit import pmap, wire, zygote
from parallelkit.backends import warm
from parallelkit.backends.start import ZygoteStarter
from parallelkit.errors import ParallelError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="elsewhere workers are spawned")


@pytest.fixture
def starter() -> Iterator[ZygoteStarter]:
    made = ZygoteStarter()
    yield made
    made.close()


def forked(starter: ZygoteStarter, number: int = 0) -> tuple[socket.socket, int, int]:
    """Have a worker forked; return its socket, its number as a process, and what tells its end."""
    sock, _ = starter.start(number)
    sock.settimeout(LIMIT)
    hello, (pidfd,), _, _ = socket.recv_fds(sock, wire.HEADER.size, 1)
    return sock, wire.HEADER.unpack(hello)[2], pidfd


def wait_end(pidfd: int) -> None:
    """Wait until a process has ended, and let go of what tells it."""
    import selectors

    with selectors.DefaultSelector() as waiter:
        waiter.register(pidfd, selectors.EVENT_READ)
        assert waiter.select(LIMIT)
    os.close(pidfd)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_the_status_of_a_worker(starter, number):
    sock, pid, pidfd = forked(starter)
    assert starter.status(pid) is None

    os.kill(pid, number)
    wait_end(pidfd)

    assert starter.status(pid) == -number
    sock.close()


def test_a_process_that_is_none_of_its_own_has_no_status(starter):
    assert starter.status(os.getpid()) is None


def test_a_caller_that_ends_before_it_is_answered_leaves_no_traceback(capfd):
    starter = ZygoteStarter()
    os.kill(starter.pid, signal.SIGSTOP)
    starter.control.sendall(zygote.REQUEST.pack(zygote.STATUS, 0))
    starter.control.shutdown(socket.SHUT_RD)
    os.kill(starter.pid, signal.SIGCONT)

    assert psutil.Process(starter.pid).wait(LIMIT) == 0
    assert capfd.readouterr().err == ""
    starter.close()


def test_a_worker_is_the_zygotes_child_and_not_ours(starter):
    sock, pid, pidfd = forked(starter)

    assert psutil.Process(pid).ppid() == starter.pid
    assert psutil.Process(starter.pid).ppid() == os.getpid()
    assert psutil.Process(starter.pid).num_threads() == 1
    sock.close()
    wait_end(pidfd)


def test_ended_workers_do_not_pile_up(starter):
    for number in range(5):
        sock, _, pidfd = forked(starter, number)
        sock.close()
        wait_end(pidfd)

    starter.status(0)  # it has reaped them by the time it answers
    assert not psutil.Process(starter.pid).children()
    assert psutil.Process(starter.pid).num_fds() < 12


def test_a_request_without_a_socket_is_passed_over(starter):
    starter.control.sendall(zygote.REQUEST.pack(zygote.FORK, 0))

    sock, pid, pidfd = forked(starter)
    assert starter.status(pid) is None
    sock.close()
    wait_end(pidfd)


def test_workers_end_with_the_zygote(starter):
    crew = [forked(starter, number) for number in range(3)]

    os.kill(starter.pid, signal.SIGKILL)

    for sock, pid, pidfd in crew:
        if sys.platform == "linux":
            wait_end(pidfd)
        assert starter.status(pid) == -signal.SIGKILL
        sock.close()


def test_the_next_call_works_after_the_zygote_was_killed():
    assert pmap(abs, range(9), workers=2) == list(range(9))
    first = warm.pool()
    os.kill(first.starter.pid, signal.SIGKILL)
    os.waitid(os.P_PID, first.starter.pid, os.WEXITED | os.WNOWAIT)

    assert pmap(abs, range(9), workers=2) == list(range(9))
    assert warm.pool() is not first


def test_a_zygote_killed_in_the_middle_ends_the_run_and_no_more():
    def kill(x):
        if x == 5:
            if os.getppid() > 1:  # else it is a worker that no zygote has, and hangs
                os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()
        return x

    with pytest.raises(ParallelError):
        pmap(kill, range(100), workers=2, chunksize=1)

    assert pmap(abs, range(9), workers=2) == list(range(9))


def test_interrupts_are_the_callers_to_understand(starter):
    sock, pid, pidfd = forked(starter)
    os.kill(starter.pid, signal.SIGINT)
    os.kill(pid, signal.SIGINT)

    assert starter.status(pid) is None
    other, _, other_end = forked(starter, 1)
    for each, end in ((sock, pidfd), (other, other_end)):
        each.close()
        wait_end(end)


def ran(code: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], env=environment(), text=True, check=False, **options
    )


def test_leaving_writes_out_what_was_printed():
    code = "import sys; from parallelkit.zygote import leave; print('said', end=''); leave(3)"

    ended = ran(code, stdout=subprocess.PIPE)

    assert (ended.stdout, ended.returncode) == ("said", 3)


@pytest.mark.parametrize("broken", ["None", "3"])
def test_leaving_cannot_be_kept_up(broken):
    code = (
        "import sys; from parallelkit.zygote import leave\n"
        f"sys.stdout = {broken}\n"
        "sys.stderr.write('said'); leave(0)"
    )

    ended = ran(code, stderr=subprocess.PIPE)

    assert ended.stderr == "said"
    assert ended.returncode == (broken != "None")


def test_closing_others_keeps_what_is_named():
    code = """
import os
from parallelkit.zygote import close_others
made = [os.dup(1) for _ in range(6)]
close_others(made[4], made[1])
def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
print([is_open(fd) for fd in (0, 1, 2, *made)])
"""
    ended = ran(code, stdout=subprocess.PIPE)

    assert ended.stdout == f"{[True] * 3 + [False, True, False, False, True, False]}\n"


def test_standard_streams_are_made_to_exist():
    code = """
import os
for fd in (0, 1, 2):
    os.close(fd)
from parallelkit.zygote import open_standard
open_standard()
kept = [os.get_inheritable(fd) for fd in (0, 1, 2)]
os._exit(0 if all(kept) and os.read(0, 1) == b"" and os.dup(0) == 3 else 1)
"""
    assert ran(code).returncode == 0


def test_a_child_whose_parent_is_gone_already_ends_itself():
    code = "from parallelkit.zygote import die_with_parent; die_with_parent(1 << 22); print('on')"

    ended = ran(code, stdout=subprocess.PIPE)

    assert (ended.stdout, ended.returncode) == ("", 1) if sys.platform == "linux" else ("on\n", 0)


def test_a_worker_takes_nothing_from_standard_input(tmp_path):
    source = """
        import sys
        from parallelkit import pmap
        print(pmap(lambda _: sys.__stdin__.read(), range(2), workers=1))
    """
    assert script(source, where=tmp_path) == "['', '']\n"
