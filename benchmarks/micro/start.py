"""What a user waits for workers: the first call, further workers, calls while they are up.

    python -m benchmarks.micro.start [--quick]

Cold: a fresh process whose first call has its items run by two workers (`workers=2`), from the call
to its first result (`imap`) and to all (`pmap`); the function is the script's own.  Warm: the same
call, again and again.  Beside each, `multiprocessing.Pool(2)` of a script with a `__main__` guard,
made and used.  Medians, cold ones interleaved.
"""

from __future__ import annotations

from statistics import median

from benchmarks import machine_line, printed, quick, table
from parallelkit.__main__ import further
from parallelkit.backends import warm

HEAD = """
import sys
from time import perf_counter
def f(x):
    return x + 1
"""

OURS = """
from parallelkit import imap, pmap
"""

TIMED = """
began = perf_counter()
{call}
print(perf_counter() - began)
"""

POOL = """
from multiprocessing import get_context
"""

# A guard is not needed here, as `-c` is not imported again; the functions travel by name, so that
# only the methods that fork can find them.
COLD = {
    "first call, first result": HEAD + OURS + TIMED.format(call="next(imap(f, [1, 2], workers=2))"),
    "first call, both results": HEAD + OURS + TIMED.format(call="pmap(f, [1, 2], workers=2)"),
    "Pool, fork": HEAD + POOL + TIMED.format(call="get_context('fork').Pool(2).map(f, [1, 2])"),
    "Pool, forkserver": HEAD
    + POOL
    + TIMED.format(call="get_context('forkserver').Pool(2).map(abs, [1, 2])"),
}

WARM = {
    "later call": HEAD
    + OURS
    + "pmap(f, [1, 2], workers=2)\nfor _ in range({repeats}):"
    + TIMED.format(call="pmap(f, [1, 2], workers=2)").replace("\n", "\n    "),
    "Pool, map again": HEAD
    + POOL
    + "pool = get_context('fork').Pool(2)\npool.map(f, [1, 2])\nfor _ in range({repeats}):"
    + TIMED.format(call="pool.map(f, [1, 2])").replace("\n", "\n    "),
}


def cold(repeats: int) -> dict[str, list[float]]:
    """Return the seconds of first calls, each in a process of its own."""
    taken: dict[str, list[float]] = {name: [] for name in COLD}
    for _ in range(repeats):
        for name, script in COLD.items():
            taken[name] += printed(script)
    return taken


def fresh_further() -> float:
    """Return the seconds of a further worker, when the first is just up and none has been."""
    warm.shut()
    return further()


def main() -> None:
    """Print the table."""
    few = quick(__doc__)
    taken = cold(3 if few else 15)
    taken["each further worker"] = [fresh_further() for _ in range(3 if few else 15)]
    taken |= {
        name: printed(script.replace("{repeats}", "20" if few else "300"))
        for name, script in WARM.items()
    }
    print(machine_line(), end="\n\n")
    rows = [
        (name, f"{median(seconds) * 1e3:.2f}", f"{min(seconds) * 1e3:.2f}", len(seconds))
        for name, seconds in taken.items()
    ]
    print(table(("", "median, ms", "least, ms", "times"), rows))


if __name__ == "__main__":
    main()
