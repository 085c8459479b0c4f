"""What a caller in an event loop needs of that loop, be it asyncio's, uvloop's or trio's.

To be woken from another thread, to wait for that, to let others run, and to have something done
beside: four things, so that both kinds of loop can be served without a package in between.  Which
kind it is, is found out at the call; neither is imported before.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")

BRIEF = 1e-3  # seconds after which others in the loop have their turn


class Loop(Protocol):
    """An event loop, for one who waits in it."""

    def ring(self) -> None:
        """Wake who waits; from any thread.  RuntimeError if the loop is no more."""

    async def heard(self) -> None:
        """Wait until somebody rings, or return at once if somebody has since `quiet`."""

    def quiet(self) -> None:
        """Forget what was heard."""

    async def pause(self) -> None:
        """Let others run."""

    def spawn(self, act: Callable[[], Awaitable[None]]) -> Callable[[], object]:
        """Have something done beside; return what cancels it."""


class Asyncio:
    """The running loop of asyncio, or one that stands in for it, as uvloop's does."""

    def __init__(self) -> None:
        import asyncio

        self.loop = asyncio.get_running_loop()
        self.event = asyncio.Event()
        self.asyncio = asyncio

    def ring(self) -> None:
        """Wake who waits."""
        self.loop.call_soon_threadsafe(self.event.set)

    async def heard(self) -> None:
        """Wait for a ring."""
        await self.event.wait()

    def quiet(self) -> None:
        """Forget what was heard."""
        self.event.clear()

    async def pause(self) -> None:
        """Let others run."""
        await self.asyncio.sleep(0)

    def spawn(self, act: Callable[[], Awaitable[None]]) -> Callable[[], object]:
        """Have something done beside; return what cancels it."""

        async def beside() -> None:
            await act()

        return self.loop.create_task(beside()).cancel


class Trio:
    """The running loop of trio."""

    def __init__(self, trio: Any) -> None:
        self.trio = trio
        self.token = trio.lowlevel.current_trio_token()
        self.event = trio.Event()

    def ring(self) -> None:
        """Wake who waits."""
        self.token.run_sync_soon(self._set)

    def _set(self) -> None:
        self.event.set()

    async def heard(self) -> None:
        """Wait for a ring."""
        await self.event.wait()

    def quiet(self) -> None:
        """Forget what was heard."""
        if self.event.is_set():
            self.event = self.trio.Event()

    async def pause(self) -> None:
        """Let others run."""
        await self.trio.lowlevel.checkpoint()

    def spawn(self, act: Callable[[], Awaitable[None]]) -> Callable[[], object]:
        """Have something done beside; return what cancels it."""
        scope = self.trio.CancelScope()

        async def beside() -> None:
            with scope:
                await act()

        self.trio.lowlevel.spawn_system_task(beside)
        cancel: Callable[[], object] = scope.cancel
        return cancel


def running() -> Loop:
    """Return the loop that the caller runs in.

    Raises:
        RuntimeError: It runs in none that is known.
    """
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        return Trio(trio)
    try:
        return Asyncio()
    except RuntimeError as error:
        raise RuntimeError("amap() and arun() need a running asyncio or trio event loop") from error


class Mailbox(Generic[T]):
    """Words from another thread to one who waits in a loop."""

    def __init__(self) -> None:
        self.loop = running()
        self.words: deque[T] = deque()
        self.rung = False
        self.turn = perf_counter()  # when this last let others run

    def put(self, word: T) -> None:
        """Leave a word; from any thread.  RuntimeError if the loop is no more."""
        self.words.append(word)
        if not self.rung:
            self.rung = True
            self.loop.ring()

    async def take(self) -> T:
        """Return the next word, when there is one."""
        if self.words and perf_counter() - self.turn > BRIEF:
            await self.loop.pause()
            self.turn = perf_counter()
        while not self.words:
            self.loop.quiet()
            self.rung = False  # from now on, who leaves a word rings
            if not self.words:
                await self.loop.heard()
                self.turn = perf_counter()
        return self.words.popleft()
