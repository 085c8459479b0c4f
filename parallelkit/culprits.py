"""Why an object cannot be pickled: the part of it that is to blame, and what to do about it.

Pickle says "cannot pickle '_thread.lock' object" and not where that lock is.  Here the object is
searched, by trying its parts.  Called only after a failure, so it may take its time.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .errors import shortened

Attempt = Callable[[object], object]
"""Pickles an object, or raises."""

DEPTH = 12
"""How deep a culprit is looked for; each step down tries all parts of one object."""

PARTS = 1000
"""How many parts of one object are tried, so that a table of millions does not stop the caller."""

_LOCKS = "make it inside the function: workers are processes, which a lock of threads cannot bind"
_QUEUES = "return what the queue is for: results come back by themselves"
_POOLS = "leave it out of what is sent, by __getstate__ say, or make one inside the function"
_OPENED = "open it inside the function, or once in each worker with worker_state="
ADVICE = {
    "_thread.lock": _LOCKS,
    "_thread.RLock": _LOCKS,
    "multiprocessing.synchronize.": _LOCKS,
    "multiprocessing.queues.": _QUEUES,
    "_queue.SimpleQueue": _QUEUES,
    "multiprocessing.pool.": _POOLS,
    "concurrent.futures.": _POOLS,
    "parallelkit.pool.": _POOLS,
    "parallelkit.executor.": _POOLS,
    "_io.": _OPENED,
    "socket.socket": _OPENED,
    "ssl.": _OPENED,
    "sqlite3.": _OPENED,
    "_thread._local": "make it inside the function",
    "builtins.generator": "pass a list of what it yields",
    "builtins.coroutine": "use a function that is not async",
    "builtins.module": "import it inside the function",
    "_contextvars.": "pass its value instead",
    "weakref.": "pass the object itself",
    "builtins.traceback": "pass traceback.format_exc() instead",
    "builtins.frame": "pass what you need of it instead",
}
"""What to do about a type, by how its full name begins."""


def unpicklable(
    obj: object, name: str, error: BaseException, attempt: Attempt
) -> pickle.PicklingError:
    """Return the error to raise where `attempt(obj)` raised `error`; `name` is what `obj` is to us.

    Example:
        >>> print(unpicklable({"a": [iter]}, "item", ValueError("no"), pickle.dumps))
        item of type dict cannot be sent to another process: item: ValueError: no
    """
    path, culprit, error = _blame(obj, name, error, attempt)
    kind = type(obj).__qualname__
    text = f"{name} of type {kind} cannot be sent to another process: {path}: {_reason(error)}"
    advice = _advice(culprit)
    return pickle.PicklingError(f"{text}\n{advice}" if advice else text)


def _blame(
    obj: object, path: str, error: BaseException, attempt: Attempt
) -> tuple[str, object, BaseException]:
    """Return the path to the smallest part that fails, that part, and how it fails."""
    for _ in range(DEPTH):
        if _too_deep(error) or _advice(obj):
            break
        for step, part in _parts(obj):
            failed = _failure(part, attempt)
            if failed is not None:
                obj, path, error = part, path + step, failed
                break
        else:
            break
    return path, obj, error


def _failure(obj: object, attempt: Attempt) -> Exception | None:
    try:
        attempt(obj)
    except Exception as error:  # pickling runs the user's code
        return error
    return None


def _parts(obj: object) -> Iterator[tuple[str, object]]:
    """Yield at most `PARTS` parts of `obj`, each with the step that leads to it."""
    try:
        for _, part in zip(range(PARTS), _all_parts(obj), strict=False):
            yield part
    except Exception:  # looking at attributes runs the user's code
        return


def _all_parts(obj: Any) -> Iterator[tuple[str, object]]:
    if isinstance(obj, Mapping):
        for key, value in obj.items():
            yield f"[{shortened(key, 40)}]", value
        yield from ((f"'s key {shortened(key, 40)}", key) for key in obj)
    elif isinstance(obj, list | tuple):
        yield from ((f"[{number}]", part) for number, part in enumerate(obj))
    elif isinstance(obj, set | frozenset):
        yield from (("'s member", part) for part in obj)
    elif isinstance(obj, BaseException):
        yield from ((f".args[{number}]", part) for number, part in enumerate(obj.args))
    yield from _of_function(obj)
    yield from _attributes(obj)


def _of_function(obj: Any) -> Iterator[tuple[str, object]]:
    """Yield what a function, method or partial reaches."""
    code = getattr(obj, "__code__", None)
    if code is not None:
        for name, cell in zip(code.co_freevars, obj.__closure__ or (), strict=True):
            try:
                yield f"'s variable {name}", cell.cell_contents
            except ValueError:  # not assigned yet
                continue
        named = (name for name in code.co_names if name in obj.__globals__)
        yield from ((f"'s global {name}", obj.__globals__[name]) for name in named)
        defaults = obj.__defaults__ or ()
        positional = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
        yield from (
            (f"'s default of {name}", part) for name, part in zip(positional, defaults, strict=True)
        )
    for name in ("__self__", "__wrapped__", "func", "args", "keywords"):
        if name in dir(type(obj)):
            yield f".{name}", getattr(obj, name)


def _attributes(obj: Any) -> Iterator[tuple[str, object]]:
    yield from ((f".{name}", part) for name, part in list(getattr(obj, "__dict__", {}).items()))
    for cls in () if isinstance(obj, type) else type(obj).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(obj, name):
                yield f".{name}", getattr(obj, name)


def _reason(error: BaseException) -> str:
    if _too_deep(error):
        return "it is nested too deeply to be pickled; sys.setrecursionlimit() can raise the limit"
    text = str(error)
    if isinstance(error, TypeError | pickle.PicklingError) and text:
        return text
    return f"{type(error).__name__}: {text}"


def _too_deep(error: BaseException) -> bool:
    return any(isinstance(each, RecursionError) for each in (error, error.__cause__))


def _advice(obj: object) -> str:
    kind = type(obj)
    full = f"{kind.__module__}.{kind.__qualname__}"
    return next((advice for prefix, advice in ADVICE.items() if full.startswith(prefix)), "")
