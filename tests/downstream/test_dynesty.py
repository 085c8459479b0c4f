"""dynesty takes our pools, and draws the samples that it draws without them."""

from __future__ import annotations

import numpy as np
import pytest
from lent import POOLS, elsewhere
from sent import Model

from parallelkit import Pool

dynesty = pytest.importorskip("dynesty")

pytestmark = pytest.mark.filterwarnings("ignore:The sampling was stopped short:UserWarning")


class Serial:
    """What dynesty takes for a pool, in the calling thread."""

    def __init__(self, size: int) -> None:
        self.size = size

    def map(self, function, items):
        return [function(item) for item in items]


def nested(pool, kind="NestedSampler", model=None, **options):
    model = model or Model(0.5)
    sampler = getattr(dynesty, kind)(
        model.likelihood,
        model.prior,
        2,
        nlive=30,
        pool=pool,
        rstate=np.random.default_rng(5),
        **options,
    )
    sampler.run_nested(print_progress=False, maxiter=90)
    return sampler.results


def check_same(found, serial):
    assert np.array_equal(found.samples, serial.samples)
    assert np.array_equal(found.logz, serial.logz)


@pytest.mark.parametrize("sampler", ["NestedSampler", "DynamicNestedSampler"])
@pytest.mark.parametrize("sample", ["unif", "rwalk"])
def test_a_pool_says_itself_how_many_wait_at_a_time(sampler, sample):
    with Pool(2) as pool:
        found = nested(pool, sampler, sample=sample)

    check_same(found, nested(Serial(2), sampler, sample=sample))


@pytest.mark.parametrize("kind", POOLS)
def test_a_queue_size(kind):
    model = Model(0.5)
    model.likelihood = elsewhere(model.likelihood)
    with kind(2) as pool:
        found = nested(pool, model=model, queue_size=4)

    check_same(found, nested(Serial(4)))
