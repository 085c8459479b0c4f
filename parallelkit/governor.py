"""Looks after memory while workers are busy: says when it runs short, and when that is over.

A process that takes more than its cgroup or the machine has is killed without a word, and often it
is not the one that took the most.  So the run is told in time, hands out nothing new, and lets the
item that needs so much run alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from . import events
from .errors import MemoryShortage
from .machine import Memory, memory
from .telling import warn

PERIOD = 0.25
"""Seconds between two looks, which take 0.3 ms each (measured): 0.1 % of the caller's time."""

_SHORT, _EASED = 0.06, 0.12
"""Below the first share of memory available it is short, above the second no longer: apart, so
that a run does not flutter.  A hog takes a share of the machine in a period only if it allocates
some GB/s."""

_RELAPSE, _LONGEST = 2.0, 60.0
"""Seconds that a second shortage lasts at least, doubled with each further one up to a minute.  The
first may have been anybody's and passed.  If memory runs short again, the items themselves take it:
one of them leaves enough, at once all would be running again, and sooner or later one be killed."""


class Governor:
    """Watches the memory of one run."""

    def __init__(self, look: Callable[[], Memory] = memory) -> None:
        self.look = look
        self.due = math.inf
        self.strained = False
        self.until = -math.inf  # the shortage that there is lasts at least so long
        self.patience = 0.0  # and the next one for so many seconds

    def begin(self, now: float) -> None:
        """Look from now on: there are workers."""
        self.due = min(self.due, now + PERIOD)

    def check(self, now: float) -> events.Strained | None:
        """Return the news at `now`, if it is time to look and there are any."""
        if now < self.due:
            return None
        self.due = now + PERIOD
        try:
            seen = self.look()
        except OSError:  # not even a descriptor to look with is left
            return None
        strained = seen.available < seen.whole * (_EASED if self.strained else _SHORT)
        if strained == self.strained or now < self.until:
            return None
        self.strained = strained
        if strained:
            self.until = now + self.patience
            self.patience = min(max(_RELAPSE, 2 * self.patience), _LONGEST)
            warn(_words(seen), MemoryShortage)
        return events.Strained(strained)


def _words(seen: Memory) -> str:
    gib = 1 << 30
    return (
        f"memory runs short ({seen.available / gib:.2f} of {seen.whole / gib:.2f} GiB are left, by "
        f"{seen.source}): items now run one at a time, until there is more"
    )
