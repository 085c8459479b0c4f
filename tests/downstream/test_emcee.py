"""emcee takes our pools, and draws the samples that it draws without them."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from lent import POOLS, elsewhere
from sent import log_probability

from parallelkit import pmap

emcee = pytest.importorskip("emcee")

each_pool = pytest.mark.parametrize("kind", POOLS)


def chain(pool, function=log_probability):
    sampler = emcee.EnsembleSampler(8, 2, function, args=(0.5,), kwargs={"scale": 2}, pool=pool)
    sampler.random_state = np.random.RandomState(3).get_state()
    sampler.run_mcmc(np.random.default_rng(1).normal(size=(8, 2)), 6)
    return sampler.get_chain(), sampler.get_log_prob(), sampler.get_blobs()


def check_same(sampled):
    assert all(np.array_equal(*pair) for pair in zip(sampled, chain(None), strict=True))


@each_pool
def test_a_pool(kind):
    with kind(2) as pool:
        check_same(chain(pool, elsewhere(log_probability)))


def test_pmap_for_a_pool():
    class Lent:
        map = functools.partial(pmap, workers=2)

    check_same(chain(Lent()))


@each_pool
def test_a_model_whose_method_is_sampled_and_that_holds_the_sampler(kind):
    class Model:
        def __init__(self, pool):
            self.sampler = emcee.EnsembleSampler(8, 2, self.likelihood, pool=pool)

        def likelihood(self, x):
            return -0.5 * float(np.sum(x**2))

    with kind(2) as pool:
        model = Model(pool)
        end = model.sampler.run_mcmc(np.random.default_rng(1).normal(size=(8, 2)), 3)

    assert np.allclose(end.log_prob, [model.likelihood(x) for x in end.coords])
