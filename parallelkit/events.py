"""The words between a run and the world: events say what happened, commands what to do.

Positions and counts are of items, times are in seconds.  Every command but `Give`, `Fail` and
`Finish` has an answer, named in its docstring, so what a run waits for can always be told.

Words are dataclasses, not named tuples: as tuples, `Pull(3) == Start(3)` would hold and `Finish()`
would be false.  They are not frozen, because a frozen one costs three times as much to make and
several are made for each chunk; nobody changes one all the same.
"""

from __future__ import annotations

from typing import Literal

from .records import dataclass

HOME = 0
"""The worker number of the calling thread, which may run items itself.  Others count from 1."""

Reason = Literal["raised", "died", "late", "cancelled", "unstaffed"]
"""Why an item, and with it perhaps the run, failed.

`raised`: the function raised.  `died`: its worker died on it.  `late`: it ran past its timeout.
`cancelled`: the caller gave up.  `unstaffed`: no worker could be started, or none stayed.
"""

# Events: what happened in the world.


@dataclass(slots=True)
class Begin:
    """The caller asked for results.

    `length` is how many items there are, None when only the end of the input will tell; `pulled`
    of them are at hand already (all of a list, none of an iterator).  If the caller has begun
    without a run, it has the results of the first `done` of these and is running the next `held`.
    """

    length: int | None
    pulled: int = 0
    done: int = 0
    held: int = 0


@dataclass(slots=True)
class Pulled:
    """The input gave `count` items, and has no more if `last`."""

    count: int
    last: bool


@dataclass(slots=True)
class Joined:
    """A worker is ready for its first chunk."""

    worker: int


@dataclass(slots=True)
class Refused:
    """`count` of the workers asked for could not be started, and never will be."""

    count: int


@dataclass(slots=True)
class Offered:
    """`count` more workers than there may be now could be started: the place has grown."""

    count: int


@dataclass(slots=True)
class Done:
    """A worker finished its oldest chunk up to, not including, position `stop`.

    The chunk goes on where `stop` lies before its end: then this is the part finished so far, and
    further ones follow (for `HOME`: the budget was spent, and the rest is handed back).  If it was
    `cut` there, because it was reclaimed, nothing follows, and its rest was not begun.  `seconds`
    is the time this part took in the worker; the positions in `failed` raised, and those of them in
    `hopeless` are not to be tried again, whatever the limits say.  `carriage`, where it was
    measured, is what one item costs to pickle and unpickle, both ways together.

    If it is `doubtful`, the part has no outcomes, because one of its items or results kept the
    others from travelling: each position is to be run again, alone, which will show whose fault
    it was.  The positions in `unsent` and `unreturned` failed alone, and not by the function: the
    item could not get to the worker, or its result could not get back.
    """

    worker: int
    stop: int
    seconds: float
    failed: tuple[int, ...] = ()
    carriage: float | None = None
    hopeless: tuple[int, ...] = ()
    doubtful: bool = False
    weight: int = 0  # bytes in which the outcomes travelled
    unsent: tuple[int, ...] = ()
    unreturned: tuple[int, ...] = ()
    cut: bool = False


@dataclass(slots=True)
class Reclaimed:
    """A worker begins nothing from position `stop` on, in the order in which it has its chunks.

    What lies before `stop` it still answers for, and for all if `stop` is None.
    """

    worker: int
    stop: int | None


@dataclass(slots=True)
class Lost:
    """A worker is gone, with whatever it held.

    `suspects` are the positions it may have been on when it died: one, a few where items are too
    fast to be stamped one by one, or none when it was between items.  If it was `swept` away, it
    went with another that is lost, and for the same reason.
    """

    worker: int
    suspects: range = range(0)
    swept: bool = False


@dataclass(slots=True)
class Taken:
    """The caller took `count` results, making room for as many items."""

    count: int


@dataclass(slots=True)
class Strained:
    """The machine is short of memory, or (`strained` is false) no longer.

    Until it is over, items run one at a time.
    """

    strained: bool


@dataclass(slots=True)
class Tick:
    """Time passed: `Run.deadline` was reached."""


@dataclass(slots=True)
class Cancel:
    """The caller gave up."""


# Commands: what to do in the world.


@dataclass(slots=True)
class Pull:
    """Take up to `count` items from the input and answer with `Pulled`."""

    count: int


@dataclass(slots=True)
class Start:
    """Start `count` workers; each answers with `Joined`, `Lost` or (counted) `Refused`."""

    count: int


@dataclass(slots=True)
class Work:
    """Run `chunk` in the caller for about `budget` seconds; answer with one `Done` by `HOME`.

    At least one item is run, and as many more of the chunk as the budget allows.
    """

    chunk: range
    budget: float


@dataclass(slots=True)
class Send:
    """Give `chunk` to `worker`, after what it has; it answers with `Done`s or `Lost`."""

    worker: int
    chunk: range


@dataclass(slots=True)
class Reclaim:
    """Have `worker` begin no more than the share `keep` of the items that it has not begun.

    One item it keeps at least, so that every exchange leaves less to be done.
    It may come to hear of it late, so what it gives up is told by the answer to `Settle`; or by a
    `Done` that is cut, or by the last `Done` that it owed, when it was faster.
    """

    worker: int
    keep: float


@dataclass(slots=True)
class Settle:
    """Find out what `worker`, from which some was reclaimed, has begun; answer with `Reclaimed`.

    There is no answer where a `Done` or `Lost` after which it holds nothing is on its way.
    """

    worker: int


@dataclass(slots=True)
class Kill:
    """End `worker` now; it answers with `Lost`."""

    worker: int


@dataclass(slots=True)
class Give:
    """Hand the outcomes of `chunk` to the caller, who answers with `Taken` in his own time."""

    chunk: range


@dataclass(slots=True)
class Fail:
    """End the run: `position` failed for `reason`."""

    position: int
    reason: Reason


@dataclass(slots=True)
class Finish:
    """End the run: every outcome was given."""


Event = (
    Begin
    | Pulled
    | Joined
    | Refused
    | Offered
    | Done
    | Reclaimed
    | Lost
    | Taken
    | Strained
    | Tick
    | Cancel
)
Command = Pull | Start | Work | Send | Reclaim | Settle | Kill | Give | Fail | Finish
