"""Dask, with real schedulers and workers: what is found, survived, told and left behind."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from dask_cluster import PATIENCE, Cluster, dawdle, poisonous, where
from distributed import Client

import parallelkit
from parallelkit import imap, pmap
from parallelkit.backends.dask import _adaptive
from parallelkit.errors import NoWorkers, WorkerDied


@pytest.fixture(scope="module")
def harmed(tmp_path_factory):
    """Give a cluster whose workers die, each once for each reason and not four times."""
    folder = tmp_path_factory.mktemp("harmed")
    cluster = Cluster(folder, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0")
    yield cluster
    cluster.close()


@pytest.fixture
def harmed_client(harmed):
    with Client(scheduler_file=str(harmed.contact), set_as_default=False) as client:
        client.wait_for_workers(2, timeout=PATIENCE)  # those that died are started again
        yield client


def test_it_is_had_by_address_name_object_executor_and_variable(dask_cluster, client, monkeypatch):
    address = dask_cluster.address
    there = set(client.run(os.getpid).values())
    by = [address.replace("tcp://", "dask://"), address, client, client.get_executor()]

    pids = [set(pmap(where, range(8), backend=each)) for each in by]
    monkeypatch.setenv("PARALLELKIT_BACKEND", by[0])
    pids.append(set(pmap(where, range(8))))
    with client.as_current():
        pids.append(set(pmap(where, range(8), backend="dask")))
    with parallelkit.backend(by[0]):
        pids.append(set(pmap(where, range(8))))

    assert all(each <= there for each in pids)


def test_blocks_of_several_threads_share_a_connection(dask_cluster, client):
    address = dask_cluster.address.replace("tcp://", "dask://")

    def count(_):
        with parallelkit.backend(address):
            results = imap(abs, range(3000), chunksize=10)
            first = next(results)
            with parallelkit.backend(address):
                assert pmap(abs, [-1]) == [1]
            return [first, *results]

    with ThreadPoolExecutor(3) as executor:
        assert list(executor.map(count, range(3))) == [list(range(3000))] * 3


def test_a_cluster_of_this_machine_is_started_and_ended():
    from parallelkit.backends import dask

    with parallelkit.backend("dask"):
        pids = set(pmap(where, range(8), workers=2))
        assert "dask" in dask._connections.clusters

    assert os.getpid() not in pids
    assert "dask" not in dask._connections.clusters
    for pid in pids:
        for _ in range(int(PATIENCE * 100)):
            if not os.path.exists(f"/proc/{pid}"):
                break
            threading.Event().wait(0.01)
        assert not os.path.exists(f"/proc/{pid}")


def test_a_module_beside_the_script_goes_along(client, tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text("class Box:\n    pass\n\ndef pack(x):\n    return Box()\n")
    monkeypatch.syspath_prepend(tmp_path)
    import beside

    boxes = pmap(beside.pack, range(4), backend=client)

    assert {type(box) for box in boxes} == {beside.Box}


class Counted:
    """Counts in the environment of a process how often it was unpickled there."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        return recount, (self.content,)


def recount(content):
    os.environ["UNPICKLED"] = str(int(os.environ.get("UNPICKLED", "0")) + 1)
    return Counted(content)


def test_what_all_need_is_sent_once(client):
    table = Counted(np.arange(1_000_000.0))

    found = pmap(lambda x: table.content[x], range(50), chunksize=1, backend=client)

    assert found == list(range(50))
    assert set(client.run(os.environ.pop, "UNPICKLED", "0").values()) <= {"0", "1"}


def test_heavy_chunks_travel(client):
    blocks = [np.full(1 << 20, float(x)) for x in range(6)]

    sums = pmap(np.sum, blocks, backend=client)

    assert sums == [float(x << 20) for x in range(6)]


def test_a_killed_worker_changes_no_answer(harmed_client):
    victim = next(iter(harmed_client.run(os.getpid).values()))
    results = imap(dawdle, range(60), retries=1, backend=harmed_client)
    seen = [next(results)]
    os.kill(victim, signal.SIGKILL)
    seen += results

    assert [x for x, _ in seen] == list(range(60))


def test_what_was_scattered_is_put_again(harmed_client):
    table = np.arange(1_000_000.0)
    results = imap(lambda x: (dawdle(x), table[x])[1], range(60), backend=harmed_client, retries=1)
    seen = [next(results)]
    for pid in harmed_client.run(os.getpid).values():
        os.kill(pid, signal.SIGKILL)
    seen += results

    assert seen == list(range(60))


def test_a_poisonous_item_is_named_and_the_others_survive(harmed_client):
    outcomes = pmap(poisonous, range(20), on_error="return", backend=harmed_client)

    (error,) = [each for each in outcomes if isinstance(each, WorkerDied)]
    assert (error.index, outcomes[13]) == (13, error)
    assert str(error).startswith("a worker of Dask's died (1 in all, the last at tcp://127.0.0.1:")
    assert " while it ran item 13 (13); " in str(error)
    assert [x for x in outcomes if x is not error] == [x for x in range(20) if x != 13]


def test_a_worker_that_joins_is_used(harmed, harmed_client):
    results = imap(dawdle, range(400), backend=harmed_client)
    before = [next(results)[1] for _ in range(4)]
    harmed.add()
    harmed_client.wait_for_workers(3, timeout=PATIENCE)
    after = [pid for _, pid in results]

    assert len(set(before)) <= 2
    assert len({*before, *after}) == 3


def test_a_restart_of_all_workers_changes_no_answer(harmed_client):
    results = imap(dawdle, range(60), backend=harmed_client)
    seen = [next(results)]
    harmed_client.restart(timeout=PATIENCE)
    seen += results

    assert [x for x, _ in seen] == list(range(60))


def test_a_cluster_that_grows_on_demand_has_as_many_places_as_it_may():
    adaptive = SimpleNamespace(maximum=5)
    endless = SimpleNamespace(maximum=float("inf"))

    assert _adaptive(SimpleNamespace(cluster=SimpleNamespace(_adaptive=adaptive))) == 5
    assert _adaptive(SimpleNamespace(cluster=SimpleNamespace(_adaptive=endless))) == 0
    assert _adaptive(SimpleNamespace(cluster=None)) == 0


def test_a_scheduler_that_ends_is_told(tmp_path):
    cluster = Cluster(tmp_path, workers=1)
    try:
        file = str(cluster.contact)
        with Client(scheduler_file=file, set_as_default=False, timeout=3) as client:
            results = imap(dawdle, range(10_000), backend=client)
            assert next(results)[0] == 0
            cluster.scheduler.kill()

            with pytest.raises(NoWorkers, match=r"^the client of Dask given as backend is clos"):
                list(results)
    finally:
        cluster.close()


def test_a_closed_client_is_told(dask_cluster):
    client = Client(scheduler_file=str(dask_cluster.contact), set_as_default=False)
    client.close()

    with pytest.raises(NoWorkers, match=r"^the client of Dask given as backend is closed, or "):
        pmap(abs, [1], backend=client)


def test_an_address_without_a_scheduler_is_told():
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(NoWorkers) as caught,
    ):
        pmap(abs, [1], backend="dask://127.0.0.1:9")

    assert str(caught.value) == (
        "no scheduler of Dask answers at tcp://127.0.0.1:9: start one with `dask scheduler`, "
        "or correct the address"
    )


def test_an_asynchronous_client_is_refused():
    import asyncio

    async def main() -> None:
        async with Client(asynchronous=True, processes=False, dashboard_address=None) as client:
            with pytest.raises(ValueError, match=r"^backend must be a client of Dask that is not"):
                pmap(abs, [1], backend=client)

    asyncio.run(main())


def test_interrupting_leaves_nothing_on_the_scheduler(client):
    results = imap(dawdle, range(1000), backend=client)
    assert next(results)[0] == 0
    results.close()

    assert pmap(abs, [-1], backend=client) == [1]  # and the fixture looks


def test_a_cluster_without_the_package_is_told_before(tmp_path):
    site = Path(tmp_path, "sitecustomize.py")
    site.write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'parallelkit':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    cluster = Cluster(tmp_path, workers=1, PYTHONPATH=str(tmp_path))
    try:
        with Client(scheduler_file=str(cluster.contact), set_as_default=False) as client:
            with pytest.raises(NoWorkers) as caught:
                pmap(abs, [1], backend=client)
            assert str(caught.value) == (
                f"workers of Dask's lack parallelkit, of which this process has "
                f"{parallelkit.__version__}: install it there too"
            )
    finally:
        cluster.close()
