"""Segments: each way of making one, what is refused, and what nobody can be made to touch."""

from __future__ import annotations

import errno
import gc
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from parallelkit import machine, segments
from parallelkit.segments import Handle

posix = pytest.mark.skipif(sys.platform == "win32", reason="there are no descriptors in it")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and memfd")
STEP = segments.STEP


def target(segment) -> str:
    """Return what the descriptor of a segment is open on."""
    return os.readlink(f"/proc/self/fd/{segment._descriptor}")


def test_segment_is_zeros_or_its_content():
    assert segments.create(5)[:] == bytes(5)
    assert segments.create(3, memoryview(b"abc"))[:] == b"abc"
    assert len(segments.create(0)) == 1
    content = os.urandom(2 * STEP + 7)
    assert segments.create(len(content), memoryview(content))[:] == content


def test_handle_finds_the_same_object_while_it_lives():
    segment = segments.create(3)
    handle = segment.handle()
    assert segments.attach(pickle.loads(pickle.dumps(handle))) is segment
    del segment
    with pytest.raises(FileNotFoundError) as caught:
        segments.attach(handle)
    assert str(caught.value) == segments.GONE


@linux
def test_each_kind_of_file_lies_where_it_should(monkeypatch):
    monkeypatch.setenv(segments.KINDS, "memfd")
    token = (segment := segments.create(3)).handle().token
    assert target(segment) == f"/memfd:parallelkit-{token} (deleted)"
    monkeypatch.setenv(segments.KINDS, "file")
    token = (segment := segments.create(3)).handle().token
    assert target(segment) == f"{segments._folder(3)}/parallelkit-{token} (deleted)"
    monkeypatch.setenv(segments.KINDS, "named")
    place = (segment := segments.create(3)).handle().place
    assert os.stat(place).st_mode & 0o777 == 0o600
    del segment
    assert not os.path.exists(place)


def test_environment_that_names_no_way_is_refused(monkeypatch):
    monkeypatch.delenv(segments.KINDS, raising=False)
    usual = segments.kind_here()
    monkeypatch.setenv(segments.KINDS, "paper")
    with pytest.raises(ValueError, match=f"^PARALLELKIT_SEGMENTS must be one of {usual}") as caught:
        segments.create(2)
    assert str(caught.value).endswith(", got 'paper'")


@linux
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_system_that_denies_memfd_gives_a_file(monkeypatch, code):
    def denied(name):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "memfd_create", denied)
    segment = segments.create(3)
    assert target(segment).startswith(segments._folder(3))
    monkeypatch.delattr(os, "memfd_create")
    assert segments.kind_here() == "file"


@linux
def test_other_troubles_of_making_one_are_told_as_they_are(monkeypatch):
    def full(name):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setenv(segments.KINDS, "memfd")
    monkeypatch.setattr(os, "memfd_create", full)
    with pytest.raises(OSError, match="Too many open files"):
        segments.create(3)


@posix
def test_file_lies_in_the_temporary_folder_where_dev_shm_is_full_or_missing(monkeypatch):
    import tempfile

    for space in ((1 << 26, 100), (None, None)):
        monkeypatch.setattr(machine, "shm_space", lambda space=space: space)
        assert segments._folder(100) == tempfile.gettempdir()


@posix
def test_system_that_cannot_reserve_writes_zeros(monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    monkeypatch.setenv(segments.KINDS, "named")
    segment = segments.create(STEP + 3)
    assert segment[:] == bytes(STEP + 3)
    assert os.stat(segment.handle().place).st_blocks * 512 > STEP


@linux
def test_every_page_is_there_before_it_is_used():
    for segment in (segments.create(3 * STEP), segments.create(STEP, memoryview(bytes(STEP)))):
        assert os.fstat(segment._descriptor).st_blocks * 512 >= len(segment)


@linux
def test_ctrl_c_ends_the_making_of_a_large_segment_and_leaves_nothing(monkeypatch):
    reserve, steps, before = os.posix_fallocate, [], len(os.listdir("/proc/self/fd"))

    def interrupted(descriptor, start, length):
        reserve(descriptor, start, length)
        steps.append(start)
        if len(steps) == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(os, "posix_fallocate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        segments.create(8 * STEP)
    assert steps == [0, STEP]
    assert len(os.listdir("/proc/self/fd")) == before


@posix
def test_closing_spares_a_descriptor_that_is_another_file_now():
    segment = segments.create(3)
    number = segment._descriptor
    os.close(number)
    receive, send = os.pipe()
    if number not in (receive, send):
        os.dup2(receive, number)
    del segment
    gc.collect()
    os.write(send, b"x")
    assert os.read(number, 1) == b"x"
    for descriptor in {number, receive, send}:
        os.close(descriptor)


@posix
def test_place_that_became_something_else_is_not_opened(tmp_path):
    # Opening a pipe that nobody writes would wait for ever.
    handle = Handle(str(tmp_path / "pipe-abc"), "abc", (1, 1), 3)
    os.mkfifo(handle.place)
    with pytest.raises(FileNotFoundError):
        segments.attach(handle)


@linux
def test_right_inode_with_a_wrong_token_is_refused():
    segment = segments.create(3)
    other = segment.handle()._replace(token="0" * 32)
    with pytest.raises(FileNotFoundError):
        segments.attach(other)


@posix
def test_file_that_changes_while_it_is_opened_is_noticed(tmp_path, monkeypatch):
    place = tmp_path / "segment-abc"
    place.write_bytes(b"abc")
    handle = Handle(str(place), "abc", segments._identity(0), 3)
    monkeypatch.setattr(segments, "_is_it", lambda handle, place: True)
    with pytest.raises(FileNotFoundError):
        segments.attach(handle)


@linux
def test_file_that_is_too_short_is_refused_and_closed(tmp_path):
    segment = segments.create(3)
    handle = segment.handle()._replace(length=1 << 20)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ValueError, match="mmap length is greater"):
        segments._opened(handle)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_while_another_thread_attaches_does_not_hang():
    segment = segments.create(3)
    held, release = threading.Event(), threading.Event()

    def hold():
        with segments._segments._lock:
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = fork_quietly()
    if child == 0:
        signal.alarm(30)
        found = segments.attach(segment.handle())
        os._exit(0 if found is segment else 1)
    assert os.waitpid(child, 0)[1] == 0
    release.set()
    thread.join()


def fork_quietly() -> int:
    """Fork although there are threads, of which Python warns from 3.12 on."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


@posix
def test_fork_does_not_take_the_name_away(monkeypatch):
    monkeypatch.setenv(segments.KINDS, "named")
    segment = segments.create(3)
    place = segment.handle().place
    segments._unlink(place, os.getpid() + 1)
    assert os.path.exists(place)


# Where memory is short.


@pytest.fixture(params=["memfd", "file", "named"])
def kind(request, monkeypatch):
    """Each way of making segments that Linux has."""
    monkeypatch.setenv(segments.KINDS, request.param)
    return request.param


def printed(code: str, *before: str) -> str:
    """Return what a Python that is started by the command `before` prints."""
    command = [*before, sys.executable, "-X", "dev", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.strip()


@linux
@pytest.mark.parametrize("size", [100, 60_000, 1 << 20, 40 << 20, 1 << 33])
def test_limit_of_the_address_space_is_a_memory_error(kind, size):
    code = f"""if 1:
        import gc, os, resource
        from parallelkit import SharedArray, machine, share
        import numpy
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (96 << 20), used + (96 << 20)))
        count = max(2, (200 << 20) // {size})
        arrays = []
        try:
            for _ in range(min(count, 20_000)):
                arrays.append(SharedArray({size}, "u1"))
                arrays[-1][...] = 1
        except MemoryError as error:
            print("full", "does not fit" in str(error))
        assert all(array.all() for array in arrays)
        del arrays
        gc.collect()
        assert share([1, 2]).tolist() == [1, 2]
    """
    assert printed(code) == ("" if size == 100 else "full True")


UNSHARE = ["unshare", "--mount", "sh", "-c"]
SMALL = 'mount -t tmpfs -o size=1m none /dev/shm && exec "$@"'
NONE = 'mount -t tmpfs -o ro none /dev/shm && exec "$@"'


@linux
@pytest.mark.skipif(
    not shutil.which("unshare")
    or subprocess.call([*UNSHARE, "mount -t tmpfs none /dev/shm"], stderr=subprocess.DEVNULL),
    reason="may not mount",
)
@pytest.mark.parametrize("mount", [SMALL, NONE], ids=["small", "none"])
def test_dev_shm_of_one_megabyte_and_none_that_can_be_written(kind, mount):
    code = """if 1:
        import numpy as np
        from parallelkit import SharedArray, pmap, share
        arrays = [SharedArray(50_000, "u1") for _ in range(60)]
        arrays += [share(np.zeros(3 << 20, "u1")) for _ in range(3)]
        for array in arrays:
            array[...] = 7
        def last(array):
            return int(array[-1])
        print(set(pmap(last, arrays, workers=2)))
    """
    assert printed(code, *UNSHARE, mount, "sh") == "{7}"


# What is only to be read.


def test_one_that_is_mapped_to_be_written_serves_readers_too():
    segment = segments.create(3)
    assert segments.attach(segment.handle(), writable=False) is segment


def test_one_that_is_mapped_to_be_read_is_mapped_again_for_writers(kind):
    code = """if 1:
        import sys
        from parallelkit import segments
        segment = segments.create(3)
        print(*segment.handle()[:2], *segment.handle().identity, flush=True)
        sys.stdin.readline()
        print(segment[:])
    """
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as maker:
        place, token, *identity = maker.stdout.readline().split()
        handle = Handle(place, token, tuple(map(int, identity)), 3)
        assert segments.there(handle)
        read = segments.attach(handle, writable=False)
        with pytest.raises(TypeError):
            read[0] = 1
        assert segments.attach(handle, writable=False) is read
        write = segments.attach(handle)
        assert write is not read
        write[0] = 65
        assert read[:] == b"A\0\0"
        assert maker.communicate("\n")[0] == "b'A\\x00\\x00'\n"
    assert not segments.there(handle)
