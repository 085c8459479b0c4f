"""The functions that all contestants map.

They lie in a module so that each library sends them by name.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from itertools import repeat
from operator import add
from typing import Any
from zlib import crc32

import numpy as np

LENGTH = 10**6  # of an array of 8 MB
MEGABYTE = 125_000  # floats that take one
LAYERS = 6  # of the model that is expensive to load
WIDTH = 400  # of each
TEXT = bytes(256)  # of a checksum: some 0.2 us
STEP = 65  # rows of the image that a filter takes at a time: 5 times a number, in the cache

Array = np.ndarray[Any, Any]


# Work that takes time and nothing else.


def nothing(item: Any) -> Any:
    return item


def burn(loops: int) -> int:
    """Make `loops` checksums of a short text: the same instructions wherever it runs.

    Not an empty loop, which on one quiet machine takes 2.15, 2.3, 2.5, 2.7 or 2.9 ms for the same
    rounds, as it happens to lie in a process: more than all libraries differ by.  With checksums
    processes differ by 1 %.  They keep the interpreter's lock, as any loop in Python does.
    """
    for _ in repeat(None, loops):
        crc32(TEXT)
    return loops


def per_microsecond() -> float:
    """Return how many loops of `burn` this machine does in a microsecond."""
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        burn(10_000)
        best = min(best, time.perf_counter() - began)
    return 0.01 / best


# Large arrays.


def total(array: Array) -> float:
    return float(array.sum())


def filled(number: int) -> Array:
    return np.full(LENGTH, float(number))


def row(big: Array, number: int) -> float:
    """Add up one megabyte of what was captured, but for its first two numbers."""
    start = number * MEGABYTE
    return float(big[start + 2 : start + MEGABYTE].sum())


# Small records.


def record(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "name": f"customer {number % 1000}",
        "paid": number % 97 * 1.25,
        "open": number % 3 == 0,
        "tags": ["new", "web"] if number % 2 else ["old"],
    }


def billed(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "due": record["paid"] * 0.19 if record["open"] else 0.0}


def line(number: int) -> str:
    return f"2026-03-{number % 28 + 1:02d},{number},item {number % 321},{number % 89 * 0.5:.2f}\n"


def parsed(text: str) -> tuple[str, int, float]:
    date, key, _, price = text.rstrip("\n").split(",")
    return date, int(key), float(price)


# Reductions.


def rest(number: int) -> int:
    return number * number % 7


def reduced(bounds: tuple[int, int]) -> int:
    """Return a block of the reduction of numbers, for those who cut blocks by hand."""
    return reduce(add, map(rest, range(*bounds)))


def added(arrays: Iterable[Array]) -> Array:
    result = np.zeros(LENGTH)
    for array in arrays:
        result += array
    return result


def added_block(numbers: Sequence[int]) -> Array:
    """Return a block of the reduction of arrays, for those who cut blocks by hand."""
    return added(map(filled, numbers))


# Three that others publish: a shared image and many filters, counting, an expensive model.


def image() -> Array:
    return np.arange(2_000 * 2_000, dtype=float).reshape(2_000, 2_000) % 255


def taps(number: int) -> Array:
    return np.random.default_rng(number).integers(-8, 8, (4, 4)).astype(float)


def convolved(picture: Array, weights: Array) -> Array:
    """Return every fifth pixel of the filtered image.

    Its memory is taken once.  Arrays that came and went would have the allocator give pages back
    and take them anew, or not, by a few bytes: 46 or 64 ms for the same filter.
    """
    height, width = (size - 3 for size in picture.shape)
    result = np.empty((-(-height // 5), -(-width // 5)))
    sums, products = np.empty((2, STEP, width))
    for top in range(0, height, STEP):
        rows = min(STEP, height - top)
        part, product = sums[:rows], products[:rows]
        part.fill(0.0)
        for down in range(4):
            for right in range(4):
                seen = picture[top + down : top + down + rows, right : right + width]
                np.multiply(seen, weights[down, right], out=product)
                part += product
        result[top // 5 : (top + rows + 4) // 5] = part[::5, ::5]
    return result


def document(number: int) -> list[str]:
    """Return a text of 2,000 words of 1 to 8 letters."""
    rng = np.random.default_rng(number)
    letters = "".join(map(chr, rng.integers(97, 105, 8 * 2_000)))
    return [letters[8 * word : 8 * word + 1 + word % 8] for word in range(2_000)]


class Prefixes:
    """How often each beginning of a word was seen: what a stateful worker keeps."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, words: Sequence[str]) -> int:
        for word in words:
            for end in range(1, min(len(word), 4) + 1):
                self.counts[word[:end]] += 1
        return len(words)


def counted(documents: Sequence[Sequence[str]]) -> Counter[str]:
    """Return the counts of several documents, for those without state in workers."""
    prefixes = Prefixes()
    for words in documents:
        prefixes.add(words)
    return prefixes.counts


def merged(counters: Iterable[Counter[str]]) -> Counter[str]:
    result: Counter[str] = Counter()
    for each in counters:
        result.update(each)
    return result


class Model:
    """A model that takes a third of a second to load and a few milliseconds to ask."""

    def __init__(self) -> None:
        began = time.process_time()
        rng = np.random.default_rng(7)
        self.layers = [rng.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5 for _ in range(LAYERS)]
        while time.process_time() - began < 0.3:  # what parsing a file of weights takes
            burn(100)

    def ask(self, batch: Array) -> float:
        for layer in self.layers:
            batch = np.tanh(batch @ layer)
        return round(float(batch.sum()), 6)


def batch(number: int) -> Array:
    return np.random.default_rng(number).normal(size=(64, WIDTH))


_models: dict[int, Model] = {}  # of this process, as a newcomer would keep them


def asked(question: tuple[int, Array]) -> float:
    """Ask a model that is a global of the module, loaded when first needed.

    It is of an edition, so that no worker that stays up has it from a call before.
    """
    edition, given = question
    if edition not in _models:
        _models.clear()
        _models[edition] = Model()
    return _models[edition].ask(given)


def ask(model: Model, given: Array) -> float:
    return model.ask(given)


def blocks(length: int, count: int) -> Iterator[range]:
    """Yield `count` ranges that make up `range(length)`."""
    for number in range(count):
        yield range(length * number // count, length * (number + 1) // count)
