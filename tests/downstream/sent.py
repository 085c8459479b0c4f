"""What other libraries have our workers call; here, so that workers import nothing for it."""

from __future__ import annotations

import numpy as np


def valley(x):
    return float((1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2)


def square(x):
    return x * x


def ones(individual):
    return (float(sum(individual)),)


def sums(part):
    return part.groupby("shop")["price"].sum()


def log_probability(x, centre, scale):
    value = -0.5 * np.sum((x - centre) ** 2) / scale
    return value, value * 2  # the second is a blob


class Model:
    """A likelihood with parameters of its own, whose methods are what is sampled."""

    def __init__(self, centre: float) -> None:
        self.centre = centre

    def likelihood(self, x):
        return -0.5 * float(np.sum((x - self.centre) ** 2))

    def prior(self, cube):
        return 10 * cube - 5
