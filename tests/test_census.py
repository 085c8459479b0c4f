"""The example that the README begins with: a real program, run as a user would run it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scripts import script

CENSUS = Path(__file__).parent.parent / "docs/examples/source_census.py"
ROW = re.compile(
    r"^(plain loop|pmap, cold|pmap, warm) +[\d.]+ +[\d.]+  ([0-9a-f]{64})$", re.MULTILINE
)


def census(where: Path, *arguments: str, **extra: str) -> str:
    """Run the census on every twentieth file; return what it printed."""
    return script(CENSUS.read_text(), "--quick", *arguments, where=where, **extra)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["--workers", "2"]])
def test_loop_and_pmap_find_the_same(tmp_path, arguments):
    printed = census(tmp_path, *arguments)
    rows = dict(ROW.findall(printed))

    assert list(rows) == ["plain loop", "pmap, cold", "pmap, warm"]
    assert len(set(rows.values())) == 1
    assert printed.endswith("the results are the same\n")


@pytest.mark.slow
def test_it_finds_what_is_there(tmp_path):
    printed = census(tmp_path, PARALLELKIT_BACKEND="serial")
    files = int(re.search(r", (\d+) files$", printed, re.MULTILINE)[1])
    failed = int(re.search(r"^(\d+) files could not be measured$", printed, re.MULTILINE)[1])
    measured = int(re.search(r"^in all +([\d,]+)", printed, re.MULTILINE)[1].replace(",", ""))

    assert measured + failed == files
    assert measured > 10  # every twentieth of what even a small installation has
    assert len(re.findall(r"^ +\d+  \w+  \(.*, line \d+\)$", printed, re.MULTILINE)) == 10


@pytest.mark.slow
def test_results_that_differ_are_told_and_fail(tmp_path):
    # A name that tells processes apart makes the loop's results differ from the workers'.
    source = CENSUS.read_text()
    before = "return name, measure("
    assert before in source

    changed = source.replace(before, "return f'{os.getpid()}/{name}', measure(")
    printed = script(changed, "--quick", "--workers", "1", where=tmp_path, status=1)

    assert "\nTHE RESULTS DIFFER\n" in printed
