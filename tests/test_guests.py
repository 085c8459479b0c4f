"""What a worker of joblib's may take of the CPUs, and what a process that is none."""

from __future__ import annotations

import multiprocessing
import threading

import pytest

import parallelkit
from parallelkit import cpu_count, guests
from parallelkit.guests import allotted
from parallelkit.machine import cpu_bound, cpu_reasons


class LokyProcess:
    """What joblib's workers find when they ask who they are."""

    __module__ = "joblib.externals.loky.backend.process"


@pytest.fixture
def worker(monkeypatch):
    monkeypatch.setattr(multiprocessing.process, "_current_process", LokyProcess())
    monkeypatch.delenv("PARALLELKIT_WORKERS", raising=False)
    return monkeypatch


def test_who_is_no_worker_has_no_share(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    assert allotted() is None


@pytest.mark.parametrize(("told", "share"), [("1", 1), ("3", 3), ("0", 1), ("2,1", None)])
def test_a_worker_has_what_joblib_says(worker, told, share):
    worker.setenv("OMP_NUM_THREADS", told)

    assert allotted() == share


def test_a_worker_that_was_told_nothing_has_what_the_machine_gives(worker):
    worker.delenv("OMP_NUM_THREADS", raising=False)

    assert allotted() is None


def test_the_share_is_a_bound_among_others(worker):
    worker.setenv("OMP_NUM_THREADS", "1")

    assert cpu_count() == cpu_bound() == 1
    assert "share of a worker of joblib's: 1" in map(str, cpu_reasons())


def test_what_the_user_sets_goes_before(worker):
    worker.setenv("OMP_NUM_THREADS", "1")
    worker.setenv("PARALLELKIT_WORKERS", "5")

    assert cpu_count() == cpu_bound() == 5


def test_a_call_is_not_at_home_where_a_backend_was_chosen_or_another_engine_runs_it():
    assert guests.at_home()
    for variable, value in ((guests.chosen, ("threads", False)), (guests.lodged, True)):
        token = variable.set(value)
        try:
            assert not guests.at_home()
        finally:
            variable.reset(token)
    assert guests.at_home()


def test_a_map_without_options_runs_on_the_backend_that_was_chosen():
    with parallelkit.backend("threads"):
        names = parallelkit.pmap(lambda _: threading.current_thread().name, range(2))
    assert threading.main_thread().name not in names
