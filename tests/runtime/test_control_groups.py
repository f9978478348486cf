"""Limits of containers, over trees as Linux shows them: versions 1 and 2, nested, page cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprefix.runtime.decoding.control_groups import ControlGroups
from edgeprefix.runtime.decoding.machine import available_bytes, physical_cores

MIB = 1 << 20
GIB = 1 << 30
V1_UNLIMITED = 9223372036854771712


def machine(root: Path, mountinfo: str, cgroup: str, files: dict[str, object]) -> ControlGroups:
    """A fake root folder with what Linux would have in /proc and /sys."""
    for name, content in {
        "proc/self/mountinfo": mountinfo,
        "proc/self/cgroup": cgroup,
        **files,
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return ControlGroups(root)


V2 = "30 23 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate"
V1 = """32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 {root} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"""


def test_reclaimable_page_cache_is_free(tmp_path: Path) -> None:
    """A group of 2 GiB full of page cache: only 41 MiB cannot be had back."""
    group = "sys/fs/cgroup"
    found = machine(tmp_path, V2, "0::/", {
        f"{group}/memory.max": 2 * GIB,
        f"{group}/memory.current": 2 * GIB - 7 * MIB,
        f"{group}/memory.stat": f"anon {40 * MIB}\nfile 2\ninactive_file {2 * GIB - 48 * MIB}",
    })  # fmt: skip
    assert found.memory_left() == 2 * GIB - 41 * MIB


def test_the_tightest_of_nested_groups_holds(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/user.slice/job"
    files: dict[str, object] = {
        f"{group}/memory.max": "max",
        f"{group}/memory.current": 10 * MIB,
        f"{group}/cpu.max": "max 100000",
        "sys/fs/cgroup/user.slice/memory.max": 4 * GIB,
        "sys/fs/cgroup/user.slice/memory.high": 1 * GIB,
        "sys/fs/cgroup/user.slice/memory.current": 24 * MIB,
        "sys/fs/cgroup/user.slice/cpu.max": "150000 100000",
    }
    found = machine(tmp_path, V2, "0::/user.slice/job", files)
    assert (found.memory_left(), found.processors()) == (1000 * MIB, 1.5)
    files |= {f"{group}/memory.max": 100 * MIB, f"{group}/cpu.max": "50000 100000"}
    found = machine(tmp_path, V2, "0::/user.slice/job", files)
    assert (found.memory_left(), found.processors()) == (90 * MIB, 0.5)


def test_version_1_with_nested_groups(tmp_path: Path) -> None:
    memory, cpu = "sys/fs/cgroup/memory", "sys/fs/cgroup/cpu,cpuacct"
    groups = "4:memory:/jobs/7\n1:cpu,cpuacct:/jobs/7\n9:name=systemd:/\n0::/"
    found = machine(tmp_path, V1.format(root="/"), groups, {
        f"{memory}/memory.limit_in_bytes": V1_UNLIMITED,
        f"{memory}/memory.usage_in_bytes": 30 * GIB,
        f"{memory}/jobs/memory.limit_in_bytes": 2 * GIB,
        f"{memory}/jobs/memory.usage_in_bytes": 1536 * MIB,
        f"{memory}/jobs/memory.stat": f"inactive_file 0\ntotal_inactive_file {1 * GIB}",
        f"{memory}/jobs/7/memory.limit_in_bytes": V1_UNLIMITED,
        f"{memory}/jobs/7/memory.usage_in_bytes": 512 * MIB,
        f"{cpu}/jobs/cpu.cfs_quota_us": 300000,
        f"{cpu}/jobs/cpu.cfs_period_us": 100000,
        f"{cpu}/jobs/7/cpu.cfs_quota_us": -1,
        f"{cpu}/jobs/7/cpu.cfs_period_us": 100000,
    })  # fmt: skip
    assert (found.memory_left(), found.processors()) == (1536 * MIB, 3.0)


def test_a_container_that_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    """Docker with version 1: /proc names the group on the host, the mount shows it as its root."""
    groups = "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/"
    found = machine(tmp_path, V1.format(root="/docker/abc"), groups, {
        "sys/fs/cgroup/memory/memory.limit_in_bytes": 1 * GIB,
        "sys/fs/cgroup/memory/memory.usage_in_bytes": 24 * MIB,
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": 200000,
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": 100000,
    })  # fmt: skip
    assert (found.memory_left(), found.processors()) == (1000 * MIB, 2.0)
    elsewhere = machine(tmp_path, V1.format(root="/kubepods/x"), groups, {})
    assert (elsewhere.memory_left(), elsewhere.processors()) == (1000 * MIB, 2.0)


def test_no_limits_no_groups_no_linux(tmp_path: Path) -> None:
    assert ControlGroups(tmp_path).memory_left() is None
    assert ControlGroups(tmp_path).processors() is None
    group = "sys/fs/cgroup"
    found = machine(tmp_path, V2, "0::/", {
        f"{group}/memory.max": "max", f"{group}/memory.current": 5, f"{group}/cpu.max": "max 1000"
    })  # fmt: skip
    assert (found.memory_left(), found.processors()) == (None, None)
    over = machine(tmp_path, V2, "0::/", {f"{group}/memory.max": 3})
    assert over.memory_left() == 0


@given(mountinfo=st.text(), cgroup=st.text(), number=st.text())
def test_whatever_the_files_hold_nothing_is_raised(
    tmp_path_factory: pytest.TempPathFactory, mountinfo: str, cgroup: str, number: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "groups"
    files = ("memory.max", "memory.current", "memory.stat", "cpu.max")
    for lines in (V2, mountinfo):
        found = machine(root, lines, f"0::/{cgroup}".replace("\0", ""), {
            f"sys/fs/cgroup/{name}": number for name in files
        })  # fmt: skip
        left, share = found.memory_left(), found.processors()
        assert left is None or left >= 0
        assert share is None or share > 0


def test_this_machine_has_room_and_a_core() -> None:
    assert physical_cores() >= 1
    left = available_bytes()
    assert left is None or left > 0
