"""A cluster of Ray that is reached from outside, by the proxy for its clients."""

from __future__ import annotations

import os

import pytest
from clusters import Ray, ray_cluster
from scripts import environment, script

pytest.importorskip("ray")
pytest.importorskip("grpc", reason="ray[client] is not installed")

KILLS_THE_FIRST_SERVER = """
import os
import subprocess
from pathlib import Path

begin = subprocess.Popen.__init__
killed = Path(__file__).with_name("killed")

def begin_and_kill(self, args, **options):
    begin(self, args, **options)
    if "--mode=specific-server" in args and not killed.exists():
        killed.touch()
        self.kill()
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

subprocess.Popen.__init__ = begin_and_kill
"""
"""What the proxy of Ray's clients does not survive unharmed: the server for the first is dead at
once, as one may be that is forked in the midst of threads."""


def test_a_client_of_ray(ray_head: Ray, tmp_path):
    (tmp_path / "helper.py").write_text("def double(x):\n    return 2 * x\n")
    printed = script(
        """
        import os
        import time
        import helper
        from parallelkit import pmap
        from parallelkit.errors import WorkerDied

        print(sum(pmap(helper.double, range(1000))))
        try:
            pmap(lambda x: os.kill(os.getpid(), 9) if x == 7 else x, range(20))
        except WorkerDied as error:
            print(error.index)
        late = pmap(time.sleep, [0, 60, 0], timeout=1.0, on_error="return")
        print([type(each).__name__ for each in late])
        """,
        where=tmp_path,
        PARALLELKIT_BACKEND=ray_head.client,
        **ray_head.credentials,
    )

    assert printed.splitlines() == ["999000", "7", "['NoneType', 'ItemTimeout', 'NoneType']"]


def test_a_proxy_whose_server_dies_as_it_starts_is_asked_again(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(KILLS_THE_FIRST_SERVER)
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    # The client waits for the proxy to give up: 40 seconds, were it not told to be quicker.
    quick = {"RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "12"}
    with ray_cluster(PYTHONPATH=path, **quick) as head:
        printed = script(
            """
            from parallelkit import pmap

            print(pmap(abs, [-1, -2]))
            """,
            where=tmp_path,
            PARALLELKIT_BACKEND=head.client,
            **head.credentials,
        )

    assert printed.splitlines() == ["[1, 2]"]
    assert (tmp_path / "killed").exists()
