"""Clusters of other engines for the tests, started as a user starts them: by commands.

Their processes carry a mark in the environment, by which all of them are found at the end, and
which no other cluster on the machine has.
"""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import NamedTuple

import psutil
from scripts import MARK, assert_gone, environment, marked

UP = 60.0  # seconds until a cluster must be there, on a busy machine
STORE = 200_000_000  # bytes of Ray's object store; it would take a third of the memory


class Ray(NamedTuple):
    """A cluster of Ray: how it is reached, the proxy of its clients, and what to connect with."""

    address: str
    client: str
    mark: str
    credentials: dict[str, str]


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def await_listener(port: int) -> None:
    """Return once somebody listens on `port`: some parts of a cluster are up after the others."""
    until = time.monotonic() + UP
    while True:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < until, f"nobody listens on {port}"
        time.sleep(0.05)


@contextmanager
def ray_cluster(**extra: str) -> Iterator[Ray]:
    """Give a cluster of Ray with two CPUs, as `ray start` starts it, `extra` in its environment."""
    # It listens for the whole network, so a token keeps others out.
    credentials = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # The proxy forks its servers in the midst of gRPC's threads, whose handlers for that are
    # now and then killed by a check of their own while the proxy is young.
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "GRPC_ENABLE_FORK_SUPPORT": "0"}
    env = environment(**quiet, **credentials, **extra)
    port, proxy = free_port(), free_port()
    # A path within it is that of a Unix socket, and must be short.
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp") as folder:
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--num-cpus=2"),
            *(f"--port={port}", f"--ray-client-server-port={proxy}", f"--temp-dir={folder}"),
            *(f"--object-store-memory={STORE}", "--include-dashboard=false"),
            "--disable-usage-stats",
        ]
        try:
            # Where it is started is not where scripts run: they must find their modules all the
            # same.
            started = subprocess.run(
                command, env=env, cwd="/", capture_output=True, text=True, timeout=UP, check=False
            )
            assert started.returncode == 0, started.stdout + started.stderr
            if find_spec("grpc"):  # or there is no proxy
                await_listener(proxy)
            yield Ray(f"127.0.0.1:{port}", f"ray://127.0.0.1:{proxy}", env[MARK], credentials)
        finally:
            end(env[MARK], ("raylet", "gcs_server"))


def end(mark: str, order: tuple[str, ...]) -> None:
    """End the processes that carry `mark`, those with the names in `order` first and politely."""
    processes = marked(mark)
    for name in order:
        asked = [each for each in processes if name_of(each) == name]
        for each in asked:
            each.terminate()
        psutil.wait_procs(asked, timeout=5.0)
    looks = 0
    while looks < 3:  # one that is being started just now may be missed by a look
        left = marked(mark)
        for each in left:
            each.kill()
        psutil.wait_procs(left, timeout=5.0)
        looks = 0 if left else looks + 1
    assert_gone(mark)


def name_of(process: psutil.Process) -> str:
    """Return a process's name, nothing if it is gone."""
    try:
        return str(process.name())
    except psutil.Error:
        return ""
