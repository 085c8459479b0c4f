"""The doctor: `python -m parallelkit` tells what this machine gives and what pmap costs on it.

It reads what `machine` knows, has workers started and used as a script would, measures what that
took, and prints one page, or with `--json` the same as one object.  Its exit status is 1 if workers
do not work.  It measures and tells; what follows from a price is `chunking`'s to say.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import threading
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .arenas import outgoing
from .chunking import Pace
from .events import Joined
from .machine import SHM, UNKNOWN, cpu_count, cpu_reasons, memory, shared_memory
from .maps import pmap
from .segments import kind_here
from .selection import backend

if TYPE_CHECKING:
    from .backends.processes import Processes

Report = dict[str, Any]

BACKEND = "PARALLELKIT_BACKEND"
"""The environment variable that says where pmap runs items, unless the call does."""

LIMIT = 15.0  # seconds: 300 times a usual start, which a network file system can take ten-fold
FURTHER = 2  # workers started besides the first, to see what another one costs
CALLS = 15  # calls to workers that are up, 1 ms each
CHUNKS = 300  # chunks to one worker, 30 us each; this often three times
BLOCK = 32 << 20  # bytes copied: more than most processors' caches hold
PARCEL = 8 << 20  # bytes sent to a worker and back: a large message, yet only some 20 ms
REPEATS = 3  # of what takes tens of milliseconds
LENGTHS = (10, 100, 1000)  # items of a call, for which break-even is told

KEYS = (
    "works",
    "failure",
    "parallelkit",
    "python",
    "system",
    "cpus",
    "cpu_reasons",
    "load_average",
    "memory_total_bytes",
    "memory_available_bytes",
    "memory_limit_bytes",
    "memory_source",
    "segments",
    "semaphores",
    "shm_size_bytes",
    "shm_free_bytes",
    "backend",
    "start",
    "first_call_seconds",
    "further_worker_seconds",
    "warm_call_seconds",
    "chunk_seconds",
    "memory_copy_bytes_per_second",
    "worker_copy_bytes_per_second",
    "large_data_beside",
    "break_even",
)
"""Every key of the report, in order: None stands for what could not be told."""


# Looking.


def examined(limit: float) -> Report:
    """Return the report, at the latest after `limit` seconds."""
    report: Report = dict.fromkeys(KEYS)
    # In a thread, so that a worker that never answers is told of, too.
    thread = threading.Thread(target=_examine, args=(report,), daemon=True)
    thread.start()
    thread.join(limit)
    found = report | {"backend": os.environ.get(BACKEND) or "processes", "start": _way()}
    if thread.is_alive():
        found["failure"] = f"workers were started, but did not answer within {limit:g} seconds"
    found["works"] = found["failure"] is None
    return found


def _examine(report: Report) -> None:
    report["parallelkit"] = sys.modules[__package__].__version__
    report["python"] = f"{platform.python_implementation()} {platform.python_version()}"
    report["system"] = f"{platform.system()} {platform.release()} {platform.machine()}"
    try:
        for part in (_memory, _computer, _starting, _sending):
            report.update(part())
        report["break_even"] = [_break_even(report, items) for items in LENGTHS]
    except Exception as error:  # whatever it is, telling it is what we are for
        report["failure"] = f"{type(error).__name__}: {error}"


def _computer() -> Report:
    return {
        "cpus": cpu_count(),
        "cpu_reasons": [str(reason) for reason in cpu_reasons()],
        "load_average": _load(),
    }


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows, or a kernel that does not tell
        return None


def _memory() -> Report:
    found, shared = memory(), shared_memory()
    known = found.total != UNKNOWN
    return {
        "memory_total_bytes": found.total if known else None,
        "memory_available_bytes": found.available if known else None,
        "memory_limit_bytes": found.limit,
        "memory_source": found.source,
        "segments": kind_here(),
        "semaphores": shared.semaphores,
        "shm_size_bytes": shared.size,
        "shm_free_bytes": shared.free,
    }


def _way() -> str | None:
    """Return how workers are started, None if the environment asks for what there is not."""
    # Loaded here, after the first call was measured: that loads it, too.
    from .backends.start import SpawnStarter, default

    try:
        return "spawn" if default() is SpawnStarter else "zygote"
    except ValueError:
        return None


def _whereabouts(item: int) -> tuple[int, int]:
    """Return the item's square and the process that computed it."""
    return item * item, os.getpid()


def _starting() -> Report:
    """Start workers and use them; the first call is what a script's first call would be."""
    began = perf_counter()
    first = pmap(_whereabouts, [7], workers=1, backend="processes")
    cold = perf_counter() - began
    another = further()
    crew = FURTHER + 1
    warm = _median(lambda: pmap(abs, range(crew), workers=crew, backend="processes"), CALLS)
    _check(first + pmap(_whereabouts, range(100), workers=crew, backend="processes"))
    return {
        "first_call_seconds": cold,
        "further_worker_seconds": another,
        "warm_call_seconds": warm,
    }


def _check(results: list[tuple[int, int]]) -> None:
    """Raise RuntimeError unless workers gave what the loop gives."""
    squares, places = zip(*results, strict=True)
    if squares != (49, *(item * item for item in range(100))):
        raise RuntimeError(f"workers gave other results than the loop: {squares}")
    if os.getpid() in places:
        raise RuntimeError("items ran in the calling process, not in workers")


def further() -> float:
    """Return the seconds that a worker takes to start when the first is up."""
    from .backends.processes import Processes

    backend = Processes((abs, None, None), most=FURTHER + 1, share=1)
    try:
        backend.start(1)  # the warm one
        _wait_for(backend, 1)
        began = perf_counter()
        backend.start(FURTHER)
        _wait_for(backend, FURTHER)
        return (perf_counter() - began) / FURTHER
    finally:
        backend.close()


def _wait_for(backend: Processes, count: int) -> None:
    while count:
        events = [event for event, _ in backend.wait(None)]
        lost = [event for event in events if not isinstance(event, Joined)]
        if lost:
            raise RuntimeError(f"a further worker could not be started: {lost}")
        count -= len(events)


def _sending() -> Report:
    """Measure what a chunk costs, and a byte, here and on the way to a worker and back."""
    source, target = b"x" * BLOCK, memoryview(bytearray(BLOCK))
    copy = _median(lambda: target.__setitem__(slice(None), source), REPEATS)
    chunks = _median(lambda: _sent(abs, range(CHUNKS)), REPEATS)
    parcel = os.urandom(PARCEL)
    there_and_back = _median(lambda: _sent(bytes, [parcel]), REPEATS)
    place = outgoing().place(memoryview(parcel))
    if place is not None:
        outgoing().take_back(place)
    return {
        "chunk_seconds": chunks / CHUNKS,
        "memory_copy_bytes_per_second": BLOCK / copy,
        "worker_copy_bytes_per_second": 2 * PARCEL / there_and_back,
        "large_data_beside": place is not None,
    }


def _sent(fn: Callable[[Any], Any], items: Any) -> list[Any]:
    return pmap(fn, items, workers=1, chunksize=1, backend="processes")


def _median(action: Callable[[], object], times: int) -> float:
    """Return the seconds that `action` takes, the median of `times` after a first one."""
    action()
    seconds = []
    for _ in range(times):
        began = perf_counter()
        action()
        seconds.append(perf_counter() - began)
    return median(seconds)


def _break_even(report: Report, items: int) -> Report:
    """Return from how many seconds per item on workers end a call of `items` items sooner."""
    cpus = report["cpus"]
    starting = report["further_worker_seconds"] * (min(cpus, items) - 1)
    return {
        "items": items,
        "first_call_item_seconds": _least(report["first_call_seconds"] + starting, items, cpus),
        "warm_call_item_seconds": _least(report["warm_call_seconds"], items, cpus),
    }


def _least(launch: float, items: int, workers: int) -> float | None:
    """Return the least cost of an item, to 1 %, for which `Pace` would start workers."""
    for step in range(-900, 300):  # 0.1 us to 1000 s
        item = 10 ** (step / 128)
        if Pace(item=item, launch=launch).worthwhile(items, workers):
            return item
    return None


# Telling.


def page(report: Report) -> str:
    """Return the report for a reader."""
    lines = [
        f"parallelkit {report['parallelkit']} on {report['python']}, {report['system']}",
        "",
        "This machine",
        *_about_machine(report),
        "",
        "Workers",
        *_about_workers(report),
    ]
    if report["break_even"] is not None:
        lines += ["", *_about_costs(report), "", *_about_break_even(report)]
    return "\n".join(lines)


def _row(name: str, value: str, remark: str = "") -> str:
    return f"  {name:<24}{value:<12}{remark}".rstrip()


def _about_machine(report: Report) -> list[str]:
    limit, shm = report["memory_limit_bytes"], report["shm_size_bytes"]
    load = report["load_average"]
    around = [
        f"of {_size(report['memory_total_bytes'])}",
        f"limit {_size(limit)}" if limit is not None else "no limit",
        f"by {report['memory_source']}",
    ]
    means = [
        f"{SHM} {_size(shm)}" if shm is not None else f"no {SHM}",
        "semaphores work" if report["semaphores"] else "no semaphores",
        "parallelkit needs neither",
    ]
    return [
        _row("CPUs to use", _text(report["cpus"]), "; ".join(report["cpu_reasons"] or [])),
        _row(
            "load",
            "unknown" if load is None else f"{load:.1f}",
            "programs that wanted a CPU at once, last minute",
        ),
        _row("memory free", _size(report["memory_available_bytes"]), ", ".join(around)),
        _row("shared memory", _text(report["segments"]), ", ".join(means)),
    ]


def _about_workers(report: Report) -> list[str]:
    ways = {
        "zygote": "one fresh interpreter forks them all",
        "spawn": "each is a fresh interpreter",
    }
    lines = [_row("started by", _text(report["start"]), ways.get(report["start"], ""))]
    if report["works"]:
        lines.append(_row("a real call", "works", "workers gave what the loop gives"))
    else:
        lines.append(_row("a real call", "FAILED", report["failure"]))
    if report["backend"] != "processes":
        lines.append(_row("but", *_instead(report["backend"])))
    return lines


def _instead(named: str) -> tuple[str, str]:
    """Return what becomes of calls that name no backend where the environment names one."""
    try:
        backend(named)
    except ValueError:
        return "refused", f"{BACKEND}={named} names no backend, so pmap raises ValueError"
    return "unused", f"{BACKEND}={named} is set, so pmap starts none by itself"


def _about_costs(report: Report) -> list[str]:
    from .worker import IDLE

    def took(name: str) -> str:
        return _time(report[f"{name}_seconds"])

    def speed(name: str) -> str:
        return f"{report[f'{name}_copy_bytes_per_second'] / 1e9:.2g} GB/s"

    beside = report["large_data_beside"]
    way = "by shared memory" if beside else "in messages: there is no room in shared memory"
    return [
        "What starting costs",
        _row("the first call", took("first_call"), "from no process at all to a result"),
        _row("each further worker", took("further_worker")),
        _row("a later call", took("warm_call"), f"workers stay for {IDLE:g} s after a call"),
        "",
        "What sending costs",
        _row("a chunk of items", took("chunk"), "to a worker and back"),
        _row("bytes, to a worker", speed("worker"), f"each way, {way}"),
        _row("bytes, copied here", speed("memory"), "for comparison"),
    ]


def _about_break_even(report: Report) -> list[str]:
    lines = [
        "Workers pay when an item takes at least",
        _row("a call of", "first call", "later calls"),
    ]
    for row in report["break_even"]:
        cold, warm = row["first_call_item_seconds"], row["warm_call_item_seconds"]
        lines.append(_row(f"{row['items']:>4} items", _time(cold), _time(warm)))
    last = "Below that, pmap without workers= is the plain loop, and starts none."
    return [*lines, last if report["cpus"] > 1 else "With one CPU they never do: pmap is the loop."]


def _text(value: object) -> str:
    return "unknown" if value is None else str(value)


def _size(count: int | None) -> str:
    if count is None:
        return "unknown"
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    power = min(0, max(-2, math.floor(math.log10(seconds) / 3)))
    value = seconds / 1000**power
    return f"{value:{'.0f' if value >= 100 else '.2g'}} {('s', 'ms', 'us')[-power]}"


def _say(text: str) -> None:
    """Print, to a reader who may have gone."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Or the interpreter, at its end, would try to write it again and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def main(arguments: list[str] | None = None) -> int:
    """Examine this machine, print the report, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m parallelkit",
        description="Tell what this machine gives, whether workers work here, and what pmap costs.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--limit",
        type=float,
        default=LIMIT,
        metavar="SECONDS",
        help="how long workers may take to answer (default: %(default)g)",
    )
    options = parser.parse_args(arguments)
    report = examined(options.limit)
    _say(json.dumps(report, indent=2) if options.json else page(report))
    return 0 if report["works"] else 1


if __name__ == "__main__":
    status = main()
    if threading.active_count() > 1:
        os._exit(status)  # the end of workers that do not answer could be waited for in vain
    sys.exit(status)
