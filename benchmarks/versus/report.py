"""How results are told: a table for each job, and all of them in a file."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from benchmarks import table
from benchmarks.versus import figures, plot
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


def head(results: dict[str, Any]) -> str:
    """Return on what was measured, and with which versions."""
    versions = [f"{name} {number}" for name, number in results["peers"].items() if number]
    few = "  \nA first look (`--quick`): fewer items, few rounds." if results["quick"] else ""
    minutes = f"{results['took'] / 60:.0f} minutes"
    return (
        f"{results['machine']}; {results['workers']} workers; {', '.join(versions)}; "
        f"{minutes} in all.{few}"
    )


def cell(job: dict[str, Any], way: str) -> str:
    """Return what a way took, or a dash where it was not measured."""
    if way not in figures.ways(job):
        return "-"
    calls = job["items"] if job["each"] else 1
    return amount(figures.seconds(job, way) / calls, job.get("unit", "seconds"))


def summary(results: dict[str, Any], names: list[str] | None = None) -> str:
    """Return a row for each job: the loop, parallelkit, the best peer, and how near the limit."""
    rows = []
    for name, job in results["jobs"].items():
        if names is not None and name not in names:
            continue
        peer = figures.fastest(job, figures.peers(job))
        ours = figures.shown(job)
        bounds = figures.limits(job, results["workers"])
        near = f"{figures.efficiency(job, ours, results['workers']):.2f}" if bounds and ours else ""
        rows.append(
            (
                job["title"],
                cell(job, figures.LOOP),
                cell(job, figures.NEWCOMER),
                cell(job, figures.WELL),
                f"{cell(job, peer)} ({peer})" if peer else "-",
                near,
            )
        )
    heads = ("job", "loop", "`pmap(f, xs)`", "with `workers=`", "best peer", "limit / time")
    return table(heads, rows)


def matrix(results: dict[str, Any]) -> str:
    """Return how many times as long as parallelkit each library takes, in its better way."""
    libraries = [name for name in results["peers"] if name != figures.OURS]
    rows = []
    for job in results["jobs"].values():
        ours, cells = figures.shown(job), []
        for library in libraries:
            way = figures.fastest(job, figures.of(job, library))
            times = figures.times(job, way, ours) if way and ours else None
            cells.append("-" if times is None else f"{times:.2f}" if times < 10 else f"{times:.0f}")
        rows.append((job["title"], *cells))
    return table(("parallelkit = 1", *libraries), rows)


def page(results: dict[str, Any], goals: str) -> str:
    """Return everything, as a page of its own."""
    parts = [
        "# Side by side",
        "```console\n$ python -m benchmarks.versus --out benchmarks/results\n```",
        head(results),
        "## Goals",
        goals,
        "## Jobs",
        summary(results),
        "## Each way",
        *(told(name, job, results["workers"]).strip("\n") for name, job in results["jobs"].items()),
    ]
    return "\n\n".join(parts) + "\n"


def write(results: dict[str, Any], goals: str, folder: Path) -> None:
    """Write the results as JSON, for `pages`, as Markdown, and as a plot."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "versus.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "versus.md").write_text(page(results, goals))
    (folder / "versus.svg").write_text(plot.drawn(results))
