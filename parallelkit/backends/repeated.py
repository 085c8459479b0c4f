"""Runs that are like the one before: the same function on the same workers.

What a short run costs is mostly what it takes to begin one: the surroundings to look at, the
function to pickle, workers to take and to tell.  If nothing of that can have changed, a run that is
over is kept, its workers go back to the pool all the same, and if they are still there the next
begins with its first chunks.
"""

from __future__ import annotations

from typing import Any

from .. import wire
from ..context import capture
from ..events import Joined
from ..steady import made_of, same
from ..worker import Settings
from . import warm
from .duty import Duty
from .processes import Outcome, Processes
from .warm import Link


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
        self.parts = parts
        self.midst = False  # whether something was begun that is to be done as a whole
        self.lasting: bool | None = None  # whether it is to be kept, once it is over
        self.kept = False
        self.duties: dict[int, Duty] = {}  # what the workers have that were given back
        self.offered = False  # whether its workers are here, and were not asked for yet
        self.resting: set[int] = set()  # those that were not told of another

    def resume(self, parts: tuple[Any, ...], most: int, share: int, settings: Settings) -> bool:
        """Make ready for another run, if it is like the last and all its workers are there."""
        alike = same(self.parts, parts) and most == self.most
        alike = alike and settings._replace(run=self.settings.run) == self.settings
        links = self.links
        if not alike or capture(share) != self.context or not self.pool.claim([*links.values()]):
            return False
        if all(link.duty is self.duties[n] and link.alive() for n, link in links.items()):
            self.offered, self.resting, self.duties = True, set(links), {}
            self.lasting, self.kept = None, False
            self.happened.clear()  # what nobody asked for any more
            for link in links.values():
                link.slot.leave(0)
            return True
        for link in links.values():
            self.pool.give_back(link) if link.alive() else self.pool.bury(link)
        return False

    def start(self, count: int) -> None:
        """Take the workers of the last run if as many are asked for, else any."""
        self.midst = True
        if self.offered and count == len(self.links):
            for number, link in self.links.items():
                link.duty.joined = True  # what it may say of the last run is no news
                self.happened.append((Joined(number), None))
        else:
            if self.offered:
                self._decline()
            super().start(count)
        self.offered = self.midst = False

    def _decline(self) -> None:
        """Give back the workers of the last run."""
        self.resting.clear()
        for number in tuple(self.links):
            link = self._part(number)
            self.pool.give_back(link)

    # What Ctrl-C interrupts here leaves a pickler or a socket as nobody should find it.

    def send(self, worker: int, chunk: range, columns: tuple[Any, ...]) -> int:
        """Have `worker` run a chunk; return how many bytes travel."""
        self.midst = True
        size = super().send(worker, chunk, columns)
        self.midst = False
        return size

    def wait(self, timeout: float | None) -> list[Outcome]:
        """Return what happened, waiting up to `timeout` seconds for something to happen."""
        self.midst = True
        happened = super().wait(timeout)
        self.midst = False
        return happened

    def _manner(self, number: int, link: Link) -> float:
        how = super()._manner(number, link)
        if number in self.resting:
            self.resting.remove(number)
            how += wire.AGAIN
        return how

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
                self.duties[number] = link.duty
                link.slot.leave(-self.settings.run)
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
