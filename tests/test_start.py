"""Both ways of starting workers: who answers, how ends are told, and that nothing outlives."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from time import monotonic

import psutil
import pytest
from scripts import LIMIT, MARK, assert_gone, environment, marked, script

from parallelkit import pmap, wire
from parallelkit.backends import start
from parallelkit.backends.start import SpawnStarter, WorkerProcess, ZygoteStarter

STARTERS = {"zygote": ZygoteStarter, "spawn": SpawnStarter}


@pytest.fixture(params=STARTERS)
def starter(request) -> Iterator[start.Starter]:
    made = STARTERS[request.param]()
    yield made
    made.close()


def hired(starter: start.Starter, number: int = 0) -> tuple[socket.socket, WorkerProcess]:
    """Start a worker and wait until it has introduced itself."""
    sock, popen = starter.start(number)
    process = WorkerProcess(number, popen)
    sock.settimeout(LIMIT)
    hello, fds, _, _ = socket.recv_fds(sock, wire.HEADER.size, 1)
    kind, size, pid, stack, _ = wire.HEADER.unpack(hello)
    assert (kind, size) == (wire.READY, 0)
    process.introduce(pid, fds[0] if fds else None, stack)
    return sock, process


def test_a_worker_introduces_itself(starter):
    sock, process = hired(starter)

    assert psutil.pid_exists(process.pid)
    assert process.is_alive()
    assert process.exitcode is None
    assert process.name == "parallelkit-0"
    linux = sys.platform == "linux" and isinstance(starter, ZygoteStarter)
    assert (process.sentinel is not None) == linux

    sock.close()
    process.join(LIMIT)
    assert process.exitcode == 0
    process.let_go()


@pytest.mark.parametrize(("end", "code"), [("kill", -9), ("terminate", -15)])
def test_how_a_worker_was_ended_is_told(starter, end, code):
    sock, process = hired(starter)

    getattr(process, end)()
    process.join(LIMIT)

    assert process.exitcode == code
    assert not process.is_alive()
    process.kill()  # the number may be another's by now
    with sock:
        assert sock.recv(1) == b""
    process.let_go()


def test_several_workers_have_a_line_each(starter):
    crew = [hired(starter, number) for number in (0, 1, 7)]

    assert len({process.pid for _, process in crew}) == 3
    for sock, process in crew:
        sock.close()
        assert process.ended(LIMIT) == 0
        process.let_go()


def test_a_worker_that_nobody_waits_for_is_silent(starter, capfd):
    for number in range(3):
        sock, popen = starter.start(number)
        sock.close()
        popen.close()
    sock, process = hired(starter, 3)
    sock.close()
    assert process.ended(LIMIT) == 0
    process.let_go()

    starter.close()
    assert capfd.readouterr() == ("", "")


def test_closing_a_zygote_ends_its_workers():
    starter = ZygoteStarter()
    crew = [hired(starter, number) for number in range(3)]
    pids = [starter.pid, *(process.pid for _, process in crew)]

    starter.close()

    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    for sock, process in crew:
        assert sock.recv(1) == b""
        assert process.exitcode == -signal.SIGKILL  # as far as anyone can tell
        sock.close()
        process.let_go()


def test_a_zygote_that_is_dead_starts_nobody():
    starter = ZygoteStarter()
    assert starter.alive()

    os.kill(starter.pid, signal.SIGKILL)
    os.waitid(os.P_PID, starter.pid, os.WEXITED | os.WNOWAIT)

    assert not starter.alive()
    with pytest.raises(OSError, match="Broken pipe"):
        starter.start(0)
    starter.close()
    assert not starter.alive()


def test_a_program_that_cannot_be_started_leaves_nothing(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")

    with pytest.raises(FileNotFoundError):
        ZygoteStarter()
    spawner = SpawnStarter()
    with pytest.raises(FileNotFoundError):
        spawner.start(0)
    spawner.close()


def test_blocked_signals_are_not_passed_on():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])
    try:
        starter = ZygoteStarter()
        sock, process = hired(starter)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    process.terminate()

    assert process.ended(LIMIT) == -signal.SIGTERM
    sock.close()
    process.let_go()
    starter.close()


def test_a_path_may_hold_what_imports_ignore(monkeypatch, starter):
    monkeypatch.setattr(sys, "path", [*sys.path, pathlib.Path("/tmp"), "it's {here}"])

    sock, process = hired(starter)

    sock.close()
    assert process.ended(LIMIT) == 0
    process.let_go()


def test_the_way_of_starting(monkeypatch):
    monkeypatch.delenv("PARALLELKIT_START", raising=False)
    assert start.default() is ZygoteStarter
    monkeypatch.setenv("PARALLELKIT_START", "spawn")
    assert start.default() is SpawnStarter
    monkeypatch.setenv("PARALLELKIT_START", "fork")
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is asserted whole
        start.default()
    assert str(caught.value) == "PARALLELKIT_START must be zygote or spawn, got 'fork'"


each_start = pytest.mark.parametrize("way", STARTERS)


@each_start
def test_programs_of_the_users_hold_nothing_of_ours(way, monkeypatch):
    monkeypatch.setenv("PARALLELKIT_START", way)

    def held(_):
        line = ["ls", "-l", "/proc/self/fd"]
        return subprocess.check_output(line, close_fds=False, text=True)

    for text in (*pmap(held, range(4), workers=2), held(0)):
        assert "/proc/" in text
        assert "socket:" not in text
        assert "pidfd" not in text
        assert "parallelkit" not in text


CALLER = """
import os, subprocess, sys
from parallelkit import imap

def who(x):
    if x < 2:
        return os.getpid()
    import signal
    while True:
        signal.pause()

results = imap(who, range(9), workers=2, chunksize=1)
next(results), next(results)
if sys.argv[1] == "shared":
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and os.path.exists(f"/proc/self/fd/{fd}"):
            os.set_inheritable(fd, True)
    holder = "import sys; print('held', flush=True); sys.stdin.read()"
    subprocess.Popen([sys.executable, "-c", holder], close_fds=False)
else:
    print("up", flush=True)
sys.stdin.read()
"""


@each_start
@pytest.mark.parametrize("shared", ["alone", "shared"])
def test_a_caller_that_is_killed_takes_its_workers_along(way, shared, tmp_path):
    env = environment(PARALLELKIT_START=way)
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, shared],
        env=env,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as caller:
        assert caller.stdout.readline() in {b"up\n", b"held\n"}
        ours = {each.pid for each in marked(env[MARK])}
        assert len(ours) >= 3
        holders = {
            each.pid for each in marked(env[MARK]) if "sys.stdin.read()" in str(each.cmdline()[-1])
        } - {caller.pid}
        assert len(holders) == (shared == "shared")

        caller.kill()
        deadline = monotonic() + LIMIT
        while left := [each for each in marked(env[MARK]) if each.pid not in holders]:
            assert monotonic() < deadline, left
            psutil.wait_procs(left, timeout=1)

        assert {each.pid for each in marked(env[MARK])} == holders
    assert_gone(env[MARK])


@each_start
def test_a_forked_copy_of_the_caller_disturbs_nobody(way, tmp_path):
    source = """
        import gc, os, sys, warnings
        from parallelkit import imap, pmap
        from parallelkit.backends import warm

        warnings.simplefilter("error")
        pmap(abs, range(9), workers=2)
        running = imap(lambda x: x, iter(range(50)), workers=2, chunksize=1)
        first = next(running)
        links = {*warm._current[1].busy, *warm._current[1].idle}
        crew = {link.process.pid for link in links}
        sys.stdout.flush()
        child = os.fork()
        if not child:
            assert warm._current is None
            mine = pmap(lambda x: os.getpid(), range(9), workers=2)
            assert not crew & set(mine)
            del running
            gc.collect()
            warm.shut()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        assert [first, *running] == list(range(50))
        assert set(warm._current[1].idle) <= links
        assert pmap(abs, range(9), workers=2) == list(range(9))
        print("undisturbed")
    """
    assert script(source, where=tmp_path, PARALLELKIT_START=way) == "undisturbed\n"


@each_start
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_make_no_new_pool(way, closed, tmp_path):
    source = """
        import os
        from parallelkit import pmap
        from parallelkit.backends import warm

        def inside(x):
            import subprocess, sys
            code = "import sys; sys.stdin.read(); print('there')"
            return subprocess.run([sys.executable, "-c", code], capture_output=True).stdout

        pmap(abs, range(9), workers=2)
        first = warm.pool()
        found = pmap(inside, range(2), workers=2)
        good = first is warm.pool() and found == [b"there\\n"] * 2
        open("verdict", "w").write(repr((good, found)))
    """
    command = ["sh", "-c", f'exec "$0" script.py {closed}', sys.executable]
    script(source, where=tmp_path, command=command, PARALLELKIT_START=way)

    assert (tmp_path / "verdict").read_text() == repr((True, [b"there\n"] * 2))


def test_flags_of_the_interpreter_are_passed_on(tmp_path):
    source = """
        import sys
        from parallelkit import pmap

        def flags(_):
            import sys
            return sys.flags.optimize, sys.flags.dont_write_bytecode, sys.warnoptions

        print(pmap(flags, range(1), workers=1)[0])
    """
    command = [sys.executable, "-O", "-B", "-W", "error", "script.py"]
    for way in STARTERS:
        printed = script(source, where=tmp_path, command=command, PARALLELKIT_START=way)
        assert printed == "(1, 1, ['error'])\n"
