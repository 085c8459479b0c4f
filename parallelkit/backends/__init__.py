"""Where chunks run: the port that the engine drives, and one thin driver for each kind of place.

A backend starts and ends workers, carries chunks to them and reports events.  It decides nothing:
which chunk goes where, what is tried again and who is ended is the scheduler's business.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from ..events import Event


class Block(NamedTuple):
    """Outcomes of neighbouring positions, as a worker sent them.

    `failures` maps an offset within `values` to the exception that stands there.  Of these offsets,
    the item at those in `unsent` could not get to the worker, and the result of those in
    `unreturned` could not get back; at all others the function raised.
    """

    values: list[Any]
    failures: dict[int, BaseException]
    unsent: tuple[int, ...] = ()
    unreturned: tuple[int, ...] = ()


class Unlearned(Exception):
    """Workers cannot take in what the run is about; all are lost, and no more are to be had."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class Backend(Protocol):
    """A place where chunks run, for the length of one run."""

    def start(self, count: int) -> None:
        """Start `count` workers; `wait` reports `Joined` for each, or `Lost`, or `Refused`."""

    def send(self, worker: int, chunk: range, columns: tuple[Any, ...]) -> int:
        """Have `worker` run a chunk, of which `columns` holds the arguments, an iterable each.

        Return how many bytes travel.
        """

    def wait(self, timeout: float | None) -> list[tuple[Event, Block | None]]:
        """Return what happened, waiting up to `timeout` seconds for something to happen.

        A `Done` comes with the outcomes of the part that it reports.

        Raises:
            Unlearned: What a worker was told of the run cannot be loaded there.
        """

    def wakeable(self) -> None:
        """Make ready for `wake`."""

    def wake(self) -> None:
        """Make a `wait` that another thread is in return now."""

    def kill(self, worker: int) -> None:
        """End `worker` at once; `wait` reports `Lost`."""

    def weigh(self) -> None:
        """Note how much memory each worker holds, which an obituary may need."""

    def obituary(self, worker: int) -> str:
        """Say how a lost worker ended, such as "was killed by SIGKILL".

        Of one that was ended by `kill`: the stack it was in, innermost frame first, if known.
        """

    def close(self) -> None:
        """End the run: workers that are busy are ended, the others may serve another run."""


class Reclaiming(Backend, Protocol):
    """A place where work that was handed out can be taken back (`Limits.stealing`)."""

    def reclaim(self, worker: int, keep: float) -> None:
        """Have `worker` begin no more than the share `keep` of the items it has not begun.

        At least one item it keeps.  It hears of it when it comes to it.
        """

    def settle(self, worker: int) -> None:
        """Find out what `worker`, from which some was reclaimed, begins all the same.

        `wait` reports `Reclaimed`, before anything else that the worker may yet say.
        """
