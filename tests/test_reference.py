"""The reference pages say what the docstrings say."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
GENERATOR = ROOT / "docs/reference/generate.py"


@pytest.fixture
def generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The generator as a module that writes into a folder of the test's."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec = importlib.util.spec_from_file_location("generate", GENERATOR)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def test_the_pages_are_up_to_date():
    command = [sys.executable, "-B", str(GENERATOR), "--check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), (
        "run python docs/reference/generate.py"
    )


def test_pages_are_written_once_and_then_up_to_date(generator, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["generate.py"])
    assert generator.main() == 0
    assert "written: maps.md\n" in capsys.readouterr().out

    assert generator.main() == 0
    assert capsys.readouterr().out == ""


def test_changed_missing_and_forgotten_pages_are_told(generator, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["generate.py"])
    generator.main()
    capsys.readouterr()
    (tmp_path / "maps.md").write_text("# changed\n")
    (tmp_path / "errors.md").unlink()
    (tmp_path / "gone.md").write_text(f"# of a room that is gone\n\n{generator.MARK}")
    (tmp_path / "own.md").write_text("# written by hand\n")

    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    assert generator.main() == 1
    told = "stale: errors.md\nstale: gone.md\nstale: maps.md\n"
    assert capsys.readouterr().out == told

    monkeypatch.setattr(sys, "argv", ["generate.py"])
    assert generator.main() == 0
    assert not (tmp_path / "gone.md").exists()
    assert (tmp_path / "own.md").exists()


def test_pages_show_what_users_may_name_and_need(generator):
    texts = {path.name: text for path, text in generator.written().items()}

    shown = [line for line in texts["errors.md"].splitlines() if line.startswith("## ")]
    assert "## `WorkerDied`" in shown
    assert not [line for line in shown if line.startswith("## `_")]
    assert (
        "**Attributes**\n\n- `index`: The item's position in the input.\n- " in texts["errors.md"]
    )
    assert "\nclass Executor(concurrent.futures.Executor):\n" in texts["executors.md"]
    assert "\n>>> from parallelkit import pmap\n>>> pmap(" in texts["maps.md"]


def test_docstrings_become_markdown(generator):
    docstring = """Return a word.

It is long.  It is
one line.

    a tree
    |- a branch

- first, over
  two lines
- second

Args:
    word: What to say.  Any
        length.
    *words: More.

Returns:
    The word.

Example:
    >>> 1 + 1
    2
"""

    assert generator.rendered(docstring, ">>> import this\n") == (
        "Return a word.\n\n"
        "It is long.\nIt is one line.\n\n"
        "```text\na tree\n|- a branch\n```\n\n"
        "- first, over two lines\n- second\n\n"
        "**Args**\n\n"
        "- `word`: What to say.\n  Any length.\n"
        "- `*words`: More.\n\n"
        "**Returns**\n\nThe word.\n\n"
        "```pycon\n>>> import this\n>>> 1 + 1\n2\n```"
    )
