"""The same jobs in the loop, in every library that is installed, and in parallelkit.

To run: python -m benchmarks.versus [--quick] [--jobs NAMES] [--peers NAMES] [--out DIR]
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import machine_line
from benchmarks.versus import goals, report, scripts
from benchmarks.versus.jobs import JOBS
from benchmarks.versus.peers import KINDS, WORKERS, installed
from benchmarks.versus.stage import Pace, Stage
from benchmarks.versus.work import per_microsecond

ALWAYS = ("serial", "parallelkit")


def chosen_of(text: str, known: list[str]) -> list[str]:
    """Return the names that a comma-separated list has, in the order in which they are known."""
    names = text.split(",") if text else known
    if unknown := sorted(set(names) - set(known)):
        raise SystemExit(f"no such name: {', '.join(unknown)}; there are {', '.join(known)}")
    return [name for name in known if name in names]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer items, for a first look")
    parser.add_argument(
        "--jobs", default="", metavar="NAMES", help=", ".join([*JOBS, *scripts.JOBS])
    )
    parser.add_argument("--peers", default="", metavar="NAMES", help=", ".join(KINDS))
    parser.add_argument("--out", type=Path, metavar="DIR", help="write versus.md, .json and .svg")
    return parser.parse_args()


def measured(jobs: list[str], peers: list[str], *, quick: bool) -> dict[str, Any]:
    """Play all jobs, telling each as it ends; return everything that was measured."""
    loops = per_microsecond()
    results: dict[str, Any] = {
        "machine": machine_line(),
        "workers": WORKERS,
        "quick": quick,
        "peers": {name: report.version(name) for name in peers},
        "jobs": {},
    }
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        if plain := [name for name in jobs if name in JOBS]:
            stage = Stage(peers, loops, Pace(quick=quick), log)
            try:
                for name in plain:
                    results["jobs"][name] = stage.play(JOBS[name])
                    print(report.told(name, results["jobs"][name], WORKERS), flush=True)
            finally:
                stage.close()
            results["lost"] = stage.lost
        for name in jobs:
            if name in scripts.JOBS:
                for part, found in scripts.play(name, peers, log, quick=quick).items():
                    results["jobs"][part] = found
                    print(report.told(part, found, WORKERS), flush=True)
        if results.get("lost"):
            log.seek(0)
            sys.stderr.write(log.read()[-4000:])
    results["took"] = time.perf_counter() - began
    return results


def main() -> None:
    """Measure, print, and write."""
    chosen = parsed()
    # However it is ended, the processes that it stopped are ended with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each fresh process compiles everything
    known = [name for name in KINDS if installed(name)]
    if missing := [name for name in KINDS if name not in known]:
        print(f"Not installed, and left out: {', '.join(missing)}.\n")
    if chosen.quick and not chosen.peers:
        known = [name for name in known if name not in scripts.SLOW]
        print(f"Left out of a first look, as they take long to start: {', '.join(scripts.SLOW)}.\n")
    peers = chosen_of(chosen.peers, known)
    peers = [*ALWAYS, *(name for name in peers if name not in ALWAYS)]
    jobs = chosen_of(chosen.jobs, [*JOBS, *scripts.JOBS])
    print(machine_line(), flush=True)
    results = measured(jobs, peers, quick=chosen.quick)
    verdicts = goals.table_of(results)
    print(f"\n{verdicts}\n\n{results['took']:.0f} s")
    if chosen.out:
        report.write(results, verdicts, chosen.out)


if __name__ == "__main__":
    main()
