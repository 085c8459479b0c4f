"""Engines that the tests of this folder share, and what is looked at after each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from clusters import Ray, ray_cluster
from dask_cluster import PATIENCE, Cluster


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """Instead of what holds elsewhere: engines keep threads and sockets of their own."""


@pytest.fixture(scope="session")
def dask_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Give a cluster of two workers with a thread each, in a folder without any modules."""
    cluster = Cluster(tmp_path_factory.mktemp("dask"))
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def shared_client(dask_cluster: Cluster) -> Iterator[Any]:
    """Give a client of that cluster."""
    from distributed import Client

    with Client(scheduler_file=str(dask_cluster.contact), set_as_default=False) as client:
        client.wait_for_workers(2, timeout=PATIENCE)
        yield client


def tasks(client: Any) -> list[str]:
    """Return the keys that the scheduler of a client knows."""
    return list(client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks)))


@pytest.fixture
def client(shared_client: Any) -> Iterator[Any]:
    """Give the client; afterwards nothing may be left on the scheduler."""
    yield shared_client
    for _ in range(1000):  # releases are on their way
        if not tasks(shared_client):
            break
    assert not tasks(shared_client)


@pytest.fixture(scope="session")
def ray_head() -> Iterator[Ray]:
    """Give a cluster of Ray with two CPUs."""
    with ray_cluster() as started:
        yield started
