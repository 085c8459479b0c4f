"""Rounds: every library in a process of its own, and one awake at a time.

A process lives through the whole run, because starting Dask or Ray for each job would take longer
than the jobs.  Who has no turn is stopped with all its children, so that nothing of it runs: no
heartbeat, no idle loop.  A round has each way of each library once, in an order that rotates, and
ratios are taken within rounds.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from benchmarks import ROOT
from benchmarks.versus.jobs import LOOP, Job
from benchmarks.versus.peers import WORKERS

SERIAL = "serial"
PATIENCE = 120  # seconds in which a library must have answered, or it is out of the run


class Lost(Exception):
    """A library's process ended, or did not answer."""


class Player:
    """A library's process, seen from here."""

    def __init__(self, name: str, log: Any) -> None:
        self.name = name
        # Each library has the CPUs for its processes, not for the threads of numpy in them.
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "VERSUS_WORKERS": str(WORKERS),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.versus.contestant", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            text=True,
        )
        self.read()
        self.sleep()

    def read(self) -> dict[str, Any]:
        """Return its answer."""
        assert self.process.stdout is not None
        with alarm(PATIENCE):
            line = self.process.stdout.readline()
        if not line:
            raise Lost(f"{self.name} ended, or took more than {PATIENCE} s")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **told: Any) -> dict[str, Any]:
        """Tell it what to do, and return its answer; it is awake for as long."""
        assert self.process.stdin is not None
        self.signal(signal.SIGCONT)
        try:
            print(json.dumps(told), file=self.process.stdin, flush=True)
            return self.read()
        finally:
            self.sleep()

    def sleep(self) -> None:
        self.signal(signal.SIGSTOP)

    def signal(self, number: int) -> None:
        with suppress(psutil.NoSuchProcess):
            whole = psutil.Process(self.process.pid)
            for process in [whole, *whole.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

    def close(self) -> None:
        """End it, and whatever it leaves."""
        with suppress(psutil.NoSuchProcess):
            whole = psutil.Process(self.process.pid)
            family = [whole, *whole.children(recursive=True)]
            self.signal(signal.SIGCONT)
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            with suppress(OSError):
                self.process.stdin.close()
            _, left = psutil.wait_procs(family, timeout=10)
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self.process.stdout.close()
        self.process.wait()


@contextmanager
def alarm(seconds: int) -> Iterator[None]:
    """Have a read that waits for longer than that end as if nothing was there."""

    def ring(*_: object) -> None:
        raise Lost(f"no answer in {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Entrant:
    """One way of one library, in one job: how many items it is given, and what it took."""

    def __init__(self, player: Player, way: str, items: int) -> None:
        self.player = player
        self.way = way
        self.count = items
        self.items = items
        self.seconds: list[float] = []
        self.error = ""
        self.once = False  # too slow for more than one round

    @property
    def name(self) -> str:
        return self.player.name if self.way == LOOP else f"{self.player.name}, {self.way}"

    def run(self, items: int) -> tuple[float, str]:
        """Do the job with so many items; return the seconds and the digest of the result."""
        answer = self.player.ask(do="run", way=self.way, count=items, warm=self.way != LOOP)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["seconds"], answer["digest"]

    def told(self) -> dict[str, Any]:
        """Return what the results say of it; seconds are those of all items."""
        share = self.count / self.items
        return {
            "seconds": [taken / share for taken in self.seconds],
            "count": self.count,
            **({"error": self.error} if self.error else {}),
        }


class Pace:
    """How long a job may take: seconds in all, of one way, and the rounds between which it is."""

    def __init__(self, *, quick: bool) -> None:
        self.budget = 1.0 if quick else 22.0
        self.longest = 0.7 if quick else 3.0
        self.rounds = (0, 3) if quick else (3, 9)
        self.share = 0.1 if quick else 1.0  # of the items, or of what one takes
        self.trials = not quick  # whether the first run is a trial, and no round

    def items(self, job: Job) -> int:
        if not self.trials and job.fewer:
            return job.fewer
        return job.count if job.whole else max(1, int(job.count * self.share))


class Stage:
    """The players, and the job that is on."""

    def __init__(self, names: Sequence[str], loops: float, pace: Pace, log: Any) -> None:
        self.pace = pace
        self.loops = loops
        self.lost: dict[str, str] = {}
        self.players: dict[str, Player] = {}
        for name in names:
            try:
                self.players[name] = Player(name, log)
            except Lost as error:
                self.lost[name] = str(error)

    def close(self) -> None:
        for player in self.players.values():
            player.close()

    def play(self, job: Job) -> dict[str, Any]:
        """Play a job, and return what is to be kept of it."""
        began = time.perf_counter()
        items = self.pace.items(job)
        entrants = self.entered(job, items)
        digests: dict[int, str] = {}
        for entrant in entrants:
            self.tried(job, entrant, digests)
        total = sum(entrant.seconds[-1] for entrant in entrants if entrant.seconds)
        for entrant in entrants:
            # Of who is too slow for a second time, the trial counts; of others it was to warm up.
            del entrant.seconds[: -1 if entrant.once or not self.pace.trials else None]
        least, most = self.pace.rounds
        bounds = [] if self.pace.trials else [self.bound(job, items)]
        for number in range(min(most, max(least, int(self.pace.budget / max(total, 1e-3))))):
            bounds.append(self.bound(job, items))
            turn = number % len(entrants)
            for entrant in entrants[turn:] + entrants[:turn]:
                self.turn(entrant, digests)
        return {
            "title": job.title,
            "limit": job.limit,
            "each": job.each,
            "items": items,
            "bounds": bounds,
            "ways": {entrant.name: entrant.told() for entrant in entrants},
            "left out": job.left_out,
            "took": time.perf_counter() - began,
        }

    def entered(self, job: Job, items: int) -> list[Entrant]:
        """Tell all players which job is on, and return the ways in which they do it."""
        entrants = []
        for player in self.players.values():
            if player.name not in self.lost:
                speed = self.loops * (self.pace.share if job.whole else 1.0)
                player.ask(do="job", job=job.name, loops=speed)
                entrants += [Entrant(player, way, items) for way in job.names(player.name)]
        return entrants

    def bound(self, job: Job, items: int) -> float:
        """Return a round's limit, or 0 where the loop's own time says it."""
        if job.limit in {"cores", "loop"} or SERIAL not in self.players:
            return 0.0
        return float(self.players[SERIAL].ask(do="bound", count=items).get("seconds", 0.0))

    def expected(self, items: int, digests: dict[int, str]) -> str:
        """Return the digest of the loop's result for so many items."""
        if items not in digests:
            loop = Entrant(self.players[SERIAL], LOOP, items)
            digests[items] = loop.run(items)[1]
        return digests[items]

    def tried(self, job: Job, entrant: Entrant, digests: dict[int, str]) -> None:
        """Run once, untold, with more and more items; find out how many it can be given."""
        items = entrant.items
        if not job.whole:
            items = max(1, items // 100)
        while True:
            self.turn(entrant, digests, items, job)
            if entrant.error:
                return
            taken = entrant.seconds[-1]
            if items == entrant.items:
                break
            if taken > self.pace.longest:
                break
            items = min(entrant.items, items * (10 if taken < self.pace.longest / 20 else 3))
        entrant.count = items
        entrant.once = taken > self.pace.longest

    def turn(
        self,
        entrant: Entrant,
        digests: dict[int, str],
        items: int = 0,
        job: Job | None = None,
    ) -> None:
        """Have an entrant's time taken, and its result compared."""
        entrant.error = entrant.error or self.lost.get(entrant.player.name, "")
        if entrant.error or (entrant.once and not items):
            return
        wanted = items or entrant.count
        try:
            if job is not None:
                self.expected(wanted, digests)
            seconds, digest = entrant.run(wanted)
        except (Lost, OSError) as error:
            entrant.error = self.lost[entrant.player.name] = str(error)
            entrant.player.process.kill()
        except RuntimeError as error:
            entrant.error = str(error)
        else:
            entrant.seconds.append(seconds)
            if digest != digests[wanted]:
                entrant.error = "its result is not the loop's"
