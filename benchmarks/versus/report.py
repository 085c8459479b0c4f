"""How results are told: a table for each job, and all of them in a file."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from benchmarks import table
from benchmarks.versus import figures
from benchmarks.versus.jobs import LIMITS


def version(name: str) -> str:
    """Return the version of a library that is a package of its own."""
    names = {"Dask": "distributed", "Ray": "ray"}
    try:
        return installed_version(names.get(name, name))
    except PackageNotFoundError:
        return ""


def amount(number: float, unit: str = "seconds") -> str:
    return f"{number / 1e6:.1f} MB" if unit == "bytes" else duration(number)


def duration(seconds: float) -> str:
    """Return seconds with a unit that suits them, in three digits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size or unit == "us":
            number = seconds / size
            return f"{number:.{0 if number >= 100 else 1 if number >= 10 else 2}f} {unit}"
    raise AssertionError


def told(name: str, job: dict[str, Any], workers: int) -> str:
    """Return the Markdown of one job, the fastest way first."""
    taken = figures.ways(job)
    calls = job["items"] if job["each"] else 1
    bounds = figures.limits(job, workers)
    rows = []
    for way in sorted(taken, key=lambda each: figures.seconds(job, each)):
        loop = figures.times(job, way, figures.LOOP) if figures.LOOP in taken else float("nan")
        count = job["ways"][way].get("count", job["items"])
        rows.append(
            (
                way,
                ("~" if count != job["items"] else "")
                + amount(figures.seconds(job, way) / calls, job.get("unit", "seconds")),
                f"{loop:.2f}",
                f"{figures.efficiency(job, way, workers):.3f}" if bounds else "",
                f"{figures.noise(job, way):.0%}",
                len(taken[way]),
            )
        )
    heads = (job["title"], "time", "loop = 1", "limit / time", "+-", "rounds")
    lines = [f"\n### {name}\n", table(heads, rows)]
    if bounds:
        lines.append(f"\nLimit: {LIMITS[job['limit']]}.")
    lines += [f"\n{way}: {what['error']}." for way, what in job["ways"].items() if "error" in what]
    lines += [f"\n{way} is left out: {why}." for way, why in job.get("left out", {}).items()]
    return "\n".join([*lines, f"\n({job['took']:.0f} s)"])


def write(results: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "versus.json").write_text(json.dumps(results, indent=1) + "\n")
