"""Queue: messages from any process to any other, each taken once.

The messages lie one behind the other in the file behind a cell, after its own bytes.  Where the
first begins, where the last ends and how many there are stands in the cell twice, and a word says
which of the two holds.  A message is written or read first, then the other copy, then that word: so
a process that is killed at any moment leaves the queue as it was before, or as it is after.
"""

from __future__ import annotations

import os
import queue
import sys
from typing import Any

from .. import segments
from . import cells
from .cells import FREE, SIZE
from .lines import Line
from .messages import packed, unpacked

_CHOICE, _COPIES = FREE, FREE + 1
_HEAD, _TAIL, _COUNT = range(3)
_COPY = 3  # words

_LENGTH = 8  # bytes before each message
_FIRST_READ = 4096  # bytes: most messages are shorter and so take one call
_SLACK = 1 << 20
"""Bytes of messages that were taken, before those behind them move into their place.  Each byte is
moved once at most for one that was taken."""

_KEPT = 1 << 24
"""Bytes of the file above which an empty queue gives them back.  Writing where there was something
before is 3 times faster than where the system must find new pages (measured on 2 cores, Linux 6).
"""


class Queue:
    """Objects that processes put in and others, or the same, take out, first in first out.

    It has the methods of `multiprocessing.Queue`, and may be captured by a function or passed as an
    argument.  What is put is pickled at once and there for others when `put` returns; there is no
    thread behind it.  A process that is killed while it puts leaves nothing of that message, and
    one that is killed while it gets leaves the message to others, unless it had it already.

    Putting and getting cost about 7 us each for small objects, and 1 ms for each MiB; who waits is
    woken in the order in which he came, within 0.1 ms.  An object whose class is one of `__main__`
    arrives in a worker as one of a copy of that class.  For large arrays put a `SharedArray`, and
    keep it until it has arrived.

    Args:
        maxsize: How many objects it holds; `put` waits while it is full.  0 is as many as memory.

    Example:
        >>> from parallelkit import pmap
        >>> found = Queue()
        >>> _ = pmap(lambda x: found.put(x) if x % 7 == 0 else None, range(20), workers=2)
        >>> sorted(found.get() for _ in range(3))
        [0, 7, 14]
    """

    def __init__(self, maxsize: int = 0) -> None:
        self._cell = cells.create()
        self._maxsize = max(maxsize, 0)
        self._closed = self._used = False

    def put(self, obj: object, block: bool = True, timeout: float | None = None) -> None:
        """Put an object in.

        Raises:
            queue.Full: It stayed full for `timeout` seconds, or is full and `block` is False.
            MemoryError: There is no room for it.
            ValueError: The queue was closed here.
        """
        self._check_open()
        self._used = True
        frame = packed(obj)
        if Line(self._cell, 1).wait(lambda: self._append(frame), block, timeout) is None:
            raise queue.Full

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest object out.

        Raises:
            queue.Empty: It stayed empty for `timeout` seconds, or is empty and `block` is False.
            ValueError: The queue was closed here.
        """
        self._check_open()
        frame = Line(self._cell, 0).wait(self._take, block, timeout)
        if frame is None:
            raise queue.Empty
        return unpacked(frame)

    def put_nowait(self, obj: object) -> None:
        """Put an object in, or raise `queue.Full` at once."""
        self.put(obj, block=False)

    def get_nowait(self) -> Any:
        """Take the oldest object out, or raise `queue.Empty` at once."""
        return self.get(block=False)

    def qsize(self) -> int:
        """Return how many objects are in it."""
        return self._state()[_COUNT]

    def empty(self) -> bool:
        """Return whether there is nothing in it.

        Raises:
            OSError: The queue was closed here after something had been put.
        """
        if self._closed and self._used:
            raise OSError(f"{self!r} is closed")
        return not self.qsize()

    def full(self) -> bool:
        """Return whether `put` would have to wait."""
        return 0 < self._maxsize <= self.qsize()

    def close(self) -> None:
        """Refuse `put` and `get` on this object from now on; other processes are not affected."""
        self._closed = True

    def join_thread(self) -> None:
        """Return at once: what was put is there, without a thread that would have to write it."""

    def cancel_join_thread(self) -> None:
        """Do nothing: see `join_thread`."""

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"{self!r} is closed")

    # What lies in the file.  All of it is for who holds the cell, save `_state`.

    def _state(self) -> tuple[int, int, int]:
        """Return where the first message begins and the last ends, and how many there are."""
        words = self._cell.words
        copy = _COPIES + _COPY * words[_CHOICE]
        head, tail, count = words[copy : copy + _COPY].tolist()
        return head, tail, count

    def _commit(self, head: int, tail: int, count: int) -> None:
        words = self._cell.words
        other = 1 - words[_CHOICE]
        copy = _COPIES + _COPY * other
        words[copy + _HEAD], words[copy + _TAIL], words[copy + _COUNT] = head, tail, count
        words[_CHOICE] = other

    def _append(self, frame: bytes) -> bool | None:
        head, tail, count = self._state()
        if 0 < self._maxsize <= count:
            return None
        if head > _SLACK and head >= tail - head:
            head, tail = self._move(head, tail, count)
        length = len(frame).to_bytes(_LENGTH, "little")
        if len(frame) < _SLACK:
            self._write(tail, length + frame)
        else:
            self._write(tail, length)
            self._write(tail + _LENGTH, frame)
        self._commit(head, tail + _LENGTH + len(frame), count + 1)
        Line(self._cell, 0).wake(1)
        return True

    def _take(self) -> bytes | None:
        head, tail, count = self._state()
        if not count:
            return None
        start = self._read(head, min(_FIRST_READ, tail - head))
        end = _LENGTH + int.from_bytes(start[:_LENGTH], "little")
        frame = start[_LENGTH:end]
        if end > len(start):
            frame = self._read(head + _LENGTH, end - _LENGTH)
        if count > 1:
            self._commit(head + end, tail, count - 1)
        else:
            self._commit(0, 0, 0)
            if tail > _KEPT:
                os.truncate(self._cell.file, SIZE)
        if self._maxsize:
            Line(self._cell, 1).wake(1)
        return frame

    def _move(self, head: int, tail: int, count: int) -> tuple[int, int]:
        """Move all messages to the front, where as many bytes at least were taken."""
        for start in range(head, tail, _SLACK):
            self._write(start - head, self._read(start, min(_SLACK, tail - start)))
        self._commit(0, tail - head, count)
        return 0, tail - head

    def _read(self, start: int, length: int) -> bytes:
        pieces = []
        while length:  # mostly once, but the kernel reads no more than 2 GiB in one go
            piece = _read_at(self._cell.file, length, SIZE + start)
            if not piece:
                raise EOFError("someone else has cut off the file of this queue")
            pieces.append(piece)
            start, length = start + len(piece), length - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _write(self, start: int, content: bytes) -> None:
        rest = memoryview(content)
        try:
            while rest:
                done = _write_at(self._cell.file, rest, SIZE + start)
                start, rest = start + done, rest[done:]
        except OSError as error:
            if error.errno in segments.FULL:
                raise MemoryError(f"no room in the queue for {len(content)} bytes") from error
            raise

    def __repr__(self) -> str:
        return f"<Queue of {self.qsize()}>"


if sys.platform != "win32":
    _read_at, _write_at = os.pread, os.pwrite

else:

    def _read_at(file: int, length: int, start: int) -> bytes:
        os.lseek(file, start, os.SEEK_SET)
        return os.read(file, length)

    def _write_at(file: int, content: memoryview, start: int) -> int:
        os.lseek(file, start, os.SEEK_SET)
        return os.write(file, content)
