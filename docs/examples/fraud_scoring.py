"""Fraud scoring: which of a million card payments look wrong, on whatever there is to compute with.

The payments are made from a fixed seed, batch by batch, so that nothing has to be read or sent.
Each is scored by what is odd about it: the amount for this card, the hour, the distance from the
payment before, and how soon after it.  `preduce` combines the batches to one summary.  Its sums of
floats are combined as a tree over positions, so the summary is the same, bit for bit, wherever
the batches were scored, and its SHA-256 at the end tells.

Nothing in this file says where that is.  The environment does:

    python docs/examples/fraud_scoring.py [--quick]
    PARALLELKIT_BACKEND=serial python docs/examples/fraud_scoring.py
    PARALLELKIT_BACKEND=dask://scheduler:8786 python docs/examples/fraud_scoring.py
    PARALLELKIT_BACKEND=ray RAY_ADDRESS=head:6379 python docs/examples/fraud_scoring.py
    PARALLELKIT_BACKEND=mpi mpiexec -n 9 python -m mpi4py.futures docs/examples/fraud_scoring.py
"""

from __future__ import annotations

import argparse
import hashlib
import math
from time import perf_counter
from typing import NamedTuple

import numpy as np

from parallelkit import preduce

SEED = 20_260_101
BATCHES, BATCH = 500, 2_000  # a million payments
QUICK = 40  # batches with --quick
CARDS = 40  # in a batch, each with its own habits
DOUBTFUL = 0.9  # the score from which on a payment is looked at by a person
TOP = 5  # payments in the list of the worst

FAR, FAST = 250.0, 800.0  # kilometres from home; kilometres an hour, faster than an airliner


class Payment(NamedTuple):
    """A payment whose score is high."""

    score: float
    number: int
    amount: float


class Summary(NamedTuple):
    """What is told of some payments; two of them can be added."""

    count: int
    doubtful: int
    amount: float  # of all
    at_risk: float  # amount times score, summed
    squares: float  # of scores, summed
    by_hour: tuple[int, ...]  # doubtful payments in each hour of the day
    worst: tuple[Payment, ...]


def payments(batch: int) -> list[np.ndarray]:
    """Return a batch's cards, amounts, times in hours, and places in kilometres, by time."""
    random = np.random.Generator(np.random.PCG64([SEED, batch]))
    cards = random.integers(CARDS, size=BATCH)
    habits = random.lognormal(3.0, 0.6, CARDS)  # what each card usually pays
    times = np.sort(random.random(BATCH)) * 720.0  # a month
    amounts = np.round(habits[cards] * random.lognormal(0.0, 0.5, BATCH), 2)
    places = random.normal(0.0, 5.0, (2, BATCH))
    stolen = random.random(BATCH) < 0.01
    amounts[stolen] = np.round(amounts[stolen] * 8.0, 2)
    places[:, stolen] += random.uniform(-900.0, 900.0, (2, int(stolen.sum())))
    return [cards, amounts, times, *places]


def score(batch: int) -> Summary:
    """Return the summary of a batch: the function that runs everywhere.

    The payments of a card are gone through in order, since each is judged by those before it.
    """
    columns = payments(batch)
    seen: dict[int, tuple[float, float, float, float, int]] = {}
    by_hour = [0] * 24
    found: list[Payment] = []
    amount_sum = at_risk = squares = 0.0
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for number, (card, amount, time, x, y) in enumerate(rows, batch * BATCH):
        mean, then, old_x, old_y, count = seen.get(card, (amount, time - 24.0, x, y, 0))
        odds = -3.4
        odds += 1.6 * abs(amount / mean - 1.0)
        travelled = math.sqrt((x - old_x) ** 2 + (y - old_y) ** 2)
        odds += 2.2 * (travelled / (time - then + 1e-3) > FAST)
        odds += 1.9 * (math.sqrt(x * x + y * y) > FAR)
        odds += 0.8 * (time % 24.0 < 5.0)
        value = logistic(odds)
        amount_sum += amount
        at_risk += amount * value
        squares += value * value
        if value >= DOUBTFUL:
            by_hour[int(time % 24.0)] += 1
            found.append(Payment(value, number, amount))
        else:  # a doubtful payment is no habit
            seen[card] = (mean + (amount - mean) / (count + 1), time, x, y, count + 1)
    return Summary(BATCH, len(found), amount_sum, at_risk, squares, tuple(by_hour), ranked(found))


def logistic(odds: float) -> float:
    """Return a probability for the logarithm of odds."""
    return 1.0 / (1.0 + math.exp(-odds))


def ranked(found: list[Payment]) -> tuple[Payment, ...]:
    """Return the worst of some payments, the earlier ones first where scores are equal."""
    return tuple(sorted(found, key=lambda each: (-each.score, each.number))[:TOP])


def add(left: Summary, right: Summary) -> Summary:
    """Return the summary of the payments of both."""
    return Summary(
        left.count + right.count,
        left.doubtful + right.doubtful,
        left.amount + right.amount,
        left.at_risk + right.at_risk,
        left.squares + right.squares,
        tuple(a + b for a, b in zip(left.by_hour, right.by_hour, strict=True)),
        ranked([*left.worst, *right.worst]),
    )


def main() -> None:
    """Score all payments, and print what was found."""
    parser = argparse.ArgumentParser(description="Score a million payments.")
    parser.add_argument("--quick", action="store_true", help=f"only {QUICK} batches of {BATCHES}")
    batches = QUICK if parser.parse_args().quick else BATCHES
    began = perf_counter()
    total = preduce(add, range(batches), map=score)
    seconds = perf_counter() - began

    spread = math.sqrt(total.squares / total.count)
    print(f"{total.count:,} payments of {total.amount:,.2f} in all, in {seconds:.2f} seconds")
    print(f"{total.doubtful:,} are doubtful, {total.at_risk:,.2f} are at risk")
    print(f"the scores' root mean square is {spread:.6f}")
    print("doubtful by hour:", *total.by_hour)
    for payment in total.worst:
        print(f"{payment.score:>10.6f}  payment {payment.number} of {payment.amount:.2f}")
    print("sha256", hashlib.sha256(repr(total).encode()).hexdigest())


if __name__ == "__main__":  # which MPI's workers need, as they run this file under another name
    main()
