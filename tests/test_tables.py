"""Tables of pandas and pyarrow: their own pickles hold arrays, so nothing large stays in them."""

from __future__ import annotations

import numpy as np
import pytest
from apart import assert_lease, dumped, travelled

from parallelkit import arrays

pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")

ROWS = 1000  # everything from 500 bytes is large here
LARGE = 500
FEW = 2500  # bytes that a pickle takes for what such objects are

TIMES = pd.DatetimeIndex(np.arange(ROWS) ** 2)
TEXTS = [f"text {row}" for row in range(ROWS)]
FRAME = pd.DataFrame(
    {
        "whole": np.arange(ROWS),
        "real": np.arange(ROWS) / 3,
        "another": np.arange(ROWS) / 7,
        "flag": np.arange(ROWS) % 2 == 0,
        "time": TIMES,
        "text": pd.Series(TEXTS, dtype="string[pyarrow]"),
        "few": pd.Categorical(np.arange(ROWS) % 5),
        "gaps": pd.array([None, *range(1, ROWS)], dtype="Int64"),
    }
)
PANDAS = {
    "frame": FRAME,
    "columns": FRAME[["real", "another"]],
    "rows": FRAME.iloc[::2],
    "turned": FRAME[["real", "another"]].T,
    "indexed": FRAME.set_index("time"),
    "twice indexed": FRAME.set_index(["few", "whole"]),
    "series": FRAME["real"],
    "texts": pd.Series(TEXTS, dtype="string[pyarrow]"),
    "arrow": pd.Series(range(ROWS), dtype="int64[pyarrow]"),
    "zones": pd.Series(TIMES.tz_localize("UTC")),
    "periods": pd.Series(pd.period_range("2000", periods=ROWS, freq="h")),
    "intervals": pd.Series(pd.interval_range(0, ROWS)),
    "sparse": pd.Series(pd.arrays.SparseArray(np.arange(ROWS) / 3)),
    "times": TIMES,
    "product": pd.MultiIndex.from_arrays([np.arange(ROWS) % 3, np.arange(ROWS)]),
}
ARROW = {
    "array": pa.array(range(ROWS)),
    "texts": pa.array(TEXTS),
    "lists": pa.array([[1, 2]] * ROWS),
    "dictionary": pa.array(["a", "b"] * ROWS).dictionary_encode(),
    "chunks": pa.chunked_array([range(ROWS), range(ROWS)]),
    "table": pa.table({"whole": range(ROWS), "text": TEXTS}),
    "batch": pa.record_batch({"whole": range(ROWS)}),
    "buffer": pa.py_buffer(bytes(ROWS)),
}


def assert_beside(obj: object, size: int) -> None:
    frame, buffers = dumped(obj, large=LARGE)
    assert len(frame) < FEW
    assert sum(buffer.nbytes for buffer in buffers) >= size


@pytest.mark.parametrize("obj", PANDAS.values(), ids=PANDAS)
def test_pandas_objects_go_beside(obj):
    usage = obj.memory_usage(index=False) if hasattr(obj, "columns") else obj.nbytes
    assert_beside(obj, int(np.sum(usage)) * 9 // 10)

    check = pd.testing.assert_index_equal
    if isinstance(obj, pd.DataFrame | pd.Series):
        check = getattr(
            pd.testing, f"assert_{type(obj).__name__.lower().removeprefix('data')}_equal"
        )

    check(travelled(obj), obj)
    check(travelled(obj, beside=False), obj)


@pytest.mark.parametrize("obj", ARROW.values(), ids=ARROW)
def test_arrow_objects_go_beside(obj):
    assert_beside(obj, obj.size if isinstance(obj, pa.Buffer) else obj.nbytes)

    assert travelled(obj).equals(obj)
    assert travelled(obj, beside=False).equals(obj)


@pytest.mark.parametrize(
    "look",
    [
        lambda made: pd.Series(made[0], copy=False),
        lambda made: pd.DataFrame(made, copy=False)[[1]],
        lambda made: pd.Index(made[0], copy=False),
        lambda made: pa.array(made[0]),
        pa.py_buffer,
    ],
    ids=["Series", "DataFrame", "Index", "array", "buffer"],
)
def test_the_owner_lives_as_long_as_a_table(look):
    assert_lease(lambda owner: arrays.rebuild(owner, np.dtype("i8"), (3, 4), "C"), look)
