"""What is to hold, and whether it does: one row for each promise about speed.

A row is judged from the results of a run alone, so it can be judged again from the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import table
from benchmarks.versus import figures, report
from benchmarks.versus.scripts import SAFE

Results = dict[str, Any]
NEWCOMER, WELL = figures.NEWCOMER, figures.WELL
EXECUTOR = "parallelkit, Executor"
BARE = "serial, split by hand"  # two bare processes that know what each item costs


@dataclass(frozen=True)
class Verdict:
    """What was measured, in words, and whether the goal holds."""

    measured: str
    held: bool


@dataclass(frozen=True)
class Goal:
    """A promise: what it is about, the jobs it needs, its words, and who judges it."""

    subject: str
    jobs: tuple[str, ...]
    words: str
    judge: Callable[[Results], Verdict]


def job(results: Results, name: str) -> figures.Job:
    found: figures.Job = results["jobs"][name]
    return found


def best_peer(found: figures.Job, *, safe: bool = False) -> str:
    names = figures.peers(found)
    if safe:
        names = [name for name in names if name.partition(",")[0] in SAFE]
    if not names:
        raise KeyError("no peer was measured")
    return figures.fastest(found, names)


def ours(found: figures.Job) -> str:
    return figures.fastest(found, figures.ours(found))


def ahead(found: figures.Job, name: str, *, safe: bool = False) -> tuple[float, str]:
    """Return how many times as long the best peer takes, and its name."""
    peer = best_peer(found, safe=safe)
    return figures.times(found, peer, name), peer


def reach(results: Results, name: str) -> tuple[float, str]:
    """Return what share of a job's limit is reached with no option, and that beside others'."""
    found, workers = job(results, name), results["workers"]
    reached = figures.efficiency(found, NEWCOMER, workers)
    shown = [best_peer(found)]
    if BARE in figures.ways(found):
        shown.append(BARE)
    others = (f"{way}: {figures.efficiency(found, way, workers):.3f}" for way in shown)
    return reached, f"{reached:.3f} ({'; '.join(others)})"


def even(results: Results) -> Verdict:
    found = job(results, "even")
    reached, words = reach(results, "even")
    times, peer = ahead(found, NEWCOMER)
    noise = max(figures.noise(found, NEWCOMER), figures.noise(found, peer))
    return Verdict(words, reached >= 0.98 and times >= 1 - noise)


def uneven(results: Results) -> Verdict:
    names = ("log-normal", "descending", "giant")
    parts = {name: reach(results, name) for name in names}
    return Verdict(
        "; ".join(f"{name} {words}" for name, (_, words) in parts.items()),
        all(reached >= 0.97 for reached, _ in parts.values()),
    )


def short(results: Results) -> Verdict:
    reached, words = reach(results, "5us")
    return Verdict(words, reached >= 0.95)


def nothing(results: Results) -> Verdict:
    found = job(results, "noop")
    slower = figures.times(found, NEWCOMER, figures.LOOP)
    times, peer = ahead(found, WELL)
    theirs = figures.times(found, peer, figures.LOOP)
    return Verdict(
        f"{slower:.2f} of the loop ({peer}: {theirs:.1f}); with workers {times:.2f} times",
        slower <= 1.03 and times >= 1.3,
    )


def cold_process(results: Results) -> Verdict:
    found = job(results, "cold-process")
    slower = figures.times(found, NEWCOMER, figures.LOOP)
    times, peer = ahead(found, NEWCOMER)
    loop = report.duration(figures.seconds(found, figures.LOOP))
    mine = report.duration(figures.seconds(found, NEWCOMER))
    return Verdict(
        f"{mine}, {slower:.2f} of the loop's {loop}; {times:.1f} times faster than {peer}",
        slower <= 1.5 and times >= 5,
    )


def cold_first(results: Results) -> Verdict:
    parts, held = [], True
    for name, where in (("cold-first", "from the call"), ("cold-import", "from the import")):
        found = job(results, name)
        times, peer = ahead(found, WELL, safe=True)
        mine = report.duration(figures.seconds(found, WELL))
        parts.append(f"{where} {mine}, {times:.2f} times faster than {peer}")
        held = held and times >= 1.5
    return Verdict("; ".join(parts), held)


def round_trips(results: Results) -> Verdict:
    """The goals were set on a machine whose pipe takes 37 us there and back."""
    parts, held = [], True
    for name, allowed in (("call", 60 / 37), ("pair", 90 / 37)):
        found = job(results, name)
        ways = [way for way in (EXECUTOR, WELL) if way in figures.ways(found)]
        way = figures.fastest(found, ways)
        micro = figures.seconds(found, way) / found["items"] * 1e6
        pipe = figures.ratio(figures.ways(found)[way], figures.limits(found, 1))
        peer = best_peer(found)
        theirs = figures.seconds(found, peer) / found["items"] * 1e6
        kind = way.partition(", ")[2]
        parts.append(f"{name} ({kind}) {micro:.0f} us, {pipe:.2f} pipes ({peer}: {theirs:.0f} us)")
        held = held and pipe <= allowed and micro < theirs
    return Verdict("; ".join(parts), held)


def records(results: Results) -> Verdict:
    found = job(results, "records")
    slower = figures.times(found, NEWCOMER, figures.LOOP)
    times, peer = ahead(found, WELL)
    noise = figures.noise(found, NEWCOMER)
    return Verdict(
        f"{slower:.2f} of the loop; with workers {times:.2f} times {peer}",
        slower <= 1 + max(0.03, noise) and times >= 1.2,
    )


def reductions(results: Results) -> Verdict:
    numbers = job(results, "reduce-numbers")
    way = ours(numbers)
    reached = figures.efficiency(numbers, way, results["workers"])
    peer = best_peer(numbers)
    theirs = figures.efficiency(numbers, peer, results["workers"])
    parts = [f"numbers {reached:.3f} ({peer}: {theirs:.3f})"]
    held = reached >= theirs * (1 - figures.noise(numbers, way))
    for name in ("reduce-arrays", "reduce-given"):
        found = job(results, name)
        times, peer = ahead(found, ours(found))
        parts.append(f"{name.removeprefix('reduce-')} {times:.1f} times {peer}")
        held = held and times >= 3
    return Verdict("; ".join(parts), held)


def waiting(results: Results) -> Verdict:
    parts, held = [], True
    for name, unit in (("idle-cpu", "seconds"), ("idle-memory", "bytes")):
        found = job(results, name)
        rivals = [each for each in figures.peers(found) if each.startswith(("joblib", "mpire"))]
        if not rivals:
            raise KeyError("neither joblib nor mpire was measured")
        peer = figures.fastest(found, rivals)
        times = figures.times(found, peer, WELL)
        mine, theirs = (report.amount(figures.seconds(found, each), unit) for each in (WELL, peer))
        parts.append(f"{mine} ({peer}: {theirs})")
        held = held and times >= 2
    return Verdict("; ".join(parts), held)


def published(results: Results) -> Verdict:
    parts, held = [], True
    for name in ("image", "counting", "model"):
        found = job(results, name)
        times, peer = ahead(found, ours(found))
        parts.append(f"{name} {times:.2f} times {peer}")
        held = held and times > 1
    return Verdict("; ".join(parts), held)


GOALS = (
    Goal(
        "400 even items of 5 ms", ("even",),
        "0.98 of the loop / workers; no peer ahead by more than noise", even,
    ),
    Goal(
        "log-normal, descending, one giant last", ("log-normal", "descending", "giant"),
        "0.97 of list scheduling on each, no option given", uneven,
    ),
    Goal(
        "200,000 items of 5 us", ("5us",),
        "0.95 of the loop / workers, no option given", short,
    ),
    Goal(
        "1,000,000 items with nothing to do", ("noop",),
        "at most 1.03 times the loop; with workers 1.3 times the best peer's throughput", nothing,
    ),
    Goal(
        "a tiny map, cold, the whole process", ("cold-process",),
        "at most 1.5 times the bare script; 5 times faster than the best peer", cold_process,
    ),
    Goal(
        "first parallel result, cold", ("cold-first", "cold-import"),
        "1.5 times faster than the best peer that needs no guard and bears threads", cold_first,
    ),
    Goal(
        "one call and wait; a map of two items, warm", ("call", "pair"),
        "at most 1.62 and 2.43 times a pipe's round trip (60 and 90 us for 37)", round_trips,
    ),
    Goal(
        "200,000 dicts both ways, light work", ("records",),
        "never slower than the loop; with workers 1.2 times the best peer", records,
    ),
    Goal(
        "reductions: 5,000,000 numbers; 64 arrays",
        ("reduce-numbers", "reduce-arrays", "reduce-given"),
        "numbers no slower than the best peer's; arrays 3 times the best peer", reductions,
    ),
    Goal(
        "import and idle workers: CPU, memory", ("idle-cpu", "idle-memory"),
        "at most half of the best of joblib and mpire", waiting,
    ),
    Goal(
        "the three that mpire and Ray publish", ("image", "counting", "model"),
        "ahead of every peer on each", published,
    ),
)  # fmt: skip


def judged(results: Results) -> list[tuple[Goal, Verdict | None]]:
    """Return each goal with its verdict, or None where what it needs was not measured."""
    verdicts = []
    for goal in GOALS:
        try:
            verdicts.append((goal, goal.judge(results)))
        except KeyError:
            verdicts.append((goal, None))
    return verdicts


def table_of(results: Results) -> str:
    """Return the goals of which everything was measured, as Markdown."""
    rows = [
        (goal.subject, goal.words, verdict.measured, "yes" if verdict.held else "**no**")
        for goal, verdict in judged(results)
        if verdict
    ]
    return table(("job", "goal", "measured", "held"), rows)
