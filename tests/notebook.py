"""Run cells in a Jupyter kernel and print, as JSON, what each showed: a program of its own.

It is one because the kernel's client leaves an event loop open in whatever process it is used.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from jupyter_client.manager import start_new_kernel


def run(cells: list[str]) -> list[list[str]]:
    """Return the results and errors that each cell showed."""
    manager, kernel = start_new_kernel(kernel_name="python3", startup_timeout=60)
    shown: list[list[str]] = []

    def hook(message: dict[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] == "error":
            shown[-1].append("\n".join(content["traceback"]))
        elif message["msg_type"] == "execute_result":
            shown[-1].append(content["data"]["text/plain"])

    try:
        for cell in cells:
            shown.append([])
            kernel.execute_interactive(cell, timeout=60, output_hook=hook)
    finally:
        kernel.stop_channels()
        manager.shutdown_kernel()
    return shown


print(json.dumps(run(json.loads(sys.argv[1]))))
