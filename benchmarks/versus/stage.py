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

SERIAL, OURS = "serial", "parallelkit"
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
        self.asleep: list[psutil.Process] = []
        self.busy = False
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
        self.busy = True
        try:
            print(json.dumps(told), file=self.process.stdin, flush=True)
            answer = self.read()
            self.busy = False
            return answer
        finally:
            self.sleep()

    def sleep(self) -> None:
        self.asleep = family(self.process.pid) or self.asleep
        self.signal(signal.SIGSTOP)
        if self.busy:  # some may have been started since it was asked who there is
            self.asleep = family(self.process.pid) or self.asleep
            self.signal(signal.SIGSTOP)

    def signal(self, number: int) -> None:
        for process in self.asleep:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def close(self) -> None:
        """End it, and whatever it leaves; a second time does nothing."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self.process.stdout.closed:
            return
        if not self.busy:  # else it would go on with its job, and start more workers
            self.signal(signal.SIGCONT)
            with suppress(OSError):
                self.process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
            psutil.wait_procs(self.asleep, timeout=3)
        self.signal(signal.SIGKILL)
        self.process.stdout.close()
        self.process.wait()


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all that descend from it."""
    try:
        whole = psutil.Process(pid)
        return [whole, *whole.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


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
        self.once = False  # too slow for another round

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
    """How long a job may take: seconds of all rounds, of one way, and how many rounds there are.

    In the first round everybody runs.  Further ones are for those who may be the best: the loop,
    parallelkit, and the `finalists` of the others.
    """

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self.budget = 0.5 if quick else 8.0
        self.longest = 0.3 if quick else 2.0
        self.rounds = (0, 2) if quick else (3, 9)
        self.share = 0.05 if quick else 1.0  # of the items, or of what one takes
        self.finalists = 2 if quick else 3

    def items(self, job: Job) -> int:
        if self.quick and job.fewer:
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
        bounds = [self.bound(job, items)]
        for entrant in entrants:
            self.tried(job, entrant, digests)
        chosen = self.finalists(entrants)
        total = sum(entrant.seconds[-1] for entrant in chosen)
        least, most = self.pace.rounds
        rounds = min(most, max(least, int(self.pace.budget / max(total, 1e-3))))
        if rounds:  # the first one warmed everything
            bounds.clear()
            for entrant in chosen:
                entrant.seconds.clear()
        for number in range(rounds if chosen else 0):
            bounds.append(self.bound(job, items))
            turn = number % len(chosen)
            for entrant in chosen[turn:] + chosen[:turn]:
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

    def finalists(self, entrants: list[Entrant]) -> list[Entrant]:
        """Return who has further rounds, in their order."""
        able = [each for each in entrants if each.seconds and not each.error]
        always = [each for each in able if each.player.name in {SERIAL, OURS}]
        peers = [each for each in able if each not in always and not each.once]
        peers.sort(key=lambda each: each.seconds[-1])
        chosen = always + peers[: self.pace.finalists]
        return [each for each in entrants if each in chosen]

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
        """Run once, with more and more items; find out how many it can be given."""
        items = entrant.items if job.whole else min(max(1, entrant.items // 100), 1_000)
        while True:
            self.turn(entrant, digests, items)
            if entrant.error:
                return
            taken = entrant.seconds.pop()
            if items == entrant.items or taken > self.pace.longest:
                break
            quickly = taken * entrant.items / items < self.pace.longest
            items = entrant.items if quickly else min(entrant.items, items * 5)
        entrant.count = items
        entrant.once = taken > self.pace.longest
        entrant.seconds = [taken]

    def turn(self, entrant: Entrant, digests: dict[int, str], items: int = 0) -> None:
        """Have an entrant's time taken, and its result compared."""
        entrant.error = entrant.error or self.lost.get(entrant.player.name, "")
        if entrant.error:
            return
        wanted = items or entrant.count
        try:
            expected = self.expected(wanted, digests)
            seconds, digest = entrant.run(wanted)
        except (Lost, OSError) as error:
            entrant.error = self.lost[entrant.player.name] = str(error)
            entrant.player.close()
        except RuntimeError as error:
            entrant.error = str(error)
        else:
            entrant.seconds.append(seconds)
            if digest != expected:
                entrant.error = "its result is not the loop's"
