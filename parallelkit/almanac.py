"""What was learned, in a file: from one process to the next, if the user names one.

The environment variable `PARALLELKIT_CACHE` does.  The file holds numbers and digests, no names and
no values of the user's.  It may be deleted at any time, and shared by processes that run at once:
each replaces it as a whole, with what it found there and what it has learned.  One that another
user could have written is not read.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import marshal
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import CodeType

    Key = tuple[CodeType, type | None, CodeType | str | None]
    Costs = tuple[float, float | None, float]

VARIABLE = "PARALLELKIT_CACHE"
MOST = 1024  # functions in a file, which then has some 100 KB
_LARGEST = 1 << 20  # bytes of a file that is read
_DEAREST = 1e15  # seconds or bytes that are believed: far beyond any, and no trouble to a float


class Almanac:
    """The file as it was found, and what is to be written to it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.pid = os.getpid()
        self.found = _read(path)
        self.news: dict[str, list[float | None]] = {}

    def recall(self, key: Key) -> Costs | None:
        """Return what a function cost, as far as the file knows."""
        name = digest(key)
        entry = self.found.get(name) if name is not None else None
        return None if entry is None else (entry[0] or 1e-9, entry[1], entry[2] or 0.0)

    def remember(self, key: Key, costs: Costs) -> None:
        """Have what a function costs written when the process ends."""
        name = digest(key)
        if name is not None:
            self.news[name] = list(costs)

    def save(self) -> None:
        """Write the file anew.  What cannot be written is not, and nobody is told."""
        if not self.news or os.getpid() != self.pid:  # a forked copy has the original's news
            return
        entries = _read(self.path)
        for name, entry in self.news.items():
            entries.pop(name, None)
            entries[name] = entry
        kept = dict(list(entries.items())[-MOST:])
        with contextlib.suppress(OSError):
            _write(self.path, json.dumps({"functions": kept}))


def opened() -> Almanac | None:
    """Return the file that the environment names, None if it names none."""
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    try:
        path = os.path.abspath(os.path.expanduser(path))
    except OSError:  # the directory that it is relative to was deleted
        return None
    almanac = Almanac(path)
    atexit.register(almanac.save)
    return almanac


def digest(key: Key) -> str | None:
    """Return what a function is known by in any process of this Python."""
    code, kind, folding = key
    name = None if kind is None else f"{kind.__module__}.{kind.__qualname__}"
    try:
        # Later versions depend on who else holds its constants.
        content = marshal.dumps(code if folding is None else (code, folding), 2)
    except ValueError:
        return None
    text = f"{sys.version}\n{name}\n".encode()
    return hashlib.blake2b(text + content, digest_size=16).hexdigest()


def _read(path: str) -> dict[str, list[float | None]]:
    """Return the entries of a file, none if there is no such file or it is not to be trusted."""
    refused = contextlib.suppress(OSError, ValueError, RecursionError)
    with refused, open(path, "rb", opener=_at_once) as file:
        if _ours(os.fstat(file.fileno())):
            return _checked(json.loads(file.read(_LARGEST)))
    return {}


def _at_once(path: str, flags: int) -> int:
    """Open a file without waiting for anybody, as a pipe in its place would."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _write(path: str, text: str) -> None:
    """Put a file of our own in the place of another, as a whole or not at all."""
    import tempfile

    fd, beside = tempfile.mkstemp(prefix=f"{os.path.basename(path)}.", dir=os.path.dirname(path))
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def _ours(status: os.stat_result) -> bool:
    if os.name != "posix":
        return True
    others = stat.S_IWGRP | stat.S_IWOTH
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_uid == os.geteuid()
        and not (status.st_mode & others)
    )


def _checked(content: Any) -> dict[str, list[float | None]]:
    entries = content.get("functions") if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        return {}
    return {name: entry for name, entry in entries.items() if _sound(entry)}


def _sound(entry: Any) -> bool:
    if not isinstance(entry, list) or len(entry) != 3 or entry[0] is None:
        return False
    numbers = [each for each in entry if each is not None]
    return all(type(each) in (int, float) and 0 <= each < _DEAREST for each in numbers)
