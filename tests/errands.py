"""What tests of executors have workers do."""

from __future__ import annotations

import os
import signal
from concurrent import futures

SECONDS = 60  # how long a test waits before it fails: far above what it takes


def square(x):
    return x * x


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def meet(path, mode):
    """Return when another process has opened the same fifo in the other direction."""
    with open(path, mode) as file:
        return file.mode


def raise_it(error):
    raise error


def stuck(executor):
    """Return the future of a task that runs and never ends by itself."""
    future = executor.submit(signal.pause)
    while not future.running():
        futures.wait([future], timeout=0.001)
    return future
