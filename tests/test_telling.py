"""A warning names the line of the user's that led to it."""

from __future__ import annotations

import warnings
from pathlib import Path

from scripts import script

from parallelkit.errors import AloneWarning
from parallelkit.telling import mention, warn


def test_the_line_is_the_callers() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn("so it is", AloneWarning)
    (warning,) = caught
    assert Path(warning.filename) == Path(__file__)
    assert "so it is" in Path(__file__).read_text().splitlines()[warning.lineno - 1]


def test_a_function_that_cannot_travel_runs_in_the_caller_who_is_told(tmp_path: Path) -> None:
    source = """
        import threading, time, warnings
        from parallelkit import pmap

        lock = threading.Lock()

        def work(x):
            deadline = time.monotonic() + 0.01
            while time.monotonic() < deadline:
                with lock:
                    pass
            return x

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert pmap(work, range(40)) == list(range(40))
        print(*(f"{each.lineno} {each.category.__name__}" for each in caught))
        print(str(caught[0].message).splitlines()[0])
    """
    lines = script(source, where=tmp_path, PARALLELKIT_WORKERS="2").splitlines()
    assert lines[0] == "16 AloneWarning"
    assert lines[1] == (
        "every item ran in the calling thread, since workers cannot have the function: work of "
        "type function cannot be sent to another process: work's global lock: cannot pickle "
        "'_thread.lock' object"
    )


def test_named_workers_do_not_fall_back(tmp_path: Path) -> None:
    source = """
        import threading
        from parallelkit import pmap

        lock = threading.Lock()
        pmap(lambda x: lock, range(4), workers=2)
    """
    told = script(source, where=tmp_path, status=1)
    assert told.count("Traceback") == 1
    assert "PicklingError: <lambda> of type function cannot be sent to another process" in told


def test_what_only_costs_time_is_mentioned_once_to_those_who_asked(caplog) -> None:
    mention("a bee")
    assert caplog.messages == []
    caplog.set_level("INFO", "parallelkit")
    for message in ["a bee", "a wasp", "a bee"]:
        mention(message)
    assert caplog.messages == ["a bee", "a wasp"]
