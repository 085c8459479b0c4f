"""Local worker processes: one socket each, one wait for everything, no thread, no lock, no poll.

The driver of one run: it takes warm workers or starts new ones, writes chunks without ever
blocking, and waits on all sockets, on the ends of all processes and on a waker at once.
"""

from __future__ import annotations

import contextlib
import itertools
import pickle
import selectors
import signal
import socket
from time import perf_counter
from typing import Any

from .. import arenas, learned, lull, wire
from ..codec import Definitions
from ..context import capture
from ..events import Done, Event, Joined, Lost, Reclaimed, Refused
from ..failures import unpack_error
from ..freight import Stranded
from ..job import Settings
from ..machine import memory, oom_kills
from ..wire import Message
from . import Block, Unlearned, warm
from .duty import Duty
from .start import PATIENCE
from .warm import Link

_runs = itertools.count(1)

_PROMPT = 2e-4
"""Seconds of packing a chunk after which it is written at once, and not with what comes next: its
worker has it while the next one is packed (8 blocks of text of 360 KB: both workers began after 12
ms, now after 8 and 10).  Less than that is what waking a worker takes."""

_ZYGOTES = 3  # are tried to start one worker: whoever kills more of them means it

Outcome = tuple[Event, Block | None]


class Processes:
    """Worker processes on this machine, for one run.

    `root` is the function with what goes with it, as `worker.Job` takes it; there are at most
    `most` workers at a time, of which each may use `share` CPUs.
    """

    brisk = True  # whether workers that are used now are used till the end

    def __init__(
        self, root: tuple[Any, ...], most: int, share: int, settings: Settings | None = None
    ) -> None:
        self.most = most
        self.definitions = Definitions(root)
        self.pool = warm.pool()
        self.context = capture(share)
        self.settings = (settings or Settings())._replace(run=next(_runs))
        self.links: dict[int, Link] = {}
        self.unsaid: set[int] = set()  # to whom something is to be written
        self.deaths: dict[int, str] = {}
        self.numbers = itertools.count(1)
        self.happened: list[Outcome] = []
        self.selector: selectors.BaseSelector = selectors.DefaultSelector()
        self.waker: tuple[socket.socket, socket.socket] | None = None

    def start(self, count: int) -> None:
        """Take or start `count` workers; the run's definitions are with them before they are up."""
        granted = min(count, self.most - len(self.links))
        links = self.pool.take(granted, self.context)
        try:
            with contextlib.suppress(OSError):  # no room for more
                while len(links) < granted:
                    links.append(self._new())
            if len(links) < count:
                self.happened.append((Refused(count - len(links)), None))
            for link in links:
                self._adopt(next(self.numbers), link)
        except BaseException:  # Ctrl-C: those that are not the run's yet would be nobody's
            for link in links:
                if link not in self.links.values():
                    link.pool.bury(link)
            raise

    def _new(self) -> Link:
        for _ in range(_ZYGOTES - 1):
            try:
                return self.pool.start()
            except OSError:
                if self.pool.starter.alive():
                    raise
            self.pool = warm.pool()  # the zygote was killed, and another can be had
        return self.pool.start()

    def _adopt(self, number: int, link: Link) -> None:
        self.links[number] = link
        self.selector.register(link.sock, selectors.EVENT_READ, (self._receive, number))
        self._watch(number, link)
        link.slot.clear()  # or who ended before it did so would seem to be on an item of ours
        known = link.context == self.context
        # The time of an item must not begin before its function is there, with its state.
        joined = link.process.pid is not None and not self.settings.timed
        settings = self.settings._replace(
            context=None if known else self.context, hushed=joined and self.brisk
        )
        link.duty = Duty(link.slot, ashore=self.settings.max_memory is not None)
        link.say(Message(wire.RUN, pickle.dumps(tuple(settings), 5)))
        link.context = self.context
        self._teach(link)
        self.unsaid.add(number)
        link.duty.joined = joined
        if link.duty.joined:  # a warm one will be ready by the time it has a chunk
            self.happened.append((Joined(number), None))

    def _watch(self, number: int, link: Link) -> None:
        sentinel = link.process.sentinel
        if sentinel is not None:
            self.selector.register(sentinel, selectors.EVENT_READ, (self._ended, number))

    def _teach(self, link: Link) -> None:
        """Send the definitions that the worker has not had yet."""
        for blob in self.definitions.blobs[link.duty.learned :]:
            link.say(Message(wire.LEARN, blob))
        link.duty.learned = len(self.definitions.blobs)

    def send(self, worker: int, chunk: range, columns: tuple[Any, ...]) -> int:
        """Have `worker` run a chunk; return how many bytes travel."""
        link = self.links.get(worker)
        if link is None:  # it is lost, as the run is about to hear
            return 0
        holder = None if link.duty.ashore else link.process
        began = perf_counter()
        body = self.definitions.dumps_salvaging(columns, holder)
        self._teach(link)
        link.duty.give(chunk)
        how = self._manner(worker, link)
        link.say(Message(wire.CHUNK, body, chunk.start, len(chunk), how))
        self.unsaid.add(worker)
        if perf_counter() - began > _PROMPT:  # with it, what sockets had no room for before
            self.unsaid.update([number for number, link in self.links.items() if link.outbox])
            self._say()
        return len(body) + self.definitions.beside()

    def reclaim(self, worker: int, keep: float) -> None:
        """Allow `worker` no more than the share `keep` of what it has not begun."""
        link = self.links.get(worker)
        if link is not None:
            link.duty.reclaim(keep, perf_counter())

    def settle(self, worker: int) -> None:
        """Find out what `worker` begins, and report as `Reclaimed` what it does not."""
        link = self.links.get(worker)
        if link is not None and link.duty.chunks:
            self.happened.append((Reclaimed(worker, link.duty.settle(perf_counter())), None))

    def _say(self) -> None:
        """Write to those to whom something is to be written what their sockets take."""
        while self.unsaid:
            self._flush(self.unsaid.pop())

    def _flush(self, number: int) -> None:
        """Write to a worker what its socket takes, and watch for room if that is not all."""
        link = self.links.get(number)
        if link is None:
            return
        link.outbox.flush()
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.outbox else 0)
        if self.selector.get_key(link.sock).events != wanted:
            self.selector.modify(link.sock, wanted, (self._receive, number))

    def wait(self, timeout: float | None) -> list[Outcome]:
        """Return what happened, waiting up to `timeout` seconds for something to happen."""
        # Only now, so that what a worker is told in one breath wakes it once.
        if self.happened and timeout != 0:  # what comes of that may be more to tell
            happened, self.happened = self.happened, []
            return happened
        self._say()
        quiet = lull.lasts()
        ready = self.selector.select(0) if quiet else []
        if not ready:
            lull.end()
            ready = self.selector.select(0 if self.happened else timeout)
            if quiet:
                lull.begin()
        warm.leave_at_exit()
        for key, mask in ready:
            act, number = key.data
            act(number, mask)
        happened, self.happened = self.happened, []
        return happened

    def wake(self) -> None:
        """Make a `wait` that another thread is in return now."""
        if self.waker is not None:
            self.waker[1].send(b"\0")

    def wakeable(self) -> None:
        """Make ready for `wake`."""
        if self.waker is None:
            self.waker = socket.socketpair()
            end = self.waker[0]
            self.selector.register(end, selectors.EVENT_READ, (lambda *_: end.recv(64), 0))

    def _manner(self, _: int, link: Link) -> int:
        """Return what a worker is to know of a chunk that is sent to it."""
        return wire.ASHORE if link.duty.ashore else 0

    # What the selector says.

    def _receive(self, number: int, mask: int) -> None:
        link = self.links.get(number)
        if link is None:  # its end was told in the same breath
            return
        if mask & selectors.EVENT_WRITE:
            self._flush(number)
        if mask & selectors.EVENT_READ:
            try:
                messages = link.read()
            except BlockingIOError:
                return
            except EOFError as error:
                self._lose(number, str(error))
                return
            self._heed(number, link, messages)

    def _ended(self, number: int, _: int) -> None:
        """The process has ended: take what it still had to say, then lose it."""
        link = self.links.get(number)
        if link is None:
            return
        with contextlib.suppress(EOFError, BlockingIOError):
            while True:
                for message in link.read():
                    self._hear(number, link, message)
        self._lose(number)

    def _heed(self, number: int, link: Link, messages: list[Message]) -> None:
        for message in messages:
            self._hear(number, link, message)
        if link.reader.spoilt:
            self._lose(number, wire.GARBLED)

    def _hear(self, number: int, link: Link, message: Message) -> None:
        if message.kind in {wire.DONE, wire.CUT}:
            self._done(number, link, message)
        elif message.kind == wire.READY:
            if link.asked is not None:
                learned.forked(2 * (perf_counter() - link.asked))
            link.pool.proven = True
            self._watch(number, link)
        elif message.first != self.settings.run:  # of a run that did not wait for it
            return
        elif message.kind == wire.SKIPPED:
            if link.duty.skipped(message.second):
                stop = link.duty.answered(link.duty.chunks[0].start, cut=True).start
                self.happened.append((Done(number, stop, 0.0, cut=True), None))
        elif message.kind == wire.JOINED:
            link.duty.heard = True
            if not link.duty.joined:
                link.duty.joined = True
                self.happened.append((Joined(number), None))
        else:
            self._dismiss()
            raise Unlearned(unpack_error(message.body, self.definitions))

    def _dismiss(self) -> None:
        """Lose every worker, and start no more."""
        self.most = 0
        for number in tuple(self.links):
            link = self._part(number)
            link.process.kill()
            link.pool.bury(link)
            self.happened.append((Lost(number, swept=True), None))

    def _done(self, number: int, link: Link, message: Message) -> None:
        chunk = link.duty.answered(message.first, message.kind == wire.CUT)
        cut = message.kind == wire.CUT and message.first < chunk.stop
        link.duty.heard = True
        block = self._unpack(link, message, message.first - chunk.start)
        if block is None:
            self.happened.append((Done(number, message.first, 0.0, doubtful=True, cut=cut), None))
            return
        failed: tuple[int, ...] = ()
        if block.failures:
            failed = tuple([chunk.start + offset for offset in sorted(block.failures)])
        weight, berth = len(message.body), link.berth
        if berth.size:
            link.duty.heavy = True
            weight, berth.size = weight + berth.size, 0
        event = Done(number, message.first, message.seconds, failed, weight=weight, cut=cut)
        self.happened.append((event, block))

    def _unpack(self, link: Link, message: Message, count: int) -> Block | None:
        """Return the outcomes in a message, None if they can only be had one by one."""
        link.duty.ashore = link.duty.ashore or message.second == wire.STRANDED
        if message.second in {wire.DOUBTFUL, wire.STRANDED}:
            return None
        body, failures = message.body, {}
        unsent: tuple[int, ...] = ()
        unreturned: tuple[int, ...] = ()
        try:
            if message.second:
                body, packed, unsent, unreturned = pickle.loads(body)
                once = {
                    id(error): unpack_error(error, self.definitions) for error in packed.values()
                }
                failures = {offset: once[id(error)] for offset, error in packed.items()}
            values: Any = self.definitions.loads(body, link.berth)
        except Stranded:  # it has ended, as we shall hear, or there is no room here
            link.duty.ashore = True
            return None
        except Exception as error:  # a result's own __setstate__ can raise anything
            return Block([None], {0: error}, unreturned=(0,)) if count == 1 else None
        return Block(values, failures, unsent, unreturned)

    # Ends.

    def _lose(self, number: int, why: str = "") -> None:
        """Report a worker as lost, with the items that may have been the cause."""
        link = self.links[number]
        if number not in self.deaths:
            self.deaths[number] = why or _obituary(link)
        mine = link.duty.chunks[0] if link.duty.chunks else range(0)
        # One that lives is lost because its socket was closed or spoilt, perhaps some items ago.
        running = mine if link.process.exitcode is None else link.slot.read()
        link.process.kill()
        suspects = range(max(running.start, mine.start), min(running.stop, mine.stop))
        swept = False
        if not link.pool.starter.alive():  # the zygote was killed, and it is no item's fault
            suspects, swept = range(0), link.pool is not self.pool
            with contextlib.suppress(OSError):  # no room for another now: `start` will say so
                self.pool = warm.pool()
        self._part(number)
        link.pool.bury(link)
        self.happened.append((Lost(number, suspects or range(0), swept), None))

    def _part(self, number: int) -> Link:
        link = self.links.pop(number)
        for end in (link.sock, link.process.sentinel):
            if end is not None:
                with contextlib.suppress(KeyError):  # Ctrl-C came before it was registered
                    self.selector.unregister(end)
        return link

    def kill(self, worker: int) -> None:
        """End `worker` at once; `wait` reports `Lost`."""
        link = self.links.get(worker)
        if link is None:  # it has ended already, and `wait` says so
            return
        self.deaths[worker] = link.process.last_words()
        if link.process.pid is None:  # nobody to kill yet: it ends when it finds its socket closed
            self._lose(worker)

    def obituary(self, worker: int) -> str:
        """Say how a lost worker ended."""
        return self.deaths.get(worker, "ended")

    def weigh(self) -> None:
        """Note how much memory each worker holds, and who has ended unnoticed.

        Where no descriptor tells the end of a process, a child that it left can hide that.
        """
        for number, link in tuple(self.links.items()):
            link.weigh()
            known = link.process.pid is not None and link.process.sentinel is None
            if known and link.process.ended(0) is not None:
                self._ended(number, 0)

    def close(self) -> None:
        """End the run: busy workers are killed, the others may serve another run."""
        duties = [link.duty for link in self.links.values()]
        light = self.definitions.light()
        self.definitions.close(all(duty.clean() for duty in duties))
        for link in self.links.values():
            if link.duty.chunks:
                link.process.kill()
        for number in tuple(self.links):
            link = self._part(number)
            if link.duty.chunks:
                link.pool.bury(link)
                continue
            try:
                self._leave(link, light)
            finally:  # also after Ctrl-C, as it is nobody's now
                link.pool.give_back(link)
        arenas.rest()
        self._shut()

    def _shut(self) -> None:
        self.selector.close()  # not what is watched with it: that is the workers'
        for end in self.waker or ():
            end.close()

    def _leave(self, link: Link, light: bool) -> None:
        """Tell a worker that the run is over."""
        if light and link.duty.heard and not link.duty.heavy:  # until the worker wonders
            link.slot.leave(self.settings.run)
        else:
            link.say(Message(wire.END, b""))
            link.outbox.flush()


def launch(count: int) -> float:
    """Return the seconds until `count` workers are up, by what was measured of each step.

    On two 2.5 GHz cores: the first interpreter 30 ms (and as much again for what else a cold run
    must load), a fork 1.2 ms (then as measured here), a warm worker some 0.1 ms; doubled, since a
    busy machine is slower.
    """
    zygote, idle = warm.warmth()
    return (learned.COLD if not zygote else 0.001) + learned.fork() * max(0, count - idle)


def _obituary(link: Link) -> str:
    """Say how a worker ended, and what is known of the reason."""
    code = link.process.ended(PATIENCE) if link.process.pid is not None else None
    if code is None:
        return "closed its socket, and so had to be ended,"
    if code == 0:  # nobody calls os._exit(0) lightly
        return "ended with exit code 0 (it exited, closed descriptors not its own, or called exec)"
    if code > 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}{_shortage(link) if name == 'SIGKILL' else ''}"


def _shortage(link: Link) -> str:
    """Say that memory was the reason, if that is likely."""
    global _oom_kills
    before, _oom_kills = _oom_kills, oom_kills()
    now = memory()
    if _oom_kills == before and now.available > now.whole * _SCARCE:
        return ""
    gib = 1 << 30
    return (
        f" (likely out of memory: it held {link.memory / gib:.2f} of {now.whole / gib:.2f} GiB; "
        "try fewer workers=, smaller items, or max_memory=)"
    )


_oom_kills = oom_kills()
_SCARCE = 0.03  # share of memory that is left when a process may have been killed for want of it
