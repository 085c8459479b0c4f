"""What the computer gives: fake computers made of files, and this one as it is."""

from __future__ import annotations

import os
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelkit import machine
from parallelkit.machine import Bound

GIB = 1 << 30
V1_CPU = "32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
V1_MEMORY = "35 31 0:32 {top} /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n"
V2 = "30 23 0:26 {top} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID_V2 = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
MEMINFO = f"MemTotal: {16 << 20} kB\nMemFree: 1048576 kB\nMemAvailable: {8 << 20} kB\n"


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    monkeypatch.delenv(machine.WORKERS, raising=False)
    monkeypatch.setattr(machine, "_recent_quota", machine._RecentQuota())


@pytest.fixture
def computer(tmp_path):
    """Make the root of a computer from the texts of its files."""

    def make(*, mounts: str, groups: str, **texts: str) -> str:
        files = {"proc/self/mountinfo": mounts, "proc/self/cgroup": groups}
        for path, text in {**files, **texts}.items():
            target = tmp_path / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        return str(tmp_path)

    return make


def quotas(root: str) -> list[str]:
    return [str(bound).replace(root, "") for bound in machine._quotas(root)]


def v1(folder: str, quota: str, period: str = "100000\n") -> dict[str, str]:
    base = f"/sys/fs/cgroup/cpu,cpuacct{folder}"
    return {f"{base}/cpu.cfs_quota_us": quota, f"{base}/cpu.cfs_period_us": period}


def v2(folder: str, text: str) -> dict[str, str]:
    return {f"/sys/fs/cgroup{folder}/cpu.max": text}


# Quotas of fake computers.


NO_LIMIT_2 = [
    "max 100000\n",
    "max\n",
    "",
    "\n",
    "50000\n",
    "0 100000\n",
    "50000 0\n",
    "-1 100000\n",
]
NO_LIMIT_2 += ["nan inf\n", "1e5 1e5\n", "\u0665\u0660 100000\n", "9" * 5000 + " 1\n"]
NO_LIMIT_1 = [
    ("-1\n", "100000\n"),
    ("0\n", "100000\n"),
    ("50000\n", ""),
    ("", "1\n"),
    ("max", "max"),
]


@pytest.mark.parametrize(
    ("quota", "period", "cpus"),
    [(50000, 100000, 1), (250000, 100000, 3), (200000, 100000, 2), (2**64 - 1, 1, 2**64 - 1)],
)
def test_quota_is_rounded_up(computer, quota, period, cpus):
    root = computer(
        mounts=V1_CPU.format(top="/") + HYBRID_V2,
        groups="4:cpu,cpuacct:/one\n0::/two\n",
        **v1("/one", f"{quota}\n", f"{period}\n"),
        **{"/sys/fs/cgroup/unified/two/cpu.max": f"{quota} {period}\n"},
    )
    assert [bound.cpus for bound in machine._quotas(root)] == [cpus, cpus]


@pytest.mark.parametrize("text", NO_LIMIT_2)
def test_anything_else_in_version_2_is_no_limit(computer, text):
    root = computer(mounts=V2.format(top="/"), groups="0::/app\n", **v2("/app", text))
    assert quotas(root) == []


@pytest.mark.parametrize(("quota", "period"), NO_LIMIT_1)
def test_anything_else_in_version_1_is_no_limit(computer, quota, period):
    texts = v1("/app", quota, period)
    root = computer(mounts=V1_CPU.format(top="/"), groups="4:cpu,cpuacct:/app\n", **texts)
    assert quotas(root) == []


def test_every_level_of_version_2_up_to_the_mount_counts(computer):
    texts = v2("/pod/app/inner", "max 100000") | v2("/pod/app", "400000 100000")
    texts |= v2("/pod", "50000 100000") | v2("/other", "10000 100000")
    root = computer(mounts=V2.format(top="/"), groups="0::/pod/app/inner\n", **texts)
    assert quotas(root) == [
        "cgroup v2 quota 4 at /sys/fs/cgroup/pod/app: 4",
        "cgroup v2 quota 0.5 at /sys/fs/cgroup/pod: 1",
    ]


def test_every_level_of_version_1_up_to_the_mount_counts(computer):
    texts = v1("/pod/app", "-1") | v1("/pod", "250000") | v1("", "-1")
    root = computer(mounts=V1_CPU.format(top="/"), groups="4:cpu,cpuacct:/pod/app\n", **texts)
    assert quotas(root) == ["cgroup v1 quota 2.5 at /sys/fs/cgroup/cpu,cpuacct/pod: 3"]


def test_container_of_version_1_sees_its_group_as_the_root_of_the_mount(computer):
    root = computer(
        mounts=V1_CPU.format(top="/docker/ab12"),
        groups="4:cpuacct,cpu:/docker/ab12/child\n",
        **v1("", "150000"),
        **v1("/child", "-1"),
        **v1("/docker/ab12", "10000"),
    )
    assert quotas(root) == ["cgroup v1 quota 1.5 at /sys/fs/cgroup/cpu,cpuacct: 2"]


@pytest.mark.parametrize(
    ("top", "path", "folder"),
    [
        pytest.param("/", "/", "", id="a namespace, or no group at all"),
        pytest.param("/", "/pod/gone/deeper (deleted)", "/pod", id="levels without files"),
        pytest.param("/", "/../sibling", "", id="a group outside of the namespace"),
        pytest.param("/..", "/", "", id="a mount from outside of the namespace"),
        pytest.param("/..", "/../sibling", "/sibling", id="both outside of it"),
        pytest.param("/kubepods/pod1", "/other", "", id="a path of the host's"),
        pytest.param("/app", "/application", "", id="a name that starts like the mounted group's"),
        pytest.param("/a\\040b", "/a b/c", "/c", id="a name with a space"),
    ],
)
def test_quota_is_found_whatever_is_mounted(computer, top, path, folder):
    texts = v2(folder, "150000 100000")
    root = computer(mounts=V2.format(top=top), groups=f"0::{path}\n", **texts)
    assert quotas(root) == [f"cgroup v2 quota 1.5 at /sys/fs/cgroup{folder}: 2"]


def test_mount_of_another_group_is_not_ours(computer):
    stray = "50 23 0:26 /other /mnt/other rw - cgroup2 cgroup2 rw\n"
    texts = v2("/app", "150000 100000") | {"/mnt/other/cpu.max": "10000 100000"}
    root = computer(mounts=stray + V2.format(top="/"), groups="0::/app\n", **texts)
    assert quotas(root) == ["cgroup v2 quota 1.5 at /sys/fs/cgroup/app: 2"]


def test_hybrid_computer_is_asked_for_both_versions(computer):
    root = computer(
        mounts=V1_CPU.format(top="/") + V1_MEMORY.format(top="/") + HYBRID_V2,
        groups="9:name=systemd:/\n4:cpu,cpuacct:/app\n3:memory:/app\n0::/app\n",
        **v1("/app", "350000"),
        **{"/sys/fs/cgroup/unified/app/cpu.max": "150000 100000\n"},
    )
    assert quotas(root) == [
        "cgroup v1 quota 3.5 at /sys/fs/cgroup/cpu,cpuacct/app: 4",
        "cgroup v2 quota 1.5 at /sys/fs/cgroup/unified/app: 2",
    ]


def test_mount_point_with_a_space_is_found(computer):
    mounts = "30 23 0:26 /a\\040b /mnt/c\\040d\\134e rw - cgroup2 cgroup2 rw\n"
    texts = {"/mnt/c d\\e/cpu.max": "150000 100000"}
    root = computer(mounts=mounts, groups="0::/a b\n", **texts)
    assert quotas(root) == ["cgroup v2 quota 1.5 at /mnt/c d\\e: 2"]


def test_computer_without_cgroups_has_no_quota(tmp_path, computer):
    assert quotas(str(tmp_path)) == []
    assert quotas(computer(mounts="", groups="")) == []
    assert quotas(computer(mounts=V2.format(top="/"), groups="")) == []
    assert quotas(computer(mounts="", groups="0::/app\n")) == []


def test_folder_in_place_of_a_file_is_no_limit(computer, tmp_path):
    root = computer(mounts=V2.format(top="/"), groups="0::/app\n")
    (tmp_path / "sys/fs/cgroup/app/cpu.max").mkdir(parents=True)
    assert quotas(root) == []


# Any text at all: hostile files must not stop a program that only wants to count.

WORDS = st.sampled_from(
    ["0::/app", "4:cpu:/app", V2.format(top="/"), V1_CPU.format(top="/"), " - ", ":", "/..", "\0"]
)
TEXTS = st.one_of(st.text(), st.lists(WORDS | st.text(max_size=9), max_size=6).map("".join))


@given(groups=TEXTS, mounts=TEXTS, quota=TEXTS)
def test_no_text_in_any_file_raises_or_gives_less_than_one(groups, mounts, quota):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            machine,
            "_read",
            lambda path: {"cgroup": groups, "mountinfo": mounts}.get(path.split("/")[-1], quota),
        )
        assert all(bound.cpus >= 1 for bound in machine._quotas("/nowhere"))
        found = machine._memory("/nowhere")
    assert found.total > 0
    assert 0 <= found.available <= found.total


@given(below=st.text())
def test_no_path_in_any_file_raises(below):
    assert machine._read(f"/nowhere/{below}") == ""


@given(quota=st.integers(1, 10**9), period=st.integers(1, 10**6))
def test_quota_is_the_least_whole_number_that_covers_it(quota, period):
    with pytest.MonkeyPatch.context() as patch:
        texts = {"cgroup": "0::/", "mountinfo": V2.format(top="/"), "cpu.max": f"{quota} {period}"}
        patch.setattr(machine, "_read", lambda path: texts[path.split("/")[-1]])
        [bound] = machine._quotas("")
    assert (bound.cpus - 1) * period < quota <= bound.cpus * period


# Counting.


def test_count_is_the_least_of_affinity_and_quota(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
    monkeypatch.setattr(machine, "_quotas", lambda root: [Bound(9, "outer"), Bound(3, "inner")])
    assert machine.cpu_count() == 3
    assert list(map(str, machine.cpu_reasons())) == ["inner: 3", "affinity: 8", "outer: 9"]


def test_quota_is_read_again_when_it_is_old(monkeypatch):
    clock, quota = [0.0], [5]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(machine, "_quotas", lambda root: [Bound(quota[0], "group")])
    recent = machine._RecentQuota()
    assert recent.cpus() == 5
    quota[0] = 6
    assert recent.cpus() == 5
    clock[0] = 2 * machine.QUOTA_AGE
    assert recent.cpus() == 6


def test_variable_overrides_everything(monkeypatch):
    monkeypatch.setenv(machine.WORKERS, " 97 ")
    assert machine.cpu_count() == 97
    assert str(machine.cpu_reasons()[0]) == "PARALLELKIT_WORKERS: 97"


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "two", "", "max", "9" * 5000])
def test_variable_that_is_no_positive_integer_is_refused(monkeypatch, text):
    monkeypatch.setenv(machine.WORKERS, text)
    for ask in (machine.cpu_count, machine.cpu_reasons):
        with pytest.raises(ValueError, match="PARALLELKIT_WORKERS") as caught:
            ask()
        assert str(caught.value) == (
            f"PARALLELKIT_WORKERS must be a positive integer, got {text!r}: "
            "set it to a number such as 4, or unset it to use what the machine gives"
        )


def test_computer_that_cannot_tell_has_one_cpu(monkeypatch):
    monkeypatch.setattr(machine, "_mask_size", lambda: None)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.setattr(os, "process_cpu_count", lambda: None, raising=False)
    monkeypatch.setattr(machine, "_quotas", lambda root: [])
    assert machine.cpu_count() == 1


def test_psutil_is_asked_where_the_system_has_no_affinity_call(monkeypatch):
    import psutil

    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    known = hasattr(psutil.Process, "cpu_affinity")
    assert machine._mask_size() == (len(psutil.Process().cpu_affinity()) if known else None)
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert machine._mask_size() is None


# Memory.


def memory(root: str) -> tuple[int, int | None, int, str]:
    found = machine._memory(root)
    return found.total, found.limit, found.available, found.source.replace(root, "")


def test_memory_without_limits_is_the_computers(computer):
    root = computer(mounts="", groups="", **{"proc/meminfo": MEMINFO})
    assert memory(root) == (16 * GIB, None, 8 * GIB, "/proc/meminfo")


def test_memory_of_an_old_kernel_is_guessed_from_free_and_cached(computer):
    text = "MemTotal: 4194304 kB\nMemFree: 1024 kB\nBuffers: 512 kB\nCached: 512 kB\nHuge\n"
    root = computer(mounts="", groups="", **{"proc/meminfo": text})
    assert memory(root) == (4 * GIB, None, 2 << 20, "/proc/meminfo")


def test_memory_of_version_2_counts_each_level_and_not_idle_file_pages(computer):
    pod = "/sys/fs/cgroup/pod"
    texts = {
        "proc/meminfo": MEMINFO,
        f"{pod}/app/memory.max": "max\n",
        f"{pod}/app/memory.high": f"{3 * GIB}\n",
        f"{pod}/app/memory.current": f"{2 * GIB}\n",
        f"{pod}/app/memory.stat": f"anon 5\ninactive_file {GIB}\n",
        f"{pod}/memory.max": f"{4 * GIB}\n",
        f"{pod}/memory.high": "max\n",
        f"{pod}/memory.current": f"{3 * GIB}\n",
    }
    root = computer(mounts=V2.format(top="/"), groups="0::/pod/app\n", **texts)
    assert memory(root) == (16 * GIB, 3 * GIB, GIB, f"{pod}/memory.max")


def test_memory_of_version_1_knows_its_word_for_unlimited(computer):
    base = "/sys/fs/cgroup/memory"
    texts = {
        "proc/meminfo": MEMINFO,
        f"{base}/app/memory.limit_in_bytes": f"{2 * GIB}\n",
        f"{base}/app/memory.usage_in_bytes": f"{3 * GIB // 2}\n",
        f"{base}/app/memory.stat": f"cache 7\ntotal_inactive_file {GIB // 2}\n",
        f"{base}/memory.limit_in_bytes": "9223372036854771712\n",
        f"{base}/memory.usage_in_bytes": f"{9 * GIB}\n",
    }
    root = computer(mounts=V1_MEMORY.format(top="/"), groups="3:memory:/app\n", **texts)
    assert memory(root) == (16 * GIB, 2 * GIB, GIB, f"{base}/app/memory.limit_in_bytes")
    root = computer(mounts=V1_MEMORY.format(top="/"), groups="3:memory:/\n", **texts)
    assert memory(root) == (16 * GIB, None, 8 * GIB, "/proc/meminfo")


def test_memory_over_its_limit_leaves_nothing(computer):
    top = "/sys/fs/cgroup"
    texts = {f"{top}/memory.max": "4096\n", f"{top}/memory.current": "9999\n"}
    texts["proc/meminfo"] = MEMINFO
    root = computer(mounts=V2.format(top="/"), groups="0::/\n", **texts)
    assert memory(root) == (16 * GIB, 4096, 0, f"{top}/memory.max")


def test_computer_without_proc_asks_psutil_then_sysconf_then_nobody(tmp_path, monkeypatch):
    import psutil

    found = machine._machine_memory(str(tmp_path))
    assert (found[0], found[2]) == (psutil.virtual_memory().total, "psutil")
    with monkeypatch.context() as without:
        without.setattr(psutil, "PROCFS_PATH", str(tmp_path), raising=False)
        told = machine._machine_memory(str(tmp_path))[2]
        assert told == ("sysconf" if sys.platform == "linux" else "psutil")
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert machine._machine_memory(str(tmp_path))[1:] == (found[0], "sysconf")
    monkeypatch.delattr(os, "sysconf")
    assert machine._machine_memory(str(tmp_path))[1:] == (machine.UNKNOWN, "unknown")


def test_this_computer_has_memory():
    found = machine.memory()
    assert 0 < found.available <= found.total
    assert found.limit is None or found.limit < found.total


# Means of sharing memory.


def test_shared_memory_tells_what_works_and_leaves_nothing():
    found = machine.shared_memory()
    assert found.memfd is hasattr(os, "memfd_create")
    if found.size is not None and found.free is not None:
        assert 0 <= found.free <= found.size


def test_shared_memory_that_is_denied_is_told(monkeypatch):
    def denied(*args):
        raise PermissionError

    monkeypatch.setattr(os, "memfd_create", denied, raising=False)
    monkeypatch.setitem(sys.modules, "_multiprocessing", None)
    found = machine.shared_memory()
    assert (found.memfd, found.semaphores) == (False, False)
    monkeypatch.delattr(os, "memfd_create")
    assert machine.shared_memory().memfd is False


def test_computer_without_dev_shm_has_no_size(tmp_path):
    assert machine.shm_space(str(tmp_path)) == (None, None)


def test_examples_of_the_room_run():
    import doctest

    assert doctest.testmod(machine).failed == 0
