"""What the pages and docstrings show is so: examples run, links lead somewhere, code comes first.

A page's ```python blocks run in order as one script, without a `__main__` guard, in a fresh
process; its ```pycon blocks run as a doctest.  A block that cannot run here says so and why:
```python no-run: needs a Dask cluster
"""

from __future__ import annotations

import doctest
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import parallelkit

ROOT = Path(__file__).parent.parent
PAGES = {
    str(page.relative_to(ROOT)): page
    for page in sorted([*ROOT.glob("README.md"), *(ROOT / "docs").rglob("*.md")])
}
WITHOUT_CODE = {"docs/changelog.md"}
CODE_BY = 25  # lines: what a reader sees before scrolling
EXAMPLES = {
    str(path.relative_to(ROOT)): path for path in sorted((ROOT / "docs/examples").glob("*.py"))
}
SKIPPED = re.compile(r"no-run: \S+")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what its fence says besides, its first line and its text."""

    language: str
    remark: str
    line: int
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    fence, first, lines = "", 0, []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        mark = re.match(r" *(```+)(.*)", line)
        if not fence and mark:
            fence, first, lines = mark[1], number, []
            language, _, remark = mark[2].strip().partition(" ")
        elif fence and line.strip() == fence:
            yield Block(language, remark, first + 1, "\n".join(lines) + "\n")
            fence = ""
        elif fence:
            lines.append(line)
    assert not fence, f"the fence of line {first} is never closed"


BLOCKS = {
    f"{name}:{block.line}": (name, block) for name, page in PAGES.items() for block in blocks(page)
}
PARKED = {
    f"{place} {block.remark}": block
    for place, (_, block) in BLOCKS.items()
    if block.language in {"python", "pycon"} and block.remark
}
each_page = pytest.mark.parametrize("name", PAGES)


def script(name: str, language: str) -> str:
    """Return a page's blocks of one language, each on the lines where it stands in the page."""
    text = ""
    for page, block in BLOCKS.values():
        if page == name and block.language == language and not block.remark:
            text += "\n" * (block.line - 1 - text.count("\n")) + block.text
    return text


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder of its own, as a user would who installed the package."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        check=False,
        capture_output=True,
        text=True,
    )


def check_ran(done: subprocess.CompletedProcess[str]) -> None:
    """Fail with all that a script said, unless it ended well and complained of nothing."""
    assert (done.returncode, done.stderr) == (0, ""), f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("name", [name for name in PAGES if script(name, "python")])
def test_a_page_s_blocks_run_as_a_script(name, tmp_path):
    path = tmp_path / "page.py"
    path.write_text(script(name, "python"))

    check_ran(run([str(path)], tmp_path))


@pytest.mark.parametrize("name", [name for name in PAGES if script(name, "pycon")])
def test_a_page_s_sessions_are_as_shown(name, tmp_path):
    path = tmp_path / "page.txt"
    path.write_text(script(name, "pycon"))

    check_ran(run(["-m", "doctest", "-o", "ELLIPSIS", str(path)], tmp_path))


@pytest.mark.parametrize("place", PARKED)
def test_a_block_that_does_not_run_says_why(place):
    assert SKIPPED.match(PARKED[place].remark), "write no-run: and the reason"
    if PARKED[place].language == "python":
        compile(PARKED[place].text, place, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_quickly_when_asked_to(name, tmp_path):
    check_ran(run([str(EXAMPLES[name]), "--quick"], tmp_path))


def modules() -> list[str]:
    """Return the modules whose docstrings show something."""
    paths = [path for path in (ROOT / "parallelkit").rglob("*.py") if ">>>" in path.read_text()]
    dotted = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted(paths))
    return [name.removesuffix(".__init__") for name in dotted]


@pytest.mark.parametrize("name", modules())
def test_docstrings_are_as_shown(name):
    public = {word: getattr(parallelkit, word) for word in getattr(parallelkit, "__all__", ())}
    module = importlib.import_module(name)

    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(module, extraglobs=public | {"np": np}, optionflags=flags)

    assert result.attempted
    assert not result.failed, "see the output above"


@each_page
def test_links_lead_somewhere(name):
    page = PAGES[name]
    prose = re.sub(
        r"^ *(```+).*?^ *\1 *$|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL
    )
    targets = re.findall(r"\]\(([^)\s]+)\)", prose)
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]

    assert not [target for target in local if not leads(page, target)]


def leads(page: Path, target: str) -> bool:
    """Tell whether a link between pages leads to a file, and to a heading if it names one."""
    path, _, anchor = target.partition("#")
    end = page.parent / path if path else page
    if not end.exists():
        return False
    return not anchor or anchor in {slug(line) for line in end.read_text().splitlines()}


def slug(line: str) -> str:
    """Return the anchor that a heading gets, or nothing for another line."""
    heading = re.match(r"#+ +(.*)", line)
    return re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-") if heading else ""


@each_page
def test_code_comes_first(name):
    if name in WITHOUT_CODE:
        assert not script(name, "python"), "then it belongs to the other pages"
    else:
        assert min((block.line for block in blocks(PAGES[name])), default=9999) <= CODE_BY


@each_page
def test_a_page_says_what_it_is(name):
    assert PAGES[name].read_text().startswith("# ")


def test_there_are_pages():
    assert "README.md" in PAGES
