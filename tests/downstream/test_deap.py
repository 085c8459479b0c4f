"""DEAP takes our maps, and its generations are what they are without them."""

from __future__ import annotations

import random

import numpy as np
import pytest
from lent import FEW, MAPS, elsewhere, lent
from sent import ones

pytest.importorskip("deap")

from deap import algorithms, base, creator, tools


@pytest.fixture
def kinds():
    """DEAP's room for classes made at run time, with two such; they are gone afterwards."""
    creator.create("Fitness", base.Fitness, weights=(1.0,))
    creator.create("Listed", list, fitness=creator.Fitness)
    creator.create("Arrayed", np.ndarray, fitness=creator.Fitness)
    yield {"list": creator.Listed, "array": creator.Arrayed}
    del creator.Fitness, creator.Listed, creator.Arrayed


def generations(kind, evaluate, mapping=None):
    random.seed(3)
    toolbox = base.Toolbox()
    if mapping is not None:
        toolbox.register("map", mapping)
    toolbox.register("gene", random.randint, 0, 1)
    toolbox.register("individual", tools.initRepeat, kind, toolbox.gene, 12)
    toolbox.register("population", tools.initRepeat, list, toolbox.individual)
    toolbox.register("evaluate", evaluate)
    toolbox.register("mate", tools.cxTwoPoint)
    toolbox.register("mutate", tools.mutFlipBit, indpb=0.05)
    toolbox.register("select", tools.selTournament, tournsize=3)
    people, _ = algorithms.eaSimple(toolbox.population(n=12), toolbox, 0.5, 0.2, 3, verbose=False)
    return [(list(one), one.fitness.values) for one in people]


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "list") for name in MAPS), *((name, "array") for name in FEW)]
)
def test_the_map_of_a_toolbox(kinds, name, kind):
    serial = generations(kinds[kind], ones)

    with lent(name) as mapping:
        found = generations(kinds[kind], elsewhere(ones, name), mapping)

    assert found == serial
