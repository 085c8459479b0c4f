"""Random streams that belong to items, not to workers.

With `seed=`, Python's `random` and NumPy's global generator are reset before each item from the
seed and the item's position alone, so that the same item draws the same numbers on any number of
workers, in any chunk, on any backend.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from typing import Any


def stream(seed: int, position: int) -> int:
    """Return 128 bits that look random and depend on `seed` and `position` alone.

    BLAKE2 (RFC 7693) makes neighbours unrelated; seeds like `seed + position` would give item 1 of
    seed 0 the stream of item 0 of seed 1.
    """
    digest = hashlib.blake2b(b"%d:%d" % (seed, position), digest_size=16).digest()
    return int.from_bytes(digest, "little")


def reset(seed: int, position: int) -> None:
    """Put the global generators where item `position` of `seed` begins."""
    import numpy as np

    bits = stream(seed, position)
    random.seed(bits)
    np.random.seed([bits >> shift & 0xFFFFFFFF for shift in (0, 32, 64, 96)])


class Seeded:
    """The same items, the first of which has position `start`; each comes after a reset.

    Not a generator, for that would be over once the items raise in the middle.
    """

    def __init__(self, items: Iterable[Any], seed: int, start: int) -> None:
        self.items = iter(items)
        self.seed = seed
        self.position = start

    def __iter__(self) -> Seeded:
        return self

    def __next__(self) -> Any:
        position = self.position
        self.position += 1
        item = next(self.items)
        reset(self.seed, position)
        return item


class Kept:
    """A `with` block after which the global generators are as they were before it."""

    def __init__(self) -> None:
        self._python: Any = None
        self._numpy: Any = None

    def __enter__(self) -> None:
        import numpy as np

        self._python = random.getstate()
        self._numpy = np.random.get_state()

    def __exit__(self, *_: object) -> None:
        import numpy as np

        random.setstate(self._python)
        np.random.set_state(self._numpy)
