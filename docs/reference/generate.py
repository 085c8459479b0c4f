"""Writes the reference pages from the docstrings, so that neither can say what the other does not.

    python docs/reference/generate.py           write the pages
    python docs/reference/generate.py --check   exit with 1 if a page is not what would be written

Every public name goes on the page of its room, with its signature as it stands in the source.  What
a docstring says is not judged here; pages without the closing mark are somebody else's.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

import parallelkit  # noqa: E402  this tree's, whatever is installed

MARK = "<!-- Written by docs/reference/generate.py from the docstrings; do not edit. -->\n"
PAGES = {
    "maps": ("Maps and reductions", ["maps", "amaps", "reduce", "selection"]),
    "executors": ("Executors and pools", ["executor", "pool"]),
    "shared-arrays": ("Shared arrays", ["shared"]),
    "synchronization": (
        "Locks, queues and counters",
        ["sync.locks", "sync.permits", "sync.gates", "sync.queues", "sync.numerals"],
    ),
    "machine": ("What the machine gives", ["machine"]),
    "errors": ("Errors", ["errors"]),
}
"""Each page's title and rooms; a room that stands nowhere here gets a page of its own."""

SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises|Example|Examples):$")
ENTRY = re.compile(r"(?P<name>[*\w, ]+): (?P<text>.*)", re.DOTALL)
SENTENCE = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.) +(?=[A-Z`\"(])")

Node = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


# What there is to document.


def room_of(name: str) -> str:
    """Return the room that a public name comes from."""
    value = getattr(parallelkit, name)
    module = value.__name__ if isinstance(value, ModuleType) else value.__module__
    return str(module).removeprefix("parallelkit.")


def layout() -> dict[str, tuple[str, list[str]]]:
    """Return the title and the public names of each page, by the page's file name."""
    page_of = {room: page for page, (_, rooms) in PAGES.items() for room in rooms}
    found: dict[str, tuple[str, list[str]]] = {}
    for name in parallelkit.__all__:
        room = room_of(name)
        page = page_of.get(room, room)
        title = PAGES[page][0] if page in PAGES else room.capitalize()
        found.setdefault(page, (title, []))[1].append(name)
    if "errors" not in found:  # whoever catches one needs it, exported or not
        found["errors"] = (PAGES["errors"][0], ["errors"])
    order = list(PAGES)
    ranked = sorted(found, key=lambda page: (order.index(page) if page in order else 99, page))
    return {page: (found[page][0], sorted(found[page][1], key=rank)) for page in ranked}


def rank(name: str) -> tuple[bool, int, int, str]:
    """Return where a name stands on its page: in the order of the source, aliases last."""
    value = value_of(name)
    if isinstance(value, ModuleType):
        return False, 0, 0, name
    rooms = [room for _, each in PAGES.values() for room in each]
    room = room_of(name)
    return is_alias(name), rooms.index(room) if room in rooms else 99, node_of(value).lineno, name


def value_of(name: str) -> Any:
    """Return a public name's value, also of `errors` where it is not exported."""
    if name == "errors":
        from parallelkit import errors

        return errors
    return getattr(parallelkit, name)


def is_alias(name: str) -> bool:
    """Tell whether a name is a second one for a function or class."""
    return getattr(value_of(name), "__name__", name) not in {name, f"parallelkit.{name}"}


@cache
def source_of(room: str) -> tuple[str, ast.Module]:
    """Return the text of a room and what it parses to."""
    text = Path(sys.modules[room].__file__ or "").read_text(encoding="utf-8")
    return text, ast.parse(text)


def node_of(value: Any) -> Node:
    """Return where a function or class of the top level is defined."""
    _, tree = source_of(value.__module__)
    return next(
        node for node in tree.body if isinstance(node, Node) and node.name == value.__name__
    )


# From docstrings to Markdown.


def sentences(text: str) -> str:
    """Return a paragraph with one sentence per line."""
    return "\n".join(SENTENCE.split(" ".join(text.split())))


def fenced(language: str, text: str) -> str:
    """Return a fenced block."""
    return f"```{language}\n{textwrap.dedent(text).strip()}\n```"


def blocks(text: str) -> Iterator[str]:
    """Yield the paragraphs, indented blocks and examples of a text as Markdown."""
    for part in re.split(r"\n\s*\n", text.strip("\n")):
        if part.lstrip().startswith(">>>"):
            yield fenced("pycon", part)
        elif part.startswith("    "):
            yield fenced("text", part)
        elif part.startswith("- "):
            items = re.split(r"\n(?=- )", part)
            yield "\n".join(f"- {' '.join(item[2:].split())}" for item in items)
        else:
            yield sentences(part)


def entries(text: str) -> str:
    """Return an indented list of names and what is said of each as a Markdown list."""
    lines = []
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(text).strip()):
        found = ENTRY.match(entry)
        if found is None:
            lines.append(f"- {' '.join(entry.split())}")
        else:
            said = sentences(found["text"]).replace("\n", "\n  ")
            lines.append(f"- `{found['name']}`: {said}")
    return "\n".join(lines)


def section(title: str, text: str, imports: str) -> str:
    """Return one section of a docstring."""
    if title.startswith("Example"):
        return fenced("pycon", imports + textwrap.dedent(text).strip("\n"))
    body = entries(text) if title in {"Args", "Attributes", "Raises"} else sentences(text)
    return f"**{title}**\n\n{body}"


def rendered(docstring: str, imports: str = "") -> str:
    """Return a docstring as Markdown; its example first imports what it shows."""
    parts: list[tuple[str, list[str]]] = [("", [])]
    for line in docstring.splitlines():
        found = SECTION.match(line)
        if found:
            parts.append((found[1], []))
        else:
            parts[-1][1].append(line)
    pieces = list(blocks("\n".join(parts[0][1])))
    pieces += [section(title, "\n".join(lines), imports) for title, lines in parts[1:]]
    return "\n\n".join(pieces)


def imports_for(name: str, docstring: str) -> str:
    """Return the lines that an example takes for granted."""
    shown = "\n".join(re.findall(r"^ *(?:>>>|\.\.\.) (.*)", docstring, re.MULTILINE))
    used = [each for each in parallelkit.__all__ if re.search(rf"\b{each}\(", shown)]
    lines = f">>> from parallelkit import {', '.join(sorted({name, *used} - {'errors'}))}\n"
    if "np." in docstring and "import numpy" not in docstring:
        lines = ">>> import numpy as np\n" + lines
    return lines


# One name, one page.


def signature(room: str, node: Node) -> str:
    """Return a definition's head as it stands in the source."""
    text, _ = source_of(room)
    first = min([node.lineno, *(mark.lineno for mark in node.decorator_list)])
    head = "\n".join(text.splitlines()[first - 1 : node.body[0].lineno - 1])
    return textwrap.dedent(head)


def members(value: type) -> Iterator[str]:
    """Yield what a class offers: its public methods and properties that say what they do."""
    for node in node_of(value).body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        docstring = ast.get_docstring(node)
        if node.name.startswith("_") or docstring is None:
            continue
        shown = signature(value.__module__, node) + " ..."
        yield f"### `{value.__name__}.{node.name}`"
        yield fenced("python no-run: a signature", shown)
        yield rendered(docstring, imports_for(value.__name__, docstring))


def named_base(base: type, value: type) -> str:
    """Return the name of a base, with its package where the class itself has the same name."""
    package = re.sub(r"\._.*", "", base.__module__)
    return f"{package}.{base.__name__}" if base.__name__ == value.__name__ else base.__name__


def class_head(value: type) -> str:
    """Return how a class is derived and made."""
    bases = [base for base in value.__bases__ if not base.__name__.startswith("_")]
    named = [named_base(base, value) for base in bases if base is not object]
    head = f"class {value.__name__}({', '.join(named)}):" if named else f"class {value.__name__}:"
    inits = [
        node
        for node in node_of(value).body
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    ]
    if not inits:
        return f"{head} ..."
    return f"{head}\n" + textwrap.indent(signature(value.__module__, inits[0]) + " ...", "    ")


def described(name: str, value: Any) -> Iterator[str]:
    """Yield the parts of what is said about a public name."""
    docstring = inspect.getdoc(value) or ""
    if isinstance(value, ModuleType):
        yield f"Every class below is an attribute of `parallelkit.{name}`."
        yield rendered(re.sub(r"^.*\n\n", "", docstring, count=1))
        for each in vars(value).values():
            ours = inspect.isclass(each) and each.__module__ == value.__name__ and each.__doc__
            if ours and not each.__name__.startswith("_"):
                yield from described(each.__name__, each)
        return
    yield f"## `{name}`"
    if getattr(value, "__name__", name) != name:
        yield f"Another name for [`{value.__name__}`](#{value.__name__.lower()})."
        return
    if inspect.isclass(value):
        yield fenced("python no-run: a signature", class_head(value))
        yield rendered(docstring, imports_for(name, docstring))
        yield from members(value)
    else:
        shown = signature(value.__module__, node_of(value)) + " ..."
        yield fenced("python no-run: a signature", shown)
        yield rendered(docstring, imports_for(name, docstring))


def page(title: str, names: list[str]) -> str:
    """Return the text of one page."""
    pieces = [f"# {title}"]
    if names == ["errors"]:
        pieces.append(CAUGHT)
    for name in names:
        pieces += described(name, value_of(name))
    return "\n\n".join(piece for piece in pieces if piece) + f"\n\n{MARK}"


CAUGHT = """\
```python
from parallelkit import pmap
from parallelkit.errors import ParallelError

try:
    halves = pmap(lambda x: x / 2, range(10))
except ParallelError as error:
    print("not the function's fault, but a worker's:", error)
```"""


def contents(pages: dict[str, tuple[str, list[str]]]) -> str:
    """Return the page that lists the others."""
    lines = ["# Reference", "", "```python", "import parallelkit", "", "print(parallelkit.__all__)"]
    lines += ["```", "", "| name | what you get | page |", "|---|---|---|"]
    for file, (title, names) in pages.items():
        for name in names:
            first = (inspect.getdoc(value_of(name)) or "").partition("\n")[0]
            if is_alias(name):
                first = f"Another name for `{value_of(name).__name__}`."
            lines.append(f"| `{name}` | {first} | [{title}]({file}.md) |")
    lines += [
        "",
        "Variables that set defaults from outside stand in [environment](environment.md).",
        "What an option means is explained once, at [`pmap`](maps.md#pmap).",
    ]
    return "\n".join(lines) + f"\n\n{MARK}"


def written() -> dict[Path, str]:
    """Return the text of every page, by its path."""
    pages = layout()
    texts = {HERE / f"{file}.md": page(title, names) for file, (title, names) in pages.items()}
    return {HERE / "index.md": contents(pages), **texts}


def stale(texts: dict[Path, str]) -> list[Path]:
    """Return the pages that are missing, differ, or should be gone."""
    differ = [
        path
        for path, text in texts.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    ours = [path for path in HERE.glob("*.md") if path.read_text(encoding="utf-8").endswith(MARK)]
    return sorted({*differ, *(path for path in ours if path not in texts)})


def main() -> int:
    """Write or check the pages and return the exit status."""
    parser = argparse.ArgumentParser(description="Write the reference pages from the docstrings.")
    parser.add_argument("--check", action="store_true", help="only tell what is out of date")
    only_check = parser.parse_args().check
    texts = written()
    for path in stale(texts):
        print(f"{'stale' if only_check else 'written'}: {path.relative_to(ROOT)}")
        if only_check:
            continue
        if path in texts:
            path.write_text(texts[path], encoding="utf-8")
        else:
            path.unlink()
    return int(only_check and bool(stale(texts)))


if __name__ == "__main__":
    sys.exit(main())
