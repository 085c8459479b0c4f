"""An array over a file is opened again, as long as the file is the one that it lies over."""

from __future__ import annotations

import gc
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apart import dumped, travelled
from hypothesis import given
from hypothesis import strategies as st

from parallelkit import arrays, mapped

tells = pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not tell what is mapped")
COUNT = 600
OFFSET = 5000  # beyond the first page, and within one

FORMS = {
    "whole": lambda whole: whole,
    "slice": lambda whole: whole[3:],
    "part": lambda whole: whole[2:5, 3],
    "backwards": lambda whole: whole[::-2],
    "turned": lambda whole: whole.T,
    "reshaped": lambda whole: whole.reshape(-1),
    "viewed": lambda whole: whole.view("i4"),
    "plain": np.asarray,
    "plain slice": lambda whole: np.asarray(whole)[4:][:2],
    "fields": lambda whole: whole.view("i4,i4")["f1"],
}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a file with the numbers up to COUNT, after some other bytes."""
    file = tmp_path / "numbers"
    file.write_bytes(bytes(OFFSET) + np.arange(COUNT).tobytes())
    return file


def opened(path: Path, mode: str = "r+") -> np.memmap:
    return np.memmap(path, np.int64, mode, OFFSET, (20, 30))


def is_copied(array: Any) -> bool:
    return len(dumped(array)[1]) > 0


@tells
@each_form
def test_an_array_over_a_file_is_opened_again(path, form):
    array = form(opened(path))
    assert not is_copied(array)

    again = travelled(array)

    assert type(again) is type(array)
    assert (again.dtype, again.shape, again.strides) == (array.dtype, array.shape, array.strides)
    assert again.tobytes() == array.tobytes()
    assert not np.may_share_memory(again, array)
    assert again.tobytes() == travelled(again).tobytes()
    assert not is_copied(again)


@tells
@each_form
def test_what_is_written_is_written_to_the_file(path, form):
    array = form(opened(path))

    again = travelled(array)
    again[...] = 7

    assert (array == 7).all()


@tells
def test_a_memmap_is_what_it_was(path):
    array = opened(path)

    again = travelled(array)
    again[0, 0] = 7
    again.flush()

    assert (again.mode, again.offset) == ("r+", OFFSET)
    assert Path(again.filename) == path
    assert np.fromfile(path, np.int64, 1, offset=OFFSET) == [7]


@tells
def test_what_may_only_be_read_stays_so(path):
    again = travelled(opened(path, "r"))

    assert again.mode == "r"
    with pytest.raises(ValueError, match="read-only"):
        again[0, 0] = 7


@tells
def test_what_made_the_file_does_not_make_it_again(tmp_path):
    array = np.memmap(tmp_path / "made", np.int64, "w+", shape=COUNT)
    array[:] = 7

    assert travelled(array).sum() == 7 * COUNT
    assert not is_copied(array)


@pytest.mark.parametrize("form", [FORMS["whole"], FORMS["plain"]], ids=["memmap", "plain"])
def test_a_private_mapping_goes_by_copy(path, form):
    array = form(opened(path, "c"))
    array[0, 0] = 7

    again = travelled(array)
    again[0, 0] = 8

    assert is_copied(array)
    assert type(again) is type(array)
    assert (array[0, 0], opened(path)[0, 0]) == (7, 0)


@pytest.mark.parametrize(
    "derive",
    [lambda whole: whole + 1, lambda whole: whole.copy(), lambda whole: whole[[1, 2]]],
    ids=["sum", "copy", "picked"],
)
def test_what_is_a_memmap_by_its_type_alone_goes_by_copy(path, derive):
    array = derive(opened(path))

    assert is_copied(array)
    assert travelled(array).tobytes() == array.tobytes()


def replaced(path: Path) -> None:
    twin = path.with_name("twin")
    twin.write_bytes(path.read_bytes())
    twin.replace(path)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps what is mapped")
@pytest.mark.parametrize("asked_before", [False, True])
@pytest.mark.parametrize(
    "spoil", [replaced, Path.unlink, lambda path: path.rename(path.with_name("moved"))]
)
def test_a_file_that_is_not_there_any_more_goes_by_copy(path, spoil, asked_before):
    array = opened(path)
    if asked_before:
        dumped(array)
    spoil(path)

    again = travelled(array)

    assert is_copied(array)
    assert type(again) is np.memmap
    assert again.tobytes() == array.tobytes()


@tells
@pytest.mark.skipif(os.name == "nt", reason="Windows keeps what is mapped")
def test_a_file_replaced_on_the_way_is_not_taken_for_it(path):
    array = opened(path)
    frame, _ = dumped(array)
    replaced(path)

    with pytest.raises(FileNotFoundError) as caught:
        pickle.loads(frame)

    assert str(caught.value) == (
        f"{str(path)!r} was replaced while an array over it was on its way: "
        "keep the file until the call is over, or pass a copy of the array"
    )


@tells
def test_many_arrays_over_a_file_take_one_descriptor(path):
    rows = travelled(list(opened(path)))

    assert len({id(row.base) for row in rows}) == 1
    assert len(mapped._opened) == 1
    del rows
    gc.collect()
    assert not mapped._opened


@tells
def test_a_file_that_grew_is_opened_anew(path):
    first = travelled(opened(path))
    with path.open("ab") as file:
        file.write(np.arange(COUNT, 2 * COUNT).tobytes())
    longer = np.memmap(path, np.int64, "r+", OFFSET)

    again = travelled(longer)

    assert again.tolist() == list(range(2 * COUNT))
    assert first.sum() == sum(range(COUNT))


def test_an_open_file_without_a_name_goes_by_copy(path):
    with path.open("r+b", buffering=0) as file:
        nameless = os.fdopen(os.dup(file.fileno()), "r+b")
        with nameless:
            array = np.memmap(nameless, np.int64, "r+", OFFSET)

    assert is_copied(array)
    assert travelled(array).sum() == sum(range(COUNT))


def test_small_ones_go_as_numpy_has_them(path):
    assert arrays.reducer(np.memmap)(opened(path)) is NotImplemented


@tells
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    steps=st.lists(st.sampled_from([1, 2, -1, -3]), min_size=3, max_size=3),
    starts=st.lists(st.integers(0, 2), min_size=3, max_size=3),
    mode=st.sampled_from(["r", "r+"]),
)
def test_any_view_is_found_in_the_file(tmp_path_factory, lengths, steps, starts, mode):
    file = tmp_path_factory.getbasetemp() / "any"
    shape = [3 * length for length in lengths]
    np.arange(np.prod(shape), dtype=">i4").tofile(file)
    whole = np.memmap(file, ">i4", mode, shape=tuple(shape))
    view = whole[
        tuple(slice(start, None, step) for start, step in zip(starts, steps, strict=True))[
            : whole.ndim
        ]
    ]

    again = travelled(view)

    assert (again.tolist(), again.strides) == (view.tolist(), view.strides)
    assert not is_copied(view)
    file.unlink()
