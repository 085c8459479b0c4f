"""Jobs that are whole processes: a script of a few lines in each library, started anew each time.

Each script maps with N workers, by the first example of the library's documentation, with the guard
that it asks for.  Times of whole processes are taken outside; times from the import, and from the
call, inside; what idle workers cost is read from the kernel, outside.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import ROOT
from benchmarks.array_memory import pss
from benchmarks.versus.peers import WORKERS
from benchmarks.versus.stage import Lost, alarm

IDLE = 1.0  # seconds for which workers wait while their CPU time is counted
SLOW = ("Dask", "Ray")  # whose start takes seconds: they have one round
# Who needs no guard and does not fork a process that may have threads.
SAFE = {"parallelkit", "joblib", "loky", "Ray"}


@dataclass(frozen=True)
class Script:
    """How one library maps: what it imports, and what makes `results` from `f` and `xs`."""

    imports: str
    mapping: str


SCRIPTS = {
    "serial": Script("", "results = [f(x) for x in xs]"),
    "parallelkit, newcomer": Script("from parallelkit import pmap", "results = pmap(f, xs)"),
    "parallelkit, well": Script(
        "from parallelkit import pmap", f"results = pmap(f, xs, workers={WORKERS})"
    ),
    "Pool, newcomer": Script(
        "from multiprocessing import Pool",
        f"pool = Pool({WORKERS})\nresults = pool.map(f, xs)",
    ),
    "Pool, forkserver": Script(
        "from multiprocessing import get_context",
        f"pool = get_context('forkserver').Pool({WORKERS})\nresults = pool.map(f, xs)",
    ),
    "Pool, spawn": Script(
        "from multiprocessing import get_context",
        f"pool = get_context('spawn').Pool({WORKERS})\nresults = pool.map(f, xs)",
    ),
    "futures, newcomer": Script(
        "from concurrent.futures import ProcessPoolExecutor",
        f"pool = ProcessPoolExecutor({WORKERS})\nresults = list(pool.map(f, xs))",
    ),
    "joblib, newcomer": Script(
        "from joblib import Parallel, delayed",
        f"results = Parallel({WORKERS})(delayed(f)(x) for x in xs)",
    ),
    "loky, newcomer": Script(
        "from loky import get_reusable_executor",
        f"results = list(get_reusable_executor({WORKERS}).map(f, xs))",
    ),
    "mpire, newcomer": Script(
        "from mpire import WorkerPool",
        f"pool = WorkerPool({WORKERS}, keep_alive=True)\nresults = pool.map(f, xs)",
    ),
    "pathos, newcomer": Script(
        "from pathos.pools import ProcessPool",
        f"pool = ProcessPool({WORKERS})\nresults = pool.map(f, xs)",
    ),
    "Dask, newcomer": Script(
        "from distributed import Client",
        f"client = Client(n_workers={WORKERS}, threads_per_worker=1, dashboard_address=None)\n"
        "results = client.gather(client.map(f, xs))",
    ),
    "Ray, newcomer": Script(
        "import ray",
        f"ray.init('local', num_cpus={WORKERS}, include_dashboard=False, log_to_driver=False)\n"
        "task = ray.remote(f)\nresults = ray.get([task.remote(x) for x in xs])",
    ),
}

# What a script does so that nothing of it is left, where its documentation asks for it.
ENDINGS = {
    "Pool": "pool.terminate()\npool.join()",
    "futures": "pool.shutdown()",
    "mpire": "pool.terminate()",
    "pathos": "pool.close()\npool.join()",
    "Dask": "client.shutdown()",
    "Ray": "ray.shutdown()",
}

WHOLE = """
{imports}
def f(x):
    return x + 1
xs = range(10)
{mapping}
assert results == list(range(1, 11))
{ending}
"""

FIRST = """
from time import perf_counter
began = perf_counter()
{imports}
imported = perf_counter()
def f(x):
    return x + 1
xs = [1, 2]
{mapping}
ended = perf_counter()
assert results == [2, 3]
print(ended - imported, ended - began, flush=True)
{ending}
"""

WAITING = """
import sys
{imports}
def f(x):
    return x + 1
xs = range(100)
{mapping}
print(0, flush=True)
sys.stdin.readline()
{ending}
"""


def written(template: str, name: str, folder: Path) -> Path:
    """Write a library's script, inside a function and a guard where it needs one."""
    script, library = SCRIPTS[name], name.partition(",")[0]
    parts = {
        "imports": script.imports,
        "mapping": script.mapping,
        "ending": ENDINGS.get(library, ""),
    }
    text = template.format(**parts)
    if library not in SAFE | {"serial"}:
        head, _, body = text.partition("xs = ")
        text = f"{head}\nif __name__ == '__main__':\n" + textwrap.indent(f"xs = {body}", "    ")
    path = folder / f"{name.replace(', ', '_')}.py"
    path.write_text(text)
    return path


def started(path: Path, log: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(path)],
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "RAY_DEDUP_LOGS": "0",
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )


def whole(path: Path, log: Any) -> list[float]:
    """Return the seconds from the start of the process to its end."""
    began = time.perf_counter()
    process = started(path, log)
    process.communicate(timeout=60)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"its script ended with {process.returncode}")
    return [seconds]


def first(path: Path, log: Any) -> list[float]:
    """Return what the script prints: seconds from the call, and from the import."""
    process = started(path, log)
    text, _ = process.communicate(timeout=60)
    if process.returncode:
        raise RuntimeError(f"its script ended with {process.returncode}")
    return [float(word) for word in text.split()[-2:]]


def waiting(path: Path, log: Any) -> list[float]:
    """Return the CPU seconds of all processes until they have waited, and the bytes they hold."""
    process = started(path, log)
    assert process.stdout is not None
    try:
        with alarm(60):
            line = process.stdout.readline()
        if not line:
            raise RuntimeError("its script ended before its workers waited")
        time.sleep(IDLE)
        family = [psutil.Process(process.pid)]
        family += family[0].children(recursive=True)
        return [sum(map(spent, family)), float(pss(each.pid for each in family))]
    finally:
        process.communicate("\n", timeout=60)


def spent(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and of those of its children that ended.

    The kernel counts the first in nanoseconds, by thread, and the second in hundredths of a second.
    """
    taken = 0.0
    with suppress(psutil.NoSuchProcess, FileNotFoundError):
        taken += sum(process.cpu_times()[2:4])
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            taken += int((task / "schedstat").read_text().split()[0]) / 1e9
    return taken


@dataclass(frozen=True)
class Cold:
    """One kind of script, and the jobs that its numbers are: name, title and what is counted."""

    template: str
    measure: Callable[[Path, Any], list[float]]
    told: Sequence[tuple[str, str, str]]
    without: frozenset[str] = frozenset()


KINDS = (
    Cold(WHOLE, whole, [("cold-process", "a map of ten items, the whole process", "seconds")]),
    Cold(
        FIRST,
        first,
        [
            ("cold-first", "two results of new workers, from the call", "seconds"),
            ("cold-import", "two results of new workers, from the import", "seconds"),
        ],
        frozenset({"serial", "parallelkit, newcomer"}),  # which start no workers for this
    ),
    Cold(
        WAITING,
        waiting,
        [
            ("idle-cpu", "import and idle workers, 1 s: CPU time of all processes", "seconds"),
            ("idle-memory", "import and idle workers: memory of all processes (PSS)", "bytes"),
        ],
        frozenset({"parallelkit, newcomer", "Pool, spawn"}),
    ),
)

JOBS: dict[str, Cold] = {kind.told[0][0]: kind for kind in KINDS}


def play(name: str, peers: Sequence[str], log: Any, *, quick: bool) -> dict[str, dict[str, Any]]:
    """Run one kind of script in rounds; return what is to be kept, by the name of each job."""
    kind, began = JOBS[name], time.perf_counter()
    names = [
        each for each in SCRIPTS if each.partition(",")[0] in peers and each not in kind.without
    ]
    taken: dict[str, list[list[float]]] = {each: [] for each in names}
    errors: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = {each: written(kind.template, each, Path(folder)) for each in names}
        for number in range(1 if quick else 3 if kind.measure is waiting else 10):
            turn = number % len(names)
            for each in names[turn:] + names[:turn]:
                if each in errors or (number > 1 and each.partition(",")[0] in SLOW):
                    continue
                try:
                    figures = kind.measure(paths[each], log)
                except (RuntimeError, Lost, subprocess.TimeoutExpired) as error:
                    errors[each] = str(error)
                else:
                    if number or quick:  # the first round fills the disk's cache, and compiles
                        taken[each].append(figures)
    took = time.perf_counter() - began
    return {
        job: {
            "title": title,
            "limit": "",
            "unit": unit,
            "each": False,
            "items": 1,
            "bounds": [],
            "ways": {
                each: {"seconds": [figures[column] for figures in taken[each]]}
                | ({"error": errors[each]} if each in errors else {})
                for each in names
            },
            "took": took,
        }
        for column, (job, title, unit) in enumerate(kind.told)
    }
