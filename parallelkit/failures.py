"""Exceptions that travel: raised in a worker, seen by the caller as themselves.

Pickle alone loses an exception's cause, context and traceback, and calls its class's `__init__`
with arguments that this may not take.  Here they all go along, and what still cannot travel is
replaced by a `RemoteError` that tells its type and text.  The traceback becomes a note, without
parallelkit's own frames.  Naming the item is left to the caller.
"""

from __future__ import annotations

import builtins
import os
import pickle
from collections.abc import Iterator
from contextlib import suppress
from types import FunctionType, TracebackType
from typing import Any, NamedTuple, Protocol

from .errors import RemoteError

MOST = 32
"""Exceptions that travel together, at most: a loop that retries can chain thousands."""

FRAMES = 40
"""Frames of a traceback that are told at either end; deep recursion has a thousand between them."""

_INSCRIBED = "_parallelkit_inscribed"  # the attribute that names those that `inscribe` gave

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Carrier(Protocol):
    """What turns objects into bytes and back: one side of a codec."""

    def dumps(self, obj: object) -> bytes:
        """Return `obj` as bytes."""

    def loads(self, frame: bytes) -> Any:
        """Return the object that these bytes are of."""


class Link(NamedTuple):
    """How one exception hangs together with others, by their numbers, and where it came from."""

    cause: int | None
    context: int | None
    suppress: bool
    traceback: str


def pack_error(error: BaseException, carrier: Carrier) -> bytes:
    """Return `error`, and what led to it, as bytes for `unpack_error`; this never fails.

    Exceptions of `__main__` arrive as the caller's own only through the `carrier` that knows the
    run's definitions.
    """
    try:
        family = _family(error)
        for one in family:  # they tell of a run within this one, whose results are nobody's now
            uninscribe(one)
        links = [_link(one, family) for one in family]
    except BaseException as reason:  # the class has its own ways with attributes
        family = [_remote(_told(error), reason)]
        links = [Link(None, None, False, _traceback(error))]
    try:
        body = _verified(family, links, carrier)
    except BaseException:  # pickling runs the user's code, which can raise anything
        body = _salvaged(family, links, carrier)
    return pickle.dumps((body, _told(error), links[0].traceback), 5)


def unpack_error(
    frame: bytes | bytearray | memoryview, carrier: Carrier | None = None
) -> BaseException:
    """Return the exception that `pack_error` packed, its worker's tracebacks as notes.

    Without a `carrier`, one of `__main__` comes as a `RemoteError`.
    """
    body, told, traceback = pickle.loads(frame)
    try:
        family, links = pickle.loads(body) if carrier is None else carrier.loads(body)
    except BaseException as error:  # it loaded in the worker; here a module may be missing
        family, links = [_remote(told, error)], [Link(None, None, False, traceback)]
    for one, link in zip(family, links, strict=True):
        kin = [None if number is None else family[number] for number in (link.cause, link.context)]
        force(one, __cause__=kin[0], __context__=kin[1], __suppress_context__=link.suppress)
        if link.traceback:
            note(one, link.traceback)
    first: BaseException = family[0]
    return first


def _family(error: BaseException) -> list[BaseException]:
    """Return `error` and all it has as cause, context or member, nearest first, up to `MOST`."""
    family = [error]
    seen = {id(error)}
    for one in family:  # grows meanwhile
        for relative in _relatives(one):
            if id(relative) not in seen and len(family) < MOST:
                seen.add(id(relative))
                family.append(relative)
    return family


def _relatives(error: BaseException) -> Iterator[BaseException]:
    if error.__cause__ is not None:
        yield error.__cause__
    if error.__context__ is not None:
        yield error.__context__
    if isinstance(error, BaseExceptionGroup):
        yield from error.exceptions


def _link(error: BaseException, family: list[BaseException]) -> Link:
    numbers = {id(one): number for number, one in enumerate(family)}
    return Link(
        numbers.get(id(error.__cause__)),
        numbers.get(id(error.__context__)),
        error.__suppress_context__,
        _traceback(error),
    )


def _verified(family: list[BaseException], links: list[Link], carrier: Carrier) -> bytes:
    """Return the whole family as bytes that were seen to load."""
    body = carrier.dumps((family, links))
    loaded, _ = carrier.loads(body)
    for one, copy in zip(family, loaded, strict=True):
        if type(one) is not type(copy):
            raise pickle.PicklingError(f"{type(one).__name__} comes back as {type(copy).__name__}")
    return body


def _salvaged(family: list[BaseException], links: list[Link], carrier: Carrier) -> bytes:
    """Return the family as bytes, with a stand-in for each member that cannot travel."""
    chosen: dict[int, BaseException] = {}
    for one in reversed(family):  # members of a group come after it, and must be known before
        chosen[id(one)] = _fit(one, chosen, carrier)
    members = [chosen[id(one)] for one in family]
    try:
        return _verified(members, links, carrier)
    except BaseException:  # each can travel, but not together
        return pickle.dumps(([_remote(_told(one)) for one in family], links), 5)


def _fit(error: BaseException, chosen: dict[int, BaseException], carrier: Carrier) -> BaseException:
    """Return `error` if it can travel, a group of fitting members if it is one, else a stand-in."""
    try:
        if isinstance(error, BaseExceptionGroup):
            error = _regrouped(error, chosen)
        _verified([error], [], carrier)
    except BaseException as reason:
        return _remote(_told(error), reason)
    return error


def _regrouped(
    group: BaseExceptionGroup[BaseException], chosen: dict[int, BaseException]
) -> BaseException:
    members = [chosen.get(id(one), one) for one in group.exceptions]
    if all(new is old for new, old in zip(members, group.exceptions, strict=True)):
        return group
    return group.derive(members)


def _remote(told: str, reason: BaseException | None = None) -> RemoteError:
    text = told if reason is None else f"{told}\n(sent as text, because {_told(reason)})"
    return RemoteError(text)


def _told(error: BaseException) -> str:
    """Return the type and text of any exception, even of one whose `__str__` raises."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    try:
        text = str(error)
    except BaseException as failed:  # it is the user's code
        text = f"<its __str__ raised {type(failed).__name__}>"
    return f"{name}: {text}" if text else name


def note(error: BaseException, text: str) -> None:
    """Add a note to an exception, if that takes any.

    Not by `add_note`, which a class may have of its own, and which a frozen dataclass refuses.
    """
    with suppress(Exception):  # a class may have `__notes__` of its own
        force(error, __notes__=[*variables(error).get("__notes__", ()), text])


def force(error: BaseException, **attributes: object) -> None:
    """Set attributes of an exception whose class may refuse that, as a frozen dataclass does."""
    for name, value in attributes.items():
        BaseException.__setattr__(error, name, value)


def variables(error: BaseException) -> dict[str, Any]:
    """Return what `vars(error)` does where the class does not forbid it."""
    own: dict[str, Any] = BaseException.__getattribute__(error, "__dict__")
    return own


def inscribe(error: BaseException, **attributes: object) -> None:
    """Give `error` attributes, but for those that its class has already."""
    for name, value in attributes.items():
        with suppress(Exception):  # a class may have its own ways with attributes
            if not hasattr(error, name):
                force(error, **{name: value})
                variables(error).setdefault(_INSCRIBED, []).append(name)


def uninscribe(error: BaseException) -> None:
    """Take the attributes away from `error` that `inscribe` gave it."""
    for name in variables(error).pop(_INSCRIBED, ()):
        variables(error).pop(name, None)


def _traceback(error: BaseException) -> str:
    """Return the user's frames as text, or nothing if there are none."""
    frames: TracebackType | None = BaseException.__getattribute__(error, "__traceback__")
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_HERE):
        frames = frames.tb_next
    if frames is None:
        return ""
    try:
        lines = _formatted(frames)
    except Exception:  # reading source lines runs loaders of others
        lines = ["  (which could not be told)\n"]
    return f"Traceback in worker {os.getpid()} (most recent call last):\n{''.join(lines).rstrip()}"


def _formatted(frames: TracebackType) -> list[str]:
    import traceback  # not needed until something fails, and 4 ms to import

    stack = traceback.extract_tb(frames)
    missing = len(stack) - 2 * FRAMES
    if missing <= 0:
        return stack.format()
    first, last = (
        traceback.StackSummary.from_list(part) for part in (stack[:FRAMES], stack[-FRAMES:])
    )
    return [*first.format(), f"  [{missing} frames left out]\n", *last.format()]


def keeps_default_reduce(kind: type[BaseException]) -> bool:
    """Whether pickle would rebuild a `kind` by calling an `__init__` written in Python.

    It would do so with `args`, which are what the class's author passed to `super().__init__`, not
    what that `__init__` takes: it fails, or builds something else (python/cpython#44791).
    """
    if any(
        isinstance(getattr(kind, name), FunctionType) for name in ("__reduce__", "__reduce_ex__")
    ):
        return False
    return any(isinstance(getattr(kind, name), FunctionType) for name in ("__init__", "__new__"))


def reduce_error(error: BaseException) -> tuple[Any, ...]:
    """Return what makes pickle rebuild `error` without calling its class's `__init__`."""
    reduced: Any = error.__reduce__()
    kind, args, *state = reduced
    if not state or kind.__setstate__ is not BaseException.__setstate__:
        return (revive, (kind, args), *state)
    return revive, (kind, args), state[0], None, None, restore


def restore(error: BaseException, state: dict[str, object]) -> None:
    """Give back its attributes to an exception, even to one that is frozen."""
    force(error, **state)


def revive(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Return a `kind` with these `args`, made as its built-in base makes one.

    Example:
        >>> revive(FileNotFoundError, (2, "gone")).errno
        2
    """
    base: Any = next(cls for cls in kind.__mro__ if getattr(builtins, cls.__name__, None) is cls)
    error: BaseException = base.__new__(kind, *args)
    base.__init__(error, *args)
    return error
