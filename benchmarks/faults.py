"""What becomes of a run in which one item goes wrong, here and in the peers.

    python -m benchmarks.faults [--quick]

Each row is a script of its own, run in a fresh process: 20 items on 2 workers, of which one does
what the row's group says.  Each library is used in the way that lets it keep most of the other
results: `apply_async` (multiprocessing.Pool, mpire), `submit` (ProcessPoolExecutor), an unordered
generator (joblib), `on_error="return"` (parallelkit); and the bad item is asked for last, so a call
that waits for it for ever still has the others.  A script that is not done after 15 seconds hangs
and is ended.  Processes that are left are counted when a script has ended, after up to 3 seconds.
`--quick` tries the first and the last fault only.  Needs psutil; POSIX only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks import ROOT, machine_line, quick, table

LIMIT = 15  # seconds after which a script is taken to hang: its good items take 0.1 s together
LEFT = 3.0  # seconds that processes have to be gone after the end of the script
ITEMS, BAD = 20, 5
WORDS = 60  # characters of a message that are shown
MARK = "PARALLELKIT_BENCHMARK"  # in the environment of a script and of all that it starts

TASK = """
import json, os, signal, sys, threading, time

class Awkward(Exception):
    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")

def fault():
    FAULT

def task(x):
    time.sleep(0.01)
    return fault() if x == BAD else x

def tell(x, outcome):
    failed = isinstance(outcome, BaseException)
    text = f"{type(outcome).__name__}: {outcome}" if failed else repr(outcome)
    os.write(1, (json.dumps([os.getpid(), x, failed, text]) + "\\n").encode())

def attempt(get, x):
    try:
        tell(x, get())
    except BaseException as error:
        tell(x, error)

order = sorted(range(ITEMS), key=lambda x: x == BAD)
"""

LIBRARIES = {
    "multiprocessing.Pool": """
from multiprocessing import get_context

def call():
    with get_context(START).Pool(2) as pool:
        asked = [pool.apply_async(task, (x,)) for x in range(ITEMS)]
        for x in order:
            attempt(lambda: asked[x].get(TIMEOUT), x)
""",
    "ProcessPoolExecutor": """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

def call():
    with ProcessPoolExecutor(2, get_context(START)) as pool:
        asked = [pool.submit(task, x) for x in range(ITEMS)]
        for x in order:
            attempt(lambda: asked[x].result(TIMEOUT), x)
""",
    "joblib": """
from joblib import Parallel, delayed

def call():
    parallel = Parallel(2, return_as="generator_unordered", timeout=TIMEOUT)
    try:
        for value in parallel(delayed(task)(x) for x in range(ITEMS)):
            tell(value if isinstance(value, int) else BAD, value)
    except BaseException as error:
        tell(BAD, error)
""",
    "mpire": """
from mpire import WorkerPool

def call():
    with WorkerPool(2, start_method=START or "fork") as pool:
        asked = [pool.apply_async(task, (x,), task_timeout=TIMEOUT) for x in range(ITEMS)]
        for x in order:
            attempt(asked[x].get, x)
""",
    "parallelkit": """
from parallelkit import pmap

def call():
    if START:
        os.environ["PARALLELKIT_START"] = START
    found = pmap(task, range(ITEMS), workers=2, timeout=TIMEOUT, on_error="return")
    for x in order:
        tell(x, found[x])
""",
}

GUARDED = """
if __name__ == "__main__":
    os.environ["CALLER"] = str(os.getpid())
    call()
"""


class Fault(NamedTuple):
    """One thing that goes wrong, and what is special about the script in which it does."""

    does: str
    timeout: float | None = None
    start: str | None = None
    guarded: bool = True


FAULTS = {
    "its worker is killed (SIGKILL)": Fault("os.kill(os.getpid(), signal.SIGKILL)"),
    "it calls os._exit(3)": Fault("os._exit(3)"),
    "it calls sys.exit(3)": Fault("sys.exit(3)"),
    "its exception cannot be unpickled": Fault("raise Awkward(1, 'no')"),
    "its result cannot be pickled": Fault("return threading.Lock()"),
    "it is stuck, with a time limit of 5 s": Fault("time.sleep(3600)", timeout=5.0),
    "nothing, but there is no __main__ guard, under spawn": Fault(
        "return BAD", start="spawn", guarded=False
    ),
    "the caller is killed (SIGKILL)": Fault(
        "os.kill(int(os.environ['CALLER']), signal.SIGKILL); time.sleep(3600)"
    ),
}


class Result(NamedTuple):
    """What came of one script."""

    end: str
    seen: str
    kept: str
    left: str


def source(library: str, fault: Fault) -> str:
    """Return the script of a row."""
    settings = f"ITEMS, BAD, START, TIMEOUT = {ITEMS}, {BAD}, {fault.start!r}, {fault.timeout!r}\n"
    task = TASK.replace("FAULT", fault.does)
    return settings + task + LIBRARIES[library] + (GUARDED if fault.guarded else "\ncall()\n")


def attempt(library: str, fault: Fault) -> Result:
    """Run the script of a row to its end, or to its limit, and see what it leaves."""
    if library in ("joblib", "mpire") and find_spec(library) is None:
        return Result("not installed", "", "", "")
    mark = uuid.uuid4().hex
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.py"
        script.write_text(source(library, fault))
        out, err = Path(folder) / "out", Path(folder) / "err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            child = subprocess.Popen(
                [sys.executable, "-u", str(script)],
                cwd=folder,
                env={**os.environ, MARK: mark, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
            status, left = watched(child, mark)
        told = [json.loads(line) for line in out.read_text().splitlines() if line[:1] == "["]
        complaints = err.read_text(errors="replace").splitlines()
    return judged(status, [each for each in told if each[0] == child.pid], complaints, left)


def watched(child: subprocess.Popen[bytes], mark: str) -> tuple[int | None, int]:
    """Return the script's status, None if it hangs, and how many processes it leaves."""
    try:
        status: int | None = child.wait(LIMIT)
    except subprocess.TimeoutExpired:
        status = None
    _, alive = psutil.wait_procs(marked(mark), LEFT if status is not None else 0)
    ended(mark)
    child.wait()
    return status, len([each for each in alive if each.pid != child.pid])


def marked(mark: str) -> list[psutil.Process]:
    """Return the processes that a script and all it started are."""
    return [each for each in psutil.process_iter() if _environment(each).get(MARK) == mark]


def _environment(process: psutil.Process) -> dict[str, Any]:
    try:
        environment: dict[str, Any] = process.environ()
    except psutil.Error:  # another user's, or gone
        return {}
    return environment


def ended(mark: str) -> None:
    """End all that is left of a script, also what it starts meanwhile."""
    while left := marked(mark):
        for each in left:
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, 1.0)


def judged(status: int | None, told: list[Any], complaints: list[str], left: int) -> Result:
    """Return the row of a script that ended with `status`, said this and that, and left so many."""
    if status == -signal.SIGKILL:
        return Result("was killed", "", "", str(left))
    bad = [text for _, x, _, text in told if x == BAD]
    kept = len([x for _, x, failed, _ in told if x != BAD and not failed])
    ends = {None: "hung", 0: "finished"}
    end = ends.get(status, f"exit code {status}")
    seen = _shown(bad[0] if bad else _error(complaints))
    return Result(end, seen, f"{kept} of {ITEMS - 1}", "" if status is None else str(left))


def _error(complaints: Iterable[str]) -> str:
    """Return the first line that looks like the end of a traceback, with what follows it."""
    lines: Iterator[str] = iter(complaints)
    for line in lines:
        name = line.partition(":")[0]
        if name.endswith(("Error", "Exception", "Exit")) and " " not in name:
            return " ".join([line, *(each.strip() for each in list(lines)[:3])])
    return ""


def _shown(text: str) -> str:
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= WORDS else f"{line[: WORDS - 3]}..."


def versions() -> str:
    """Return which peers were tried."""
    found = []
    for name in ("joblib", "mpire"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found)


def main() -> None:
    """Print the table."""
    names = list(FAULTS)
    if quick(__doc__):
        names = [names[0], names[-1]]
    pairs = [(name, library) for name in names for library in LIBRARIES]
    # Two at a time: most of them wait most of the time.
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda pair: attempt(pair[1], FAULTS[pair[0]]), pairs))
    print(f"{machine_line()}; {versions()}", end="\n\n")
    rows = [
        (name if library == next(iter(LIBRARIES)) else "", library, *result)
        for (name, library), result in zip(pairs, results, strict=True)
    ]
    print(table(("the bad item", "library", "the call", "is told", "others kept", "left"), rows))


if __name__ == "__main__":
    main()
