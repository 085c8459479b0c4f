"""Ray as a backend: a real cluster that `ray start` started, and sessions of every kind with it.

The session of this process is one for all tests here, as its threads and sockets are Ray's; what a
test has to leave as it was is told below.  What needs a session of its own is run as a script.
"""

from __future__ import annotations

import gc
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import leaks
import numpy as np
import pytest
from clusters import Ray, free_port, ray_cluster
from everywhere import PROMISES, Place
from scripts import script

import parallelkit
from parallelkit import imap, pmap, preduce
from parallelkit.errors import ItemTimeout, WorkerDied

ray = pytest.importorskip("ray")

RELEASED = 20.0  # seconds until Ray has let go of what nobody refers to


@pytest.fixture(scope="module")
def session(ray_head: Ray) -> Iterator[Ray]:
    """Give a session of this process with the cluster, made by the user."""
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ray_head.credentials.items():
            patch.setenv(name, value)
        ray._raylet.Config.initialize("")  # it has read the environment when it was imported
        ray.init(ray_head.address, logging_level="ERROR", log_to_driver=False)
        yield ray_head
        ray.shutdown()
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(autouse=True)
def leaves_nothing(session: Ray, tmp_path: Path) -> Iterator[None]:
    """Fail a test that leaves anything behind but threads and sockets, which come from Ray."""
    folder = str(tmp_path)  # not that of the session, by which its own processes are known as ours
    before = leaks.take(folder)
    yield
    remains = [
        each
        for each in leaks.settle(before, folder, grace=0.0)
        if not each.startswith(("native thread", "descriptor", "file"))
    ]
    assert not remains, "the test left behind:\n  " + "\n  ".join(remains)
    assert needed() == 0.0, "the object store still keeps something"


def needed() -> float:
    """Return how many percent of the object store are kept for somebody, once that is steady."""
    from ray._private.internal_api import memory_summary

    deadline = time.monotonic() + RELEASED
    while True:
        # By its address, as there may be others on this machine.
        summary = memory_summary(ray.get_runtime_context().gcs_address, stats_only=True)
        percent = float(summary.partition("full, ")[2].partition("% needed")[0])
        if not percent or time.monotonic() > deadline:
            return percent


def cpus() -> float:
    """Return how many of the cluster's CPUs are free, once none is taken any more."""
    deadline = time.monotonic() + RELEASED
    while True:
        free = float(ray.available_resources().get("CPU", 0.0))
        if free == 2.0 or time.monotonic() > deadline:
            return free


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_is_kept(promise):
    check = PROMISES[promise]
    check(Place("ray", timed=True))


# Deaths.


def kill_once(mark: str, x: int) -> int:
    """Be killed on the first try of an item in the middle."""
    if x == 500 and not os.path.exists(mark):
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x * x


def test_a_killed_worker_changes_no_result(tmp_path):
    mark = str(tmp_path / "mark")

    results = pmap(kill_once, [mark] * 1000, range(1000), backend="ray")
    os.remove(mark)
    total = preduce(max, range(1000), map=lambda x: kill_once(mark, x), backend="ray")

    assert results == [x * x for x in range(1000)]
    assert total == 999 * 999
    os.remove(mark)


def deadly(x: int) -> int:
    if x == 77:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def test_an_item_that_kills_its_worker_is_named():
    with pytest.raises(WorkerDied) as caught:
        pmap(deadly, range(200), backend="ray")

    assert str(caught.value) == (
        "a worker of Ray's died while it ran item 77 (77); "
        "retries= and on_error= say what becomes of such an item"
    )
    assert (caught.value.index, caught.value.item) == (77, 77)


def test_the_run_goes_on_without_it():
    assert pmap(deadly, range(200), backend="ray", on_error="skip") == [
        x for x in range(200) if x != 77
    ]
    outcomes = pmap(deadly, range(76, 80), backend="ray", timeout=30.0, on_error="return")
    assert [type(each) for each in outcomes] == [int, WorkerDied, int, int]


def wait_long(x: int) -> int:
    if x == 3:
        signal.pause()
    return x


def test_a_late_item_is_ended_and_its_place_used_again():
    late = pmap(wait_long, range(12), backend="ray", timeout=0.5, on_error="return")

    assert [x for x in late if not isinstance(x, Exception)] == [0, 1, 2, *range(4, 12)]
    assert isinstance(late[3], ItemTimeout)
    assert str(late[3]) == "item 3 (3) ran longer than timeout=0.5 seconds, and was ended"
    assert cpus() == 2.0  # the actors of that run are gone


# What Ray says of its own, and what it means.


@pytest.mark.parametrize(
    ("error", "fate", "words"),
    [
        (ray.exceptions.WorkerCrashedError(), "died", "of Ray's died"),
        (ray.exceptions.ActorDiedError(), "died", "of Ray's died"),
        (
            ray.exceptions.OutOfMemoryError("low"),
            "fell",
            "of Ray's was ended by Ray, as its node was out of memory,",
        ),
        (
            ray.exceptions.NodeDiedError("gone"),
            "strayed",
            "of Ray's, or its node, was lost again and again",
        ),
        (  # its host was cut off, say
            ray.exceptions.ActorUnavailableError("RpcError", None),
            "strayed",
            "of Ray's, or its node, was lost again and again",
        ),
        (
            ray.exceptions.ObjectLostError("ab", None, ""),
            "strayed",
            "of Ray's, or its node, was lost again and again",
        ),
        (
            ray.exceptions.OutOfDiskError("Local disk is full"),
            "over",
            "Ray cannot run a chunk: OutOfDiskError: ",
        ),
    ],
)
def test_errors_of_rays_are_judged(error, fate, words):
    from parallelkit.backends.ray import RayVenue

    judged = RayVenue().judge(error)

    assert judged.fate == fate
    assert judged.words.startswith(words)


# Memory.


def test_large_data_travels_once_and_is_let_go():
    table = np.arange(4_000_000.0)  # 32 MB, so that a store of 200 would soon be full

    found = pmap(lambda x: float(table[x]), range(2000), chunksize=50, backend="ray")

    assert found == list(range(2000))
    assert needed() == 0.0


def test_results_may_be_larger_than_the_store():
    sizes = [block.sum() for block in imap(np.ones, [5_000_000] * 8, backend="ray")]

    assert sizes == [5_000_000.0] * 8


def test_items_may_be_larger_than_the_store():
    block = np.ones(30_000_000)  # 240 MB

    assert pmap(np.sum, [block, block[:10]], backend="ray") == [30_000_000.0, 10.0]


def test_the_store_forgets_results_without_a_collection():
    gc.disable()
    try:
        for block in imap(np.ones, [1_000_000] * 8, backend="ray"):
            assert len(block) == 1_000_000
        del block
        with suppress(WorkerDied):
            pmap(deadly, range(70, 80), backend="ray")
        kept = needed()
    finally:
        gc.enable()

    assert kept == 0.0


# Sessions.


def test_the_session_is_the_users(session):
    with parallelkit.backend("ray"):
        assert pmap(abs, [-1]) == [1]

    assert ray.is_initialized()
    address = ray.get_runtime_context().gcs_address
    with pytest.raises(ValueError, match="beside the session") as caught:
        pmap(abs, [-1], backend=session.client)
    assert str(caught.value) == (
        f"backend={session.client!r} cannot be had beside the session with {address} that this "
        'process has: use backend="ray" for that one, or end it with ray.shutdown()'
    )


def test_two_sessions_one_after_the_other(ray_head, tmp_path):
    (tmp_path / "helper.py").write_text("def double(x):\n    return 2 * x\n")
    printed = script(
        """
        import ray
        import helper
        import parallelkit
        from parallelkit import imap, pmap
        from parallelkit.errors import NoWorkers

        with parallelkit.backend("ray"):
            print(sum(pmap(helper.double, range(100))), ray.is_initialized())
        print(ray.is_initialized())

        results = imap(helper.double, range(100_000), backend="ray", chunksize=1)
        print(next(results))
        ray.shutdown()
        try:
            list(results)
        except NoWorkers as error:
            print(error)
        print(sum(pmap(lambda x: helper.double(x), range(100), backend="ray")))
        """,
        where=tmp_path,
        RAY_ADDRESS=ray_head.address,
        **ray_head.credentials,
    )

    assert printed.splitlines() == [
        "9900 True",
        "False",
        "0",
        "the session with Ray has ended, or its cluster has: connect anew with ray.init()",
        "9900",
    ]


@pytest.mark.parametrize("way", ["RAY_ADDRESS", "PARALLELKIT_BACKEND"])
def test_a_cluster_that_is_not_there_is_told_at_once(tmp_path, way):
    address = f"127.0.0.1:{free_port()}"
    named = {"RAY_ADDRESS": address, "PARALLELKIT_BACKEND": "ray"}
    if way == "PARALLELKIT_BACKEND":
        address = f"ray://{address}"
        named = {way: address}
    printed = script(
        """
        from parallelkit import pmap
        from parallelkit.errors import NoWorkers

        try:
            pmap(abs, range(10))
        except NoWorkers as error:
            print(error)
        """,
        where=tmp_path,
        **named,
    )

    assert printed == (
        f"no cluster of Ray can be reached at {address} (start one with `ray start --head`, "
        "or correct the address): ConnectionRefusedError: [Errno 111] Connection refused\n"
    )


@pytest.fixture
def short_folder() -> Iterator[str]:
    """Give a folder whose path leaves room for that of a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp") as folder:
        yield folder


@pytest.mark.slow
def test_ray_of_this_machine_is_started_and_ended(tmp_path, short_folder):
    printed = script(
        """
        import ray
        import parallelkit

        with parallelkit.backend("ray"):
            print(sum(parallelkit.pmap(lambda x: x * x, range(1000))), ray.is_initialized())
        print(ray.is_initialized())
        """,
        where=tmp_path,
        RAY_ADDRESS="",
        RAY_AUTH_MODE="disabled",
        RAY_TMPDIR=short_folder,
        RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES="200000000",
    )

    assert printed == "332833500 True\nFalse\n"


@pytest.mark.slow
def test_the_end_of_the_cluster_ends_the_run(tmp_path):
    """Ray itself would wait for a minute, and then end the whole process."""
    with ray_cluster() as doomed:
        printed = script(
            """
            import os
            import time
            import psutil
            from parallelkit import imap
            from parallelkit.backends import ray
            from parallelkit.errors import NoWorkers
            from scripts import MARK, marked

            def linger(x):
                time.sleep(0.2 if x > 10 else 0)
                return x

            ray.PATIENCE = 1.0
            done = []
            try:
                for x in imap(linger, range(1000), backend="ray"):
                    done.append(x)
                    if x == 12:
                        for process in marked(os.environ["DOOMED"]):
                            process.kill()
            except NoWorkers as error:
                print(error)
                print("told", done == list(range(len(done))) and len(done) < 1000)
            os._exit(0)  # what Ray would say at the end is not of interest
            """,
            where=tmp_path,
            PYTHONPATH=os.pathsep.join([str(Path(__file__).parents[n]) for n in (1, 2)]),
            DOOMED=doomed.mark,
            RAY_ADDRESS=doomed.address,
            **doomed.credentials,
        )

    assert printed == (
        "the head of the cluster of Ray has not answered for 1 seconds: call ray.shutdown(), "
        "or Ray will end this process, and connect anew\ntold True\n"
    )
