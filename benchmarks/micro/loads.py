"""The steps that `rooms` times and `counts` counts: each a room's own work, in one process.

A load is prepared once, and then is a function that takes a number of steps.  It does the same each
time: no clock, no chance, no other process decides anything, but for what is in `UNSTEADY`.
"""

from __future__ import annotations

import math
import socket
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import ROOT
from parallelkit import Lock, pmap
from parallelkit.arenas import Arena
from parallelkit.board import Board
from parallelkit.chunking import Pace
from parallelkit.codec import Definitions, Replica
from parallelkit.events import Begin, Done, Joined, Send
from parallelkit.scheduler import Limits, Run
from parallelkit.segments import attach
from parallelkit.wire import Message, Outbox, Reader, frame

sys.path.insert(0, str(ROOT / "tests"))

from simulator import Machine

Steps = Callable[[int], object]

KIND = 1  # of a message, whichever: the wire does not look


def reference() -> Steps:
    """Plain Python that is no part of this library, by which interpreters can be compared."""

    def run(steps: int) -> None:
        seen: dict[int, tuple[int, int]] = {}
        for number in range(steps):
            for key in range(16):
                seen[key] = (number, key)
            max(seen.values())

    return run


def scheduler_chunk() -> Steps:
    """A chunk's two events in a run of two workers: it is done, and the next is sent."""

    def run(steps: int) -> None:
        run = Run(Limits(workers=2, home=False, chunksize=1), Pace())
        now, queue = 0.0, [Begin(steps, steps), Joined(1), Joined(2)]
        for event in queue:
            for command in run.handle(event, now):
                if isinstance(command, Send):
                    now += 0.01
                    queue.append(Done(command.worker, command.chunk.stop, 0.01))

    return run


def scheduler_crew() -> Steps:
    """A whole run of 1,000 uneven items on 64 workers, on the machine of the simulator."""
    costs = [0.001 + 0.0001 * (number % 7) for number in range(1_000)]

    def run(steps: int) -> None:
        for _ in range(steps):
            Machine(costs, 1e-4).play(Run(Limits(64, home=False), Pace(launch=1e-4)), len(costs))

    return run


def pace() -> Steps:
    """A chunk's size: what was seen is taken in, and the next size follows."""

    def run(steps: int) -> None:
        pace = Pace()
        for number in range(steps):
            pace.observe(10, 0.001 + number % 5 * 1e-5)
            pace.chunk(1_000_000 - number, 2)

    return run


def codec(items: list[Any]) -> Callable[[], Steps]:
    """Return a chunk's way there and back, as bytes: pickled, unpickled, results likewise."""

    def prepared() -> Steps:
        here, there = Definitions((math.sqrt,)), Replica()
        there.learn(here.blobs[0])

        def run(steps: int) -> None:
            for _ in range(steps):
                (column,) = there.loads(here.dumps_salvaging((items,)))
                here.loads(there.dumps_values(list(column))[0])

        return run

    return prepared


def wire() -> Steps:
    """A message of 300 bytes through a socket pair."""
    left, right = socket.socketpair()
    left.setblocking(False)
    outbox, reader = Outbox(left), Reader(right)
    body = b"x" * 300

    def run(steps: int) -> None:
        for number in range(steps):
            outbox.put(frame(Message(KIND, body, number, 0, 0.0)))
            outbox.flush()
            reader.read()

    run.sockets = left, right  # type: ignore[attr-defined]  # they live as long as this
    return run


def board() -> Steps:
    """A stamp of the status board, as a worker makes before an item."""
    whole = Board()
    slot = whole.slot(1)

    def run(steps: int) -> None:
        for number in range(steps):
            slot.stamp(number, 1, 0)

    run.board = whole  # type: ignore[attr-defined]
    return run


def lock() -> Steps:
    """A lock that nobody else wants, taken and given back."""
    mine = Lock()

    def run(steps: int) -> None:
        for _ in range(steps):
            mine.acquire()
            mine.release()

    return run


def arena() -> Steps:
    """A block of 64 KiB, written, and given back by its reader."""
    blocks, content = Arena(), memoryview(bytes(1 << 16))

    def run(steps: int) -> None:
        for _ in range(steps):
            place = blocks.place(content)
            assert place is not None
            attach(place.handle)[place.slot] = 2  # what a reader says that needs it no more

    return run


def double(number: int) -> int:
    return 2 * number


def call() -> Steps:
    """A whole call of ten items that the caller does itself, as it may start no workers."""
    items = list(range(10))

    def run(steps: int) -> None:
        for _ in range(steps):
            pmap(double, items, backend="serial")

    return run


def records() -> list[Any]:
    return [{"id": number, "name": f"n{number}", "paid": number * 0.5} for number in range(50)]


LOADS: dict[str, tuple[Callable[[], Steps], int]] = {
    # name: what prepares it, and how many steps a round has
    "reference": (reference, 400),
    "scheduler: a chunk": (scheduler_chunk, 300),
    "scheduler: a run of 64 workers": (scheduler_crew, 4),
    "chunking: a size": (pace, 1_000),
    "codec: 100 numbers both ways": (codec(list(range(100))), 200),
    "codec: 50 records both ways": (codec(records()), 100),
    "wire: a message": (wire, 400),
    "board: a stamp": (board, 3_000),
    "lock: taken and given back": (lock, 500),
    "arena: a block of 64 KiB": (arena, 200),
    "call: ten items, serial": (call, 200),
}
# How often the caller looks at the clock depends on the clock, and with it the instructions.
UNSTEADY = {"call: ten items, serial"}
