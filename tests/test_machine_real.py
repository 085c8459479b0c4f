"""What this computer gives to processes that are really limited: mask, groups, address space."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallelkit import machine


def told(code: str, *, before: str = "", **environment: str) -> str:
    """Return what a fresh Python prints for `code`, run after `before`."""
    inherited = {name: text for name, text in os.environ.items() if name != machine.WORKERS}
    script = f"{before}\nfrom parallelkit import machine\nprint(({code}))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity cannot be set here")
def test_affinity_changed_at_run_time_is_seen_at_once():
    one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    before = f"from parallelkit import machine\nmachine.cpu_count()\n{one}"
    assert told("machine.cpu_count(), str(machine.cpu_reasons()[0])", before=before) == (
        "(1, 'affinity: 1')"
    )


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Python itself reads it from 3.13")
def test_python_cpu_count_stands_in_for_the_affinity():
    reasons = "[str(reason) for reason in machine.cpu_reasons()]"
    line = "PYTHON_CPU_COUNT or -X cpu_count: 77"
    assert line in told(reasons, PYTHON_CPU_COUNT="77")


def test_import_loads_neither_numpy_nor_psutil():
    loaded = "[name for name in ('numpy', 'psutil') if name in sys.modules]"
    code = "machine.cpu_count(), machine.memory() and machine.shared_memory() and "
    if not os.path.exists("/proc/meminfo"):
        pytest.skip("memory and affinity come from psutil where there is no /proc")
    assert told(code + loaded, before="import sys").endswith("[])")


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS binds and is told on Linux")
def test_address_space_limit_bounds_the_memory():
    before = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))"
    limit, available, source = eval(
        told("(lambda m: (m.limit, m.available, m.source))(machine.memory())", before=before)
    )
    assert (limit, source) == (1 << 30, "RLIMIT_AS")
    assert 0 < available < 1 << 30


@pytest.fixture
def group(request) -> Iterator[Path]:
    """Make a cgroup with another inside it, next to that of this process; give the outer one."""
    level = machine._levels(request.param, "")
    if not level or level[0].version != 1 or not os.access(level[0].folder, os.W_OK):
        pytest.skip(f"no writable cgroup of version 1 for {request.param}")
    outer = Path(level[0].folder) / f"parallelkit-test-{os.getpid()}"
    try:
        (outer / "inner").mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    yield outer
    (outer / "inner").rmdir()
    outer.rmdir()


def told_within(group: Path, code: str) -> str:
    join = f"open('{group}/inner/cgroup.procs', 'w').write('0')"
    return told(code, before=join)


@pytest.mark.parametrize("group", ["cpu"], indirect=True)
def test_real_quota_on_the_outer_group_is_found_from_the_inner(group):
    (group / "cpu.cfs_quota_us").write_text("50000")
    assert told_within(group, "machine.cpu_count(), str(machine.cpu_reasons()[0])") == str(
        (1, f"cgroup v1 quota 0.5 at {group}: 1")
    )


@pytest.mark.parametrize("group", ["memory"], indirect=True)
def test_real_memory_limit_on_the_outer_group_is_found_from_the_inner(group):
    (group / "memory.limit_in_bytes").write_text(str(300 << 20))
    code = "(lambda m: (m.limit, 0 < m.available < 300 << 20, m.source))(machine.memory())"
    assert told_within(group, code) == str((300 << 20, True, f"{group}/memory.limit_in_bytes"))
