"""A real Dask cluster of processes on this machine: a scheduler, and workers that come and go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

PATIENCE = 60.0  # seconds for a process to start or end on a loaded machine


def where(_: object) -> int:
    """Return the process in which an item is run."""
    return os.getpid()


def poisonous(x: int) -> int:
    """Return an item, unless it is the one that kills its worker."""
    if x == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def dawdle(x: int) -> tuple[int, int]:
    """Return an item and its process after so long that a run lasts a while."""
    threading.Event().wait(0.05)
    return x, os.getpid()


class Cluster:
    """A scheduler and its workers, each started as `dask` is on the command line.

    They run in `folder`, so that they find no module of the tests by accident.
    """

    def __init__(self, folder: Path, workers: int = 2, **environment: str) -> None:
        self.folder = folder
        self.environment = {**os.environ, "TMPDIR": str(folder), **environment}
        self.contact = folder / "scheduler.json"
        self.scheduler = self._started(
            "scheduler", "--host 127.0.0.1 --port 0 --dashboard-address 127.0.0.1:0"
        )
        self.workers: list[subprocess.Popen[bytes]] = []
        for _ in range(workers):
            self.add()

    def _started(self, command: str, options: str) -> subprocess.Popen[bytes]:
        arguments = [
            *(sys.executable, "-m", "dask", command),
            *("--scheduler-file", str(self.contact), *options.split()),
        ]
        log = open(self.folder / f"{command}.log", "ab")  # noqa: SIM115
        with log:
            return subprocess.Popen(
                arguments, cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )

    def add(self, threads: int = 1, nanny: bool = True) -> None:
        """Start another worker; it is there when the scheduler says so."""
        options = f"--nworkers 1 --nthreads {threads} --host 127.0.0.1 --no-dashboard"
        options += " --memory-limit 1GiB" + ("" if nanny else " --no-nanny")
        self.workers.append(self._started("worker", options))

    @property
    def address(self) -> str:
        """Where the scheduler listens."""
        told: dict[str, Any] = json.loads(self.contact.read_text())
        return str(told["address"])

    def close(self) -> None:
        """End the workers, then the scheduler: sent away together, a worker may hang."""
        for processes in (self.workers, [self.scheduler]):
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(PATIENCE)
