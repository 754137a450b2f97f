"""Which hierarchies a host has, and what each limit becomes there."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.host.cgroups import CgroupError, Cgroups, Hierarchy, Layout, Limits, detect, writes_v1, writes_v2

V1 = """\
tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/pids cgroup rw,relatime,pids 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,xattr,name=systemd 0 0
cgroup /run/elsewhere/memory cgroup rw,relatime,memory 0 0
"""
LIMITS = Limits(memory_bytes=(64 << 20) + 1, cpu_milli=500, cpu_limit_milli=1500, pids_max=64)


def test_v1_controllers_are_found_where_they_are_mounted() -> None:
    layout = detect(V1, "4:memory:/\n3:cpu,cpuacct:/\n2:pids:/\n1:name=systemd:/init.scope\n0::/\n")
    mounts = {str(h.mount): h.controllers for h in layout.hierarchies}
    assert mounts == {
        "/sys/fs/cgroup/memory": {"memory"},
        "/sys/fs/cgroup/cpu,cpuacct": {"cpu", "cpuacct"},
        "/sys/fs/cgroup/pids": {"pids"},
        "/sys/fs/cgroup/systemd": {"name=systemd"},
    }
    assert layout.unified is None


def test_groups_are_made_beside_the_first_process_and_not_in_systemds_scope() -> None:
    inside = detect("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", "0::/docker/abc/init.scope\n")
    assert [str(h.mount) for h in inside.hierarchies] == ["/sys/fs/cgroup/docker/abc"]


def test_limits_on_v1_come_in_the_order_the_kernel_takes() -> None:
    assert [(write.file, write.value) for write in writes_v1(LIMITS)] == [
        ("memory.limit_in_bytes", str(64 << 20)),
        ("memory.memsw.limit_in_bytes", str(64 << 20)),
        ("cpu.shares", "512"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "150000"),
        ("pids.max", "64"),
    ]


def test_limits_on_v2() -> None:
    assert [(write.file, write.value) for write in writes_v2(LIMITS)] == [
        ("memory.max", str(64 << 20)),
        ("memory.swap.max", "0"),
        ("cpu.weight", "50"),
        ("cpu.max", "150000 100000"),
        ("pids.max", "64"),
    ]


def test_no_limits_no_writes() -> None:
    assert writes_v1(Limits()) == writes_v2(Limits()) == []


@pytest.mark.parametrize("cpu_milli", [1, 10, 1000, 10_000_000])
def test_weights_stay_in_the_kernels_range(cpu_milli: int) -> None:
    (shares,), (weight,) = writes_v1(Limits(cpu_milli=cpu_milli)), writes_v2(Limits(cpu_milli=cpu_milli))
    assert 2 <= int(shares.value) <= 262_144
    assert 1 <= int(weight.value) <= 10_000


def fake_v2(top: Path, controllers: str = "cpu memory pids") -> Layout:
    """A directory that looks like a cgroup v2 file system as far as files go."""
    (top / "cgroup.subtree_control").write_text(controllers)
    return Layout((Hierarchy(top, frozenset(controllers.split()), unified=True),))


def test_a_controller_that_the_host_lacks_is_named(tmp_path: Path) -> None:
    groups = Cgroups("fofoca", fake_v2(tmp_path, "cpu memory"))
    with pytest.raises(CgroupError, match="no pids controller"):
        groups.create("a", Limits(pids_max=5))


def test_a_value_that_does_not_stick_is_an_error(tmp_path: Path) -> None:
    layout = fake_v2(tmp_path)
    payload = tmp_path / "fofoca" / "a" / "payload"
    payload.mkdir(parents=True)
    (payload.parent / "cgroup.subtree_control").write_text("cpu memory pids")
    (payload / "pids.max").symlink_to("/dev/null")
    with pytest.raises(CgroupError, match=r"pids\.max is  after writing 5"):
        Cgroups("fofoca", layout).update("a", Limits(pids_max=5))


def test_a_weight_stands_among_the_containers_and_limits_around_the_payload(tmp_path: Path) -> None:
    payload = tmp_path / "fofoca" / "a" / "payload"
    payload.mkdir(parents=True)
    for file in (payload.parent / "cpu.weight", payload / "cpu.max"):
        file.touch()
    Cgroups("fofoca", fake_v2(tmp_path)).update("a", Limits(cpu_milli=250, cpu_limit_milli=500))
    assert (payload.parent / "cpu.weight").read_text() == "25"
    assert (payload / "cpu.max").read_text() == "50000 100000"


def test_the_shared_groups_are_no_containers(tmp_path: Path) -> None:
    for name in ("_pivot", "_supervisors", "1.1.1"):
        (tmp_path / "fofoca" / name).mkdir(parents=True)
    assert Cgroups("fofoca", fake_v2(tmp_path)).names() == {"1.1.1"}


def test_counters_of_v2_are_read_from_v2s_files(tmp_path: Path) -> None:
    payload = tmp_path / "fofoca" / "a" / "payload"
    payload.mkdir(parents=True)
    for name, content in {
        "memory.current": "4096\n",
        "cpu.stat": "usage_usec 1500\nuser_usec 900\nsystem_usec 600\n",
        "pids.current": "3\n",
    }.items():
        (payload / name).write_text(content)
    assert Cgroups("fofoca", fake_v2(tmp_path)).usage("a") == (4096, 1_500_000, 3)


def test_a_container_that_is_being_started_has_no_counters_yet_and_right_ones_later(tmp_path: Path) -> None:
    mounts = {"memory": tmp_path / "memory", "cpu": tmp_path / "cpu", "cpuacct": tmp_path / "cpuacct"}
    groups = Cgroups("fofoca", Layout(tuple(Hierarchy(p, frozenset({n}), unified=False) for n, p in mounts.items())))
    contents = {"memory": ("memory.usage_in_bytes", "1"), "cpu": ("cpu.stat", "nr_periods 0"), "cpuacct": ("", "")}
    for name in ("memory", "cpu"):
        (mounts[name] / "fofoca/a/payload").mkdir(parents=True)
        (mounts[name] / "fofoca/a/payload" / contents[name][0]).write_text(contents[name][1])
    with pytest.raises(FileNotFoundError):
        groups.usage("a")
    (mounts["cpuacct"] / "fofoca/a/payload").mkdir(parents=True)
    (mounts["cpuacct"] / "fofoca/a/payload/cpuacct.usage").write_text("77")
    assert groups.usage("a") == (1, 77, 0)
