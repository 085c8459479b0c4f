"""The status board: one small shared page on which every worker says what it is doing.

A worker owns one slot and writes there before each item (before each few, where items are fast);
the caller reads it when a worker has died or is late.  No lock: a word has one writer, and its
readers look only when that writer is gone or can be wrong about the latest item alone.

Up to where a worker may go in a chunk is written by the caller, and up to where it goes by the
worker: one word each, which says of which chunk it speaks (`backends.duty` tells the rules).

Holds the page and the meaning of its words; leaves to others when to write and what to conclude.
"""

from __future__ import annotations

import mmap
import os

SLOTS = 4096
"""How many workers one board has room for: 128 bytes each, 512 KiB, touched only where used."""

_WORDS = 16  # 64-bit words in a slot: two cache lines, so that neighbours never share one
_SIZE = SLOTS * _WORDS * 8
_POSITION, _COUNT, _SINCE, _CLAIM, _LIMITS = range(5)
_TURNS = 4  # chunks that have a limit of their own: two that a worker has, and two it has lost
_BITS = 44  # of a word are the position in it, those above the number of its chunk
_MASK = (1 << _BITS) - 1
_FIRST, _LAST = _TURNS, (1 << 63 - _BITS) - 1  # numbers of chunks, taken in turns
_LEFT = 8  # the word by which the caller says which run is over


class Slot:
    """One worker's line on the board.

    Each end counts the chunks it has sent or received, so both know them by the same number.
    """

    __slots__ = ("base", "number", "word", "words")

    def __init__(self, words: memoryview) -> None:
        self.words = words
        self.number = _FIRST - 1
        self.base = self.word = 0  # what `claim` takes of the number, which is for each few items

    def reset(self) -> None:
        """Wipe the line, for another worker."""
        for word in range(_WORDS):
            self.words[word] = 0

    def turn(self) -> int:
        """Return the number of the next chunk."""
        number = self.number + 1 if self.number < _LAST else _FIRST
        self.number, self.base, self.word = number, number << _BITS, _LIMITS + number % _TURNS
        return number

    def claim(self, stop: int) -> int:
        """Say that the items of this chunk before `stop` are begun; return how far they may be."""
        words = self.words
        words[_CLAIM] = self.base | stop
        limit = words[self.word]
        if not limit:  # nearly always
            return stop
        return min(stop, limit & _MASK) if limit >> _BITS == self.number else stop

    def claimed(self) -> tuple[int, int]:
        """Return of which chunk items were claimed last, and up to where."""
        word = self.words[_CLAIM]
        return word >> _BITS, word & _MASK

    def limit(self, number: int, stop: int) -> None:
        """Let no item of chunk `number` from `stop` on be begun."""
        self.words[_LIMITS + number % _TURNS] = number << _BITS | stop

    def clash(self, number: int, other: int) -> bool:
        """Return whether the limits of two chunks share a word."""
        return number % _TURNS == other % _TURNS

    def allow(self, number: int) -> None:
        """Let all of chunk `number` be begun."""
        self.words[_LIMITS + number % _TURNS] = 0

    @classmethod
    def apart(cls) -> Slot:
        """Return one that is on no board."""
        return cls(memoryview(bytearray(_WORDS * 8)).cast("q"))

    def stamp(self, position: int, count: int, since: int) -> None:
        """Say that the `count` items from `position` on began at `since` (nanoseconds)."""
        words = self.words
        words[_POSITION] = position
        words[_COUNT] = count
        words[_SINCE] = since

    def clear(self) -> None:
        """Say that no item is being worked on."""
        self.words[_COUNT] = 0

    def leave(self, run: int) -> None:
        """In the caller: say that it has done with a run, where a message would wake the worker."""
        self.words[_LEFT] = run

    def left(self, run: int) -> bool:
        """In the worker: return whether the caller has done with a run."""
        return self.words[_LEFT] == run

    def read(self) -> range:
        """Return the positions being worked on, of which one is running now."""
        position, count = self.words[_POSITION], self.words[_COUNT]
        return range(position, position + count)


class Board:
    """The shared page.

    `Board()` makes one, nameless where the system can; elsewhere it has a `name`, which lasts as
    long as somebody has it mapped.  `portable` asks for the way that needs no Linux.
    """

    def __init__(self, portable: bool = False) -> None:
        self.name: str | None = None
        self.fd = -1
        if os.name == "nt":
            import secrets

            self.name = f"parallelkit-{os.getpid()}-{secrets.token_hex(8)}"
        else:
            self.fd = above_standard(_unlinked() if portable else _nameless())
            os.ftruncate(self.fd, _SIZE)
        self._words = _words(self.fd if self.name is None else self.name)

    def slot(self, number: int) -> Slot:
        """Return slot `number`, which is below `SLOTS`."""
        return _slot(self._words, number)

    def close(self) -> None:
        """Close the descriptor; slots handed out keep the page itself."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self._words.release()


def attach(where: int | str, number: int) -> Slot:
    """Return slot `number` of the board that has descriptor or name `where`."""
    return _slot(_words(where), number)


def _slot(words: memoryview, number: int) -> Slot:
    return Slot(words[number * _WORDS : (number + 1) * _WORDS])


def _words(where: int | str) -> memoryview:
    if isinstance(where, str):  # the third argument is the name, on Windows
        return memoryview(mmap.mmap(-1, _SIZE, where)).cast("q")  # type: ignore[arg-type]
    return memoryview(mmap.mmap(where, _SIZE)).cast("q")


def above_standard(fd: int) -> int:
    """Return `fd`, or in its place a copy with a higher number if it is that of a standard stream.

    A process that has closed its standard output gets that number for the next thing it opens, and
    what is printed goes there.
    """
    if fd > 2:
        return fd
    import fcntl

    copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return copy


def _nameless() -> int:
    """Return the descriptor of shared memory that has no name and so cannot be left behind."""
    try:
        return os.memfd_create("parallelkit-board", os.MFD_CLOEXEC)
    except (AttributeError, OSError):  # another system, an old kernel, a sandbox
        return _unlinked()


def _unlinked() -> int:
    import tempfile  # 3 ms, which no worker need spend

    with tempfile.TemporaryFile(prefix="parallelkit-") as file:
        return os.dup(file.fileno())
