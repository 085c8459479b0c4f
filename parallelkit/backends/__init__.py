"""Where chunks run: the port that the engine drives, and one thin driver for each kind of place.

A backend starts and ends workers, carries chunks to them and reports events.  It decides nothing:
which chunk goes where, what is tried again and who is ended is the scheduler's business.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from ..events import Event


class Block(NamedTuple):
    """Outcomes of neighbouring positions, as a worker sent them.

    `failures` maps an offset within `values` to the exception that stands there.
    """

    values: list[Any]
    failures: dict[int, BaseException]


class Backend(Protocol):
    """A place where chunks run, for the length of one run."""

    def start(self, count: int) -> None:
        """Start `count` workers; `wait` reports `Joined` for each, or `Lost`, or `Refused`."""

    def send(self, worker: int, chunk: range, columns: tuple[Any, ...]) -> None:
        """Have `worker` run a chunk, of which `columns` holds the arguments, an iterable each."""

    def wait(self, timeout: float | None) -> list[tuple[Event, Block | None]]:
        """Return what happened, waiting up to `timeout` seconds for something to happen.

        A `Done` comes with the outcomes of the part that it reports.
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
