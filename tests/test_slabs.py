"""Slabs: small arrays take few descriptors, lie apart, and their memory goes."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts import STARTS, script

from parallelkit import SharedArray, segments, share, slabs
from parallelkit.slabs import ALONE, LEAST, MOST, SMALL, Slabs

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
KINDS = ["memfd", "file", "named"] if sys.platform == "linux" else [segments.kind_here()]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with no slab that another test's arrays lie in."""
    monkeypatch.setattr(slabs, "_slabs", Slabs())


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way of making segments."""
    monkeypatch.setenv(segments.KINDS, request.param)
    return str(request.param)


def many() -> list[SharedArray]:
    """Return so many small arrays that the next one lies in a slab."""
    return [SharedArray(1) for _ in range(ALONE)]


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


MANY = """
    import os, resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    import numpy as np
    from parallelkit import pmap, share

    before = len(os.listdir("/proc/self/fd"))
    arrays = [share(np.full(100, i % 200, "u1")) for i in range(10_000)]
    assert len(os.listdir("/proc/self/fd")) - before <= 25

    def step(array):
        array[0] += 1
        return int(array[1])

    assert pmap(step, arrays, workers=2) == [i % 200 for i in range(10_000)]
    assert all(array[0] == array[1] + 1 == array[99] + 1 for array in arrays)
    print("done")
"""


@linux
@pytest.mark.parametrize("start", STARTS)
def test_ten_thousand_arrays_need_few_descriptors(tmp_path, start, kind):
    assert script(MANY, where=tmp_path, PARALLELKIT_START=start) == "done\n"


@linux
def test_half_a_gigabyte_in_small_arrays_would_need_few_slabs():
    slabs, kept = Slabs(), many()
    capacities: list[int] = []
    holders: list[_Array] = []
    while sum(capacities) < 500e6:
        segment, _ = slabs.take(SMALL - 64) if kept else (None, 0)
        if segment in slabs.slabs:
            slab = slabs.slabs[segment]
            capacities.append(slab.capacity)
            holders.append(_Array(segment, slab.capacity))
            slab.arrays.append(holders[-1].known())
            slab.end = slab.capacity  # as if it were full
        else:
            holders.append(_Array(segment, 0))
    assert capacities[0] == LEAST
    assert max(capacities) <= MOST
    assert len(capacities) <= 24


class _Array:
    """Stands for all arrays that lie in a slab."""

    def __init__(self, segment: object, nbytes: int) -> None:
        self.segment = segment
        self.nbytes = nbytes

    def known(self) -> Callable[[], _Array]:
        """Return what a slab has of an array that is alive."""
        return lambda: self


@given(sizes=st.lists(st.integers(0, 3000) | st.integers(SMALL - 9, SMALL + 9), max_size=60))
def test_arrays_lie_apart_and_hold_zeros(sizes):
    kept = many()
    arrays = [SharedArray(size, "u1") for size in sizes]
    for number, array in enumerate(arrays):
        assert not array.any()
        array[...] = number % 250 + 1
    for number, array in enumerate(arrays):
        assert (array == number % 250 + 1).all()
        assert array.size == 0 or array.array.ctypes.data % 64 == 0
    assert len(kept) == ALONE


def test_first_few_arrays_have_segments_of_their_own(kind):
    first = many()
    assert len({array.array.base for array in first}) == ALONE
    second = [SharedArray(1), share([1]), share(np.ones((2, 2), order="F"))]
    assert len({array.array.base for array in second}) == 1
    del first[0]
    assert SharedArray(1).array.base not in {second[0].array.base, *(a.array.base for a in first)}


@linux
def test_slab_goes_with_its_last_array_and_is_filled_meanwhile(kind):
    kept, before = many(), descriptors()
    one, two = share([1]), share([2])
    view = two.array[:]
    mapped = descriptors()
    del one, two
    assert view.tolist() == [2]
    three = share([3])
    assert descriptors() == mapped > before
    del three, view
    assert descriptors() == before
    assert len(kept) == ALONE


def test_room_in_an_older_slab_is_used(kind):
    kept = [*many(), SharedArray(1)]
    full = [SharedArray(SMALL - 64, "u1") for _ in range(LEAST // SMALL + 1)]
    assert full[-1].array.base is not kept[-1].array.base
    del full
    gc.collect()
    assert SharedArray(1).array.base is kept[-1].array.base


def test_without_room_for_a_slab_an_array_has_a_segment(monkeypatch):
    kept = many()

    def none(length: int) -> segments.Segment:
        raise MemoryError

    monkeypatch.setattr(segments, "sparse", none)
    array = share([1, 2])
    assert array.tolist() == [1, 2]
    assert len(kept) == ALONE
    assert not slabs._slabs.slabs


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_copy_puts_nothing_into_the_slabs_of_its_original(tmp_path):
    source = """
        import os
        from parallelkit import share

        arrays = [share([number]) for number in range(20)]
        if os.fork() == 0:
            arrays += [share([99]) for _ in range(20)]
            assert arrays[15].tolist() == [15]
            arrays[15][0] = 70
            os._exit(0)
        _, status = os.wait()
        arrays += [share([number]) for number in range(20, 40)]
        print(status, [array[0] for array in arrays] == [*range(15), 70, *range(16, 40)])
    """
    assert script(source, where=tmp_path) == "0 True\n"


def test_threads_get_places_of_their_own():
    kept = many()
    arrays: list[SharedArray] = []
    gate = threading.Barrier(4)

    def make(number: int) -> None:
        gate.wait()
        arrays.extend(share(np.full(50, number)) for _ in range(200))

    threads = [threading.Thread(target=make, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(array[0]) for array in arrays) == sorted([*range(4)] * 200)
    assert all((array == array[0]).all() for array in arrays)
    assert len(kept) == ALONE


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    gc.collect()
    assert not len(slabs._slabs.slabs)
