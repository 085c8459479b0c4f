"""Runs that are like the one before: the same function on the same workers.

What a short run costs is mostly what it takes to begin one: the surroundings to look at, the
function to pickle, workers to take and to tell.  If nothing of that can have changed, a run that is
over is kept, its workers go back to the pool all the same, and if they are still there the next
begins with its first chunks.

Where that is all there is to it, `attempt` even does without an engine: chunks go out, plain
outcomes come back.  If anything else happens, an engine takes over, which asks for the same, and
finds it done.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

from .. import wire
from ..context import capture
from ..events import Joined
from ..freight import MARK
from ..job import Settings
from ..steady import made_of, same
from ..wire import Message
from . import warm
from .duty import Duty
from .processes import Outcome, Processes
from .warm import Link

SOON = 5e-3  # seconds until an engine takes over, which looks after memory and shares work anew

RAPID = 400e-6
"""Seconds for which a caller does not sleep where one call follows the other: in 300 us a worker
has moved to another processor."""


def opened(root: tuple[Any, ...], most: int, share: int, settings: Settings) -> Processes:
    """Return worker processes for a run, perhaps those of the last, as they stand there."""
    fn, make_state, op = root
    plain = make_state is None and op is None and settings == Settings(urgent=settings.urgent)
    parts = made_of(fn) if plain else None
    if parts is None:
        return Processes(root, most, share, settings)
    parked = warm.pool().park(None)
    if isinstance(parked, Repeated):
        if parked.resume(parts, most, share, settings):
            return parked
        parked.dissolve()
    return Repeated(parts, root, most, share, settings)


class Repeated(Processes):
    """Worker processes for runs of one function, one after the other."""

    def __init__(
        self,
        parts: tuple[Any, ...],
        root: tuple[Any, ...],
        most: int,
        share: int,
        settings: Settings,
    ) -> None:
        super().__init__(root, most, share, settings)
        self.parts, self.share = parts, share
        self.midst = False  # whether something was begun that is to be done as a whole
        self.lasting: bool | None = None  # whether it is to be kept, once it is over
        self.kept = False
        self.duties: dict[int, Duty] = {}  # what the workers have that were given back
        self.offered = False  # whether its workers are here, and were not asked for yet
        self.resting: set[int] = set()  # those that were not told of another
        self.under_way: dict[int, range] = {}  # chunks that are sent before an engine says so
        self.unheard: dict[int, list[Message]] = {}  # what came of them
        self.hasty = False  # whether chunks are sent with which it should be over
        self.call: Any = None  # what its caller compares with the next

    def resume(self, parts: tuple[Any, ...], most: int, share: int, settings: Settings) -> bool:
        """Make ready for another run, if it is like the last and all its workers are there."""
        alike = same(self.parts, parts) and most == self.most
        alike = alike and settings._replace(run=self.settings.run) == self.settings
        links = self.links
        if not alike or capture(share) != self.context or not self.pool.claim([*links.values()]):
            return False
        begun = False
        try:
            if all(link.duty is self.duties[n] and link.alive() for n, link in links.items()):
                self._begin()
                begun = True
        finally:  # also after Ctrl-C
            for link in () if begun else links.values():
                self.pool.give_back(link) if link.alive() else self.pool.bury(link)
        return begun

    def _begin(self) -> None:
        self.offered, self.resting, self.duties = True, set(self.links), {}
        self.lasting, self.kept = None, False
        self.happened.clear()  # what nobody asked for any more
        for link in self.links.values():
            link.slot.leave(0)
            link.slot.clear()  # or who ended before it did so would seem to be on an item of ours

    def attempt(self, column: Sequence[Any], spans: list[range]) -> tuple[list[Any] | None, bool]:
        """Return the results of a run's items, `spans` of which go to a worker each.

        None if there is more to it than sending them and waiting for a moment; and then, whether
        they were sent.  (What `under_way` says may be another thread's, which was faster.)
        """
        links = self.links
        if not self.pool.claim([*links.values()], self):
            return None, False
        results = None
        try:
            self.lasting, self.kept, self.midst = None, False, True
            theirs = [link.duty is self.duties[number] for number, link in links.items()]
            if all(theirs) and len(spans) <= len(links):
                self._begin()
                self._send_all(column, spans)
                soon = self._soon(self.call.rapid(len(column)))
                results = self._results() if soon else None
                self.midst = False
            begun = bool(self.under_way)  # now: once it is closed, it is anybody's
            if not begun:
                self.close()
        except BaseException:  # Ctrl-C, which may have come while workers were given back
            self.close()
            raise
        return results, begun

    def _send_all(self, column: Sequence[Any], spans: list[range]) -> None:
        self.hasty = self.call.heedful
        for number, span in zip(self.links, spans, strict=False):
            super().send(number, span, (column[span.start : span.stop],))
            self.under_way[number] = span
            link = self.links[number]
            link.outbox.flush()
            if not link.outbox:
                self.unsaid.discard(number)
        self.hasty = False

    def _soon(self, rapid: bool) -> bool:
        """Wait for what was sent; return whether all of it was plain and soon here."""
        waiting, plain = set(self.under_way), True
        while waiting and plain:
            found = self._heeded(rapid) if self.call.heedful else []
            found = found or self.selector.select(SOON)
            numbers = [key.data[1] for key, _ in found]
            heard = [number in waiting and self._plain(number) for number in numbers]
            plain = bool(heard) and all(heard)
            waiting.difference_update(numbers)
        return plain

    def _heeded(self, rapid: bool) -> list[Any]:
        """Return what there is to be seen before this end sleeps.

        A worker that sits on the same processor may be about to leave it (`seat`), and would wake
        this end on its new one.
        """
        if not rapid:
            return wire.heed(self._look)
        end = perf_counter() + RAPID
        return wire.heed(self._look, RAPID, lambda: end)

    def _look(self) -> list[Any]:
        return self.selector.select(0)

    def _plain(self, number: int) -> bool:
        """Receive from a worker; return whether it was the outcome of a chunk without failures."""
        link = self.links[number]
        try:
            messages = link.read()
        except BlockingIOError:
            return False
        except EOFError:  # it is gone, or its reader knows that it is spoilt
            messages = []
        # It may be heard twice in a breath, if its end is told too.
        self.unheard.setdefault(number, []).extend(messages)
        if len(messages) != 1 or link.reader.spoilt:
            return False
        kind, body, first, second, _ = messages[0]
        whole = kind == wire.DONE and not second and first == self.under_way[number].stop
        return whole and body[0] != MARK

    def _results(self) -> list[Any] | None:
        """Return what came; None if it cannot be unpickled."""
        results: list[Any] = []
        try:
            for number in self.under_way:
                results += self.definitions.loads(self.unheard[number][0].body)
        except Exception:  # a result's own __setstate__ can raise anything
            return None
        seconds = [messages[0].seconds for messages in self.unheard.values()]
        self.call.price, self.call.over = sum(seconds) / len(results), perf_counter()
        for number, span in self.under_way.items():
            self.links[number].duty.answered(span.stop, cut=False)
        self.under_way.clear()
        self.unheard.clear()
        return results

    def start(self, count: int) -> None:
        """Take the workers of the last run if as many are asked for, else any."""
        self.midst = True
        if self.offered and (count == len(self.links) or self.under_way):
            self._decline(count)
            for number, link in self.links.items():
                link.duty.joined = True  # what it may say of the last run is no news
                self.happened.append((Joined(number), None))
            if count > len(self.links):
                super().start(count - len(self.links))
        else:
            if self.offered:
                self._decline(0)
            super().start(count)
        self.offered = self.midst = False

    def _decline(self, wanted: int) -> None:
        """Give back the workers of the last run, but for the first so many."""
        for number in tuple(self.links)[wanted:]:
            self.resting.discard(number)
            link = self._part(number)
            self.pool.give_back(link)

    # What Ctrl-C interrupts here leaves a pickler or a socket as nobody should find it.

    def send(self, worker: int, chunk: range, columns: tuple[Any, ...]) -> int:
        """Have `worker` run a chunk; return how many bytes travel."""
        if self.under_way:
            sent = self.under_way.pop(worker)
            assert sent == chunk, "an engine has other chunks sent"
            return 0
        self.midst = True
        size = super().send(worker, chunk, columns)
        self.midst = False
        return size

    def wait(self, timeout: float | None) -> list[Outcome]:
        """Return what happened, waiting up to `timeout` seconds for something to happen."""
        if self.under_way and self.happened:  # who joined is told first, then what it was sent
            happened = self.happened[:]
            self.happened.clear()
            return happened
        self.midst = True
        while self.unheard and not self.under_way:  # before anything newer
            number, messages = self.unheard.popitem()
            self._heed(number, self.links[number], messages)
        happened = super().wait(timeout)
        self.midst = False
        return happened

    def _manner(self, number: int, link: Link) -> int:
        how = super()._manner(number, link)
        if number in self.resting:
            self.resting.remove(number)
            how += wire.AGAIN
        return how + (wire.LAST if self.hasty else 0)

    def close(self) -> None:
        """End the run, and keep what another like it needs."""
        if self.lasting is None:  # else Ctrl-C interrupted it, and it goes on
            self.lasting = self._lasts()
        if not self.lasting:
            super().close()
            return
        self.offered = False
        for number, link in self.links.items():
            if number not in self.duties:  # twice, and two runs would have the same worker
                link.slot.leave(-self.settings.run)
                self.duties[number] = link.duty
                self.pool.give_back(link)
        if not self.kept:
            self.kept = True
            before = self.pool.park(self)
            if before is not None:
                before.dissolve()

    def _lasts(self) -> bool:
        """Return whether nothing has happened that makes another run different."""
        links, pool = self.links.values(), self.pool
        quiet = bool(links) and not (self.midst or self.deaths or self.unsaid or pool.retired)
        for link in links:
            up = link.pool is pool and link.process.pid is not None and not link.outbox
            quiet = quiet and up and not (link.duty.heavy or link.duty.chunks or link.duty.ghosts)
        return quiet and self.definitions.light() and self.definitions.lone()

    def dissolve(self) -> None:
        """Let go of what is kept for another run; its workers are the pool's."""
        self.links.clear()
        self._shut()
