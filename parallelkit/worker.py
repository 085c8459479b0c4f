"""What runs in a worker: take a chunk, call the function on each item, send the outcomes back.

A worker is told of one run at a time: its settings, its definitions (the function first), then
chunks.  It answers chunks in the order it got them.  It decides nothing but when to send what it
has of a long chunk, and it imports little, because starting one is what a user waits for.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from time import perf_counter, perf_counter_ns
from typing import Any

from . import lending, stacks, wire
from .arenas import Arena
from .board import Slot
from .context import put_back, put_in_force
from .failures import pack_error
from .freight import Stranded
from .job import Job, Part, Settings
from .leases import Berth
from .seat import Seat
from .wire import Message, Reader

IDLE = 30.0
"""Seconds without a run after which a worker leaves.  A new one costs about 2 ms where there is a
zygote, so this only has to outlast the pauses of a script, not of a person."""

FLUSH = 0.05
"""Seconds after which a chunk's finished outcomes are sent though it goes on: what a worker that
dies can lose, and what an iterator's reader may have to wait beyond the item itself."""

_SHORT, _LONG = 200e-6, 800e-6
"""Between these seconds lies the time that one stamp on the board covers: what is done for each
takes 2 us (measured), so it costs fast items 1 % at most.  If a worker dies, the items under its
stamp are run again one by one to find the one that killed it."""
_AGAIN = 4  # items that one covers at most when a run begins: these may take longer than the last

LULL = 0.02
"""Seconds without a message after which a worker looks whether the run is over.  If not it looks
again when as much time has passed as it has waited so far, which is seldom, however long it is."""

TIRED = 10.0
"""Seconds without a run after which the pages of the arena go back to the system."""


class Worker:
    """One end of a socket, and what a run told over it."""

    def __init__(self, sock: socket.socket, slot: Slot) -> None:
        self.sock = sock
        self.slot = slot
        self.reader = Reader(sock)
        self.pid = os.getpid()
        self.arena = Arena()
        self.berth = Berth()
        self.seat = Seat()
        self.none = Job(Settings(), None, self.berth)
        self.job = self.none
        self.context: bytes | None = None
        self.resting = False  # whether the run is over, and another like it may follow

    def serve(self) -> None:
        """Do as the caller says until it closes the socket, or says nothing for `IDLE` seconds."""
        self.sock.settimeout(TIRED)
        idle = 0.0
        while idle < IDLE:
            try:
                if self.job.settings.run and not self.resting:
                    self.wait()
                self.obey()
                idle = 0.0
            except TimeoutError:
                idle += self.sock.gettimeout() or TIRED
                self.nap(idle)
            except (EOFError, OSError):  # the caller is gone
                break
        self.arena.leave()

    def obey(self) -> None:
        """Do what the next messages say, and keep nothing of them: the wait may be long."""
        acts: dict[int, Any] = {wire.RUN: self.begin, wire.LEARN: self.learn}
        acts |= {wire.CHUNK: self.chunk, wire.END: self.end}
        for message in self.reader.read():
            acts[message.kind](message)

    def wait(self) -> None:
        """Wait for the next message of a run, or its end, of which there may be none."""
        timeout = LULL
        while not wire.readable(self.sock, timeout):
            if self.slot.left(self.job.settings.run):
                self.end()
                return
            if self.slot.left(-self.job.settings.run):
                self.rest()
                return
            timeout *= 2

    def say(self, message: Message) -> None:
        """Send a message, unless this is a copy of the worker that the function forked."""
        if os.getpid() != self.pid:
            os._exit(0)  # it came back from the function, and has no caller to speak to
        for piece in wire.frame(message):
            self.sock.sendall(piece)

    def nap(self, idle: float) -> None:
        """Wait for the next run, or wait on, and give back what is not worth keeping for it."""
        if idle >= TIRED:
            self.arena.trim(0)
        self.sock.settimeout(lending.NAP if lending.review() else TIRED)

    def begin(self, message: Message) -> None:
        """Make ready for a run."""
        if self.job.settings.run:  # it is over, then
            self.tidy()
        self.sock.settimeout(None)
        settings = Settings(*pickle.loads(message.body))
        if settings.context is not None:
            self.context = settings.context
            put_in_force(self.context)
        lending.begin(settings.max_memory is None)
        # What is mapped would count against the limit, which is the function's to use up.
        arena = self.arena if settings.max_memory is None else None
        self.job = Job(settings, arena, self.berth)

    def end(self, _: Message | None = None) -> None:
        """Forget the run, and wait for the next."""
        self.tidy()
        self.nap(0.0)

    def rest(self) -> None:
        """Wait for the next run, which may be like this one, and so begin with a chunk."""
        self.resting = True
        self.settle()
        self.nap(0.0)

    def resume(self) -> None:
        """Go on with a run like the last."""
        if not self.resting:
            self.settle()
        self.resting = False
        self.sock.settimeout(None)
        self.job.stride = min(self.job.stride, _AGAIN)
        lending.begin()

    def tidy(self) -> None:
        """Forget everything that the function of the run held, and what it has done to us."""
        self.job = self.none
        self.resting = False
        if self.berth.parcels:  # functions that name each other are in cycles, with what they hold
            gc.collect()
        self.settle()

    def settle(self) -> None:
        """Undo what the function of the run has done to us."""
        lending.end()
        if self.context is not None:  # now, when nobody waits: the function may have moved us
            put_back(self.context)

    def learn(self, message: Message) -> None:
        """Take in a definition; if that fails, the run cannot be: say why."""
        if self.job.broken is not None:
            return
        first, run = self.job.fn is None, self.job.settings.run
        try:
            self.job.learn(message.body)
        except BaseException as error:  # importing the user's modules can raise anything
            self.job.broken = pack_error(error, self.job.replica)
            self.say(Message(wire.BROKEN, self.job.broken, run))
        else:
            if first and not self.job.settings.hushed:
                self.say(Message(wire.JOINED, b"", run))

    def chunk(self, message: Message) -> None:
        """Run one chunk and send its outcomes."""
        self.slot.turn()
        if self.job.broken is not None:
            return
        how = int(message.seconds)
        if how & wire.AGAIN or self.resting:
            self.resume()
        self.job.replica.laden = not how & wire.ASHORE
        start, count = message.first, message.second
        lending.turn()
        began = perf_counter_ns()
        self.slot.stamp(start, count, began)  # unpickling can kill too
        try:
            self.answer(message, start, count)
        except OSError:  # the socket was closed, which any of these may have done
            self.slot.stamp(start, count, perf_counter_ns())
            raise
        self.slot.clear()
        # Now, and not when the next one waits for it; unless the caller may still fetch something.
        if how & wire.LAST and not lending.owing():
            self.rest()
            self.seat.attend(began * 1e-9, partial(wire.readable, self.sock, 0.0))

    def answer(self, message: Message, start: int, count: int) -> None:
        """Unpickle a chunk, run it, and send its outcomes.

        A chunk that cannot be unpickled is asked for again item by item, to find which it is.
        """
        try:
            columns = self.job.confined(self.job.replica.loads, message.body)
        except Stranded:
            self.refuse(start, start + count, b"", wire.STRANDED)
        except BaseException as error:  # an item's own __setstate__ can raise anything
            body, why = b"", wire.DOUBTFUL
            if count == 1:
                body = self.job.pack_failed(1, pack_error(error, self.job.replica), unsent=(0,))
                why = 1
            self.refuse(start, start + count, body, why)
        else:
            self.work(start, count, self.job.calls(columns, start), len(columns) == 1)

    def refuse(self, start: int, stop: int, body: bytes, why: int) -> None:
        """Say that a chunk, as far as it is still this worker's, cannot be run."""
        end = self.slot.claim(stop)
        if end > start:
            self.say(Message(wire.DONE if end == stop else wire.CUT, body, end, why))
        else:
            self.skip()

    def skip(self) -> None:
        """Say that nothing, or nothing more, came of a chunk that was taken back."""
        self.say(Message(wire.SKIPPED, b"", self.job.settings.run, self.slot.number))

    def work(self, start: int, count: int, calls: Iterator[Any], single: bool) -> None:
        """Call the function on each of `count` items and send the outcomes, in parts if slow."""
        job, slot = self.job, self.slot
        run = _run_single if single else _run_several
        began = perf_counter()
        part, stop = Part(start, began, job.op), start + count
        while part.stop < stop:
            position = part.stop
            size = min(job.stride, stop - position)
            end = slot.claim(position + size)
            if end < position + size:  # the rest was taken back
                stop = max(end, position)
                size = stop - position
                if not size:
                    break
            slot.stamp(position, size, perf_counter_ns())
            job.attempt(run, islice(calls, size), part)
            ahead = part.folded()
            now = perf_counter()
            self._adapt(size, now - began)
            began = now
            if ahead is not None:
                self.send(ahead, now)
                part.since = now
            if part.stop < stop and (
                now - part.since > FLUSH or part.pressing(job.settings.urgent)
            ):
                self.send(part, now)
                began = perf_counter()
                part = Part(part.stop, began, job.op)
        kind = wire.DONE if stop == start + count else wire.CUT
        if part.stop > part.start:
            self.send(part, perf_counter(), kind)
        else:
            self.skip()

    def send(self, part: Part, now: float, kind: int = wire.DONE) -> None:
        """Send a part of a chunk."""
        job, count = self.job, part.stop - part.start
        try:
            body, failed = job.pack(part.start, part.values, part.failures, part.eager)
        except BaseException as error:  # the reduction's operation raised
            body, failed = job.pack_failed(count, pack_error(error, job.replica)), count
        flush_output()
        self.say(Message(kind, body, part.stop, failed, now - part.since))

    def _adapt(self, size: int, seconds: float) -> None:
        """Choose how many items one stamp covers, from the time that the last `size` took."""
        if seconds > _LONG:
            self.job.stride = max(1, int(size * _SHORT / seconds))
        elif seconds < _SHORT and size == self.job.stride:
            self.job.stride *= 2


def _run_single(fn: Callable[..., Any], items: Iterable[Any], values: list[Any]) -> None:
    # A loop, not map(): a StopIteration from `fn` would end a map() as if the items had.  And
    # `append` looked up each time, which is quicker than calling one looked up.
    for item in items:
        values.append(fn(item))  # noqa: PERF401  results so far must outlive an error


def _run_several(fn: Callable[..., Any], items: Iterable[Any], values: list[Any]) -> None:
    for arguments in items:
        values.append(fn(*arguments))  # noqa: PERF401


def flush_output() -> None:
    """Write out what the function printed, which would be lost if this worker were killed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # closed, replaced, or a reader gone
            continue


def main(sock: socket.socket, slot: Slot, portable: bool = False) -> None:
    """Be a worker: introduce yourself, then serve.

    `portable` uses nothing that Linux alone has.
    """
    # Ctrl-C reaches the whole foreground group, and the caller decides what it means.  A handler
    # that does nothing, not SIG_IGN: programs that the user's function starts would inherit that.
    signal.signal(signal.SIGINT, lambda *_: None)
    if hasattr(signal, "pthread_sigmask"):  # it was blocked until now, and more may have been
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        _introduce(sock, portable)
    except OSError:  # the caller has no use for us any more
        return
    Worker(sock, slot).serve()


def _introduce(sock: socket.socket, portable: bool) -> None:
    """Send who this is: the process's number, and where it would tell its stack.

    Beside it goes, where there is such a thing, a descriptor that tells its end, made here because
    here the number cannot yet have passed to another process.
    """
    stack = -1 if portable else stacks.prepare()
    (hello,) = wire.frame(Message(wire.READY, b"", os.getpid(), stack))
    try:
        pidfd = -1 if portable else os.pidfd_open(os.getpid())
    except (AttributeError, OSError):  # another system, an old kernel, a sandbox
        pidfd = -1
    if pidfd < 0:
        sock.sendall(hello)
    else:
        socket.send_fds(sock, [hello], [pidfd])
        os.close(pidfd)
