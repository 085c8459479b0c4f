"""One script, its backend chosen by the environment alone, and the same answer bit for bit.

The script is run as users run it, from another folder than the one that a cluster was started in.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from clusters import Ray
from dask_cluster import Cluster
from scripts import script

EXAMPLE = Path(__file__).parents[2] / "docs/examples/fraud_scoring.py"
DIGEST = re.compile(r"^sha256 ([0-9a-f]{64})$", re.MULTILINE)


def digest(where: Path, command: list[str] | None = None, **environment: str) -> str:
    """Run the example; return the SHA-256 of its summary."""
    line = None if command is None else [*command, str(where / "script.py"), "--quick"]
    printed = script(EXAMPLE.read_text(), "--quick", where=where, command=line, **environment)
    assert re.match(r"80,000 payments of 2,408,867\.08 in all", printed)
    found = DIGEST.search(printed)
    assert found
    return found[1]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give what the caller alone finds."""
    return digest(tmp_path_factory.mktemp("serial"), PARALLELKIT_BACKEND="serial")


@pytest.mark.parametrize("backend", ["processes", "threads"])
def test_on_this_machine(tmp_path, expected, backend):
    assert digest(tmp_path, PARALLELKIT_BACKEND=backend) == expected


def test_on_a_cluster_of_dask(tmp_path, expected, dask_cluster: Cluster, shared_client):
    address = dask_cluster.address.replace("tcp://", "dask://")

    assert len(shared_client.nthreads()) == 2
    assert digest(tmp_path, PARALLELKIT_BACKEND=address) == expected


def test_on_a_cluster_of_ray(tmp_path, expected, ray_head: Ray):
    environment = {"PARALLELKIT_BACKEND": "ray", "RAY_ADDRESS": ray_head.address}

    assert digest(tmp_path, **environment, **ray_head.credentials) == expected


def test_on_a_cluster_of_ray_by_its_proxy(tmp_path, expected, ray_head: Ray):
    pytest.importorskip("grpc", reason="ray[client] is not installed")

    chosen = {"PARALLELKIT_BACKEND": ray_head.client}
    assert digest(tmp_path, **chosen, **ray_head.credentials) == expected


def test_on_ranks_of_mpi(tmp_path, expected):
    pytest.importorskip("mpi4py")
    mpiexec = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which(
        "mpiexec"
    )
    if mpiexec is None:
        pytest.skip("there is no mpiexec")
    command = [mpiexec, "-n", "3", sys.executable, "-m", "mpi4py.futures"]

    assert digest(tmp_path, command, PARALLELKIT_BACKEND="mpi") == expected


def test_mpi_without_ranks_is_told(tmp_path):
    pytest.importorskip("mpi4py")
    printed = script(
        """
        from parallelkit import pmap
        from parallelkit.errors import NoWorkers

        try:
            pmap(abs, range(10), backend="mpi")
        except NoWorkers as error:
            print(error)
        """,
        where=tmp_path,
    )

    assert printed == (
        "there are no ranks of MPI but this one: start the script with "
        "`mpiexec -n 9 python -m mpi4py.futures script.py`, for 8 workers\n"
    )
