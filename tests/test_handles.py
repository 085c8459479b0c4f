"""Handles: any array's text finds it again from any process, and no other text does harm."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parallelkit import SharedArray, handles, segments, share

KINDS = ["memfd", "file", "named"] if sys.platform == "linux" else [segments.kind_here()]
PLAIN = hnp.scalar_dtypes() | hnp.unicode_string_dtypes() | hnp.byte_string_dtypes()
DTYPES = PLAIN | hnp.array_dtypes(subtype_strategy=PLAIN, max_size=3, allow_subarrays=True)
SHAPES = hnp.array_shapes(min_dims=0, min_side=0, max_side=4)
READ = """if 1:
    import os, sys
    from parallelkit import SharedArray
    array = SharedArray.attach(sys.argv[1] if len(sys.argv) > 1 else os.environ["TABLE"])
"""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way of making segments."""
    monkeypatch.setenv(segments.KINDS, request.param)
    return str(request.param)


def run(code: str, *arguments: str, **environment: str) -> str:
    """Return what a program prints that attaches `array`."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", READ + "    " + code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.strip()


@given(dtype=DTYPES, shape=SHAPES, order=st.sampled_from("CF"))
def test_array_of_any_dtype_shape_and_order_is_found(dtype, shape, order):
    array = SharedArray(shape, dtype, order)
    found = SharedArray.attach(array.handle)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    for flag in ("c_contiguous", "f_contiguous", "writeable"):
        assert found.array.flags[flag.upper()] == array.array.flags[flag.upper()]
    assert found.array.__array_interface__["data"] == array.array.__array_interface__["data"]
    assert set(array.handle) < set(map(chr, range(128))) - set(" '\"$`\\*?&|;<>(){}[]~#!\n")


@pytest.mark.parametrize(
    "dtype",
    [
        np.dtype([("a", "i1"), ("b", "f8")], align=True),
        np.dtype({"names": ["b", "a"], "formats": ["i2", "i4"], "offsets": [4, 0], "itemsize": 9}),
        np.dtype({"names": ["a", "b"], "formats": ["i4", "i2"], "offsets": [0, 0]}),
        np.dtype([(("a title", "a"), ">i4"), ("b", [("c", "M8[ns]"), ("d", "U3", (2, 2))])]),
        np.dtype([]),
        np.dtype("V7"),
    ],
)
def test_records_of_every_layout_are_named(dtype):
    found = handles.from_plain(json.loads(json.dumps(handles.to_plain(dtype))))
    assert found == dtype
    assert (found.fields, found.isalignedstruct) == (dtype.fields, dtype.isalignedstruct)


def test_dtype_that_no_text_can_name_is_refused():
    dtype = np.dtype([((3, "a"), "i4")])  # its title is a number
    with pytest.raises(TypeError) as caught:
        _ = SharedArray(2, dtype).handle
    assert str(caught.value) == (
        f"a handle cannot name the dtype {dtype!r}: pickle the SharedArray instead"
    )


def test_any_process_reads_and_writes_by_argument_or_environment(kind):
    arrays = [share(np.arange(4)) for _ in range(10)]  # some alone, some in a slab
    for array in arrays:
        assert run("print(array); array[1] = 50", array.handle) == "[0 1 2 3]"
        assert array.tolist() == [0, 50, 2, 3]
    assert run("print(array.sum())", TABLE=arrays[0].handle) == "55"


def test_a_handle_for_reading_cannot_write(kind):
    array = share(np.arange(3))
    table = array.readonly()
    code = """print(array.array.flags.writeable)
    for write in (lambda: array.fill(1), lambda: setattr(array.array.flags, "writeable", True)):
        try:
            write()
        except ValueError as error:
            print(error)
    print(SharedArray.attach(array.handle).array.flags.writeable)
    """
    assert run(code, table.handle).splitlines() == [
        "False",
        "assignment destination is read-only",
        "cannot set WRITEABLE flag to True of this array",
        "False",
    ]
    assert array.tolist() == [0, 1, 2]


def test_array_that_was_let_go_of_is_gone(kind):
    array = share([1, 2])
    handle = array.handle
    array.close()
    with pytest.raises(ValueError, match="was closed"):
        _ = array.handle
    with pytest.raises(FileNotFoundError) as caught:
        SharedArray.attach(handle)
    assert str(caught.value) == segments.GONE


# What is no handle.


def forged(handle: str, **changes: object) -> str:
    """Return a handle that says something else, with a sum that is right."""
    names = ["place", "token", "identity", "length", "start", "shape", "dtype", "order", "writable"]
    body = base64.urlsafe_b64decode(handle.removeprefix(handles.PREFIX))[4:]
    parts = dict(zip(names, json.loads(body), strict=True)) | changes
    changed = json.dumps(list(parts.values())).encode()
    return handles.PREFIX + base64.urlsafe_b64encode(handles._sum(changed) + changed).decode()


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "O"},
        {"dtype": {"names": ["a"], "formats": ["O"]}},
        {"dtype": None},
        {"dtype": "no dtype"},
        {"dtype": ["i4"]},
        {"shape": [1 << 40]},
        {"shape": [1 << 63, 1 << 63]},
        {"shape": [-1]},
        {"shape": [2.0]},
        {"shape": 3},
        {"start": -8},
        {"start": 1 << 30},
        {"order": "K"},
        {"writable": 1},
        {"length": "8"},
        {"identity": [1]},
        {"place": 7},
        {"place": "/tmp/\0"},
        {"token": "../../etc/passwd"},
    ],
    ids=str,
)
def test_forged_handle_is_refused(changes):
    array = share([1, 2])
    handle = forged(array.handle, **changes)
    with pytest.raises(ValueError, match=r"^this is no handle of a SharedArray, or not all of it"):
        SharedArray.attach(handle)


def test_handle_that_names_another_file_finds_nothing(tmp_path):
    array = share([1, 2])
    token = "0" * 32
    secret = tmp_path / f"parallelkit-{token}"
    handle = array.handle
    array.close()
    for name, content in ((tmp_path / "secret", b"x" * 4096), (secret, b"")):
        name.write_bytes(content)
        found = os.stat(name)
        identity = [found.st_dev, found.st_ino]
        for changes in (
            {"place": str(name), "identity": identity},
            {"token": token, "identity": identity},
            {"token": token, "place": str(tmp_path / "secret"), "identity": identity},
            {"token": token},
            {"place": "/dev/zero"},
        ):
            with pytest.raises(FileNotFoundError):
                SharedArray.attach(forged(handle, **changes))
    found = os.stat(secret)
    short = {"token": token, "place": str(secret), "identity": [found.st_dev, found.st_ino]}
    with pytest.raises(ValueError, match=r"^this is no handle"):  # it is shorter than it says
        SharedArray.attach(forged(handle, **short))


def test_handle_that_says_more_than_there_is_is_refused():
    array = share([1, 2])
    with pytest.raises(ValueError, match=r"^this is no handle"):
        SharedArray.attach(forged(array.handle, length=1 << 30, shape=[1 << 20]))


@given(text=st.text() | st.text(st.sampled_from("parlekit-1:aB=_"), max_size=30))
def test_other_texts_are_refused(text):
    for each in (text, handles.PREFIX + text):
        with pytest.raises(ValueError, match=r"^this is no handle") as caught:
            SharedArray.attach(each)
        assert "\n" not in str(caught.value)


def test_what_is_no_text_is_refused():
    for wrong in (None, b"parallelkit-1:", 3):
        with pytest.raises(ValueError, match=r"^this is no handle"):
            SharedArray.attach(wrong)


@given(part=st.floats(0, 0.999), letter=st.sampled_from(["", "A", "7", "!"]))
def test_handle_with_a_wrong_or_missing_character_is_refused(part, letter):
    array = share([1, 2])
    handle = array.handle
    at = int(part * len(handle))
    changed = handle[:at] + letter + handle[at + 1 :]
    if changed != handle:
        with pytest.raises(ValueError, match=r"^this is no handle"):
            SharedArray.attach(changed)
