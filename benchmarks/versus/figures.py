"""What follows from the seconds of a run: medians, limits, and ratios taken within rounds."""

from __future__ import annotations

from statistics import median
from typing import Any

Job = dict[str, Any]  # what `Stage.play` or `scripts.play` keeps of one
OURS, LOOP = "parallelkit", "serial"
NEWCOMER, WELL = f"{OURS}, newcomer", f"{OURS}, well"  # no option; the number of workers


def ways(job: Job) -> dict[str, list[float]]:
    """Return the seconds of all rounds of each way that gave the right result."""
    return {
        name: way["seconds"]
        for name, way in job["ways"].items()
        if way["seconds"] and "error" not in way
    }


def of(job: Job, library: str) -> list[str]:
    return [name for name in ways(job) if name.partition(",")[0] == library]


def ours(job: Job) -> list[str]:
    return of(job, OURS)


def shown(job: Job) -> str:
    """Return what stands for parallelkit where one way must: no option, where that was measured."""
    names = ours(job)
    return NEWCOMER if NEWCOMER in names else next(iter(names), "")


def peers(job: Job) -> list[str]:
    """Return the ways of others that had all rounds; one lucky round makes nobody the best."""
    found = {
        name: len(taken)
        for name, taken in ways(job).items()
        if name.partition(",")[0] not in {OURS, LOOP}
    }
    return [name for name, rounds in found.items() if rounds == max(found.values())]


def seconds(job: Job, name: str) -> float:
    return median(ways(job)[name])


def fastest(job: Job, names: list[str]) -> str:
    """Return the way with the least median, or nothing if there is none."""
    return min(names, key=lambda name: seconds(job, name), default="")


def limits(job: Job, workers: int) -> list[float]:
    """Return each round's limit, empty where the job has none."""
    if job["limit"] in {"cores", "loop"}:
        share = workers if job["limit"] == "cores" else 1
        return [taken / share for taken in ways(job).get(LOOP, [])]
    return [bound for bound in job.get("bounds", []) if bound]


def ratio(one: list[float], other: list[float]) -> float:
    """Return the median of the rounds' ratios; who ran in one round only has one ratio."""
    if len(one) != len(other) or not all(other):
        return median(one) / median(other) if median(other) else float("nan")
    return median(a / b for a, b in zip(one, other, strict=True))


def efficiency(job: Job, name: str, workers: int) -> float:
    """Return the limit's share of what was taken: 1 is the best possible."""
    bounds = limits(job, workers)
    return ratio(bounds, ways(job)[name]) if bounds else float("nan")


def times(job: Job, slower: str, faster: str) -> float:
    """Return how many times as long one way takes as another."""
    found = ways(job)
    return ratio(found[slower], found[faster])


def noise(job: Job, name: str) -> float:
    """Return half of what the middle half of the rounds spans, as a share of the median."""
    taken = sorted(ways(job)[name])
    quarter, middle_one = len(taken) // 4, median(taken)
    middle = taken[quarter : len(taken) - quarter]
    return max(0.01, (middle[-1] - middle[0]) / 2 / middle_one) if middle_one else 0.0
