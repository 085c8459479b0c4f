"""Whether workers elsewhere are fit to run our chunks, asked before anything is sent.

What goes by value, such as a lambda, is bytecode and a pickle of cloudpickle's, which another
version may not read.  And a module that lies beside the script is not where workers are, so it has
to go by value too: which those are, is asked as well.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from typing import Any, NamedTuple

from ..definitions import MAINS
from ..errors import NoWorkers


class Report(NamedTuple):
    """What a worker has: versions, None where a package is missing, and modules it does not find.

    `python` and `cloudpickle` are major and minor versions, such as "3.11".
    """

    python: str
    parallelkit: str | None
    cloudpickle: str | None
    missing: tuple[str, ...] = ()


def inquiry(modules: tuple[str, ...]) -> Callable[[], tuple[Any, ...]]:
    """Return what a worker is to call for a `Report`, of plain values.

    It is made in a function, so that picklers send it by value, and imports all it needs: the
    worker may have nothing of ours.
    """

    def inquire() -> tuple[Any, ...]:
        import importlib
        import importlib.util
        import sys

        def version(name: str) -> Any:
            try:
                return importlib.import_module(name).__version__
            except Exception:
                return None

        def missing(name: str) -> bool:
            try:
                return importlib.util.find_spec(name) is None
            except Exception:
                return True

        python = f"{sys.version_info[0]}.{sys.version_info[1]}"
        lacking = tuple([name for name in modules if missing(name)])
        return python, version("parallelkit"), version("cloudpickle"), lacking

    return inquire


def ours() -> Report:
    """Return what this process has."""
    import cloudpickle

    package = sys.modules[__name__.partition(".")[0]]
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return Report(python, package.__version__, cloudpickle.__version__)


def accept(reports: Iterable[tuple[Any, ...]], where: str) -> tuple[str, ...]:
    """Return the modules that any of the workers lacks.

    Raises:
        NoWorkers: One of them has other versions than this process.
    """
    here = ours()
    missing: set[str] = set()
    for report in [Report(*each) for each in reports]:
        missing.update(report.missing)
        for name in ("python", "parallelkit", "cloudpickle"):
            _compare(name, getattr(report, name), getattr(here, name), where)
    return tuple(sorted(missing))


def _compare(name: str, there: str | None, here: str, where: str) -> None:
    package = {"python": "Python"}.get(name, name)
    if there is None:
        raise NoWorkers(
            f"{where} lack {package}, of which this process has {here}: install it there too"
        )
    same = there == here if name == "parallelkit" else _minor(there) == _minor(here)
    if not same:
        raise NoWorkers(
            f"{where} have {package} {there}, and this process has {here}: "
            "what is sent to them could not be read there, so have the same on both sides"
        )


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def homemade() -> tuple[str, ...]:
    """Return the top-level modules, loaded here, that a cluster may not have.

    Those are all that are neither Python's own nor installed in the usual places.
    """
    found = set()
    for name, module in tuple(sys.modules.items()):
        top = name.partition(".")[0]
        file = getattr(module, "__file__", None)
        if top in MAINS or top == "parallelkit" or not isinstance(file, str):
            continue
        if top in found or top in sys.stdlib_module_names or _installed(file):
            continue
        found.add(top)
    return tuple(sorted(found))


@cache
def _usual() -> tuple[str, ...]:
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return tuple([os.path.realpath(path) + os.sep for path in paths if path])


@lru_cache(maxsize=4096)  # a big program loads some 2000 modules, and asks at each call
def _installed(file: str) -> bool:
    path = os.path.realpath(file)
    apart = f"{os.sep}site-packages{os.sep}" in path or f"{os.sep}dist-packages{os.sep}" in path
    return apart or path.startswith(_usual())
