"""One selector shared by several owners, each of whom sees only what it registered itself.

A run's driver waits on a selector of its own.  Where one thread serves many runs, it must wait for
all of them at once: each driver then has a `Branch`, and the thread waits on the `Trunk`.
"""

from __future__ import annotations

import selectors
from collections.abc import Mapping
from typing import Any


class Trunk:
    """The selector that all branches grow from."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()

    def wait(self, timeout: float | None) -> list[Any]:
        """Wait up to `timeout` seconds; return the owners of what is ready, once for each thing.

        What is ready is what the branches' `select` returns from now on.
        """
        owners = []
        for key, mask in self.selector.select(timeout):
            branch: Branch = key.data
            branch.ready.append((branch.keys[key.fileobj], mask))
            owners.append(branch.owner)
        return owners

    def close(self) -> None:
        """Let go of it, when no branch is in use any more."""
        self.selector.close()


class Branch(selectors.BaseSelector):
    """A selector whose `select` never waits: it returns what the trunk's last wait has found.

    `owner` is whatever `Trunk.wait` is to return for it.
    """

    def __init__(self, trunk: Trunk, owner: Any) -> None:
        self.trunk = trunk
        self.owner = owner
        self.keys: dict[Any, selectors.SelectorKey] = {}
        self.ready: list[tuple[selectors.SelectorKey, int]] = []
        self.closed = False

    def register(self, fileobj: Any, events: int, note: Any = None) -> selectors.SelectorKey:
        """Watch a descriptor or socket."""
        fd = self.trunk.selector.register(fileobj, events, self).fd
        return self._keep(selectors.SelectorKey(fileobj, fd, events, note))

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Watch it no longer; what is known to be ready stays so."""
        key = self.keys.pop(fileobj)
        self.trunk.selector.unregister(fileobj)
        return key

    def modify(self, fileobj: Any, events: int, note: Any = None) -> selectors.SelectorKey:
        """Watch it for other events."""
        fd = self.trunk.selector.modify(fileobj, events, self).fd
        return self._keep(selectors.SelectorKey(fileobj, fd, events, note))

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready, once."""
        del timeout
        ready, self.ready = self.ready, []
        return ready

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """Return how something is watched."""
        return self.keys[fileobj]

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Return how everything is watched; None after `close`, as selectors do."""
        return self.keys if not self.closed else None  # type: ignore[return-value]

    def close(self) -> None:
        """Watch nothing any more."""
        for fileobj in tuple(self.keys):
            self.unregister(fileobj)
        self.ready.clear()
        self.closed = True

    def _keep(self, key: selectors.SelectorKey) -> selectors.SelectorKey:
        self.keys[key.fileobj] = key
        return key
