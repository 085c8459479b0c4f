"""Handles: where the memory of a shared array is, and how it lies there, as a text.

A text can go where a pickle cannot or should not: into a command line, an environment variable, a
file.  It is read as text and never executed, so that a forged one can do no more than name memory
of this package that the reader may open anyway.  What a handle finds is `segments`' business.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from parallelkit.segments import Handle

if TYPE_CHECKING:
    import numpy as np

PREFIX = "parallelkit-1:"
"""What a handle begins with; the number is that of the form in which the rest is written."""

WRONG = "this is no handle of a SharedArray, or not all of it"

Order = Literal["C", "F"]


class Spot(NamedTuple):
    """An array in memory that others can find: its segment, and what lies where in it."""

    segment: Handle
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: Order
    writable: bool


def to_text(spot: Spot) -> str:
    """Return the handle of an array: letters, digits, and of other characters `-`, `_`, `=`, `:`.

    Raises:
        TypeError: The dtype is one that only a pickle can name.
    """
    segment, start, shape, dtype, order, writable = spot
    parts = [*segment, start, shape, to_plain(dtype), order, writable]
    body = json.dumps(parts, separators=(",", ":")).encode()
    return PREFIX + base64.urlsafe_b64encode(_sum(body) + body).decode()


def from_text(text: str) -> Spot:
    """Return what a handle says, which is possible but need not be so.

    Raises:
        ValueError: It is no handle.
    """
    try:
        if not text.startswith(PREFIX):
            raise ValueError
        whole = base64.b64decode(text[len(PREFIX) :], b"-_", validate=True)
        if _sum(whole[4:]) != whole[:4]:
            raise ValueError
        return _checked(*json.loads(whole[4:]))
    except (AttributeError, TypeError, ValueError, RecursionError, OverflowError) as error:
        raise wrong(text) from error


def wrong(text: str) -> ValueError:
    """Return the error that says that a text is no handle."""
    shown = text if len(repr(text)) < 80 else f"{text[:60]}..."
    return ValueError(f"{WRONG}: got {shown!r}")


def _sum(body: bytes) -> bytes:
    """Return what shows that something was cut off or mistyped; it is no proof against malice."""
    return binascii.crc32(body).to_bytes(4, "big")


def _checked(
    place: Any,
    token: Any,
    identity: Any,
    length: Any,
    start: Any,
    shape: Any,
    described: Any,
    order: Any,
    writable: Any,
) -> Spot:
    device, inode = identity
    dtype = from_plain(described)
    numbers = [device, inode, length, start, *shape]
    if not all(type(number) is int and 0 <= number < 1 << 64 for number in numbers):
        raise ValueError("a number is none")
    # `segments` looks for this token in the name of the file, so it must not lead elsewhere.
    if type(place) is not str or "\0" in place or not re.fullmatch(r"[0-9a-f]{32}", token):
        raise ValueError("a name is none")
    if order not in ("C", "F") or type(writable) is not bool or dtype.hasobject:
        raise ValueError("no array lies like this")
    size = dtype.itemsize
    for side in shape:
        size *= side
    if start + size > length:
        raise ValueError("the array is larger than its memory")
    segment = Handle(place, token, (device, inode), length)
    return Spot(segment, start, tuple(shape), dtype, order, writable)


def to_plain(dtype: np.dtype[Any]) -> Any:
    """Return a dtype as text, or as lists and dictionaries of such.

    Raises:
        TypeError: It has no such form, as dtypes of other packages may not.
    """
    import numpy as np

    if dtype.subdtype is not None:
        return [to_plain(dtype.subdtype[0]), dtype.subdtype[1]]
    if dtype.names is None:
        for text in (dtype.str, dtype.name):
            try:
                if np.dtype(text) == dtype:
                    return text
            except TypeError:
                continue
    elif dtype.fields is not None:
        fields = [dtype.fields[name] for name in dtype.names]
        titles = [field[2] if len(field) > 2 else None for field in fields]
        if all(title is None or type(title) is str for title in titles):
            return {
                "names": dtype.names,
                "formats": [to_plain(field[0]) for field in fields],
                "offsets": [field[1] for field in fields],
                "titles": titles,
                "itemsize": dtype.itemsize,
                "aligned": dtype.isalignedstruct,
            }
    raise TypeError(f"a handle cannot name the dtype {dtype!r}: pickle the SharedArray instead")


def from_plain(described: Any) -> np.dtype[Any]:
    """Return the dtype that `to_plain` was given.

    Raises:
        TypeError, ValueError: There is no such dtype.
    """
    import numpy as np

    if isinstance(described, list):
        inner, sides = described
        return np.dtype((from_plain(inner), tuple(sides)))
    if isinstance(described, str):
        return np.dtype(described)
    formats = [from_plain(each) for each in described["formats"]]
    fields: Any = {**described, "formats": formats}
    dtype: np.dtype[Any] = np.dtype(fields)
    return dtype
