"""What docs/how-to/use-with-other-libraries.md shows runs, each block with the library it needs."""

from __future__ import annotations

import importlib.util
import re

import pytest
from scripts import script
from test_docs import PAGES, blocks

BLOCKS = {
    re.search(r"needs (\w+)", block.remark)[1]: block.text
    for block in blocks(PAGES["docs/how-to/use-with-other-libraries.md"])
}


@pytest.mark.parametrize("library", BLOCKS)
def test_a_block_runs_as_a_script(library, tmp_path):
    if importlib.util.find_spec(library) is None:  # and not imported here, for it starts threads
        pytest.skip(f"needs {library}")
    quiet = {"PYTHONWARNINGS": "error", "TQDM_DISABLE": "1"}

    assert script(BLOCKS[library], where=tmp_path, **quiet)


def test_each_library_has_one_block():
    assert {"scipy", "emcee", "dynesty", "deap", "pymoo", "tqdm", "pandas"} == set(BLOCKS)
