"""A lack of memory for shared arrays, told before it is met.

Where memory that was promised is not there, the kernel kills a process, perhaps another.  So
whoever makes an array asks first, and what is small is asked for many at a time.
"""

from __future__ import annotations

LOOK = 1 << 25
"""Bytes to take until the next look at the machine's memory: 0.3 ms, 2 % of what they cost."""

_room = 1 << 20  # bytes to take before the next look: one small array is made without any


def check(length: int) -> None:
    """Ask for `length` bytes.

    Raises:
        MemoryError: This process may not take so many.
    """
    global _room
    if length > _room:
        from parallelkit import machine

        memory = machine.memory()
        if length > memory.available:
            raise MemoryError(
                f"a shared array of {size(length)} does not fit: "
                f"{size(memory.available)} are available ({memory.source})\n"
                "share a part of it, or use a smaller dtype"
            )
        _room = max(length, min(LOOK, memory.available // 16))  # others may grow meanwhile
    _room -= length


def size(length: int) -> str:
    """Return a number of bytes as messages tell it."""
    return f"{length / 2**30:.2f} GiB ({length} bytes)"
