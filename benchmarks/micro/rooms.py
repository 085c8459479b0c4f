"""What a step of each room costs, in time, in one process.

    python -m benchmarks.micro.rooms [--quick]

The least and the median of several rounds, which alternate between the loads.  On a busy machine
only the least says anything, and `benchmarks.micro.counts` more.
"""

from __future__ import annotations

import gc
from statistics import median
from time import perf_counter

from benchmarks import machine_line, quick, table
from benchmarks.micro.loads import LOADS


def main() -> None:
    """Print the table."""
    rounds = 5 if quick(__doc__) else 40
    prepared = {name: (prepare(), steps) for name, (prepare, steps) in LOADS.items()}
    taken: dict[str, list[float]] = {name: [] for name in LOADS}
    gc.disable()
    for number in range(rounds + 1):
        for name, (run, steps) in prepared.items():
            began = perf_counter()
            run(steps)
            if number:  # the first round warms
                taken[name].append((perf_counter() - began) / steps)
    rows = [
        (name, f"{min(seconds) * 1e6:.2f}", f"{median(seconds) * 1e6:.2f}")
        for name, seconds in taken.items()
    ]
    print(machine_line(), end="\n\n")
    print(table(("us a step", "least", "median"), rows))


if __name__ == "__main__":
    main()
