"""Run cells in a Jupyter kernel and print, as JSON, what each showed: a program of its own.

It is one because the kernel's client leaves an event loop open in whatever process it is used.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

from jupyter_client.manager import start_new_kernel


def run(cells: list[str], interrupt_at: str = "") -> list[list[str]]:
    """Return the results and errors that each cell showed.

    As soon as there is a file `interrupt_at`, the kernel is interrupted, as by its button.
    """
    manager, kernel = start_new_kernel(kernel_name="python3", startup_timeout=60)
    shown: list[list[str]] = []

    def hook(message: dict[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] == "error":
            shown[-1].append("\n".join(content["traceback"]))
        elif message["msg_type"] == "execute_result":
            shown[-1].append(content["data"]["text/plain"])

    def interrupt() -> None:
        while not os.path.exists(interrupt_at):
            over.wait(0.05)
        manager.interrupt_kernel()

    over = threading.Event()
    if interrupt_at:
        threading.Thread(target=interrupt, daemon=True).start()
    try:
        for cell in cells:
            shown.append([])
            kernel.execute_interactive(cell, timeout=60, output_hook=hook)
    finally:
        kernel.stop_channels()
        manager.shutdown_kernel()
    return shown


print(json.dumps(run(json.loads(sys.argv[1]), *sys.argv[2:])))
