"""The benchmarks can be believed: they import, run, compare results, and judge by the numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.dom.minidom
from pathlib import Path

import pytest

from benchmarks.micro import counts
from benchmarks.versus import figures, goals, pages, plot, report
from benchmarks.versus.jobs import JOBS
from benchmarks.versus.jobs.hand import by_hand, dealt
from benchmarks.versus.jobs.job import Job, scheduled
from benchmarks.versus.peers import KINDS, Serial
from benchmarks.versus.work import burn

ROOT = Path(__file__).parent.parent
PEERS = {"joblib", "loky", "mpire", "pathos", "distributed", "ray"}
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "benchmarks").rglob("*.py"))
]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_all_benchmarks_import_without_the_libraries_that_they_compare():
    names = [name for name in MODULES if not name.endswith("__main__")]
    done = run("-c", f"import {', '.join(names)}, sys; print(sorted({{*sys.modules}} & {PEERS}))")

    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


# The jobs.


@pytest.mark.parametrize("name", JOBS)
def test_the_loop_does_each_job_with_few_items_and_says_the_same_twice(name):
    job, peer = JOBS[name], Serial()
    given = job.make(2, 0.1)

    once, again = (job.digest(job.run(peer, "loop", given)) for _ in range(2))

    assert once == again
    assert len(once) == 12


def test_digests_tell_results_apart():
    assert Job.digest([1, 2]) != Job.digest([2, 1])
    assert Job.digest([1]) != Job.digest([1.5])
    assert Job.digest({"a": 1, "b": 2}) == Job.digest({"b": 2, "a": 1})


@pytest.mark.parametrize("name", JOBS)
def test_each_library_has_two_ways_or_a_reason(name):
    job = JOBS[name]
    for peer in KINDS:
        ways = {f"{peer}/{way}" for way in job.names(peer)}
        wanted = {f"{peer}/newcomer", f"{peer}/well"} if peer != "serial" else {"serial/loop"}
        assert wanted <= ways | set(job.left_out)
    assert all(way.partition("/")[0] in KINDS for way in [*job.ways, *job.left_out])


@pytest.mark.parametrize("items", [[3] * 7, [5, 1, 4, 2, 3, 9], [1]])
def test_bare_processes_share_what_they_know_to_be_equal_and_give_the_loops_results(items):
    shares = dealt(items)

    assert sorted(position for share in shares for position in share) == list(range(len(items)))
    loads = [sum(items[position] for position in share) for share in shares]
    assert max(loads) - min(loads) <= min(items)
    assert by_hand(burn)(None, items) == items


def test_list_scheduling_gives_the_next_item_to_who_is_free():
    assert scheduled([3, 1, 1, 1], 2) == 3
    assert scheduled([1, 1, 1, 3], 2) == 4
    assert scheduled([], 2) == 0


# What follows from the seconds.


def job(limit: str = "cores", bounds: tuple[float, ...] = (), **ways: list[float]) -> dict:
    """Return what is kept of a job; a way `Pool__well` is `Pool, well`."""
    return {
        "title": "made up",
        "limit": limit,
        "each": False,
        "items": 1,
        "bounds": list(bounds),
        "left out": {},
        "took": 1.0,
        "ways": {
            name.replace("__", ", "): {"seconds": seconds, "count": 1}
            for name, seconds in ways.items()
        },
    }


def results(**jobs: dict) -> dict:
    return {
        "machine": "a machine",
        "workers": 2,
        "quick": False,
        "peers": {"serial": "", "parallelkit": "1.0", "Pool": ""},
        "took": 60.0,
        "jobs": {name.replace("_", "-"): each for name, each in jobs.items()},
    }


def test_ratios_are_taken_within_rounds():
    # The machine was slow in the second round, for both.
    made = job(serial=[2.0, 20.0, 2.2], parallelkit__newcomer=[1.0, 10.0, 1.1])

    assert figures.efficiency(made, figures.NEWCOMER, 2) == pytest.approx(1.0)
    assert figures.times(made, "serial", figures.NEWCOMER) == pytest.approx(2.0)


def test_a_way_with_a_wrong_result_is_no_way():
    made = job(serial=[1.0], Pool__well=[0.1], Pool__newcomer=[0.4])
    made["ways"]["Pool, well"]["error"] = "its result is not the loop's"

    assert figures.peers(made) == ["Pool, newcomer"]
    assert "Pool, well: its result is not the loop's." in report.told("x", made, 2)


def test_one_lucky_round_makes_nobody_the_best_peer():
    made = job(serial=[2.0, 2.0], Pool__well=[1.1, 1.2], Pool__newcomer=[1.0])

    assert figures.peers(made) == ["Pool, well"]


EVEN = {"serial": [2.0], "Pool__well": [1.05]}


@pytest.mark.parametrize(
    ("ours", "pool", "held"), [(1.01, 1.05, True), (1.05, 1.06, False), (1.01, 0.9, False)]
)
def test_the_goal_for_even_items(ours, pool, held):
    made = results(even=job(serial=[2.0], parallelkit__newcomer=[ours], Pool__well=[pool]))

    assert verdict(made, "even").held is held


def verdict(made: dict, needed: str) -> goals.Verdict:
    """Return the verdict about the goal that needs a job."""
    (found,) = [verdict for goal, verdict in goals.judged(made) if needed in goal.jobs]
    assert found is not None
    return found


@pytest.mark.parametrize(("newcomer", "well", "held"), [(1.02, 2, True), (1.1, 2, False)])
def test_the_goal_for_items_with_nothing_to_do(newcomer, well, held):
    made = results(
        noop=job(
            "loop",
            serial=[1.0],
            parallelkit__newcomer=[newcomer],
            parallelkit__well=[well],
            Pool__well=[3.7],
        )
    )

    assert verdict(made, "noop").held is held
    assert "with workers 1.85 times" in verdict(made, "noop").measured


def test_uneven_items_are_judged_by_the_measured_bound_and_by_each_of_the_three():
    good = job("list", (1.0,), serial=[2.0], parallelkit__newcomer=[1.02], Pool__well=[1.2])
    poor = job("list", (1.0,), serial=[2.0], parallelkit__newcomer=[1.10], Pool__well=[1.2])

    assert verdict(results(log_normal=good, descending=good, giant=good), "giant").held
    assert not verdict(results(log_normal=good, descending=poor, giant=good), "giant").held


def test_round_trips_are_judged_in_pipes_so_that_a_slower_machine_does_not_fail():
    def calls(micro: float, pipe: float) -> dict:
        made = job(
            "pipe", (pipe * 1e-6,), serial=[1e-7], parallelkit__well=[micro * 1e-6],
            Pool__well=[300e-6],
        )  # fmt: skip
        return made | {"each": True}

    assert verdict(results(call=calls(60, 37), pair=calls(90, 37)), "call").held
    assert verdict(results(call=calls(120, 74), pair=calls(180, 74)), "call").held
    assert not verdict(results(call=calls(70, 37), pair=calls(90, 37)), "call").held


def test_a_goal_whose_jobs_were_not_run_has_no_verdict_and_no_row():
    made = results(even=job(serial=[2.0], parallelkit__newcomer=[1.0], Pool__well=[1.1]))

    assert [goal.jobs for goal, verdict in goals.judged(made) if verdict] == [("even",)]
    assert len(goals.table_of(made).splitlines()) == 3


def test_goals_need_jobs_that_there_are():
    from benchmarks.versus import scripts

    known = {*JOBS, *(name for kind in scripts.KINDS for name, _, _ in kind.told)}
    assert {name for goal in goals.GOALS for name in goal.jobs} <= known


# How it is told.


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(12.34, "12.3 s"), (0.5, "500 ms"), (0.00123, "1.23 ms"), (37e-6, "37.0 us"), (0, "0.00 us")],
)
def test_durations_have_a_unit_that_suits_them(seconds, words):
    assert report.duration(seconds) == words


def test_the_picture_is_svg_and_names_every_job_and_library():
    made = results(even=job(**EVEN, parallelkit__newcomer=[1.0]))

    picture = plot.drawn(made)

    xml.dom.minidom.parseString(picture)
    for words in ("made up", "multiprocessing.Pool", "the loop", "the limit", "parallelkit"):
        assert words in picture


def test_only_what_stands_between_the_marks_is_written_anew():
    page = (
        "before\n<!-- from benchmarks/versus, head: begin -->\nold\n"
        "<!-- from benchmarks/versus, head: end -->\nafter\n"
    )
    made = results(even=job(**EVEN, parallelkit__newcomer=[1.0]))

    text = pages.filled(page, made)

    assert text.startswith("before\n<!--")
    assert text.endswith("-->\nafter\n")
    assert "a machine; 2 workers" in text
    assert "old" not in text
    assert pages.filled(text, made) == text


def test_the_pages_have_marks_for_what_is_known():
    for name in pages.PAGES:
        names = [found["name"] for found in pages.BLOCK.finditer((ROOT / name).read_text())]
        assert names
        assert set(names) <= {*pages.BLOCKS, *pages.OF_SCALE}


# Counts.


def test_a_step_may_take_five_percent_more_and_no_more():
    rows, worse = counts.compared(
        {"a": 104.0, "b": 106.0, "c": 50.0, "d": 1.0}, {"a": 100.0, "b": 100.0, "c": 100.0}
    )

    assert worse == ["b"]
    assert [row[-1] for row in rows] == ["+4.0%", "+6.0%", "-50.0%", "new"]


def test_where_nothing_can_be_counted_the_check_says_why_and_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr(counts, "reason", lambda: "there is no valgrind here")

    assert counts.check() == 0
    assert capsys.readouterr().out == "left out: there is no valgrind here\n"


def test_counts_of_another_python_are_not_compared(monkeypatch, capsys):
    monkeypatch.setattr(counts, "build", lambda: "another")
    monkeypatch.setattr(counts, "reason", lambda: "")

    assert counts.check() == 0
    assert capsys.readouterr().out == "left out: counts.json has no counts for another\n"


def test_a_step_that_takes_more_fails_the_check(monkeypatch, capsys):
    monkeypatch.setattr(counts, "reason", lambda: "")
    monkeypatch.setattr(counts, "kept", lambda: {counts.build(): {"wire": 100.0}})

    assert counts.check(lambda: {"wire": 100.0}) == 0
    assert counts.check(lambda: {"wire": 110.0}) == 1
    assert "more than 5% above counts.json: wire" in capsys.readouterr().out


# The whole.


@pytest.mark.slow
def test_a_quick_run_of_few_jobs_writes_what_it_measured(tmp_path):
    done = run(
        "-m", "benchmarks.versus", "--quick", "--jobs", "5us,pair,cold-process",
        "--peers", "Pool", "--out", str(tmp_path),
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads((tmp_path / "versus.json").read_text())
    assert list(found["jobs"]) == ["5us", "pair", "cold-process"]
    for each in found["jobs"].values():
        assert {"serial", "parallelkit, newcomer", "Pool, well"} & set(figures.ways(each))
        assert not [way for way in each["ways"].values() if "error" in way]
    assert (tmp_path / "versus.md").read_text().startswith("# Side by side\n")
    xml.dom.minidom.parse(str(tmp_path / "versus.svg"))


def test_a_name_that_there_is_not_is_refused():
    done = run("-m", "benchmarks.versus", "--jobs", "none")

    assert done.returncode == 1
    assert done.stderr.startswith("no such name: none; there are noop, 5us,")
