"""A census of Python's own standard library: every source file read, parsed and measured.

The same function goes over the same files three times: in a plain loop, in a first `pmap` that
starts its workers, and in a second one that finds them there.  The three results must be the same,
digest by digest; the exit status is 1 if they are not.  A file that cannot be read or parsed is
counted and named, and stops nothing.

This is a script without a `__main__` guard, and needs none.

    python docs/examples/source_census.py [--quick] [--workers N]
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import platform
import sys
import sysconfig
import tokenize
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from parallelkit import cpu_count, pmap

LIBRARY = Path(sysconfig.get_path("stdlib"))
NOT_OURS = {"site-packages", "dist-packages", "__pycache__"}
QUICK = 20  # with --quick, every twentieth file
SHOWN = 12  # packages in the table; the rest is one line
TOP = 10  # functions in the list of the most complex ones
ALONE = "(single modules)"

Outcome = tuple[str, "Measures | str"]
"""A file's name and its measures, or why it has none."""

FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
BRANCHES = ast.If | ast.For | ast.AsyncFor | ast.While | ast.ExceptHandler | ast.IfExp
BLOCKS = (
    FUNCTIONS | ast.ClassDef | ast.If | ast.For | ast.AsyncFor | ast.While
    | ast.With | ast.AsyncWith | ast.Try | ast.TryStar | ast.Match
)  # fmt: skip


class Measures(NamedTuple):
    """What is told of one file."""

    size: int  # bytes
    lines: int
    code: int  # lines that are neither blank nor a comment alone
    functions: int
    classes: int
    depth: int  # of blocks within blocks
    complexity: int  # the sum over its functions
    most: int  # complexity of its most complex function
    top: tuple[tuple[int, str, int], ...]  # complexity, name and line of its most complex ones


# The function that both the loop and pmap call, and what it is made of.


def examine(path: Path) -> Outcome:
    """Return what there is to tell of the source file at `path`."""
    name = path.relative_to(LIBRARY).as_posix()
    try:
        return name, measure(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return name, f"{type(error).__name__}: {error}"


def measure(source: bytes) -> Measures:
    """Return the measures of one file's text."""
    encoding, _ = tokenize.detect_encoding(BytesIO(source).readline)
    lines = source.decode(encoding).splitlines()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's tests hold odd escapes on purpose
        tree = ast.parse(source)
    code = sum(1 for line in lines if (text := line.strip()) and not text.startswith("#"))
    depth, classes, functions = explore(tree)
    counts = [complexity for complexity, _, _ in functions]
    total, most = sum(counts), max(counts, default=0)
    top = tuple(sorted(functions, key=lambda each: (-each[0], each[2]))[:TOP])
    return Measures(len(source), len(lines), code, len(counts), classes, depth, total, most, top)


def explore(tree: ast.Module) -> tuple[int, int, list[tuple[int, str, int]]]:
    """Return the depth of a tree, its classes, and each function's complexity, name and line.

    Complexity is McCabe's: one, and one for each place where the function can go two ways.
    """
    deepest = classes = 0
    functions = [("", 0)]
    branches = [0]  # by function; the first is the module itself, which is not told
    waiting: list[tuple[ast.AST, int, int]] = [(tree, 0, 0)]
    while waiting:  # a stack, not recursion: some test files nest deeper than Python would
        node, depth, owner = waiting.pop()
        if isinstance(node, FUNCTIONS):
            owner = len(functions)
            functions.append((node.name, node.lineno))
            branches.append(1)
        classes += isinstance(node, ast.ClassDef)
        branches[owner] += decisions(node)
        deepest = max(deepest, depth)
        inner = depth + isinstance(node, BLOCKS)
        waiting += [
            (child, depth if is_elif(node, child) else inner, owner)
            for child in ast.iter_child_nodes(node)
        ]
    found = zip(branches[1:], functions[1:], strict=True)
    return deepest, classes, [(count, name, number) for count, (name, number) in found]


def decisions(node: ast.AST) -> int:
    """Return at how many places a node can go one way or the other."""
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    return int(isinstance(node, BRANCHES | ast.match_case))


def is_elif(node: ast.AST, child: ast.AST) -> bool:
    """Tell whether `child` is the `elif` of `node`, which lies no deeper than its `if`."""
    return (
        isinstance(node, ast.If)
        and isinstance(child, ast.If)
        and child in node.orelse
        and child.col_offset == node.col_offset
    )


# What is made of the outcomes.


def files(step: int) -> list[Path]:
    """Return every `step`-th source file of the standard library, in a fixed order."""
    found = []
    for folder, inner, names in os.walk(LIBRARY):
        inner[:] = [name for name in inner if name not in NOT_OURS]
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(found)[::step]


def timed(work: Callable[[], Iterable[Outcome]]) -> tuple[float, list[Outcome]]:
    """Return how long `work` took, in seconds, and its outcomes."""
    began = perf_counter()
    outcomes = list(work())
    return perf_counter() - began, outcomes


def digest(outcomes: list[Outcome]) -> str:
    """Return the SHA-256 of everything that was found, in its order."""
    return hashlib.sha256(repr(outcomes).encode()).hexdigest()


def packages(outcomes: list[Outcome]) -> Iterator[str]:
    """Yield a table of totals by top-level package, the largest first."""
    totals: dict[str, Counter[str]] = {}
    for name, found in outcomes:
        if isinstance(found, Measures):
            folder, slash, _ = name.partition("/")
            row = totals.setdefault(folder if slash else ALONE, Counter())
            row.update(files=1, **{key: getattr(found, key) for key in SUMMED})
            row["depth"] = max(row["depth"], found.depth)
            row["most"] = max(row["most"], found.most)
    yield f"{'package':<18}" + "".join(f"{key:>12}" for key in COLUMNS)
    ranked = sorted(totals, key=lambda name: (-totals[name]["code"], name))
    for name in ranked[:SHOWN]:
        yield line(name, totals[name])
    if others := [totals[name] for name in ranked[SHOWN:]]:
        yield line(f"({len(others)} others)", together(others))
    yield line("in all", together(totals.values()))


SUMMED = ("size", "lines", "code", "functions", "classes", "complexity")
COLUMNS = ("files", *SUMMED, "depth", "most")


def together(rows: Iterable[Counter[str]]) -> Counter[str]:
    """Return the row that several rows make: sums, and the largest of what is a largest."""
    total: Counter[str] = Counter()
    for row in rows:
        depth, most = max(total["depth"], row["depth"]), max(total["most"], row["most"])
        total.update(row)
        total["depth"], total["most"] = depth, most
    return total


def line(name: str, row: Counter[str]) -> str:
    """Return a row of the table."""
    return f"{name:<18}" + "".join(f"{row[key]:>12,}" for key in COLUMNS)


def most_complex(outcomes: list[Outcome]) -> Iterator[str]:
    """Yield the most complex functions of all."""
    found = [
        (-complexity, name, number, function)
        for name, each in outcomes
        if isinstance(each, Measures)
        for complexity, function, number in each.top
    ]
    for complexity, name, number, function in sorted(found)[:TOP]:
        yield f"{-complexity:>6}  {function}  ({name}, line {number})"


def unread(outcomes: list[Outcome]) -> Iterator[str]:
    """Yield the files that could not be measured, and why."""
    for name, found in outcomes:
        if isinstance(found, str):
            yield f"        {name}: {found}"


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description="Measure every file of the standard library.")
    parser.add_argument("--quick", action="store_true", help=f"only every {QUICK}th file")
    parser.add_argument("--workers", type=int, help="pmap's workers= (default: its own choice)")
    return parser.parse_args()


def main() -> int:
    """Take the census three times, print it, and return the exit status."""
    options = arguments()
    paths = files(QUICK if options.quick else 1)
    for path in paths:
        path.read_bytes()  # untimed, so that none of the three finds the file cache colder

    rows = {
        "plain loop": timed(lambda: [examine(path) for path in paths]),
        "pmap, cold": timed(lambda: pmap(examine, paths, workers=options.workers)),
        "pmap, warm": timed(lambda: pmap(examine, paths, workers=options.workers)),
    }

    plain, outcomes = rows["plain loop"]
    failed = list(unread(outcomes))
    print(*packages(outcomes), sep="\n")
    print(f"\nthe {TOP} most complex functions", *most_complex(outcomes), sep="\n")
    print(f"\n{len(failed)} files could not be measured", *failed, sep="\n")
    print(f"\nPython {platform.python_version()}, {cpu_count()} CPUs, {len(paths)} files")
    print(f"{'':<12}{'seconds':>8}{'ratio':>8}  sha256 of all that was found")
    digests = {name: digest(found) for name, (_, found) in rows.items()}
    for name, (seconds, _) in rows.items():
        print(f"{name:<12}{seconds:>8.2f}{plain / seconds:>8.2f}  {digests[name]}")
    same = len(set(digests.values())) == 1
    print("the results are the same" if same else "THE RESULTS DIFFER")
    return 0 if same else 1


sys.exit(main())
