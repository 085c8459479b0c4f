"""What a worker runs for an `Executor`: one call, whatever its function, after the initializer.

To the engine every task is an item of one mapped function, `call`, so that blame, time limits and
retries are the same as in any other run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import shortened
from .failures import note

RAISED = "parallelkit: raised by "

_MANY = 6  # arguments that a message shows; the rest is counted

Task = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Initial:
    """Runs the user's initializer, once in each worker and before its first task."""

    def __init__(self, initializer: Callable[..., Any] | None, initargs: tuple[Any, ...]) -> None:
        self.initializer = initializer
        self.initargs = initargs

    def __call__(self) -> None:
        """Run it; what it returns is nobody's."""
        if self.initializer is not None:
            self.initializer(*self.initargs)


class Key:
    """Goes before a task whose arguments may reach a `multiprocessing.Manager`, and lets them.

    A process proves to a manager that it belongs to the family, by a key that children inherit.
    """

    def __init__(self, key: bytes) -> None:
        self.key = key

    def __reduce__(self) -> tuple[Callable[[bytes], None], tuple[bytes]]:
        return _adopt, (self.key,)


def _adopt(key: bytes) -> None:
    from multiprocessing.process import current_process

    current_process().authkey = key


def call(_: None, task: tuple[Any, ...] | None) -> Any:
    """Return what the task's function returns; None where the task was cancelled on its way."""
    if task is None:
        return None
    fn, args, kwargs = task[-3:]
    return fn(*args, **kwargs)


def call_each(fn: Callable[..., Any], rows: list[tuple[Any, ...]]) -> list[Any]:
    """Return the results of several calls that travel as one task."""
    results = []
    for row in rows:
        try:
            results.append(fn(*row))
        except BaseException as error:
            note(error, RAISED + told((fn, row, {})))
            raise
    return results


class Errand:
    """A task's function that finds words for itself, and whose errors tell what raised them."""

    def __call__(self) -> Any:
        """Do the work."""
        raise NotImplementedError

    def words(self) -> str:
        """Return words for the work, for a message."""
        raise NotImplementedError


def told(task: Task) -> str:
    """Return words for a call.

    Example:
        >>> told((pow, (2, 5), {"mod": 3}))
        'pow(2, 5, mod=3)'
    """
    fn, args, kwargs = task
    if fn is call_each:
        return f"{len(args[1])} calls, the first {told((args[0], args[1][0], {}))}"
    if isinstance(fn, Errand):
        return fn.words()
    name = getattr(fn, "__qualname__", None)
    texts = [shortened(each) for each in args[:_MANY]]
    texts += [f"{key}={shortened(value)}" for key, value in list(kwargs.items())[:_MANY]]
    more = len(args) + len(kwargs) - len(texts)
    texts += [f"and {more} more"] if more else []
    return f"{name if isinstance(name, str) else shortened(fn)}({', '.join(texts)})"
