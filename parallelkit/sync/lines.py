"""Lines: those who wait, in any process, for what another will do, and how they are woken.

A line has 512 seats in a cell.  Who waits takes a seat, with a ticket that says when he came,
and listens on a socket that is named after the ticket (Linux's abstract Unix sockets, which go with
their process).  Who changes something frees the seats of those who came first and sends each a
byte; a dead one's socket refuses it, and the next in line gets it.

Nobody relies on being woken.  A waiter looks for himself ten times a second, and so outlives the
death of whoever should have called him or was called in his stead.  Where there are no such
sockets, or no more seats, he looks every 5 ms.
"""

from __future__ import annotations

import select
import socket
import sys
from collections.abc import Callable
from math import ceil
from time import monotonic, sleep
from typing import TypeVar

from .cells import SEATED, TICKETS, Cell

SEATS = 512
"""Of one line.  Of a cell's 2048 words two lines take 1024, and 16 stand before them."""

FIRST_SEAT = 16
END = FIRST_SEAT + 2 * SEATS  # the first word behind the lines

DOORBELLS = sys.platform == "linux"
"""Whether there are sockets with names that lie in no folder."""

HEARTBEAT = 0.1
"""Seconds after which a waiter looks for himself.  A look costs some 30 us, so 0.03 % of a CPU."""

PAUSE = 0.005
"""The same where nobody can wake him: 0.5 % of a CPU, and 2.5 ms late on average."""

_Result = TypeVar("_Result")


def deadline(timeout: float | None) -> float | None:
    """Return when `timeout` is over, None if never."""
    return None if timeout is None else monotonic() + timeout


def remaining(until: float | None) -> float:
    """Return the seconds until a deadline."""
    return HEARTBEAT if until is None else until - monotonic()


class Seat:
    """One who waits.

    The ticket is negative where nothing can wake him; `place` is 0 if there was no seat.
    """

    def __init__(self, cell: Cell, place: int, ticket: int, bell: socket.socket | None) -> None:
        self.cell = cell
        self.place = place
        self.ticket = ticket
        self.bell = bell

    def called(self) -> bool:
        """Whether someone freed the seat."""
        return self.place == 0 or bool(self.cell.words[self.place] != self.ticket)

    def wait(self, timeout: float) -> None:
        """Wait to be called, but not longer than a waiter may without looking for himself."""
        if self.bell is None:
            sleep(max(min(timeout, PAUSE), 0))
            return
        # Not a timeout of the socket's, whose error could not be told from one that a signal
        # handler of the user's raises.
        poll = select.poll()
        poll.register(self.bell, select.POLLIN)
        if poll.poll(ceil(max(min(timeout, HEARTBEAT), 0) * 1000)):
            self.bell.recv(1)

    def close(self) -> None:
        """Be deaf from now on."""
        if self.bell is not None:
            self.cell.bells.discard(self.bell)
            self.bell.close()
            self.bell = None


class Line:
    """Those who wait at a cell for one kind of thing; `number` is 0 or 1.

    All methods but `leave` are for those who hold the cell.
    """

    def __init__(self, cell: Cell, number: int = 0) -> None:
        self.cell = cell
        self.count = SEATED + number  # the word: how many are seated, or more if some were killed
        self.first = FIRST_SEAT + number * SEATS

    def join(self) -> Seat:
        """Take a seat at the end of the line."""
        words = self.cell.words
        words[TICKETS] += 1
        seats = words[self.first : self.first + SEATS].tolist()
        if 0 not in seats:
            return Seat(self.cell, 0, 0, None)
        bell = self._bell(words[TICKETS])
        ticket = words[TICKETS] if bell is not None else -words[TICKETS]
        place = self.first + seats.index(0)
        words[self.count] += 1  # before the seat: too many is harmless, should we die between
        words[place] = ticket
        return Seat(self.cell, place, ticket, bell)

    def _bell(self, ticket: int) -> socket.socket | None:
        if not DOORBELLS:
            return None
        try:
            bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        except OSError:  # no more descriptors, or a sandbox denies it
            return None
        try:
            bell.setblocking(False)
            bell.bind(self._name(ticket))
        except OSError:
            bell.close()
            return None
        self.cell.bells.add(bell)
        return bell

    def _name(self, ticket: int) -> str:
        return f"\0parallelkit-{self.cell.segment.handle().token}-{ticket}"

    def leave(self, seat: Seat) -> None:
        """Free a seat, of which the cell is not held."""
        try:
            if not seat.called():
                self.cell.within(lambda: self._leave(seat))
        finally:
            seat.close()

    def _leave(self, seat: Seat) -> None:
        if not seat.called():
            self._free(seat.place)

    def _free(self, place: int) -> None:
        words = self.cell.words
        words[place] = 0
        words[self.count] = max(words[self.count] - 1, 0)

    def wake(self, count: int = SEATS) -> None:
        """Call those who came first, `count` of them or all that there are."""
        words = self.cell.words
        if not words[self.count]:
            return
        seats = words[self.first : self.first + SEATS].tolist()
        taken = sorted((abs(ticket), place) for place, ticket in enumerate(seats) if ticket)
        if not taken:
            words[self.count] = 0  # whoever was counted died before he sat
        for ticket, place in taken:
            if count <= 0:
                return
            # Freed first, or one who is woken at once would look before it is, and wait again.
            self._free(self.first + place)
            if seats[place] < 0 or self._ring(ticket):
                count -= 1

    def _ring(self, ticket: int) -> bool:
        """Wake the one with this ticket; False if he is dead."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
                caller.setblocking(False)
                caller.sendto(b"!", self._name(ticket))
        except ConnectionRefusedError:
            return False
        except OSError:  # no more descriptors: he will see for himself
            return True
        return True

    def wait(
        self, attempt: Callable[[], _Result | None], block: bool, timeout: float | None
    ) -> _Result | None:
        """Return what `attempt` gives once that is not None; None if it does not in time.

        It is called with the cell held, which is not to be held around this.
        """
        result = self.cell.within(attempt)
        if result is not None or not block or (timeout is not None and timeout <= 0):
            return result
        until = deadline(timeout)
        seat: Seat | None = None

        def attempt_or_sit() -> _Result | None:
            nonlocal seat
            result = attempt()
            if result is None and (seat is None or seat.called()):
                if seat is not None:
                    seat.close()
                seat = self.join()
            return result

        try:
            while True:
                result = self.cell.within(attempt_or_sit)
                if seat is None or result is not None or remaining(until) <= 0:
                    return result
                seat.wait(remaining(until))
        finally:
            if seat is not None:
                self.leave(seat)
