"""tqdm shows the progress of our maps, around the items and around the results."""

from __future__ import annotations

import io

import pytest
from sent import square

from parallelkit import Executor, Pool, imap, pmap

tqdm = pytest.importorskip("tqdm")
contrib = pytest.importorskip("tqdm.contrib")

tqdm.tqdm.monitor_interval = 0  # or its thread stays when all bars are gone

COUNT = 40
SQUARES = [x * x for x in range(COUNT)]


def check_full(screen):
    assert f"{COUNT}/{COUNT}" in screen.getvalue()


@pytest.mark.parametrize("ordered", [True, False])
def test_around_results(ordered):
    screen = io.StringIO()
    results = imap(square, range(COUNT), ordered=ordered, workers=2)

    assert sorted(tqdm.tqdm(results, total=COUNT, file=screen)) == SQUARES
    check_full(screen)


def test_around_items():
    screen = io.StringIO()

    assert pmap(square, tqdm.tqdm(range(COUNT), file=screen), workers=2) == SQUARES
    check_full(screen)


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_around_a_pool_s_results(method):
    screen = io.StringIO()
    with Pool(2) as pool:
        results = getattr(pool, method)(square, range(COUNT))
        assert sorted(tqdm.tqdm(results, total=COUNT, file=screen)) == SQUARES

    check_full(screen)


def test_around_an_executor_s_results():
    screen = io.StringIO()
    with Executor(2) as executor:
        results = executor.map(square, range(COUNT))
        assert list(tqdm.tqdm(results, total=COUNT, file=screen)) == SQUARES

    check_full(screen)


def test_a_bar_that_is_left_early_ends_the_map():
    screen = io.StringIO()
    with tqdm.tqdm(imap(square, range(10**9), workers=2), file=screen) as bar:
        assert next(value for value in bar if value > 50) == 64


def test_contrib():
    screen = io.StringIO()
    results = contrib.tenumerate(imap(square, range(COUNT), workers=2), total=COUNT, file=screen)

    assert [value for _, value in results] == SQUARES
    check_full(screen)


def test_bars_in_workers():
    def summed(count):
        from tqdm.auto import trange

        return sum(trange(count, file=io.StringIO()))

    assert pmap(summed, [3, 4], workers=2) == [3, 6]
