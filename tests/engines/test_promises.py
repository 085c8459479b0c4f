"""Every promise on every engine."""

from __future__ import annotations

import pytest
from everywhere import PROMISES, Place


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_is_kept_by_dask(client, promise):
    check = PROMISES[promise]
    check(Place(client))
