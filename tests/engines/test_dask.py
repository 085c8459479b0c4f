"""Dask, with real schedulers and workers: what is found, survived, told and left behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from dask_cluster import PATIENCE, Cluster
from distributed import Client

import parallelkit
from parallelkit import imap, pmap
from parallelkit.errors import NoWorkers, WorkerDied


def where(_: object) -> int:
    return os.getpid()


def poisonous(x: int) -> int:
    if x == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def dawdle(x: int) -> tuple[int, int]:
    time.sleep(0.05)
    return x, os.getpid()


@pytest.fixture
def own_client(own_cluster):
    with Client(scheduler_file=str(own_cluster.contact), set_as_default=False, timeout=3) as client:
        client.wait_for_workers(2, timeout=PATIENCE)
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


def test_what_all_need_is_sent_once(client):
    table = np.arange(1_000_000.0)

    assert pmap(lambda x: table[x], range(50), chunksize=1, backend=client) == list(range(50))
    assert not client.run(lambda: list(sys.modules["parallelkit.remote"]._runs)) or all(
        run for run in client.run(lambda: len(sys.modules["parallelkit.remote"]._runs) < 9).values()
    )


def test_heavy_chunks_travel(client):
    blocks = [np.full(1 << 20, float(x)) for x in range(6)]

    sums = pmap(np.sum, blocks, backend=client)

    assert sums == [float(x << 20) for x in range(6)]


def test_a_killed_worker_changes_no_answer(own_client):
    victim = next(iter(own_client.run(os.getpid).values()))
    results = imap(dawdle, range(60), backend=own_client)
    seen = [next(results)]
    os.kill(victim, signal.SIGKILL)
    seen += results

    assert [x for x, _ in seen] == list(range(60))


def test_a_poisonous_item_is_named(own_client):
    with pytest.raises(WorkerDied) as caught:
        pmap(poisonous, range(20), backend=own_client)

    assert caught.value.index == 13
    assert "while it ran item 13 (13)" in str(caught.value)
    assert str(caught.value).startswith("a worker of Dask's died (")
    assert pmap(abs, [-1], backend=own_client) == [1]


def test_others_survive_a_poisonous_item(own_client):
    outcomes = pmap(poisonous, range(20), on_error="return", backend=own_client)

    assert [x for x, each in enumerate(outcomes) if isinstance(each, WorkerDied)] == [13]


def test_what_was_scattered_is_put_again(tmp_path):
    cluster = Cluster(tmp_path, workers=1)
    try:
        with Client(scheduler_file=str(cluster.contact), set_as_default=False) as client:
            table = np.arange(1_000_000.0)
            results = imap(lambda x: (dawdle(x), table[x])[1], range(40), backend=client)
            seen = [next(results)]
            os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
            seen += results
            assert seen == list(range(40))
    finally:
        cluster.close()


def test_a_worker_that_joins_is_used(own_cluster, own_client):
    results = imap(dawdle, range(400), backend=own_client)
    before = [next(results)[1] for _ in range(4)]
    own_cluster.add()
    own_client.wait_for_workers(3, timeout=PATIENCE)
    after = [pid for _, pid in results]

    assert len(set(before)) <= 2
    assert len({*before, *after}) == 3


def test_a_scheduler_that_ends_is_told(own_cluster, own_client):
    results = imap(dawdle, range(10_000), backend=own_client)
    assert next(results)[0] == 0
    own_cluster.scheduler.kill()

    with pytest.raises(NoWorkers, match=r"^the client of Dask given as backend is clos"):
        list(results)


def test_a_closed_client_is_told(own_cluster):
    client = Client(scheduler_file=str(own_cluster.contact), set_as_default=False)
    client.close()

    with pytest.raises(NoWorkers, match=r"^the client of Dask given as backend is closed, or "):
        pmap(abs, [1], backend=client)


def test_an_address_without_a_scheduler_is_told(monkeypatch):
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
