"""Loops over the parts of a pandas table: chunks of a file, groups, rows."""

from __future__ import annotations

import io
from functools import partial

import pytest
from lent import FEW, MAPS, elsewhere, lent
from sent import sums

from parallelkit import imap, pmap

pd = pytest.importorskip("pandas")

ROWS = 500


def text():
    return "shop,price\n" + "".join(f"{row % 3},{row * row}\n" for row in range(ROWS))


@pytest.mark.parametrize("name", MAPS)
def test_chunks_of_a_file(name):
    with pd.read_csv(io.StringIO(text()), chunksize=60) as reader:
        serial = [sums(part) for part in reader]

    with lent(name) as mapping, pd.read_csv(io.StringIO(text()), chunksize=60) as reader:
        found = list(mapping(elsewhere(sums, name), reader))

    assert len(found) == len(serial) == 9
    for one, other in zip(found, serial, strict=True):
        pd.testing.assert_series_equal(one, other)


def test_a_file_is_read_as_results_are():
    read = []

    def parts():
        with pd.read_csv(io.StringIO(text()), chunksize=1) as reader:
            for part in reader:
                read.append(len(part))
                yield part

    results = imap(lambda part: int(part["price"].iloc[0]), parts(), workers=2, chunksize=1)

    assert [next(results) for _ in range(3)] == [0, 1, 4]
    results.close()
    assert len(read) < ROWS


@pytest.mark.parametrize("name", FEW)
def test_groups(name):
    table = pd.read_csv(io.StringIO(text()))

    def mean(group):
        label, rows = group
        return label, rows["price"].mean()

    with lent(name) as mapping:
        found = dict(mapping(mean, table.groupby("shop")))

    assert found == table.groupby("shop")["price"].mean().to_dict()


def test_changed_parts_come_back_and_the_table_is_left_alone():
    table = pd.read_csv(io.StringIO(text()))

    def doubled(part):
        part["price"] *= 2
        return part

    parts = [table.iloc[at : at + 100].copy() for at in range(0, ROWS, 100)]
    found = pd.concat(partial(pmap, workers=2)(doubled, parts))

    assert (found["price"] == table["price"] * 2).all()
    assert parts[1]["price"].equals(table["price"].iloc[100:200])
