"""Functions that misbehave in their worker: they harm themselves, and not others or the call."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import faults
import numpy as np
import pytest
from faults import STARTS, kill, live, noted
from scripts import script

from parallelkit import pmap
from parallelkit.errors import WorkerDied

pytestmark = pytest.mark.slow

posix = pytest.mark.skipif(os.name != "posix", reason="this is about what POSIX systems allow")
linux = pytest.mark.skipif(sys.platform != "linux", reason="this is about Linux's limits")


@pytest.fixture(params=STARTS, autouse=True)
def start(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Do it with each way of starting workers, and not for ever."""
    monkeypatch.setenv("PARALLELKIT_START", request.param)
    with faults.limited():
        yield request.param


def right_or_dead(found: list[Any], bad: Any) -> None:
    """Check that all items but those in `bad` have their result."""
    for position, outcome in enumerate(found):
        if position in bad:
            assert outcome == -position or isinstance(outcome, WorkerDied)
        else:
            assert outcome == -position


def close_everything(x: int) -> int:
    if x == 7:
        os.closerange(0, 20)
    return -x


def close_one(fd: int, x: int) -> int:
    if x == 7:
        with contextlib.suppress(OSError):
            os.close(fd)
    return -x


def write_to_one(fd: int, x: int) -> int:
    if x == 7 and fd not in (1, 2):
        with contextlib.suppress(OSError):
            os.write(fd, b"garbage " * 16)
    return -x


def test_closing_every_descriptor(tmp_path: Path) -> None:
    right_or_dead(pmap(close_everything, range(20), workers=2, chunksize=1, on_error="return"), [7])
    assert pmap(abs, range(20), workers=2) == list(range(20))


@pytest.mark.parametrize("harm", [close_one, write_to_one])
def test_closing_or_writing_to_any_descriptor(harm: Any) -> None:
    for fd in range(3, 21):
        found = pmap(partial(harm, fd), range(12), workers=1, chunksize=4, on_error="return")
        # What it wrote may have spoilt the answers for the items with which it shares a chunk.
        right_or_dead(found, range(4, 8))
    assert pmap(abs, range(20), workers=2) == list(range(20))


def fork_and_return(x: int) -> int:
    if not os.fork():
        return 100 + x
    os.wait()
    return -x


@posix
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_that_returns_as_well() -> None:
    assert pmap(fork_and_return, range(20), workers=2, chunksize=3) == [-x for x in range(20)]


def fork_and_die(pids: str, x: int) -> int:
    if x == 3:
        child = subprocess.Popen(["sleep", "3600"], close_fds=False)
        faults.note(pids, child.pid)
        keeper = os.fork()
        if not keeper:
            signal.pause()
        faults.note(pids, keeper)
        kill()
    return -x


@posix
def test_a_death_that_children_outlive(tmp_path: Path) -> None:
    pids = str(tmp_path / "pids")
    fn = partial(fork_and_die, pids)
    try:
        found = pmap(fn, range(9), workers=1, chunksize=1, on_error="return")
    finally:
        for pid in map(int, noted(pids)):
            os.kill(pid, signal.SIGKILL)

    assert isinstance(found[3], WorkerDied)
    assert "was killed by SIGKILL" in str(found[3])
    right_or_dead(found, [3])


def start_threads(x: int) -> int:
    for _ in range(3):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        threading.Thread(target=threading.Event().wait).start()
    return -x


def test_threads_that_never_end() -> None:
    assert pmap(start_threads, range(12), workers=2) == [-x for x in range(12)]


SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGCHLD", "SIGPIPE", "SIGALRM")]


def change_handlers(how: Any, x: int) -> int:
    for each in SIGNALS:
        signal.signal(each, how)
    subprocess.run([sys.executable, "-c", ""], check=True)
    return -x


def raise_in_handler(*_: object) -> None:
    raise RuntimeError("a signal came")


@posix
@pytest.mark.parametrize("how", [signal.SIG_IGN, signal.SIG_DFL, raise_in_handler], ids=str)
def test_other_signal_handlers(how: Any) -> None:
    if how is raise_in_handler:
        found = pmap(partial(change_handlers, how), range(4), workers=2, on_error="return")
        assert all(x == -at or isinstance(x, RuntimeError) for at, x in enumerate(found))
    else:
        assert pmap(partial(change_handlers, how), range(4), workers=2) == [0, -1, -2, -3]
    assert pmap(abs, range(20), workers=2) == list(range(20))


def block_signals(x: int) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    if x == 2:
        faults.hang()
    return -x


@posix
def test_a_late_item_that_takes_no_signals() -> None:
    found = pmap(block_signals, range(6), workers=2, timeout=3.0, on_error="return")

    assert isinstance(found[2], TimeoutError)
    found[2] = -2
    assert found == [-x for x in range(6)]


def test_output_without_end(start: str, tmp_path: Path) -> None:
    source = """
        from parallelkit import pmap

        def shout(x):
            print("x" * 1_000_000)
            return -x

        assert pmap(shout, range(20), workers=2) == [-x for x in range(20)]
        print("right", flush=True)
    """
    with live(source, tmp_path, PARALLELKIT_START=start) as script:
        assert script.process.stdout is not None
        pipe, total, last = script.process.stdout.fileno(), 0, b""
        while some := os.read(pipe, 4096):  # a slow reader: all of them wait for it
            total, last = total + len(some), (last + some)[-6:]
        status, _, err = script.end()

    assert (status, err) == (0, "")
    assert total == 20 * 1_000_001 + len("right\n")
    assert last == b"right\n"


@posix
def test_output_that_nobody_reads_any_more(start: str, tmp_path: Path) -> None:
    source = """
        import os, sys
        from parallelkit import pmap

        def shout(x):
            print("x" * 100_000)
            return -x

        found = pmap(shout, range(20), workers=2, on_error="return")
        assert all(x == -at or isinstance(x, BrokenPipeError) for at, x in enumerate(found)), found
        sys.stderr.write("right")
        os._exit(0)
    """
    with live(source, tmp_path, PARALLELKIT_START=start) as script:
        assert script.process.stdout is not None
        os.read(script.process.stdout.fileno(), 10)
        script.process.stdout.close()
        assert script.process.stderr is not None
        err = script.process.stderr.read()

    assert err == "right"


def remove_directory(x: int) -> int:
    with contextlib.suppress(OSError):
        os.rmdir(os.getcwd())
    return -x


@posix
def test_a_working_directory_that_is_gone(start: str, tmp_path: Path) -> None:
    source = """
        import os
        from parallelkit import pmap

        def remove(x):
            try:
                os.rmdir(os.getcwd())
            except OSError:
                pass
            return -x

        os.mkdir("inner")
        os.chdir("inner")
        assert pmap(remove, range(9), workers=2) == [-x for x in range(9)]
        assert pmap(abs, range(9), workers=2) == list(range(9))
        os.chdir("..")
        assert len(set(pmap(lambda x: os.getcwd(), range(9), workers=2)) | {os.getcwd()}) == 1
        print("right")
    """
    assert script(source, where=tmp_path, PARALLELKIT_START=start) == "right\n"


@linux
def test_an_item_beyond_the_limit_costs_itself_alone() -> None:
    large = b"x" * (1 << 27)
    limits: dict[str, Any] = {"workers": 2, "max_memory": 1 << 26, "on_error": "return"}
    found = pmap(len, [large, b"a", large, b""], **limits)

    assert [type(each) for each in found] == [MemoryError, int, MemoryError, int]
    assert [each.index for each in found[::2]] == [0, 2]


@linux
def test_what_the_function_brings_along_does_not_count() -> None:
    table = np.arange(1 << 23)

    assert pmap(lambda x: table[x], [1, 2], workers=2, max_memory=1 << 24) == [1, 2]
    assert pmap(
        lambda state, x: state[x],
        [1, 2],
        workers=2,
        max_memory=1 << 24,
        worker_state=partial(bytes, 1 << 27),
    ) == [0, 0]


def take(x: int) -> int:
    return len(bytearray(1 << 30)) if x == 3 else -x


@linux
@pytest.mark.parametrize("limit", [sys.maxsize, 10**30])
def test_a_limit_beyond_all_memory_is_none(limit: int) -> None:
    assert pmap(abs, range(9), workers=2, max_memory=limit) == list(range(9))


@linux
def test_memory_beyond_the_limit_is_an_error_of_the_item() -> None:
    found = pmap(take, range(9), workers=2, max_memory=1 << 28, on_error="return")

    assert type(found[3]) is MemoryError
    assert found[3].index == 3
    found[3] = -3
    assert found == [-x for x in range(9)]
    assert pmap(take, [3], workers=2) == [1 << 30]  # the limit was of that call alone


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[str]:
    """Make a cgroup with so much memory; give the file into which its processes are written."""
    for parent, most, swap in (
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max", "memory.swap.max"),
    ):
        group = f"{parent}/parallelkit-test-{os.getpid()}"
        try:
            os.mkdir(group)
        except OSError:
            continue
        try:
            Path(group, most).write_text(str(limit))
        except OSError:
            os.rmdir(group)
            continue
        with contextlib.suppress(OSError):
            Path(group, swap).write_text(str(limit if parent.endswith("memory") else 0))
        try:
            yield f"{group}/cgroup.procs"
        finally:
            os.rmdir(group)
        return
    pytest.skip("no memory cgroup can be made here")


@linux
def test_the_kernels_killer_takes_one_item_and_its_reason_is_told(
    start: str, tmp_path: Path
) -> None:
    source = """
        import os, sys, warnings
        with open(sys.argv[1], "w") as group:
            group.write(str(os.getpid()))
        from parallelkit import pmap
        from parallelkit.errors import MemoryShortage, WorkerDied

        warnings.simplefilter("ignore", MemoryShortage)

        def take(x):
            return len(bytes([1]) * (1 << 30)) if x == 3 else -x

        found = pmap(take, range(9), workers=2, on_error="return")
        assert isinstance(found[3], WorkerDied), found
        text = str(found[3])
        assert "was killed by SIGKILL (likely out of memory: it held" in text, text
        assert "try fewer workers=, smaller items, or max_memory=" in text, text
        found[3] = -3
        assert found == [-x for x in range(9)], found
        print("right")
    """
    with memory_group(256 << 20) as group:
        assert script(source, group, where=tmp_path, PARALLELKIT_START=start) == "right\n"


HOLDING = """
        import os, sys, time, warnings
        with open(sys.argv[1], "w") as group:
            group.write(str(os.getpid()))
        from parallelkit import pmap
        from parallelkit.errors import MemoryShortage
        from parallelkit.machine import memory

        told = []

        def tell(message, category, *_):
            told.append(category)
            open("short", "w").close()

        def work(x):
            if x == 0:
                held = take(share)
            while not os.path.exists("short"):  # and so until the run knows it
                time.sleep(0.01)
            if x < 3:
                return 0
            os.close(os.open("running", os.O_CREAT | os.O_EXCL))  # nobody is beside us
            held = take(share)
            os.remove("running")
            return len(held)

        def take(size):
            held = bytearray()
            for _ in range(64):
                held += b"x" * (size // 64)
            return held

        # What nobody works with leaves room for one item, and is itself enough of a shortage to
        # last: 6 % is where it begins, and 12 % where it ends.
        warnings.showwarning = tell
        pmap(abs, range(3), workers=3)
        whole = memory().whole
        share = int(whole * 0.06)
        ballast = []
        while memory().available > whole * 0.105:
            ballast.append(b"x" * (1 << 18))
        found = pmap(work, range(12), workers=3, chunksize=1)
        assert found == [0] * 3 + [share // 64 * 64] * 9, found
        assert told == [MemoryShortage], told
        print("right")
"""


@linux
def test_items_that_do_not_fit_beside_each_other_run_one_by_one_and_nobody_is_killed(
    start: str, tmp_path: Path
) -> None:
    with memory_group(512 << 20) as group:
        assert script(HOLDING, group, where=tmp_path, PARALLELKIT_START=start) == "right\n"


def test_more_than_any_socket_holds_in_both_directions_at_once() -> None:
    items = [[str(x) * 25_000 for x in range(i, i + 100)] for i in range(100, 120)]  # 7 MB each
    # No text is large enough to go beside the message, and two chunks are with a worker.
    assert pmap(list, items, workers=2, chunksize=1) == items


def nest(x: int) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.environ.clear()
        sys.path.clear()
        sys.modules.clear()
        sys.setrecursionlimit(50)
    return -x


def test_a_ruined_interpreter_costs_at_most_its_worker() -> None:
    found = pmap(nest, range(6), workers=2, chunksize=1, on_error="return")
    assert all(x == -at or isinstance(x, BaseException) for at, x in enumerate(found))
    assert pmap(abs, range(20), workers=2, retries=1) == list(range(20))
