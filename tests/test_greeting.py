"""Whether workers are fit: what they are asked, what is accepted, and what is said if not."""

from __future__ import annotations

import ast
import subprocess
import sys
from types import ModuleType

import cloudpickle
import pytest

import parallelkit
from parallelkit.backends.greeting import Report, accept, homemade, inquiry, ours
from parallelkit.errors import NoWorkers


def test_this_process_is_fit_for_itself():
    report = inquiry(("json", "no_such_module", "no_such.thing"))()

    assert Report(*report) == ours()._replace(missing=("no_such_module", "no_such.thing"))
    assert accept([report, inquiry(())()], "workers") == ("no_such.thing", "no_such_module")


def test_the_inquiry_needs_nothing_where_it_runs():
    sent = cloudpickle.dumps(inquiry(("json",)))
    code = (
        "import pickle, sys; sys.modules['parallelkit'] = None; "
        "print(pickle.load(sys.stdin.buffer)())"
    )

    run = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, check=True)

    assert Report(*ast.literal_eval(run.stdout.decode())) == ours()._replace(parallelkit=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"python": "3.9"},
            (
                f"workers of Dask's have Python 3.9, and this process has {ours().python}: what is "
                "sent to them could not be read there, so have the same on both sides"
            ),
        ),
        (
            {"cloudpickle": "1.2.3"},
            (
                "workers of Dask's have cloudpickle 1.2.3, and this process has "
                f"{ours().cloudpickle}: what is sent to them could not be read there, "
                "so have the same on both sides"
            ),
        ),
        (
            {"parallelkit": None},
            (
                "workers of Dask's lack parallelkit, of which this process has "
                f"{parallelkit.__version__}: install it there too"
            ),
        ),
    ],
    ids=str,
)
def test_another_version_is_told(change, message):
    with pytest.raises(NoWorkers) as caught:
        accept([ours(), ours()._replace(**change)], "workers of Dask's")

    assert str(caught.value) == message


def test_another_patch_of_cloudpickle_will_do():
    version = ".".join([*cloudpickle.__version__.split(".")[:2], "99"])

    assert accept([ours()._replace(cloudpickle=version)], "workers") == ()


def test_modules_beside_the_script_are_homemade(monkeypatch, tmp_path):
    module = ModuleType("beside")
    module.__file__ = str(tmp_path / "beside.py")
    monkeypatch.setitem(sys.modules, "beside", module)
    monkeypatch.setitem(sys.modules, "beside.inner", module)

    found = homemade()

    assert "beside" in found
    assert not {"numpy", "json", "parallelkit", "__main__", "beside.inner"} & set(found)
