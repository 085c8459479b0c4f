"""What users see: every public name is there, typed, shown by an example, and in the reference."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import parallelkit

ROOT = Path(__file__).parent.parent
NAMES = sorted(getattr(parallelkit, "__all__", ()))
PROMISED = {
    "SharedArray", "cpu_count", "imap", "parallel_map", "parallel_reduce", "pmap", "preduce",
    "share",
}  # fmt: skip
MAPS = ["pmap", "imap", "preduce"]

each_name = pytest.mark.parametrize("name", NAMES)


def callables() -> dict[str, Callable[..., object]]:
    """Return what can be called: functions, classes, and the classes' own public methods."""
    found = {}
    for name in NAMES:
        value = getattr(parallelkit, name)
        if inspect.isclass(value):
            found |= {
                f"{name}.{method}": function
                for method, function in vars(value).items()
                if inspect.isfunction(function) and (method == "__init__" or method[0] != "_")
            }
        elif inspect.isfunction(value):
            found[name] = value
    return found


def test_the_promised_names_are_there():
    assert set(NAMES) >= PROMISED


@each_name
def test_a_public_name_resolves(name):
    assert getattr(parallelkit, name) is not None
    assert name in dir(parallelkit)


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match=r"^module 'parallelkit' has no attribute 'pnap'"):
        _ = parallelkit.pnap


@each_name
def test_a_public_name_is_explained_by_an_example(name):
    value = getattr(parallelkit, name)
    text = inspect.getdoc(value) or ""

    assert text, "no docstring"
    if inspect.isfunction(value) or inspect.isclass(value):
        assert ">>>" in text, "no example"


def test_all_is_annotated():
    bare = {}
    for name, function in callables().items():
        signature = inspect.signature(function)
        bare[name] = [each.name for each in signature.parameters.values() if not typed(each)]
        if signature.return_annotation is inspect.Signature.empty:
            bare[name].append("return")

    assert not {name: missing for name, missing in bare.items() if missing}


def typed(parameter: inspect.Parameter) -> bool:
    """Tell whether a parameter has a type, which `self` need not have."""
    return parameter.name == "self" or parameter.annotation is not inspect.Parameter.empty


@each_name
def test_a_public_name_stands_in_the_reference(name):
    pages = sorted((ROOT / "docs/reference").glob("**/*.md"))
    text = "\n".join(page.read_text() for page in pages)

    assert re.search(rf"`(parallelkit\.)?{name}\b[^`\n]*`", text), "docs/reference does not name it"


def test_options_are_the_same_everywhere():
    options: dict[str, dict[str, tuple[object, object]]] = {}
    for name in MAPS:
        for each in inspect.signature(getattr(parallelkit, name)).parameters.values():
            if each.kind is inspect.Parameter.KEYWORD_ONLY:
                options.setdefault(each.name, {})[name] = (each.default, each.annotation)

    assert not {option: uses for option, uses in options.items() if len(set(uses.values())) > 1}


def test_aliases_are_the_functions_themselves():
    assert parallelkit.parallel_map is parallelkit.pmap
    assert parallelkit.parallel_reduce is parallelkit.preduce


def test_everything_is_imported_by_a_star_without_a_warning():
    code = "from parallelkit import *; print(sorted(set(dir()) & set(__import__('sys').argv[1:])))"
    command = [sys.executable, "-W", "error", "-c", code, *NAMES]
    run = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)

    assert (run.stdout, run.stderr) == (f"{NAMES}\n", "")


def test_errors_are_there_without_an_import_of_their_own():
    code = "import parallelkit; print(parallelkit.errors.ParallelError.__name__)"
    command = [sys.executable, "-W", "error", "-c", code]
    run = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)

    assert (run.stdout, run.stderr) == ("ParallelError\n", "")


def test_the_version_is_the_distribution_s():
    text = (ROOT / "pyproject.toml").read_text()

    assert f'\nversion = "{parallelkit.__version__}"\n' in text


def test_types_are_shipped():
    assert (ROOT / "parallelkit/py.typed").read_text() == ""
