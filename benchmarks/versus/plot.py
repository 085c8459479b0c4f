"""The results as one picture: a line for each job, a mark for each library, the farther the slower.

Small SVG, written by hand: no library is needed, and a difference between two can be read.
"""

from __future__ import annotations

import math
from html import escape
from typing import Any

from benchmarks.versus import figures

LEFT, RIGHT, TOP, STEP, BOTTOM = 330, 40, 92, 22, 40  # pixels
WIDTH = 900
LEAST, MOST = 0.1, 2_000.0  # of the axis, in times of parallelkit's

# Paul Tol's muted colors, which can be told apart by those who do not see all (SRON/EPS/TN/09-002)
COLORS = {
    "serial": "#555555",
    "parallelkit": "#000000",
    "limit": "#000000",
    "Pool": "#332288",
    "futures": "#88ccee",
    "joblib": "#cc6677",
    "loky": "#ddaa33",
    "mpire": "#117733",
    "pathos": "#999933",
    "Dask": "#aa4499",
    "Ray": "#44aa99",
}
NAMES = {
    "serial": "the loop",
    "limit": "the limit",
    "Pool": "multiprocessing.Pool",
    "futures": "ProcessPoolExecutor",
}


def across(times: float) -> float:
    """Return where on the axis so many times lie; what lies beyond stands at its end."""
    inside = min(max(times, LEAST), MOST)
    share = math.log(inside / LEAST) / math.log(MOST / LEAST)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(words)}</text>"
    )


def mark(library: str, x: float, y: float, title: str) -> str:
    """Return a mark: of the loop a stroke, ours a diamond, the limit a ring, others a dot."""
    color = COLORS[library]
    told = f"<title>{escape(title)}</title>"
    if library == "serial":
        return (
            f'<path d="M{x:.1f} {y - 7:.1f}v14" stroke="{color}" stroke-width="2.5">{told}</path>'
        )
    if library == "limit":
        return (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="none" stroke="{color}">{told}</circle>'
        )
    if library == "parallelkit":
        return f'<path d="M{x:.1f} {y - 7:.1f}l6 7l-6 7l-6 -7z" fill="{color}">{told}</path>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{color}">{told}</circle>'


def axis(bottom: float) -> list[str]:
    """Return the lines and numbers of the axis."""
    parts = []
    for times in (0.1, 0.5, 1, 2, 5, 10, 100, 1_000):
        x = across(times)
        stroke = "#000000" if times == 1 else "#dddddd"
        parts.append(f'<path d="M{x:.1f} {TOP - 8}V{bottom:.1f}" stroke="{stroke}"/>')
        parts.append(text(x, bottom + 16, f"{times:g}", anchor="middle", size=11))
    return [*parts, text(across(1), bottom + 32, "times as long as pmap(f, xs)", size=11)]


def legend(libraries: list[str]) -> list[str]:
    parts, x, y = [], 14.0, 42.0
    for library in libraries:
        name = NAMES.get(library, library)
        if x + 24 + 7.0 * len(name) > WIDTH:
            x, y = 14.0, y + 20
        parts += [mark(library, x + 6, y - 4, name), text(x + 18, y, name)]
        x += 36 + 6.6 * len(name)
    return parts


def line(job: dict[str, Any], y: float, libraries: list[str], workers: int) -> list[str]:
    """Return the marks of one job: of each library, the faster of its ways."""
    ours = figures.shown(job)
    parts = [
        text(LEFT - 12, y + 4, job["title"], anchor="end"),
        f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#eeeeee"/>',
    ]
    for library in libraries:
        way = ours if library == figures.OURS else figures.fastest(job, figures.of(job, library))
        if way:
            times = figures.times(job, way, ours)
            parts.append(mark(library, across(times), y, f"{way}: {times:.3g}"))
    if bounds := figures.limits(job, workers):
        times = figures.ratio(bounds, figures.ways(job)[ours])
        parts.append(mark("limit", across(times), y, f"the limit: {times:.3g}"))
    return parts


def drawn(results: dict[str, Any]) -> str:
    """Return the picture of all jobs that parallelkit did."""
    jobs = [job for job in results["jobs"].values() if figures.shown(job)]
    libraries = [*(name for name in results["peers"] if name != figures.OURS), figures.OURS]
    bottom = TOP + STEP * len(jobs)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + BOTTOM}"',
        ' font-family="sans-serif" role="img">',
        "<title>The time of each library, as a multiple of parallelkit's, for each job</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        text(14, 20, "The same jobs, each library in its best way: left is faster", size=15),
        *legend([*libraries, "limit"]),
        *axis(bottom),
    ]
    for number, job in enumerate(jobs):
        parts += line(job, TOP + STEP * (number + 0.5), libraries, results["workers"])
    return "\n".join([*parts, "</svg>"]) + "\n"
