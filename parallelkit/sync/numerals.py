"""Counter and Value: one number that processes share.

Both lie in a cell, whose lock keeps changes apart; a number of eight bytes at most is written in
one step, so that nobody, killed or not, leaves or sees half of one.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from . import cells
from .cells import FREE
from .locks import Lock, RLock

_BYTES = 8  # of a word: what the processor writes in one step

_CODES = {
    "c": "c_char", "u": "c_wchar", "b": "c_byte", "B": "c_ubyte", "h": "c_short", "H": "c_ushort",
    "i": "c_int", "I": "c_uint", "l": "c_long", "L": "c_ulong", "q": "c_longlong",
    "Q": "c_ulonglong", "f": "c_float", "d": "c_double",
}  # fmt: skip
"""The typecodes of `array` and the types of `ctypes` that they stand for."""


class Counter:
    """An integer that processes add to, each addition in one step.

    It holds 64 bits with a sign.  Adding costs about 1.5 us while nobody else adds and 5 us
    while one does, reading 0.1 us.

    Args:
        value: What it starts with.

    Example:
        >>> from parallelkit import pmap
        >>> seen = Counter()
        >>> _ = pmap(lambda x: seen.add(x), range(5), workers=2)
        >>> seen.value
        10
    """

    def __init__(self, value: int = 0) -> None:
        self._cell = cells.create()
        self.value = value

    def add(self, n: int = 1) -> int:
        """Add `n`, which may be negative, and return the new value, which no other call returns.

        Raises:
            OverflowError: It would not fit in 64 bits; nothing is added.
        """
        return self._cell.within(lambda: self._write(self._cell.words[FREE] + n))

    @property
    def value(self) -> int:
        """The number; setting it discards what others add at the same time."""
        return int(self._cell.words[FREE])

    @value.setter
    def value(self, value: int) -> None:
        self._cell.within(lambda: self._write(value))

    def _write(self, value: int) -> int:
        try:
            self._cell.words[FREE] = value
        except ValueError as error:
            raise OverflowError(f"a Counter holds 64 bits, got {value!r}") from error
        return value

    def __repr__(self) -> str:
        return f"Counter({self.value})"


class Unlocked:
    """A number of a C type that processes share; what `Value` gives with `lock=False`.

    Attributes:
        value: The number.
    """

    def __init__(self, type: Any, *args: Any) -> None:
        import ctypes

        self._type = getattr(ctypes, _CODES[type]) if type in _CODES else type
        simple = getattr(self._type, "_type_", None)
        if not isinstance(simple, str) or ctypes.sizeof(self._type) > _BYTES or simple in "PzZO":
            codes = ", ".join(_CODES)
            raise TypeError(f"type must be one of {codes} or a number of ctypes, got {type!r}")
        self._cell = cells.create()
        self._number = self._type.from_buffer(self._cell.segment, FREE * _BYTES)
        self._number.__init__(*args)

    def __getstate__(self) -> tuple[Any, ...]:
        return self._type, self._cell

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._type, self._cell = state
        self._number = self._type.from_buffer(self._cell.segment, FREE * _BYTES)

    @property
    def value(self) -> Any:
        """The number."""
        return self._number.value

    @value.setter
    def value(self, value: Any) -> None:
        self._number.value = value

    def __repr__(self) -> str:
        return f"Value({self._type.__name__}, {self.value!r})"


class Value(Unlocked):
    """A number of a C type that processes share, with a lock.

    It works as `multiprocessing.Value` does for numbers and single characters.  Setting it costs
    about 2 us, reading it 0.1 us.  For `value.value += 1` hold the lock, or use a `Counter`; for
    arrays and records use a `SharedArray`.

    Args:
        type: A typecode of the module `array`, or `"c"`, or a simple type of `ctypes`.
        *args: What it starts with; zero if nothing is given.
        lock: A lock to use in place of a new `RLock`; or False for none, which gives an object that
            has `value` and nothing else.

    Raises:
        TypeError: The type is none of those.
        AttributeError: The lock is none.

    Example:
        >>> best = Value("d", 7.5)
        >>> with best.get_lock():
        ...     best.value = min(best.value, 3.0)
        >>> best.value
        3.0
    """

    def __new__(cls, *args: Any, lock: Any = True) -> Unlocked:  # type: ignore[misc]  # as there
        """Return what has no lock at all if it shall have none."""
        return Unlocked(*args) if lock is False else super().__new__(cls)

    def __init__(self, type: Any, *args: Any, lock: bool | Lock | RLock | None = True) -> None:
        super().__init__(type, *args)
        if lock is True or lock is None:
            lock = RLock._over(self._cell)  # noqa: SLF001 -- see there
        elif not hasattr(lock, "acquire"):
            raise AttributeError(f"lock must be True, False or a lock, got {lock!r}")
        self._lock: Any = lock

    def __getstate__(self) -> tuple[Any, ...]:
        return super().__getstate__(), self._lock

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        state, self._lock = state
        super().__setstate__(state)

    @property
    def value(self) -> Any:
        """The number; setting it waits for who holds the lock."""
        return self._number.value

    @value.setter
    def value(self, value: Any) -> None:
        with self._lock:
            self._number.value = value

    def get_lock(self) -> Any:
        """Return the lock that setting takes."""
        return self._lock

    def get_obj(self) -> Any:
        """Return the `ctypes` object itself, which takes no lock."""
        return self._number

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take the lock and return True, or False if it was not to be had in `timeout` seconds."""
        return bool(self._lock.acquire(block, timeout))

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def __enter__(self) -> bool:
        return bool(self._lock.__enter__())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()
