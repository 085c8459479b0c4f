"""How many instructions a step of each room takes: a number that a busy machine does not change.

    python -m benchmarks.micro.counts [--check | --write]

The loads run under valgrind, which counts what the processor is told to do outside the kernel.  A
load runs for some steps and for twice as many, so that the difference has no beginning and no end
in it.  With `--check`, a step that takes over 5 % more than `counts.json` says fails; `--write`
puts what was counted there.  The counts belong to one build of Python, as another compiler would
give others; where there are none for this one, or no valgrind, the check says so and is left out.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import ROOT, machine_line, table

TOLERANCE = 0.05
KEPT = Path(__file__).with_name("counts.json")

Counts = dict[str, float]


def build() -> str:
    """Return which Python this is, as far as it decides about instructions."""
    return (
        f"{platform.python_implementation()} {platform.python_version()}, "
        f"{platform.python_compiler()}, {platform.machine()}"
    )


def reason() -> str:
    """Return why nothing can be counted here, or nothing."""
    if sys.platform != "linux":
        return "valgrind's counts are for Linux"
    return "" if shutil.which("valgrind") else "there is no valgrind here"


def steady() -> dict[str, tuple[Callable[[], Callable[[int], object]], int]]:
    """Return the loads that always take the same instructions."""
    from benchmarks.micro.loads import LOADS, UNSTEADY

    return {name: load for name, load in LOADS.items() if name not in UNSTEADY}


def mark() -> None:
    """Call what valgrind is told to look out for: whatever was counted is written, and anew."""
    os.getloadavg()


def steps_under_valgrind() -> None:
    """Run all loads, each for some steps to warm up, as many again, and twice as many."""
    gc.disable()  # it would look at everything that other loads left
    for prepare, steps in steady().values():
        run, half = prepare(), steps // 2
        run(half)
        mark()
        run(half)
        mark()
        run(2 * half)
        mark()


def counted() -> Counts:
    """Return the instructions of a step of each load."""
    loads = steady()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts"
        command = [
            "valgrind", "--tool=callgrind", "--dump-before=getloadavg",
            f"--callgrind-out-file={out}", sys.executable, "-c",
            "from benchmarks.micro.counts import steps_under_valgrind as run; run()",
        ]  # fmt: skip
        # Nothing of the environment but what it takes to find the packages.
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": str(ROOT),
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"valgrind ended with {done.returncode}:\n{done.stderr[-2000:]}")
        dumps = [total(Path(f"{out}.{number + 1}")) for number in range(3 * len(loads))]
    counts = {}
    for number, (name, (_, steps)) in enumerate(loads.items()):
        once, twice = dumps[3 * number + 1 : 3 * number + 3]
        counts[name] = round((twice - once) / (steps // 2), 1)
    return counts


def total(dump: Path) -> int:
    """Return the instructions in one of valgrind's files."""
    found = re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE)
    assert found, f"{dump} has no total"
    return int(found[1])


def kept() -> dict[str, Counts]:
    """Return the counts that were written, by the build of Python."""
    return json.loads(KEPT.read_text()) if KEPT.exists() else {}


def compared(now: Counts, before: Counts) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return the rows of the table, and the names of the loads that take more than they may."""
    rows, worse = [], []
    for name, count in now.items():
        was = before.get(name)
        change = f"{count / was - 1:+.1%}" if was else "new"
        rows.append((name, f"{count:,.0f}", f"{was:,.0f}" if was else "-", change))
        if was and count > was * (1 + TOLERANCE):
            worse.append(name)
    return rows, worse


def check(count: Callable[[], Counts] = counted) -> int:
    """Compare with what was written; return the exit status."""
    before = kept().get(build())
    if why := reason() or ("" if before else f"{KEPT.name} has no counts for {build()}"):
        print(f"left out: {why}")
        return 0
    assert before is not None
    rows, worse = compared(count(), before)
    print(table(("instructions a step", "now", "before", "change"), rows))
    if worse:
        print(
            f"\nmore than {TOLERANCE:.0%} above {KEPT.name}: {', '.join(worse)}\n"
            "if that is meant, run: python -m benchmarks.micro.counts --write"
        )
    return 1 if worse else 0


def main() -> None:
    """Count, and print, check or write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="fail if a step takes 5 % more")
    action.add_argument("--write", action="store_true", help="keep what is counted")
    chosen = parser.parse_args()
    if chosen.check:
        sys.exit(check())
    if why := reason():
        raise SystemExit(f"nothing can be counted: {why}")
    counts = counted()
    rows, _ = compared(counts, kept().get(build(), {}))
    print(machine_line(), end="\n\n")
    print(table(("instructions a step", "now", "before", "change"), rows))
    if chosen.write:
        KEPT.write_text(json.dumps(kept() | {build(): counts}, indent=1) + "\n")


if __name__ == "__main__":
    main()
