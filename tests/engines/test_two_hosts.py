"""Two hosts, and a cable that is cut while a run is on: it goes on, or ends and says why.

Each host is a network namespace with an address of its own, and the cable is a pair of virtual
network cards.  What is cut says no good-bye, as when a machine loses power.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

import hosts
import pytest
from clusters import STORE
from hosts import FAR, NEAR, Hosts
from scripts import script

REASON = hosts.why_not()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(REASON is not None, reason=f"no hosts can be made here: {REASON}"),
]

# By default Dask takes 30 seconds to miss somebody, and as long to give up.
SOON = {
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s",  # the least that Dask allows
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "10s",
}

RUN = """
import logging
import os
import subprocess
import sys
import time

from distributed import Client

from parallelkit import imap
from parallelkit.errors import NoWorkers

def linger(x):
    time.sleep(0.02)
    return x * x

logging.getLogger("distributed.client").disabled = True  # it tells what is told below
address = os.environ["PARALLELKIT_BACKEND"].replace("dask", "tcp")
with Client(address, set_as_default=False) as client:
    client.wait_for_workers(int(sys.argv[1]), timeout=30)

done = []
try:
    for y in imap(linger, range(600), chunksize=5):
        done.append(y)
        if len(done) == 50:
            subprocess.run(["ip", "link", "set", "cable", "down"], check=True)
except NoWorkers as error:
    print("ended", error)
assert done == [x * x for x in range(len(done))]
print(len(done))
"""

PORT = "8786"  # each host has all of its ports to itself
PYTHON = sys.executable


@pytest.fixture
def two():
    with Hosts(SOON) as made:
        yield made


def scheduler(two: Hosts, host: str, address: str, folder: str) -> None:
    options = f"--host {address} --port {PORT} --dashboard-address {address}:0"
    two.start(host, PYTHON, "-m", "dask", "scheduler", *options.split(), folder=folder)


def worker(two: Hosts, host: str, address: str, where: str, folder: str) -> None:
    options = f"tcp://{where}:{PORT} --host {address} --nworkers 1 --nthreads 1 --no-dashboard"
    two.start(host, PYTHON, "-m", "dask", "worker", *options.split(), folder=folder)


def run(two: Hosts, where: str, workers: int, folder) -> str:
    """Run the script on the near host when workers are there; return what it printed."""
    command = two.command(two.near, PYTHON, str(folder / "script.py"), str(workers))
    chosen = {"PARALLELKIT_BACKEND": f"dask://{where}:{PORT}", **SOON}
    return script(RUN, where=folder, command=command, **chosen)


def test_a_worker_that_is_cut_off_is_done_without(two, tmp_path):
    scheduler(two, two.near, NEAR, str(tmp_path))
    worker(two, two.near, NEAR, NEAR, str(tmp_path))
    worker(two, two.far, FAR, NEAR, str(tmp_path))

    assert run(two, NEAR, 2, tmp_path) == "600\n"


def test_a_scheduler_that_is_cut_off_ends_the_run(two, tmp_path):
    scheduler(two, two.far, FAR, str(tmp_path))
    worker(two, two.far, FAR, FAR, str(tmp_path))

    told, count = run(two, FAR, 1, tmp_path).splitlines()
    assert told.replace("closing", "closed") == (
        "ended the client of Dask given as backend is closed, or its scheduler at "
        f"tcp://{FAR}:{PORT} ended: connect anew, with a scheduler that runs"
    )
    assert 50 <= int(count) < 600


# The same with Ray, which asks its nodes now and then whether they are there.

ASKED = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    # By default, who waits for a task on a node that vanished waits for minutes.
    "RAY_grpc_client_keepalive_time_ms": "2000",
    "RAY_grpc_client_keepalive_timeout_ms": "2000",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # nobody else is in these networks
}

RAY_RUN = """
import subprocess
import sys
import time

import ray

from parallelkit import imap

ray.init(sys.argv[1], logging_level="FATAL", log_to_driver=False)

def linger(x):
    time.sleep(0.05)
    return x, ray.get_runtime_context().get_node_id()

done, nodes, cut = [], set(), False
for x, node in imap(linger, range(200), backend="ray"%s):
    done.append(x)
    nodes.add(node)
    if len(nodes) == 2 and len(done) > 50 and not cut:
        cut = True
        subprocess.run(["ip", "link", "set", "cable", "down"], check=True)
print(done == list(range(200)), len(nodes), flush=True)
"""


@pytest.fixture
def two_of_ray(tmp_path):
    pytest.importorskip("ray")
    with Hosts(ASKED) as made, tempfile.TemporaryDirectory(prefix="r-", dir="/tmp") as folder:
        for host, address, options in (
            (made.near, NEAR, f"--head --port=6379 --include-dashboard=false --temp-dir={folder}"),
            (made.far, FAR, f"--address={NEAR}:6379"),
        ):
            line = f"{options} --node-ip-address={address} --num-cpus=1 --disable-usage-stats"
            command = (PYTHON, "-m", "ray.scripts.scripts", "start", *line.split())
            subprocess.run(
                made.command(host, *command, f"--object-store-memory={STORE}"),
                env=made.env,
                cwd=tmp_path,
                capture_output=True,
                check=True,
                timeout=60,
            )
        yield made


@pytest.mark.parametrize("options", ["", ", timeout=30.0"])
def test_a_node_that_is_cut_off_is_done_without(two_of_ray, tmp_path, options):
    path = str(tmp_path / "script.py")
    command = two_of_ray.command(two_of_ray.near, PYTHON, path, f"{NEAR}:6379")
    ended = script(
        f"""
        import subprocess, sys
        ran = subprocess.run([sys.executable, "-c", {RAY_RUN % options!r}, *sys.argv[1:]],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        print(ran.stdout if ran.returncode == 0 else ran.stdout + ran.stderr, end="")
        """,
        where=tmp_path,
        command=command,
        **ASKED,
    )

    # Ray tells of the node that is gone, in its own time.
    assert ended.splitlines()[-1:] == ["True 2"], ended
