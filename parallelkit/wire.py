"""Messages over a stream socket: a header of fixed size, then a body.

The same `Reader` serves a worker, whose socket blocks, and the caller, whose sockets do not.  The
caller writes through an `Outbox`, which never blocks: two ends that both wait to write to full
sockets would wait for ever.  What the bodies mean is left to others.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from time import perf_counter
from typing import NamedTuple, TypeVar

Found = TypeVar("Found")

HEADER = struct.Struct("<iqqqd")  # kind, size of the body, first, second, seconds
READ = 1 << 16
"""Bytes asked of the socket at once.  Above 128 KiB malloc maps and unmaps the buffer anew at every
call, for 14 us instead of 2 (measured, glibc); larger bodies are received where they stay."""
DIRECT = 1 << 16  # a body of which more than this is missing is received where it will stay

_give_way: Callable[[], object] = getattr(os, "sched_yield", lambda: time.sleep(0))

_TOGETHER = 64  # pieces written at once: far below any system's limit of 1024

# From the caller to a worker.
RUN, LEARN, CHUNK, END = range(1, 5)
# From a worker to the caller.  A chunk that is `CUT` is done up to where it may be, and what is
# `SKIPPED` may not be run at all.
READY, JOINED, DONE, BROKEN, CUT, SKIPPED = range(11, 17)

DOUBTFUL = -1
"""In place of the number of failures in a `DONE`: the items must be sent again one by one."""

STRANDED = -2
"""The same, and without freight: it cannot be had there."""

ASHORE, AGAIN, LAST = 1, 2, 4
"""What a `CHUNK` has in the place of seconds, or their sum: nothing may travel beside the answer;
it begins a run like the one before; with the answer the run is over, as far as can be told."""

HEED = 100e-6
"""Seconds for which two ends that talk to each other do not sleep between two words.  A processor
that has gone to sleep takes 20 to 50 us to wake up, where one word there and back takes 20 (both
measured, a virtual machine); what comes later than this is not late for that."""

_TAKEN = 10e-6  # seconds to give way after which somebody else has had the processor; else it is 1

_KINDS = frozenset((RUN, LEARN, CHUNK, END, READY, JOINED, DONE, BROKEN, CUT, SKIPPED))
_LARGEST = 1 << 48  # bytes of a body: more than any memory has, so it is no message
GARBLED = "wrote to a descriptor that is not its own, and so had to be ended,"
"""What became of an end whose function wrote into the socket."""


class Message(NamedTuple):
    """One message; what `first`, `second` and `seconds` mean depends on the kind."""

    kind: int
    body: bytes | bytearray
    first: int = 0
    second: int = 0
    seconds: float = 0.0


def frame(message: Message) -> list[bytes | bytearray]:
    """Return the pieces of bytes that say `message`."""
    kind, body, first, second, seconds = message
    header = HEADER.pack(kind, len(body), first, second, seconds)
    return [header + body] if len(body) < DIRECT else [header, body]


class Reader:
    """Takes messages off a socket.

    `spoilt` says that nothing more will be understood.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.spoilt = False
        self._rest = b""
        self._body: bytearray | None = None
        self._filled = 0
        self._header: tuple[int, int, int, float] = (0, 0, 0, 0.0)

    def read(self) -> list[Message]:
        """Receive once and return the messages that are complete now, perhaps none.

        Raises:
            EOFError: The other end is closed, or what came is no message.
            BlockingIOError: Nothing is there, on a socket that does not block.
        """
        if self._body is not None:
            return self._fill(self._body)
        received = self.sock.recv(READ)
        if not received:
            raise EOFError
        return self._parse(self._rest + received if self._rest else received)

    def _fill(self, body: bytearray) -> list[Message]:
        count = self.sock.recv_into(memoryview(body)[self._filled :])
        if not count:
            raise EOFError
        self._filled += count
        if self._filled < len(body):
            return []
        kind, first, second, seconds = self._header
        self._body = None
        return [Message(kind, body, first, second, seconds)]

    def _parse(self, received: bytes) -> list[Message]:
        messages: list[Message] = []
        start, end = 0, len(received)
        while end - start >= HEADER.size:
            kind, size, first, second, seconds = HEADER.unpack_from(received, start)
            if kind not in _KINDS or not 0 <= size < _LARGEST:
                self.spoilt = True
                if not messages:
                    raise EOFError(GARBLED)
                break
            body = start + HEADER.size
            if end - body < size:
                if size - (end - body) > DIRECT:
                    self._body = bytearray(size)
                    self._body[: end - body] = received[body:]
                    self._filled = end - body
                    self._header = (kind, first, second, seconds)
                    start = end
                break
            start = body + size
            messages.append(Message(kind, received[body:start], first, second, seconds))
        self._rest = received[start:]
        return messages


class Outbox:
    """What is still to be written to a socket that does not block."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._waiting: deque[bytes | bytearray | memoryview] = deque()

    def __bool__(self) -> bool:
        """Whether something waits for room in the socket."""
        return bool(self._waiting)

    def put(self, pieces: Iterable[bytes | bytearray]) -> None:
        """Keep `pieces`, in order, for the next `flush`."""
        self._waiting.extend(pieces)

    def flush(self) -> None:
        """Write what the socket takes now.  An end that is gone is left for `Reader` to tell."""
        waiting = self._waiting
        try:
            while waiting:
                sent = self._send()
                while waiting and sent >= len(waiting[0]):
                    sent -= len(waiting.popleft())
                if sent:
                    waiting[0] = memoryview(waiting[0])[sent:]
        except BlockingIOError:
            return
        except OSError:
            waiting.clear()

    def _send(self) -> int:
        # Together, because each write may wake the reader, which costs more than the writing.
        waiting = self._waiting
        if len(waiting) > 1 and sum(map(len, waiting)) < DIRECT:
            joined = b"".join(waiting)
            waiting.clear()
            waiting.append(joined)
        if len(waiting) == 1 or not hasattr(self.sock, "sendmsg"):  # Windows has none
            return self.sock.send(waiting[0])
        return self.sock.sendmsg(islice(waiting, _TOGETHER))


def heed(
    look: Callable[[], Found], seconds: float = HEED, crowded: Callable[[], float] = float
) -> Found:
    """Return what there is to be seen within `seconds`, if anything, looking all the time.

    Or sooner, if somebody else has a use for the processor: above all the other end, which would
    be woken on another one if this end slept.  Then `crowded` says until when to look on, as a time
    of `perf_counter`; no longer, unless it is given.
    """
    now = perf_counter()
    end = now + seconds
    while not (found := look()) and now < end:
        before = perf_counter()
        _give_way()
        now = perf_counter()
        if now - before > _TAKEN:
            end = crowded()
            if now >= end:
                return look()
    return found


def readable(sock: socket.socket, timeout: float) -> bool:
    """Return whether there is something to receive within `timeout` seconds."""
    if not hasattr(select, "poll"):  # Windows, where numbers of sockets may be as high as they like
        return bool(select.select([sock], [], [], timeout)[0])
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(timeout * 1000))
