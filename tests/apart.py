"""Objects taken apart as `arrays` says and put together again, and what keeps their memory."""

from __future__ import annotations

import io
import mmap
import pickle
import weakref
from typing import Any

import numpy as np
import pytest

from parallelkit import arrays


class Taker(pickle.Pickler):
    """A pickler that asks `arrays` about every type."""

    def reducer_override(self, obj):
        reduce = arrays.reducer(type(obj))
        return NotImplemented if reduce is None else reduce(obj)


def dumped(obj: object, beside: bool = True, large: int = 0) -> tuple[bytes, list[memoryview]]:
    """Return a pickle, and the buffers beside it."""
    sink, buffers = io.BytesIO(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "LARGE", large)
        Taker(sink, 5, buffer_callback=buffers.append if beside else None).dump(obj)
    return sink.getvalue(), [buffer.raw() for buffer in buffers]


def owners(buffers: list[memoryview]) -> list[np.ndarray]:
    """Return writable copies of buffers, which are what those who send them hand over."""
    return [np.frombuffer(bytearray(buffer), "u1") for buffer in buffers]


def travelled(obj: Any, beside: bool = True, large: int = 0) -> Any:
    frame, buffers = dumped(obj, beside, large)
    return pickle.loads(frame, buffers=owners(buffers))


def assert_lease(rebuilt: Any, look: Any) -> None:
    """Assert that an owner lives as long as what `look` makes of what `rebuilt` makes of it."""
    ended = []
    owner = np.frombuffer(mmap.mmap(-1, 8 * 12), "u1")
    weakref.finalize(owner, ended.append, True)
    made = rebuilt(owner)
    del owner
    seen = look(made)
    assert not ended
    del made
    assert not ended
    del seen
    assert ended
