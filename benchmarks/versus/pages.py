"""Put the results of the last run into the pages: what stands between two marks is written anew.

To run: python -m benchmarks.versus.pages [--results DIR] [--check]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import ROOT, scale
from benchmarks.versus import goals, plot, report

PICTURE = "docs/explanation/versus.svg"
SHORT = ["noop", "5us", "even", "giant", "array-results", "records", "cold-process", "model"]

Results = dict[str, Any]

OF_SCALE: dict[str, Callable[[Results], str]] = {
    "prices": scale.prices_table,
    "checked": scale.checked,
    "scaled": scale.scaled,
}
BLOCKS: dict[str, Callable[[Results], str]] = {
    "head": report.head,
    "goals": goals.table_of,
    "jobs": report.summary,
    "libraries": report.matrix,
    "short": lambda results: f"{report.summary(results, SHORT)}\n\n{report.head(results)}",
}
PAGES = ("README.md", "docs/explanation/performance.md")
BLOCK = re.compile(
    r"(<!-- from benchmarks/versus, (?P<name>\w+): begin -->\n).*?"
    r"(<!-- from benchmarks/versus, (?P=name): end -->)",
    re.DOTALL,
)


def filled(page: str, results: Results, scaled: Results | None = None) -> str:
    """Return the text of a page with the blocks made anew for which there are results."""

    def block(found: re.Match[str]) -> str:
        of_scale = OF_SCALE.get(found["name"])
        if of_scale:
            text = of_scale(scaled) if scaled else None
        else:
            text = BLOCKS[found["name"]](results)
        return found[0] if text is None else f"{found[1]}\n{text}\n\n{found[3]}"

    return BLOCK.sub(block, page)


def main() -> None:
    """Write the pages and the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results", metavar="DIR")
    parser.add_argument(
        "--check", action="store_true", help="only tell whether they are up to date"
    )
    chosen = parser.parse_args()
    results = json.loads((chosen.results / "versus.json").read_text())
    path = chosen.results / "scale.json"
    scaled = json.loads(path.read_text()) if path.exists() else None
    wanted = {ROOT / name: filled((ROOT / name).read_text(), results, scaled) for name in PAGES}
    wanted[ROOT / PICTURE] = plot.drawn(results)
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)} {'is stale' if chosen.check else 'written'}")
        if not chosen.check:
            path.write_text(wanted[path])
    if chosen.check and stale:
        sys.exit(1)


if __name__ == "__main__":
    main()
