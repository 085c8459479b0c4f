"""Columns give the loop's items, however they are cut, here and where they are sent."""

from __future__ import annotations

import array
import ctypes
import datetime as dt
import gc
import itertools
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelkit import SharedArray, pmap, share
from parallelkit.columns import Numbers, Rows, sliceable

DAY = dt.datetime(2024, 2, 28, 23, tzinfo=dt.UTC)

WIDE = "w" if sys.version_info >= (3, 13) else "u"  # characters; "u" is deprecated since


def days(items):
    return [None if item is None else DAY + dt.timedelta(hours=item) for item in items]


def texts(items):
    return [None if item is None else f"{item} \u00e9\u4e2d" for item in items]


def known(items):
    return [0 if item is None else item for item in items]


def rows(items):
    return np.arange(3.0 * len(items)).reshape(-1, 3)


class Own:
    """An item of a column of objects."""

    def __init__(self, item):
        self.item = item

    def __repr__(self):
        return f"Own({self.item})"


BUILTIN = {
    "array of floats": lambda _, items: array.array("d", known(items)),
    "array of bytes": lambda _, items: array.array("b", known(items)),
    "array of characters": lambda _, items: array.array(WIDE, map(chr, map(abs, known(items)))),
    "bytearray": lambda _, items: bytearray(map(abs, known(items))),
    "view of bytes": lambda _, items: memoryview(bytes(map(abs, known(items)))),
    "view of floats": lambda _, items: memoryview(array.array("d", known(items))),
    "view of an array": lambda _, items: memoryview(np.array(known(items), "int16")),
    "every other byte": lambda _, items: memoryview(bytes(2 * len(items)))[::2],
    "shared array": lambda _, items: share(np.array(known(items))),
    "shared rows": lambda _, items: share(rows(items)),
    "shared columns": lambda _, items: share(np.asfortranarray(rows(items))),
}
PANDAS = {
    "floats": lambda pd, items: pd.Series(items, dtype=float),
    "single": lambda pd, items: pd.Series(items, dtype="float32"),
    "half": lambda pd, items: pd.Series(np.array(known(items), "float16")),
    "complex": lambda pd, items: pd.Series(known(items), dtype=complex),
    "long": lambda pd, items: pd.Series(np.array(known(items), np.longdouble)),
    "integers": lambda pd, items: pd.Series(known(items), dtype="int64"),
    "small": lambda pd, items: pd.Series(known(items), dtype="int8"),
    "booleans": lambda pd, items: pd.Series(map(bool, known(items)), dtype=bool),
    "objects": lambda pd, items: pd.Series([Own(item) for item in items], dtype=object),
    "lists": lambda pd, items: pd.Series([[item] for item in items], dtype=object),
    "arrays": lambda pd, items: pd.Series([np.arange(3) for _ in items], dtype=object),
    "texts": lambda pd, items: pd.Series(texts(items), dtype="str"),
    "string": lambda pd, items: pd.Series(texts(items), dtype="string"),
    "string of python": lambda pd, items: pd.Series(texts(items), dtype="string[python]"),
    "days": lambda pd, items: pd.Series(pd.to_datetime(days(items)).tz_localize(None)),
    "days of Paris": lambda pd, items: pd.Series(
        pd.to_datetime(days(items), utc=True).tz_convert("Europe/Paris")
    ),
    "durations": lambda pd, items: pd.Series(pd.to_timedelta(items, unit="h")),
    "periods": lambda pd, items: pd.Series(pd.period_range("2024", periods=len(items), freq="M")),
    "intervals": lambda pd, items: pd.Series(pd.interval_range(0, periods=len(items))),
    "nullable integers": lambda pd, items: pd.Series(items, dtype="Int64"),
    "nullable floats": lambda pd, items: pd.Series(items, dtype="Float32"),
    "nullable booleans": lambda pd, items: pd.Series(
        [None if item is None else item > 0 for item in items], dtype="boolean"
    ),
    "own labels": lambda pd, items: pd.Series(known(items), index=range(len(items), 0, -1)),
    "backwards": lambda pd, items: pd.Series(known(items), dtype="int64")[::-1],
    "across": lambda pd, items: pd.DataFrame(rows(items))[1],
    "record": lambda pd, items: pd.Series(
        np.array([(1, item) for item in known(items)], dtype="i1,f8")["f1"]
    ),
    "index": lambda pd, items: pd.Index(known(items), dtype="int64"),
    "index of texts": lambda pd, items: pd.Index(texts(items)),
    "index of a range": lambda pd, items: pd.RangeIndex(7, 7 - 2 * len(items), -2),
    "index of days": lambda pd, items: pd.date_range("2024", periods=len(items), tz="UTC"),
    "index of durations": lambda pd, items: pd.timedelta_range("1h", periods=len(items)),
    "index of periods": lambda pd, items: pd.period_range("2024", periods=len(items), freq="D"),
    "index of intervals": lambda pd, items: pd.interval_range(0, periods=len(items)),
}
PYARROW = {
    "floats": lambda pa, items: pa.array(items, pa.float64()),
    "booleans": lambda pa, items: pa.array([bool(item) for item in known(items)], pa.bool_()),
    "texts": lambda pa, items: pa.array(texts(items), pa.string()),
    "large texts": lambda pa, items: pa.array(texts(items), pa.large_string()),
    "days": lambda pa, items: pa.array(days(items), pa.timestamp("us", "UTC")),
    "lists": lambda pa, items: pa.array([[item] for item in items], pa.list_(pa.int64())),
    "records": lambda pa, items: pa.array(
        [{"a": item} for item in items], pa.struct([("a", pa.int64())])
    ),
    "nothing": lambda pa, items: pa.nulls(len(items)),
    "dictionary": lambda pa, items: pa.array(texts(items), pa.string()).dictionary_encode(),
    "dense union": lambda pa, items: pa.UnionArray.from_dense(
        pa.array([0] * len(items), pa.int8()),
        pa.array(range(len(items)), pa.int32()),
        [pa.array(items, pa.int64())],
    ),
    "chunks": lambda pa, items: pa.chunked_array([items, items[:2], []], pa.int64()),
    "no chunks": lambda pa, items: pa.chunked_array([], pa.int64()),
}
KINDS = {
    f"{library}: {name}": (library, make)
    for library, makes in {"builtins": BUILTIN, "pandas": PANDAS, "pyarrow": PYARROW}.items()
    for name, make in makes.items()
}
OTHERS = {
    "set": ("builtins", lambda _, items: set(items)),
    "characters": ("builtins", lambda _, items: memoryview(bytes(len(items))).cast("c")),
    "structures": ("builtins", lambda _, items: (ctypes.c_uint16 * len(items))()),
    "categories": ("pandas", lambda pd, items: pd.Series(items, dtype="category")),
    "index of categories": ("pandas", lambda pd, items: pd.CategoricalIndex(items)),
    "sparse": ("pandas", lambda pd, items: pd.Series(items, dtype="Sparse[float]")),
    "levels": ("pandas", lambda pd, items: pd.MultiIndex.from_product([items, list("ab")])),
    "table": ("pandas", lambda pd, items: pd.DataFrame({"a": items, "b": items})),
    "tuples": ("pandas", lambda pd, items: pd.DataFrame({"a": items}).itertuples()),
    "subclass": ("pandas", lambda pd, items: type("Mine", (pd.Series,), {})(known(items))),
    "union": (
        "pyarrow",
        lambda pa, items: pa.UnionArray.from_sparse(
            pa.array([0] * len(items), pa.int8()), [pa.array(items, pa.int64())]
        ),
    ),
    "columns": ("pyarrow", lambda pa, items: pa.table({"a": items, "b": items})),
}
ITEMS = st.lists(st.none() | st.integers(-100, 100), max_size=25)


@pytest.fixture(scope="module", params=KINDS)
def make(request):
    """What makes a column of each kind."""
    library, function = KINDS[request.param]
    module = pytest.importorskip(library)
    return lambda items: function(module, items)


@pytest.fixture(scope="module", params=OTHERS)
def other(request):
    """What makes iterables of which no slice is taken."""
    library, function = OTHERS[request.param]
    module = pytest.importorskip(library)
    return lambda items: function(module, items)


def told(items):
    """Return what can be seen of items: their types and what they say."""
    return [(type(item), repr(item)) for item in items]


def sent(column):
    """Return what arrives of a column: large buffers travel apart, as bytes or writable."""
    buffers: list[pickle.PickleBuffer] = []
    frame = pickle.dumps(column, 5, buffer_callback=buffers.append)
    return pickle.loads(frame, buffers=[bytearray(buffer.raw()) for buffer in buffers])


@settings(max_examples=settings().max_examples // 4)  # for each of 60 kinds
@given(items=ITEMS, cuts=st.lists(st.integers(0, 30)))
def test_columns_give_the_loops_items(make, items, cuts):
    iterable = make(items)
    expected = told(iterable)
    whole = sliceable(iterable)
    assert len(whole) == len(expected)
    edges = sorted({0, *(cut for cut in cuts if cut < len(whole)), len(whole)})

    parts = [whole[start:stop] for start, stop in itertools.pairwise(edges)]

    assert [len(part) for part in parts] == list(np.diff(edges))
    assert told(item for part in parts for item in part) == expected
    assert told(part[0] for part in parts) == [expected[edge] for edge in edges[:-1]]
    again = [pickle.loads(pickle.dumps(part, 5)) for part in parts]
    assert told(item for part in again for item in part) == expected
    assert told(item for part in parts for item in sent(part)) == expected
    assert [len(part) for part in again] == [len(part) for part in parts]


def test_other_iterables_have_no_columns(other):
    assert sliceable(other([1, None, 2])) is None


@pytest.mark.parametrize("view", [memoryview(np.zeros((2, 2))), memoryview(np.array(1.0))])
def test_views_that_are_no_row_have_no_columns(view):
    assert sliceable(view) is None


def test_texts_whose_slices_would_carry_all_have_no_columns():
    pa = pytest.importorskip("pyarrow", minversion="16")

    assert sliceable(pa.array(["a"], pa.string_view())) is None
    assert sliceable(pa.array([["a"]], pa.list_(pa.binary_view()))) is None


def test_a_slice_travels_alone(make):
    # Ten times as many items before and after it make no difference.
    few, many = sliceable(make(list(range(40)))), sliceable(make(list(range(40)) * 10))

    sizes = [len(pickle.dumps(whole[10:20], 5)) for whole in (few, many) if len(whole)]

    assert max(sizes, default=0) <= min(sizes, default=0) + 50


@pytest.mark.parametrize("name", ["floats", "integers", "booleans", "index"])
def test_numbers_of_pandas_are_views_that_need_no_library(name):
    pd = pytest.importorskip("pandas")
    series = PANDAS[name](pd, [1, 2, 3, 4] * 100)

    column = sliceable(series)[100:200]

    assert isinstance(column, Numbers)
    assert np.shares_memory(np.asarray(column.view), series.to_numpy())
    code = (
        "import pickle, sys; column = pickle.load(sys.stdin.buffer); print(*column);"
        "assert 'numpy' not in sys.modules"
    )
    command = [sys.executable, "-S", "-c", code]
    root = Path(__file__).parent.parent
    frame = pickle.dumps(column, 5)
    ended = subprocess.run(command, input=frame, capture_output=True, check=True, cwd=root)
    assert ended.stdout.split() == [str(item).encode() for item in series[100:200]]


def test_missing_libraries_are_not_loaded():
    code = (
        "import sys; from parallelkit.columns import sliceable\n"
        "sliceable([1]), sliceable(range(3)), sliceable(object()), sliceable(memoryview(b'ab'))\n"
        "assert not {'numpy', 'pandas', 'pyarrow', 'parallelkit.shared'} & set(sys.modules)"
    )
    command = [sys.executable, "-S", "-c", code]

    assert subprocess.run(command, check=True, cwd=Path(__file__).parent.parent).returncode == 0


def test_rows_are_a_range_of_the_same_memory():
    table = SharedArray((1000, 100))

    column = sliceable(table)[10:500]
    arrived = pickle.loads(pickle.dumps(column))

    assert isinstance(column, Rows)
    assert len(pickle.dumps(column)) < 600
    next(iter(arrived))[3] = 7.0
    assert table[10, 3] == 7.0


def test_rows_outlive_the_array_that_is_closed():
    table = share(np.arange(6).reshape(3, 2))
    whole = sliceable(table)

    table.close()

    assert told(whole[1:3]) == told(np.array([[2, 3], [4, 5]]))


def test_a_closed_array_is_refused_as_by_the_loop():
    table = SharedArray(3)
    table.close()

    with pytest.raises(ValueError, match=r"this SharedArray was closed"):
        pmap(abs, table)


def test_a_shared_array_without_dimensions_is_refused_as_by_the_loop():
    with pytest.raises(TypeError, match="iteration over a 0-d array"):
        pmap(abs, SharedArray(()))


def test_an_array_may_grow_while_it_is_mapped():
    numbers = array.array("d", [1, 2, 3])
    whole = sliceable(numbers)
    column = whole[0:2]

    numbers.append(4)

    assert list(column) == [1, 2]


# With workers.

SOME = {
    name: KINDS[name]
    for name in [
        *("builtins: array of floats", "builtins: bytearray", "builtins: view of floats"),
        *("builtins: shared rows", "pandas: floats", "pandas: objects", "pandas: texts"),
        *("pandas: days of Paris", "pandas: nullable integers", "pandas: own labels"),
        *("pandas: across", "pandas: index of a range", "pyarrow: texts", "pyarrow: chunks"),
        *("pyarrow: dense union", "pyarrow: dictionary"),
    ]
} | {name: OTHERS[name] for name in ["categories", "table"]}


@pytest.mark.parametrize("name", SOME)
def test_workers_see_what_the_loop_sees(name):
    library, function = SOME[name]
    iterable = function(pytest.importorskip(library), [3, None, 1, 2, None, 5] * 20)

    def seen(item):
        return type(item), repr(item)

    expected = [seen(item) for item in iterable]
    assert pmap(seen, iterable, workers=2, chunksize=7) == expected
    assert pmap(seen, iterable) == expected
    assert pmap(seen, iterable, backend="serial") == expected


def test_columns_of_several_kinds_go_together():
    pd, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    table = pd.DataFrame({"a": [1.5, 2.5, 3.5], "b": ["x", "y", "z"]})

    got = pmap(
        lambda *arguments: told(arguments),
        *(table["a"], table["b"], pa.array([1, None, 3]), range(10), share(np.arange(5))),
        workers=2,
    )

    arrow, shared = pa.array([1, None, 3]), np.arange(5)
    loop = zip(table["a"], table["b"], arrow, range(10), shared, strict=False)
    assert got == [told(arguments) for arguments in loop]


def test_workers_write_into_the_rows_of_a_shared_array():
    table = SharedArray((100, 1000))

    def fill(row):
        row[:] = os.getpid()
        return os.getpid()

    pids = pmap(fill, table, workers=2, chunksize=10)

    assert os.getpid() not in pids
    assert table[:, 0].tolist() == table[:, 999].tolist() == pids


def test_an_item_of_a_column_that_fails_is_named():
    pd = pytest.importorskip("pandas")
    series = pd.Series([3.0, 2.0, 0.0], index=[2, 0, 1])

    with pytest.raises(ZeroDivisionError) as caught:
        pmap(lambda number: 1 / number, series, workers=2)

    assert (caught.value.index, caught.value.item) == (2, 0.0)


def test_nothing_of_a_shared_array_is_held_after_the_call():
    def mapped(_):
        maps = Path("/proc/self/maps")
        return maps.read_text() if maps.exists() else ""

    table = SharedArray((100, 1000))
    token = table.array.base.handle().token
    pmap(len, table, workers=2, chunksize=10)

    del table
    gc.collect()

    texts = [mapped(0), *pmap(mapped, range(20), workers=2, chunksize=1)]
    assert not any(token in text for text in texts)
