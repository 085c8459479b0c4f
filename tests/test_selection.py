"""Which backend a call has: by name, address, object, variable, or for a while."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from types import SimpleNamespace

import pytest

from parallelkit import backend, selection
from parallelkit.backends.executor import ExecutorVenue
from parallelkit.backends.threads import ThreadsVenue
from parallelkit.guests import lodged
from parallelkit.selection import choose


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    monkeypatch.delenv("PARALLELKIT_BACKEND", raising=False)


def test_ours_are_had_by_name():
    assert choose(None, None) == ("processes", None, 1)
    assert choose("serial", None) == ("serial", None, 1)


def test_threads_are_as_many_as_are_asked_for():
    found = choose("threads", 3)

    assert isinstance(found.venue, ThreadsVenue)
    assert found.venue.capacity() == 3


def test_an_executor_or_what_makes_one_is_taken():
    with ThreadPoolExecutor(2) as executor:
        for given in (executor, lambda: executor):
            venue = choose(given, None).venue
            assert isinstance(venue, ExecutorVenue)
            assert venue.executor is executor


def test_the_variable_is_the_default_and_a_block_goes_before(monkeypatch):
    monkeypatch.setenv("PARALLELKIT_BACKEND", "serial")
    assert choose(None, None).name == "serial"

    with backend("threads"):
        assert choose(None, None).name == "threads"
        assert choose("processes", None).name == "processes"
        with backend("processes"):
            assert choose(None, None).name == "processes"
        assert choose(None, None).name == "threads"
    assert choose(None, None).name == "serial"


def test_code_that_an_engine_runs_chooses_for_itself(monkeypatch):
    monkeypatch.setenv("PARALLELKIT_BACKEND", "threads")
    with backend("threads"):
        marked = lodged.set(True)
        try:
            assert choose(None, None).name == "processes"
            with backend("serial"):
                assert choose(None, None).name == "serial"
        finally:
            lodged.reset(marked)
        assert choose(None, None).name == "threads"


def test_one_block_may_be_entered_in_several_contexts_and_within_itself():
    block, first, second = backend("threads"), copy_context(), copy_context()
    for context in (first, second, first):
        context.run(block.__enter__)

    found = []
    for context in (first, first, second):
        context.run(block.__exit__, None, None, None)
        found.append([each.run(choose, None, None).name for each in (first, second)])

    assert found == [["threads"] * 2, ["processes", "threads"], ["processes"] * 2]


def test_a_block_that_ends_in_another_context_changes_nothing_there():
    block = backend("threads")
    copy_context().run(block.__enter__)

    with backend("serial"):
        block.__exit__(None, None, None)
        assert choose(None, None).name == "serial"


def test_an_engine_is_left_when_the_last_block_that_names_it_ends(monkeypatch):
    left: list[str] = []
    room = SimpleNamespace(leave=left.append)
    monkeypatch.setitem(sys.modules, "parallelkit.backends.dask", room)

    with backend("dask://a:1"):
        with backend("dask://a:1"), backend("dask://b:1"):
            pass
        assert left == ["dask://b:1"]
    assert left == ["dask://b:1", "dask://a:1"]


def test_an_object_of_a_class_of_the_users_is_known_by_its_kin():
    class Client:
        __module__ = "distributed.client"

    class Mine(Client):
        pass

    assert selection._room_of_object(Mine()) == "dask"


NAMES = (
    'must be one of "processes", "serial", "threads", "dask", "ray", "mpi", an address such as '
    '"dask://host:8786", an executor or a client, got'
)


@pytest.mark.parametrize("given", ["cluster", "", "http://here", "dask://"])
def test_an_unknown_name_is_told(given):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is asserted whole
        choose(given, None)

    assert str(caught.value) == f"backend {NAMES} {given!r}"


def test_an_unknown_name_in_a_block_is_told_at_once():
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is asserted whole
        backend("cluster")

    assert str(caught.value) == f"backend {NAMES} 'cluster'"


@pytest.mark.parametrize("given", [3, [1], object])
def test_what_is_no_backend_is_told(given):
    with pytest.raises(TypeError) as caught:
        choose(given, None)

    assert str(caught.value) == (
        "backend must be a name, an address, a concurrent.futures.Executor, a function that makes "
        f"one, or a client of Dask, got {given!r}"
    )


@pytest.mark.parametrize("given", ["dask", "tcp://127.0.0.1:8786"])
def test_a_missing_package_is_told_with_its_extra(monkeypatch, given):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "parallelkit.backends.dask", raising=False)

    with pytest.raises(ModuleNotFoundError) as caught:
        choose(given, None)

    assert str(caught.value) == (
        f"backend={given!r} needs the package distributed, which is not installed: "
        "pip install 'parallelkit[dask]'"
    )


def test_a_missing_library_of_mpi_is_told(monkeypatch, tmp_path):
    package = tmp_path / "mpi4py"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "MPI.py").write_text("raise RuntimeError('cannot load MPI library\\nlibmpi.so: no')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "mpi4py"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "parallelkit.backends.mpi", raising=False)

    with pytest.raises(ImportError) as caught:
        choose("mpi", None)

    assert str(caught.value) == (
        "backend='mpi' needs an MPI library, which the package mpi4py does not find: install "
        "Open MPI, MPICH or Intel MPI, or put its folder on the path of libraries "
        "(LD_LIBRARY_PATH)"
    )
    sys.modules.pop("mpi4py", None)


def test_each_room_can_be_had_by_a_name_and_an_address():
    assert set(selection.SCHEMES.values()) <= set(selection.ROOMS.values())
    assert set(selection.PACKAGES.values()) <= set(selection.ROOMS.values())
