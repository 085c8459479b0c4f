"""`workers=` of scipy takes our maps, and finds what it finds without them."""

from __future__ import annotations

import numpy as np
import pytest
from lent import FEW, MAPS, elsewhere, lent
from sent import valley

optimize = pytest.importorskip("scipy.optimize")
integrate = pytest.importorskip("scipy.integrate")

BOUNDS = [(-2.0, 2.0), (-1.0, 3.0)]
each_map = pytest.mark.parametrize("name", MAPS)
some_maps = pytest.mark.parametrize("name", FEW)


def evolved(function, workers):
    # Without `polish`, which calls the function in the caller.
    return optimize.differential_evolution(
        function, BOUNDS, maxiter=5, rng=1, updating="deferred", polish=False, workers=workers
    )


@each_map
def test_differential_evolution(name):
    serial = evolved(valley, map)

    with lent(name) as workers:
        found = evolved(elsewhere(valley, name), workers)

    assert np.array_equal(found.x, serial.x)
    assert (found.fun, found.nfev, found.nit) == (serial.fun, serial.nfev, serial.nit)


@some_maps
def test_brute(name):
    serial = optimize.brute(valley, BOUNDS, Ns=8, full_output=True, finish=None)

    with lent(name) as workers:
        found = optimize.brute(
            elsewhere(valley, name), BOUNDS, Ns=8, full_output=True, finish=None, workers=workers
        )

    assert all(np.array_equal(*pair) for pair in zip(found, serial, strict=True))


def test_what_the_function_raises_arrives_as_itself():
    def broken(x):
        raise ZeroDivisionError("at the bottom")

    with lent("pmap with workers") as workers, pytest.raises(ZeroDivisionError, match="bottom"):
        optimize.brute(broken, BOUNDS, Ns=2, workers=workers)


@some_maps
def test_finite_differences_of_minimize(name):
    serial = optimize.minimize(valley, [1.2, 1.3], method="L-BFGS-B", options={"maxiter": 4})

    with lent(name) as workers:
        options = {"maxiter": 4, "workers": workers}
        found = optimize.minimize(valley, [1.2, 1.3], method="L-BFGS-B", options=options)

    assert np.array_equal(found.x, serial.x)
    assert (found.fun, found.nfev) == (serial.fun, serial.nfev)


@some_maps
def test_quad_vec(name):
    def waves(x):
        return np.sin(np.arange(3) * x)

    serial, *_ = integrate.quad_vec(waves, 0, 10)

    with lent(name) as workers:
        found, *_ = integrate.quad_vec(waves, 0, 10, workers=workers)

    assert np.array_equal(found, serial)
