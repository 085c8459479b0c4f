"""The codec's two sides in two processes: scripts of the tests import this as their caller's side.

The far side is a loop of a few lines, so that what fails is the codec and not a pool.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterable
from typing import Any, Self

from parallelkit.codec import Definitions
from parallelkit.failures import unpack_error

WORKER = """
import pickle, sys
from parallelkit.codec import Replica
from parallelkit.failures import pack_error

def outcomes(fn, calls):
    values, failures = [], {}
    while True:
        try:
            values.append(fn(*next(calls)))
        except StopIteration:
            return values, failures
        except BaseException as error:
            failures[len(values)] = pack_error(error, replica)
            values.append(None)

stream, out = sys.stdin.buffer, sys.stdout.buffer
replica, fn = Replica(), None
while True:
    try:
        blobs, frame = pickle.load(stream)
    except EOFError:
        break
    for blob in blobs:
        root = replica.learn(blob)
        fn = fn or root
    values, failures = outcomes(fn, zip(*replica.loads(frame), strict=True))
    body, unsendable = replica.dumps_values(values)
    pickle.dump((body, failures | unsendable), out)
    out.flush()
"""


class Far:
    """A function in another process, for several chunks."""

    def __init__(self, fn: Any, by_value: Iterable[str] = ()) -> None:
        self.definitions = Definitions(fn, by_value)
        self.told = 0
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait() == 0

    def map(self, *columns: Any) -> list[Any]:
        """Return what the function returned for a chunk, errors in their places."""
        frame = self.definitions.dumps_salvaging(columns)
        blobs = self.definitions.blobs[self.told :]
        self.told += len(blobs)
        pickle.dump((blobs, frame), self.process.stdin)
        self.process.stdin.flush()
        body, failures = pickle.load(self.process.stdout)
        values = self.definitions.loads(body)
        for index, packed in failures.items():
            values[index] = unpack_error(packed, self.definitions)
        return values


def far(fn: Any, *columns: Any) -> list[Any]:
    """Return what `fn` returns for one chunk in a process of its own."""
    with Far(fn) as there:
        return there.map(*columns)
