"""SharedArray: what it holds, how it feels, and where it goes, with real processes."""

from __future__ import annotations

import copy
import doctest
import gc
import operator
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parallelkit import machine, segments, shared
from parallelkit.shared import SharedArray, share

LINUX = sys.platform == "linux"
KINDS = ["memfd", "file", "named"] if LINUX else [segments.kind_here()]
RECEIVE = "import pickle, sys; shared = pickle.loads(bytes.fromhex(sys.stdin.readline()))\n"


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch):
    monkeypatch.setenv(segments.KINDS, request.param)
    return request.param


def passed(array, code: str) -> str:
    """Return what a fresh Python prints that receives `shared` and runs `code`."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", RECEIVE + code],
        input=pickle.dumps(array).hex() + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.strip()


class Peer:
    """Another Python, which runs the lines it is sent and answers each with one line."""

    def __init__(self) -> None:
        loop = "import sys; names = {}\nfor line in sys.stdin: exec(line, names)"
        self.process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-u", "-c", loop],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, line: str) -> str:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def handle(self, expression: str) -> bytes:
        make = "import pickle, os, numpy as np; from parallelkit.shared import SharedArray, share; "
        hexed = "print(pickle.dumps(shared).hex())"
        return bytes.fromhex(self.ask(f"{make}shared = {expression}; {hexed}"))


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


# What it holds.

PLAIN = hnp.scalar_dtypes() | hnp.unicode_string_dtypes() | hnp.byte_string_dtypes()
DTYPES = PLAIN | hnp.array_dtypes(subtype_strategy=PLAIN, max_size=3, allow_subarrays=True)
SHAPES = hnp.array_shapes(min_dims=0, min_side=0, max_side=4)


@given(dtype=DTYPES, shape=SHAPES, order=st.sampled_from("CF"), reverse=st.booleans())
def test_array_of_any_dtype_shape_and_order_is_the_same_after_a_trip(dtype, shape, order, reverse):
    source = np.zeros(shape, dtype, order)
    source.view(np.ndarray).flags.writeable = True
    if source.nbytes:
        rows = source.ravel(order).view(np.uint8)
        rows[:] = np.arange(rows.size) % 2  # no NaN, no number that is no character
    if reverse and source.ndim:
        source = source[::-1]
    made = share(source)
    for array in (made, pickle.loads(pickle.dumps(made))):
        assert array.dtype == source.dtype
        assert array.shape == source.shape
        assert array.array.tobytes() == source.tobytes()
        assert array.array.flags.writeable
        if source.flags.f_contiguous and not source.flags.c_contiguous:
            assert array.array.flags.f_contiguous
        else:
            assert array.array.flags.c_contiguous


@given(dtype=DTYPES, shape=SHAPES, order=st.sampled_from("CF"))
def test_new_array_is_what_zeros_gives(dtype, shape, order):
    array, zeros = SharedArray(shape, dtype, order), np.zeros(shape, dtype, order)
    assert (array.shape, array.dtype, array.nbytes) == (zeros.shape, zeros.dtype, zeros.nbytes)
    assert (array.ndim, array.size) == (zeros.ndim, zeros.size)
    assert array.size == 0 or array.strides == zeros.strides
    assert array.array.tobytes() == zeros.tobytes()


def test_shape_may_be_a_number_and_dtype_a_word(kind):
    array = SharedArray(3, "S")
    assert (array.shape, array.dtype) == ((3,), np.dtype("S1"))
    assert SharedArray(np.int64(2)).tolist() == [0.0, 0.0]
    assert share([1, 2]).tolist() == [1, 2]
    assert SharedArray(()).array.shape == ()


def test_large_array_takes_all_its_pages(kind):
    source = np.arange(400_000.0)  # several steps of writing
    assert np.array_equal(share(source), source)
    assert np.array_equal(share(source[::2]), source[::2])
    assert not SharedArray(400_000).any()


def test_sharing_leaves_the_source_alone_and_accepts_one_that_is_read_only():
    source = np.arange(3.0)
    source.flags.writeable = False
    array = share(source)
    array[0] = 9
    assert source[0] == 0
    assert array.tolist() == [9, 1, 2]


@pytest.mark.parametrize("dtype", [object, [("name", "U3"), ("value", object)]])
def test_dtype_with_python_objects_is_refused(dtype):
    for make in (lambda: SharedArray(2, dtype), lambda: share(np.zeros(2, dtype))):
        with pytest.raises(TypeError) as caught:
            make()
        assert str(caught.value) == (
            f"a SharedArray cannot hold Python objects, got dtype {np.dtype(dtype)!r}: "
            "use numbers, strings of fixed length, or a structured dtype of such"
        )


def test_masked_array_is_refused():
    with pytest.raises(TypeError) as caught:
        share(np.ma.masked_array([1, 2], [True, False]))
    assert str(caught.value) == (
        "a SharedArray has no mask: share array.filled(), or .data and .mask each"
    )


def test_shape_and_order_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"^shape must not hold negative lengths, got \(2, -1\)$"):
        SharedArray((2, -1))
    with pytest.raises(ValueError, match=r"^order must be 'C' or 'F', got 'K'$"):
        SharedArray(2, order="K")


@pytest.mark.parametrize("lengths", ["1 << 47", "machine.memory().available + (1 << 30)"])
def test_more_than_there_is_is_refused_before_it_is_taken(kind, lengths):
    length = eval(lengths)
    with pytest.raises(MemoryError) as caught:
        SharedArray(length, np.int8)
    text, advice = str(caught.value).splitlines()
    assert text.startswith(
        f"a shared array of {length / 2**30:.2f} GiB ({length} bytes) does not fit: "
    )
    assert text.endswith(f" bytes) are available ({machine.memory().source})")
    assert advice == "share a part of it, or use a smaller dtype"


@pytest.mark.skipif(not LINUX, reason="RLIMIT_FSIZE binds memory files on Linux")
@pytest.mark.parametrize("make", ["SharedArray(1 << 20, 'i1')", "share(np.ones(1 << 20, 'i1'))"])
def test_limit_met_while_making_it_is_a_memory_error_and_leaves_nothing(kind, make):
    code = f"""if 1:
        import gc, os, resource, numpy as np
        from parallelkit.shared import SharedArray, share
        share([1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        before = len(os.listdir('/proc/self/fd'))
        try:
            {make}
        except MemoryError as error:
            print(error)
        gc.collect()
        assert len(os.listdir('/proc/self/fd')) == before
    """
    assert passed(None, code) == (
        "a shared array of 0.00 GiB (1048576 bytes) does not fit: [Errno 27] File too large"
    )


# How it feels.


def test_in_place_operations_write_through():
    array = share([1.0, 2.0])
    same, view = array, array.array
    array += 1
    array *= [2, 3]
    assert array is same
    assert np.add(array, 1, out=array) is array
    np.copyto(array[:1], 0)
    np.add.at(array, [1], 5)
    assert view.tolist() == [0, 15]


def test_readonly_array_shows_what_is_written_and_refuses_to_be():
    array = share(np.arange(4).reshape(2, 2))
    table = array.readonly()
    array[0, 0] = 9
    for each in (table, pickle.loads(pickle.dumps(table)), table.readonly()):
        assert each.tolist() == [[9, 1], [2, 3]]
        for write in (lambda each=each: each.fill(1), lambda each=each: np.add(each, 1, out=each)):
            with pytest.raises(ValueError, match=r"(destination|output array) is read-only$"):
                write()
        with pytest.raises(ValueError, match="read-only"):
            operator.iadd(each, 1)
        with pytest.raises(ValueError, match="cannot set WRITEABLE"):
            each.array.flags.writeable = True
    assert array.array.flags.writeable
    assert copy.copy(table).array.flags.writeable
    array.close()
    assert table[0, 0] == 9


def test_functions_and_methods_of_numpy_take_it():
    array = share(np.arange(6).reshape(2, 3))
    assert (np.sum(array), array.max(), array.T.shape) == (15, 5, (3, 2))
    assert np.concatenate([array, array]).shape == (4, 3)
    assert np.array(array, dtype=float).dtype == float
    assert np.asarray(array) is array.array
    assert np.asarray(array, dtype="i2").dtype == np.int16
    assert not np.shares_memory(np.array(array), array.array)
    np.fill_diagonal(array, 9)
    assert np.sum(array, axis=0, out=SharedArray(3, int)).tolist() == [12, 10, 7]
    assert np.modf(share([1.5]), out=(SharedArray(1), SharedArray(1)))[0].tolist() == [0.5]
    with pytest.raises(ValueError, match="without a copy"):
        array.__array__(float, copy=False)


def test_it_is_a_sequence_and_a_number_where_an_array_is():
    array = share([3, 4])
    assert (len(array), list(array), 4 in array, 5 in array) == (2, [3, 4], True, False)
    assert (array[1], array[:1].tolist()) == (4, [3])
    one = share(2)
    assert (int(one), float(one), complex(one), bool(one), [5, 6, 7][one]) == (2, 2.0, 2, True, 7)
    assert (repr(array), str(array)) == ("SharedArray(array([3, 4]))", "[3 4]")
    with pytest.raises(TypeError, match="unhashable"):
        hash(array)
    with pytest.raises(AttributeError):
        array.unheard_of = 1
    with pytest.raises(AttributeError, match="'SharedArray' object has no attribute '_nothing'"):
        _ = array._nothing


def test_copies_are_independent():
    array = share([1])
    for other in (copy.copy(array), copy.deepcopy(array), share(array)):
        other[0] = 5
        assert type(other) is SharedArray
    assert array.tolist() == [1]


def test_closed_array_is_refused_and_its_views_live_on(kind):
    with share([1, 2]) as array:
        view = array[1:]
    array.close()
    gc.collect()
    view += 1
    assert view.tolist() == [3]
    assert repr(array) == str(array) == "SharedArray(closed)"
    for use in (lambda: array[0], lambda: array + 1, lambda: array.shape, pickle.dumps):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 -- all of it is below
            use(array) if use is pickle.dumps else use()
        assert str(caught.value) == (
            "this SharedArray was closed: use it before close(), or keep .array"
        )


def test_examples_run_and_numpy_waits_for_the_first_array():
    assert doctest.testmod(shared).failed == 0
    code = "import sys, parallelkit.shared; print('numpy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code]) == b"False\n"


# Where it goes.


def test_another_process_reads_and_writes_the_same_memory(kind):
    array = share(np.arange(4))
    assert passed(array, "print(shared, shared.dtype); shared[1] = 50") == "[0 1 2 3] int64"
    assert array.tolist() == [0, 50, 2, 3]


def test_one_process_maps_a_segment_once(kind):
    array = share([1, 2])
    travelled = pickle.loads(pickle.dumps(array))
    assert travelled.array.base is array.array.base
    twice = (
        "other = pickle.loads(pickle.dumps(shared)); print(other.array.base is shared.array.base)"
    )
    assert passed(array, twice) == "True"


def test_threads_that_receive_at_once_get_one_mapping():
    with Peer() as peer:
        handle = peer.handle("share([1, 2])")
        gate, received = threading.Barrier(8), []

        def receive():
            gate.wait()
            received.append(pickle.loads(handle))

        threads = [threading.Thread(target=receive) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({id(array.array.base) for array in received}) == 1


@pytest.mark.skipif(not LINUX, reason="needs /proc")
def test_no_descriptor_is_left(kind):
    before = descriptors()
    array = share(np.arange(4.0))
    travelled = pickle.loads(pickle.dumps(array))
    view = array.array[1:]
    del array, travelled
    assert descriptors() > before
    del view
    assert descriptors() == before


@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM"])
def test_memory_outlives_its_maker_and_then_goes(kind, end):
    with Peer() as peer:
        array = pickle.loads(peer.handle("share([1, 2, 3])"))
        peer.ask(f"import signal; os.kill(os.getpid(), signal.{end})")
        peer.process.wait()
        array[0] = 7
        assert array.tolist() == [7, 2, 3]
        if kind != "named":
            assert passed(array, "print(shared.tolist())") == "[7, 2, 3]"
    for path in [array.array.base.handle().place] if kind == "named" else []:
        os.unlink(path)  # what a maker that is killed leaves, where there is no /proc


def test_memory_passed_on_by_a_receiver_is_the_same(kind):
    array = share([1, 2])
    with Peer() as peer:
        receive = f"pickle.loads(bytes.fromhex('{pickle.dumps(array).hex()}'))"
        passed_on = peer.handle(receive)
        assert passed(None, f"shared = pickle.loads({passed_on!r}); shared[1] = 8") == ""
    assert array.tolist() == [1, 8]


def test_receiver_that_is_killed_costs_nothing(kind):
    array = share([1, 2])
    with Peer() as peer:
        peer.handle(f"pickle.loads(bytes.fromhex('{pickle.dumps(array).hex()}'))")
        peer.process.kill()
        peer.process.wait()
    assert array.tolist() == [1, 2]


def test_memory_that_was_let_go_of_is_gone_with_a_clear_error(kind):
    with Peer() as peer:
        handle = peer.handle("share([1, 2])")
        assert peer.ask("del shared; print('done')") == "done"
        with pytest.raises(FileNotFoundError) as closed:
            pickle.loads(handle)
        handle = peer.handle("share([1, 2])")
        assert peer.ask("raise SystemExit") == ""
        peer.process.wait()
    with pytest.raises(FileNotFoundError) as ended:
        pickle.loads(handle)
    assert str(closed.value) == str(ended.value) == segments.GONE


@pytest.mark.skipif(not LINUX, reason="needs /proc")
def test_descriptor_number_that_another_file_took_is_noticed():
    with Peer() as peer:
        handle = peer.handle("share([1, 2])")
        reuse = "del shared; others = [SharedArray(2) for _ in range(9)]; print('done')"
        assert peer.ask(reuse) == "done"
        with pytest.raises(FileNotFoundError, match="is gone"):
            pickle.loads(handle)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_shares_the_memory_and_passes_it_on(kind):
    code = """if 1:
        import os
        from parallelkit.shared import share
        shared = share([1, 2])
        receive, send = os.pipe()
        if os.fork() == 0:
            shared[0] = 5
            os.write(send, pickle.dumps(shared))
            del shared
            os._exit(0)
        os.wait()
        shared = shared[:], os.path.exists(shared.array.base.handle().place)
        print(*shared)
    """
    assert passed(None, code) == "[5 2] True"


def test_named_file_goes_at_exit_even_while_it_is_used(kind):
    code = "from parallelkit.shared import share; shared = share([1]); "
    code += "print(shared.array.base.handle().place)"
    assert not os.path.exists(passed(None, code))
