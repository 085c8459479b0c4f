"""What goes by name and what must go by value is told apart."""

from __future__ import annotations

import functools
import importlib.util
import json.decoder
import sys
import types
from pathlib import Path

import cloudpickle
import numpy.linalg
import pytest

from parallelkit.definitions import Known, Names, definition, findable, own_reduction, reading


@pytest.fixture
def loaded(monkeypatch):
    """Give what puts a module into `sys.modules` for one test."""

    def load(name: str, **contents) -> types.ModuleType:
        module = types.ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return load


def test_installed_and_standard_modules_are_findable():
    for module in (json, json.decoder, numpy, numpy.linalg, cloudpickle, sys):
        assert findable(module.__name__)


def test_what_a_fresh_interpreter_would_not_find_is_not(loaded):
    loaded("made_here")
    loaded("made_here.below")

    for name in ("__main__", "__mp_main__", "made_here", "made_here.below"):
        assert not findable(name)


def test_a_module_made_by_another_that_is_no_package_is_findable(loaded):
    loaded("json.decoder.inner")

    assert findable("json.decoder.inner")


def test_a_file_that_another_of_its_name_would_hide_is_not_findable(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        (folder / "hidden_by_name.py").write_text("")
    spec = importlib.util.spec_from_file_location("hidden_by_name", first / "hidden_by_name.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "hidden_by_name", module)

    monkeypatch.syspath_prepend(second)
    assert not findable("hidden_by_name")
    monkeypatch.syspath_prepend(first)
    assert findable("hidden_by_name")


def test_import_hooks_that_fail_are_passed_over(monkeypatch, loaded):
    class Hook:
        def find_spec(self, *_):
            raise RuntimeError

    loaded("no_one_has_it")
    monkeypatch.setattr(sys, "meta_path", [Hook(), *sys.meta_path])

    assert not findable("no_one_has_it")


def test_modules_can_be_made_to_go_by_value(monkeypatch):
    assert Names().importable("json.decoder")
    assert not Names(["json"]).importable("json.decoder")
    assert Names(["jso"]).importable("json.decoder")
    cloudpickle.register_pickle_by_value(json)
    try:
        assert not Names().importable("json.decoder")
    finally:
        cloudpickle.unregister_pickle_by_value(json)


def test_only_what_its_module_holds_under_its_name_is_a_definition(loaded):
    source = "class C:\n def m(self): pass\ndef f(): return lambda: 0\ng = f\ndel f"
    module = loaded("by_value")
    exec(source, vars(module))
    names = Names()

    assert names.defines(module.C)
    assert names.defines(module.C.m)
    assert not names.defines(module.g)
    assert not names.defines(module.g())
    assert not names.defines(json.dumps)
    assert names.finds(json.dumps, "dumps")
    assert not names.finds(module.C, "C")


def test_numbers_are_those_of_the_run_being_read():
    first, second = Known(), Known()
    first.add([len])
    second.add([sorted, list])

    outer = reading.set(first)
    inner = reading.set(second)
    assert (definition(0), definition(1)) == (sorted, list)
    reading.reset(inner)
    assert definition(0) is len
    reading.reset(outer)


def test_names_and_python_reductions_are_of_interest_only():
    class Named:
        def __reduce__(self):
            return "NAMED"

    cached = functools.cache(len)

    assert own_reduction(Named(), Named) == "NAMED"
    assert own_reduction(cached, type(cached)) == "len"
    assert own_reduction(1 + 2j, complex) is None
    assert own_reduction(ValueError(), ValueError) is None


def test_this_package_goes_by_name_though_another_copy_is_found_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "parallelkit").mkdir()
    for name in ("__init__", "codec"):
        (tmp_path / "parallelkit" / f"{name}.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    assert findable("parallelkit.codec")
