"""The event loops that tests run in, each if its package is there."""

from __future__ import annotations

import asyncio
import importlib.util

import pytest


def run_asyncio(main):
    return asyncio.run(main())


def run_uvloop(main):
    return pytest.importorskip("uvloop").run(main())


def run_trio(main):
    return pytest.importorskip("trio").run(main)


async def nothing():
    pass


if importlib.util.find_spec("uvloop"):
    run_uvloop(
        nothing
    )  # libuv keeps a pipe from its first loop on, which no test shall be blamed for

each_loop = pytest.mark.parametrize("run", [run_asyncio, run_uvloop, run_trio])
