"""pymoo takes our maps, and its generations are what they are without them."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from parallelkit import Pool, pmap

pytest.importorskip("pymoo")

from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import ElementwiseProblem
from pymoo.optimize import minimize
from pymoo.parallelization.starmap import StarmapParallelization


class Spheres(ElementwiseProblem):
    """Two aims that contradict each other."""

    def __init__(self, **options) -> None:
        super().__init__(n_var=3, n_obj=2, xl=-2.0, xu=2.0, **options)

    def _evaluate(self, x, out, *args, **kwargs):
        out["F"] = [float((x**2).sum()), float(((x - 1) ** 2).sum())]


def check_same(**options):
    found, serial = (
        minimize(Spheres(**each), NSGA2(pop_size=12), ("n_gen", 3), seed=1)
        for each in (options, {})
    )
    assert np.array_equal(found.F, serial.F)
    assert np.array_equal(found.X, serial.X)


def test_a_starmap():
    with Pool(2) as pool:
        check_same(elementwise_runner=StarmapParallelization(pool.starmap))


@pytest.mark.parametrize("mapping", [pmap, functools.partial(pmap, workers=2)])
def test_pmap_for_a_runner(mapping):
    check_same(elementwise_runner=mapping)
