"""The process of one library: it does what its standard input says, a line of JSON at a time.

It is started by `stage`, lives through the whole run, and is stopped (SIGSTOP, with all that
descend from it) while another library has its turn.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from time import perf_counter
from typing import Any

from benchmarks.versus.jobs import JOBS, Job
from benchmarks.versus.peers import KINDS, WORKERS, Peer


class Contestant:
    """A library with its workers, and the inputs of the job that is on."""

    def __init__(self, name: str) -> None:
        self.loops = 1.0  # of `burn` in a microsecond
        self.job: Job = next(iter(JOBS.values()))
        self.inputs: dict[int, Any] = {}  # by their number
        self.peer: Peer = KINDS[name]()
        self.warm()

    def warm(self) -> None:
        """Have both workers up and numpy loaded in them."""
        from benchmarks.array_peers import loaded

        for _ in range(2):
            self.peer.map(loaded, range(4 * WORKERS), 1)

    def given(self, count: int) -> Any:
        if count not in self.inputs:
            self.inputs = {count: self.job.make(count, self.loops)}
        return self.inputs[count]

    def answer(self, told: dict[str, Any]) -> dict[str, Any]:
        """Do what is told, and return what is known then."""
        if told["do"] == "job":
            self.job, self.inputs, self.loops = JOBS[told["job"]], {}, told["loops"]
            return {}
        given = self.given(told["count"])
        if told["do"] == "bound":
            return {"seconds": self.job.bound(given)}
        way = told["way"]
        if told.get("warm"):  # those who sleep by themselves after a while are woken first
            self.peer.map(abs, range(2 * WORKERS), 1)
        gc.collect()
        began = perf_counter()
        result = self.job.run(self.peer, way, given)
        seconds = perf_counter() - began
        return {"seconds": seconds, "digest": self.job.digest(result)}


def main() -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is none of the answers
    contestant = Contestant(sys.argv[1])
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        try:
            answer = contestant.answer(json.loads(line))
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        print(json.dumps(answer), file=answers, flush=True)
    contestant.peer.close()


if __name__ == "__main__":
    main()
