"""Arrays come back bit by bit, whatever they are, and hold what they lie over."""

from __future__ import annotations

import array
import copyreg
import ctypes
import math
import pickle
import subprocess
import sys
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from apart import assert_lease, dumped, travelled
from hypothesis import given
from hypothesis import strategies as st

from parallelkit import arrays

BIG = np.arange(arrays.LARGE, dtype="u1")
SMALL = BIG[1:]


# Any nest of arrays.


class Labelled(np.ndarray):
    """A user's subclass, which pickles as any array."""


class Careful(np.ndarray):
    """A user's subclass with a state of its own."""

    def __reduce__(self):
        made, made_of, state = super().__reduce__()
        return made, made_of, (*state, "kept")

    def __setstate__(self, state):
        super().__setstate__(state[:-1])
        self.label = state[-1]


@dataclass
class Pair:
    left: Any
    right: Any


DTYPES = [
    *("?", "i1", "u2", "<i4", ">i4", "<f2", ">f8", "c8", ">c16", "g", "S3", "U2", ">U1", "V5"),
    *("M8[ns]", ">M8[D]", "m8[s]", "M8"),
    np.dtype("i1,<f8"),
    np.dtype({"names": ["a", "b"], "formats": ["u1", ">i4"], "offsets": [0, 4], "itemsize": 12}),
    np.dtype("i1,<f8", align=True),
    np.dtype([("name", "S2"), ("place", "f4", (2, 2)), ("inner", [("x", "M8[s]")])]),
]


@st.composite
def bare_arrays(draw: st.DrawFn) -> np.ndarray:
    """Arrays of any bits, lying in memory in any way."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    size = math.prod(shape) * dtype.itemsize
    bits = np.random.default_rng(draw(st.integers(0, 9))).bytes(size)
    made = np.ndarray(shape, dtype, bytearray(bits))
    made = made.transpose(draw(st.permutations(range(len(shape)))))
    for axis in range(made.ndim):
        step = draw(st.sampled_from([1, 1, 1, 2, -1, -2]))
        made = made[(slice(None),) * axis + (slice(None, None, step),)]
    if draw(st.booleans()):
        made = np.broadcast_to(made, (2, *made.shape))
    elif draw(st.booleans()):
        made.flags.writeable = False
    return made


@st.composite
def dressed_arrays(draw: st.DrawFn) -> np.ndarray:
    """Arrays of subclasses as well."""
    made = draw(bare_arrays())
    kinds = [np.ndarray, np.ndarray, Labelled, np.ma.MaskedArray, np.memmap]
    kinds += [np.matrix] * (made.ndim == 2) + [np.recarray] * (made.dtype.names is not None)
    made = made.view(draw(st.sampled_from(kinds)))
    if type(made) is np.ma.MaskedArray and draw(st.booleans()):
        made.mask = draw(st.booleans())
    return made


LEAVES = dressed_arrays() | st.integers() | st.text(max_size=3) | st.binary(max_size=3)
LEAVES |= st.lists(st.integers(0, 255)).map(lambda items: array.array("H", items))
LEAVES |= st.lists(st.integers(0, 255)).map(lambda items: memoryview(array.array("H", items)))
NESTS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.builds(Pair, inner, inner)
        | inner.map(lambda part: [part, Pair(part, (part,))])
    ),
    max_leaves=5,
)


def parts(obj: Any) -> list[Any]:
    if isinstance(obj, Pair):
        return [obj.left, obj.right]
    return list(obj.values()) if isinstance(obj, dict) else list(obj)


def assert_same(one: Any, other: Any, met: dict[int, object]) -> None:
    """Assert that two nests are equal bit by bit, and that what is one object here is one there."""
    assert type(other) is type(one)
    if isinstance(one, np.ndarray | array.array | memoryview | Pair | list | dict):
        assert met.setdefault(id(one), other) is other
    if isinstance(one, np.ndarray):
        assert_same_array(one, other)
    elif isinstance(one, Pair | list | tuple | dict):
        assert len(parts(one)) == len(parts(other))
        for inner, copied in zip(parts(one), parts(other), strict=True):
            assert_same(inner, copied, met)
    else:
        assert one == other


def bits(made: np.ndarray) -> bytes:
    """Return an array's bytes without what lies between fields, which a copy need not keep."""
    made = made.view(np.ndarray)
    if made.dtype.names is None:
        return made.tobytes()
    return b"".join(bits(made[name]) for name in made.dtype.names)


def assert_same_array(one: np.ndarray, other: np.ndarray) -> None:
    # Of nothing, numpy's own pickles do not keep the order of bytes.
    dtypes = [each.dtype if one.nbytes else each.dtype.newbyteorder("=") for each in (one, other)]
    assert dtypes[0] == dtypes[1]
    assert one.shape == other.shape
    assert one.dtype.isalignedstruct == other.dtype.isalignedstruct
    assert bits(one) == bits(other)
    if one.flags.c_contiguous or one.flags.f_contiguous:
        assert (one.flags.c_contiguous, one.flags.f_contiguous) == (
            other.flags.c_contiguous,
            other.flags.f_contiguous,
        )
    if isinstance(one, np.ma.MaskedArray):
        assert np.ma.getmaskarray(one).tobytes() == np.ma.getmaskarray(other).tobytes()


@given(nest=NESTS, beside=st.booleans())
def test_any_nest_comes_back_bit_by_bit(nest, beside):
    assert_same(nest, travelled(nest, beside), {})


@given(made=bare_arrays(), beside=st.booleans())
def test_what_comes_back_is_nobody_elses_and_writable_if_it_was(made, beside):
    before = bits(made)

    copied = travelled(made, beside)

    if made.flags.contiguous and made.size:
        assert copied.flags.writeable == made.flags.writeable
    if made.size and copied.flags.writeable:
        copied[...] = np.zeros((), copied.dtype)
    assert bits(made) == before


# What is taken apart, and what it costs.


def copies(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Return a list to which arrays are added as they are copied together."""
    made, copy = [], arrays.contiguous
    monkeypatch.setattr(arrays, "contiguous", lambda gappy: made.append(gappy) or copy(gappy))
    return made


@pytest.mark.parametrize(
    "turn",
    [
        lambda cube: cube,
        lambda cube: cube.T,
        lambda cube: cube.transpose(1, 2, 0),
        lambda cube: cube[1:],
        lambda cube: cube.view(Labelled),
        lambda cube: cube.transpose(2, 0, 1)[None],
    ],
    ids=["C", "F", "turned", "sliced", "subclass", "thin"],
)
def test_bytes_without_gaps_are_not_copied(turn, monkeypatch):
    made, cube = copies(monkeypatch), turn(np.arange(60).reshape(3, 4, 5))

    frame, (buffer,) = dumped(cube)
    owner = np.frombuffer(bytearray(buffer), "u1")
    copied = pickle.loads(frame, buffers=[owner])

    assert not made
    assert np.shares_memory(buffer, cube)
    assert buffer.nbytes == cube.nbytes
    assert np.shares_memory(copied, owner)
    assert copied.base is owner
    assert copied.strides == cube.strides


@pytest.mark.parametrize("gappy", [BIG[::2], BIG[::-1], np.broadcast_to(BIG[:2], (3, 2))])
def test_gaps_are_left_out(gappy, monkeypatch):
    made = copies(monkeypatch)

    _, (buffer,) = dumped(gappy)

    assert [each is gappy for each in made] == [True]
    assert buffer.tobytes() == gappy.tobytes()


@pytest.mark.parametrize(
    ("obj", "count"),
    [
        (BIG, 1),
        (SMALL, 0),
        (BIG.view(Labelled), 1),
        (SMALL.view(Labelled), 0),
        (BIG.view(Careful), 0),
        (np.ma.array(BIG), 1),
        (np.ma.array(BIG, mask=BIG > 1), 2),
        (np.ma.array(SMALL, mask=SMALL > 1), 0),
        (np.ma.array(BIG.reshape(-1, 8).view(np.matrix)), 0),
        (np.array([1, "a"] * arrays.LARGE, object), 0),
        (array.array("B", BIG.tobytes()), 1),
        (array.array("B", SMALL.tobytes()), 0),
        (array.array("i"), 0),
    ],
)
def test_only_what_is_large_and_plain_is_taken_apart(obj, count):
    reduce = arrays.reducer(type(obj))
    reduction = NotImplemented if reduce is None else reduce(obj)

    assert (reduction is NotImplemented) == (count == 0)
    if count:
        assert len(dumped(obj, large=arrays.LARGE)[1]) == count


def test_text_in_new_dtypes_goes_as_numpy_has_it():
    dtypes = pytest.importorskip("numpy.dtypes", reason="this numpy has no StringDType")
    if not hasattr(dtypes, "StringDType"):
        pytest.skip("this numpy has no StringDType")

    assert travelled(np.array(["a", "b" * 99], dtypes.StringDType())).tolist() == ["a", "b" * 99]


def test_a_registered_reducer_goes_first(monkeypatch):
    monkeypatch.setitem(copyreg.dispatch_table, Labelled, lambda labelled: (len, ("label",)))

    assert arrays.reducer(Labelled) is None


def test_other_types_are_nobodys():
    assert [arrays.reducer(kind) for kind in (int, object, bytes, np.float64, type)] == [None] * 5


def test_nothing_is_loaded_for_its_arrays():
    code = """
        import array, pickle, sys
        from parallelkit import arrays
        typed = array.array("d", bytes(1 << 18))
        assert arrays.reducer(type(typed))(typed)[1][1].raw().nbytes == 1 << 18
        assert arrays.reducer(memoryview)(memoryview(b"ab"))
        assert arrays.reducer(dict) is None
        assert not {"numpy", "torch", "pandas", "pyarrow"} & set(sys.modules)
    """
    code = "\n".join(line.strip() for line in code.splitlines())
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)

    assert (run.returncode, run.stderr) == (0, "")


# Masked arrays.


@pytest.mark.parametrize("mask", [np.ma.nomask, [[True, False], [False, True]]])
@pytest.mark.parametrize("options", [{}, {"hard_mask": True}, {"fill_value": 7}])
def test_a_mask_keeps_its_ways(mask, options):
    masked = np.ma.array(np.arange(4.0).reshape(2, 2, order="F"), mask=mask, **options)

    copied = travelled(masked)

    assert copied.tolist() == masked.tolist()
    assert (np.ma.getmask(copied) is np.ma.nomask) == (mask is np.ma.nomask)
    assert copied.hardmask == masked.hardmask
    assert copied.sharedmask == masked.sharedmask
    assert copied.fill_value == masked.fill_value
    assert type(copied._fill_value) is type(masked._fill_value)
    assert copied.filled().tobytes() == masked.filled().tobytes()


def test_a_mask_of_fields_and_a_shared_one():
    masked = np.ma.array([(1, 2.0), (3, 4.0)], "i4,f8", mask=[(True, False), (False, True)])
    view = masked[:]

    copied, seen = travelled((masked, view))

    assert copied.mask.tolist() == masked.mask.tolist()
    assert copied.mask.dtype == masked.mask.dtype
    assert (copied.sharedmask, seen.sharedmask) == (masked.sharedmask, view.sharedmask)


# Views and typed arrays.


VIEWS = {
    "bytes": memoryview(b"abc"),
    "writable": memoryview(bytearray(b"abc")),
    "gaps": memoryview(bytearray(b"abcd"))[::2],
    "backwards": memoryview(b"abcd")[::-1],
    "two dimensions": memoryview(np.arange(6.0).reshape(2, 3)),
    "columns": memoryview(np.arange(6).reshape(2, 3).T),
    "none": memoryview(np.array(5)),
    "empty": memoryview(b""),
    "empty items": memoryview(array.array("d")),
    "empty and wide": memoryview(np.zeros((0, 3))),
    "truths": memoryview(np.array([True])),
    "complex": memoryview(np.zeros(2, "c16")),
    "swapped": memoryview(np.arange(3, dtype=">i4")),
    "fields": memoryview(np.ones(2, "i4,f8")),
    "texts": memoryview(np.array(["a", "bc"])),
    "short texts": memoryview(np.array([b"a", b"bc"])),
    "cast": memoryview(np.ones(2)).cast("B"),
}


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_memoryview_of_any_size_stays_one(view, beside):
    copied = travelled(view, beside, large=arrays.LARGE)

    assert type(copied) is memoryview
    assert (copied.format, copied.shape) == (view.format, view.shape)
    assert copied.readonly == view.readonly
    assert copied.tobytes() == view.tobytes()


def test_a_memoryview_of_what_nobody_knows_goes_as_before():
    assert arrays.reducer(memoryview)(memoryview((ctypes.c_int * 3)(1, 2, 3))) is NotImplemented


def test_a_released_memoryview_says_so():
    view = memoryview(b"abc")
    view.release()

    with pytest.raises(ValueError, match="operation forbidden on released memoryview object"):
        dumped(view)


@pytest.mark.parametrize("typecode", "bBhHiIlLqQfd")
def test_a_typed_array_keeps_its_type(typecode):
    typed = array.array(typecode, [1, 2, 3])

    copied = travelled(typed)

    assert (copied.typecode, copied) == (typecode, typed)
    copied.append(4)
    assert len(typed) == 3


# The owner of the buffer lives as long as anything that looks at it.

LOOKS = {
    "array": lambda made: made,
    "slice": lambda made: made[1:, ::2],
    "transposed": lambda made: made.T,
    "reshaped": lambda made: made.reshape(-1)[3:],
    "viewed": lambda made: made.view("u1"),
    "subclass": lambda made: made.view(Labelled)[1:],
    "masked": lambda made: np.ma.array(made, copy=False)[1:],
    "cast": lambda made: made.astype(made.dtype, copy=False),
    "memoryview": lambda made: memoryview(made)[1:2],
    "array of memoryview": lambda made: np.asarray(memoryview(made)),
    "bytes of memoryview": lambda made: np.frombuffer(memoryview(made), "u1")[8:],
    "iterator": lambda made: made.flat,
    "field": lambda made: made.view("i4,i4")["f1"],
    "real": lambda made: made.view("c8").imag,
    "broadcast": lambda made: np.broadcast_to(made, (2, *made.shape)),
    "function": lambda made: made[0].sum,
    "buffer": pickle.PickleBuffer,
    "interface": lambda made: np.lib.stride_tricks.as_strided(made, (2,), (8,)),
    "ctypes": ctypes.c_char.from_buffer,
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_the_owner_lives_as_long_as_anyone_looks(look):
    assert_lease(lambda owner: arrays.rebuild(owner, np.dtype("i8"), (3, 4), "C"), look)


@pytest.mark.parametrize("look", ["array", "slice", "transposed", "masked", "array of memoryview"])
@pytest.mark.parametrize("order", ["F", (8, 24)])
@pytest.mark.parametrize("kind", [np.ndarray, Labelled, np.matrix])
def test_the_owner_lives_whatever_lies_over_it(look, order, kind):
    dtype = np.dtype("i8")

    assert_lease(lambda owner: arrays.rebuild_as(kind, owner, dtype, (3, 4), order), LOOKS[look])


@pytest.mark.parametrize("look", [memoryview, lambda view: np.asarray(view)[1:]])
def test_the_owner_lives_as_long_as_a_memoryview(look):
    assert_lease(lambda owner: arrays.rebuild_view(owner, "q", (3, 4)), look)
    assert_lease(lambda owner: arrays.rebuild_view_of_array(owner, np.dtype(">i8"), (12,)), look)


def test_what_was_read_only_lies_over_its_owner():
    BIG.flags.writeable = False
    frame, (buffer,) = dumped(BIG)
    BIG.flags.writeable = True
    owner = np.frombuffer(bytearray(buffer), "u1")

    copied = pickle.loads(frame, buffers=[owner])
    held = weakref.ref(owner)
    del owner

    assert not copied.flags.writeable
    assert held() is not None
    del copied
    assert held() is None
