"""Arrays over files (`numpy.memmap`, and arrays that lie in one) travel as a place in the file.

Whoever unpickles such an array opens the file again and has the same bytes; of a file that may be
written, it writes the same file, as a loop would.  This holds for files that are still there under
their name; else, and where copy-on-write (mode "c") makes the bytes the process's own, `reduce` has
nothing to say, and the array goes by copy as any other.  So it does on macOS, which does not tell
what file lies behind a mapping.
"""

from __future__ import annotations

import mmap
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

if TYPE_CHECKING:
    import numpy as np

MAPS = "/proc/self/maps"


class Backing(NamedTuple):
    """What lies behind a mapping: a file, as `os.stat` knows it, from byte `start` on."""

    device: int
    inode: int
    start: int


# Of each mapping once: to ask the system takes about as long as to copy a megabyte.
_backings: WeakKeyDictionary[mmap.mmap, Backing] = WeakKeyDictionary()

# Whole files that were opened here, so that many arrays over one file take one descriptor.
_opened: WeakValueDictionary[tuple[Any, ...], np.memmap[Any, Any]] = WeakValueDictionary()


def reduce(plain: np.ndarray[Any, Any], array: Any) -> tuple[Any, ...] | None:
    """Return what pickle needs to open `array` again, None if it must be copied.

    `plain` is the same array, as an `ndarray`.
    """
    numpy: Any = sys.modules["numpy"]
    over = array
    while type(over) is numpy.ndarray:
        over = over.base
    if type(over) is not numpy.memmap or over.filename is None or over.mode == "c":
        return None
    start = _start(plain, over)
    if start is None:
        return None
    place = (os.fspath(over.filename), "r" if over.mode == "r" else "r+", *start)
    return reopen, (place, plain.dtype, plain.shape, plain.strides, over is array)


def _start(plain: np.ndarray[Any, Any], over: Any) -> tuple[int, int, int, int] | None:
    """Return device, inode, the first item's place in the file, and where the last byte ends."""
    mapping = over
    while hasattr(mapping, "base"):
        mapping = mapping.base
    if not isinstance(mapping, mmap.mmap):  # a copy, though its type is memmap
        return None
    low, first, high = _extent(plain)
    bottom = _address(mapping)
    if low < bottom or high > bottom + len(mapping):
        return None
    try:
        backing = _backing(mapping, over, bottom)
        status = os.stat(over.filename)
    except (OSError, ValueError):  # it is gone, or empty by now
        return None
    if backing is None or backing[:2] != (status.st_dev, status.st_ino):
        return None
    shift = backing.start - bottom
    if high + shift > status.st_size:
        return None
    return status.st_dev, status.st_ino, first + shift, high + shift


def _extent(plain: np.ndarray[Any, Any]) -> tuple[int, int, int]:
    """Return the addresses of the lowest byte, of the first item, and after the highest byte."""
    first: int = plain.__array_interface__["data"][0]
    ways = [(length - 1) * step for length, step in zip(plain.shape, plain.strides, strict=True)]
    low = first + sum(way for way in ways if way < 0)
    high = first + sum(way for way in ways if way > 0) + plain.itemsize
    return low, first, high


def _address(mapping: mmap.mmap) -> int:
    import numpy as np

    return _extent(np.frombuffer(mapping, "u1"))[1]


def _backing(mapping: mmap.mmap, over: Any, bottom: int) -> Backing | None:
    """Return what lies behind a mapping at address `bottom`, if it is the file that `over` names.

    Raises:
        OSError: That file cannot be read.
        ValueError: That file is empty.
    """
    backing = _backings.get(mapping)
    if backing is None:
        if os.name == "nt":  # a mapped file can be neither removed nor replaced
            status = os.stat(over.filename)
            start = over.offset - over.offset % mmap.ALLOCATIONGRANULARITY  # as numpy maps it
            backing = Backing(status.st_dev, status.st_ino, start)
        elif os.path.exists(MAPS):
            backing = _backing_told(over.filename, bottom)
        if backing is not None:
            _backings[mapping] = backing
    return backing


def _backing_told(filename: str, bottom: int) -> Backing | None:
    """Return what Linux says lies at address `bottom`, if that is the file of this name.

    The file is mapped once more, since some file systems (btrfs, overlays) tell other numbers here
    than `os.stat` does.
    """
    with open(filename, "rb") as file, mmap.mmap(file.fileno(), 1, access=mmap.ACCESS_READ) as page:
        status = os.fstat(file.fileno())
        asked = _told([bottom, _address(page)])
    if len(asked) < 2 or asked[0][0] != asked[1][0]:
        return None
    return Backing(status.st_dev, status.st_ino, asked[0][1])


def _told(addresses: list[int]) -> list[tuple[list[str], int]]:
    """Return, for each address in a mapping, the numbers of the file and the byte in it."""
    with open(MAPS) as maps:
        lines = [line.split(maxsplit=5) for line in maps]
    found = []
    for address in addresses:
        for span, _, offset, *numbers in lines:
            low, high = (int(end, 16) for end in span.split("-"))
            if low <= address < high:
                found.append((numbers[:2], int(offset, 16) + address - low))
    return found


def reopen(
    place: tuple[str, str, int, int, int, int],
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    as_memmap: bool,
) -> np.ndarray[Any, Any]:
    """Return the array at a place in a file, as a memmap or as a plain array over one.

    Raises:
        FileNotFoundError: The file is not there any more, or it is another one.
    """
    import numpy as np

    filename, mode, device, inode, offset, end = place
    whole = _open(filename, mode, (device, inode), end)
    kind: Any = np.memmap if as_memmap else np.ndarray
    array: Any = np.ndarray.__new__(kind, shape, dtype, whole, offset, strides)
    if as_memmap:
        array.__array_finalize__(whole)  # so that it has what `flush` needs
        array.filename, array.offset, array.mode = filename, offset, mode
    return array  # type: ignore[no-any-return]


def _open(filename: str, mode: str, numbers: tuple[int, int], end: int) -> np.memmap[Any, Any]:
    """Return the bytes of a file, which are at least `end`."""
    import numpy as np

    key = (filename, mode, *numbers)
    whole = _opened.get(key)
    if whole is None or whole.nbytes < end:
        with open(filename, "rb" if mode == "r" else "r+b") as file:
            status = os.fstat(file.fileno())
            if (status.st_dev, status.st_ino) != numbers or status.st_size < end:
                raise FileNotFoundError(
                    f"{filename!r} was replaced while an array over it was on its way: "
                    "keep the file until the call is over, or pass a copy of the array"
                )
            whole = np.memmap(file, "u1", mode)  # type: ignore[call-overload]
        _opened[key] = whole
        _backings[whole.base] = Backing(*numbers, 0)
    return whole
