"""Which hierarchies a host has, and what each limit becomes there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from node.host.cgroups import CgroupError, Cgroups, DiskRate, Hierarchy, HugePageLimit, Layout, Limits, detect
from node.host.cgroups.table import KNOBS, Write, ordered, writes

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


def changes(unified: bool, old: Limits, new: Limits) -> list[Write]:
    return [write for knob in KNOBS for write in writes(knob.v2 if unified else knob.v1, old, new)]


def written(unified: bool, new: Limits, old: Limits | None = None) -> list[tuple[str, str]]:
    return [(write.file.names[0], write.text) for write in changes(unified, old or Limits(), new)]


def test_limits_on_v1_come_in_the_order_the_kernel_takes() -> None:
    assert written(False, LIMITS) == [
        ("memory.limit_in_bytes", str(64 << 20)),
        ("memory.memsw.limit_in_bytes", str(64 << 20)),
        ("cpu.shares", "512"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "150000"),
        ("pids.max", "64"),
    ]


def test_limits_on_v2() -> None:
    assert written(True, LIMITS) == [
        ("memory.max", str(64 << 20)),
        ("memory.swap.max", "0"),
        ("cpu.weight", "50"),
        ("cpu.max", "150000 100000"),
        ("pids.max", "64"),
    ]


def test_no_limits_no_writes() -> None:
    assert written(False, Limits()) == written(True, Limits()) == []


@pytest.mark.parametrize("cpu_milli", [1, 10, 1000, 10_000_000])
def test_weights_stay_in_the_kernels_range(cpu_milli: int) -> None:
    ((_, shares),), ((_, weight),) = (written(unified, Limits(cpu_milli=cpu_milli)) for unified in (False, True))
    assert 2 <= int(shares) <= 262_144
    assert 1 <= int(weight) <= 10_000


ALL = Limits(
    memory_bytes=64 << 20,
    swap_bytes=32 << 20,
    memory_soft_bytes=16 << 20,
    cpu_milli=1000,
    cpu_limit_milli=500,
    cpu_weight=200,
    cpu_period_us=20_000,
    cores=(0, 1, 2, 5),
    memory_nodes=(0,),
    disk_weight=300,
    disks=(DiskRate("254:0", read_bytes=1 << 20, write_ops=50),),
    huge_pages=(HugePageLimit("2MB", (4 << 20) + 5), HugePageLimit("1GB", 0)),
)


def test_every_knob_on_v1() -> None:
    limits = dataclasses.replace(ALL, swappiness=10, net_class=0x00010010)
    assert written(False, limits) == [
        ("memory.limit_in_bytes", str(64 << 20)),
        ("memory.memsw.limit_in_bytes", str(96 << 20)),
        ("memory.soft_limit_in_bytes", str(16 << 20)),
        ("memory.swappiness", "10"),
        ("cpu.shares", "2048"),
        ("cpu.cfs_period_us", "20000"),
        ("cpu.cfs_quota_us", "10000"),
        ("cpuset.cpus", "0,1,2,5"),
        ("cpuset.mems", "0"),
        ("blkio.throttle.read_bps_device", "254:0 1048576"),
        ("blkio.throttle.write_iops_device", "254:0 50"),
        ("blkio.bfq.weight", "300"),
        ("hugetlb.2MB.limit_in_bytes", str(4 << 20)),
        ("hugetlb.1GB.limit_in_bytes", "0"),
        ("net_cls.classid", "65552"),
    ]


def test_every_knob_on_v2() -> None:
    limits = dataclasses.replace(ALL, memory_high_bytes=48 << 20, oom_group=True)
    assert written(True, limits) == [
        ("memory.max", str(64 << 20)),
        ("memory.swap.max", str(32 << 20)),
        ("memory.low", str(16 << 20)),
        ("memory.high", str(48 << 20)),
        ("memory.oom.group", "1"),
        ("cpu.weight", "200"),
        ("cpu.max", "10000 20000"),
        ("cpuset.cpus", "0,1,2,5"),
        ("cpuset.mems", "0"),
        ("io.max", "254:0 rbps=1048576 wbps=max riops=max wiops=50"),
        ("io.bfq.weight", "300"),
        ("hugetlb.2MB.max", str(4 << 20)),
        ("hugetlb.1GB.max", "0"),
    ]


@pytest.mark.parametrize("unified", [False, True])
def test_what_is_no_longer_limited_is_freed(unified: bool) -> None:
    asked, freed = written(unified, ALL), written(unified, Limits(), ALL)
    assert [file for file, _ in freed] == [file for file, _ in asked]
    assert not set(freed) & set(asked)


@pytest.mark.parametrize("unified", [False, True])
def test_what_stays_is_not_written_again(unified: bool) -> None:
    assert written(unified, ALL, ALL) == []
    (only,) = written(unified, dataclasses.replace(ALL, pids_max=9), ALL)
    assert only == ("pids.max", "9")


def test_on_v1_memory_with_swap_grows_before_memory_and_shrinks_after_it() -> None:
    small, large = Limits(memory_bytes=1 << 20), Limits(memory_bytes=1 << 30)
    growing = ordered(changes(False, small, large), held_bytes=1 << 20)
    shrinking = ordered(changes(False, large, small), held_bytes=1 << 30)
    assert [write.file.names[0] for write in growing] == ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"]
    assert [write.file.names[0] for write in shrinking] == ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]


@pytest.mark.parametrize(
    ("file", "found", "holds"),
    [
        ("cpuset.cpus", "0-2,5\n", True),
        ("cpuset.cpus", "0-2\n", False),
        ("io.max", "8:0 rbps=9 wbps=max riops=max wiops=max\n254:0 rbps=1048576 wbps=max riops=max wiops=50\n", True),
        ("io.max", "254:0 rbps=2097152 wbps=max riops=max wiops=50\n", False),
        ("io.max", "", False),
        ("io.bfq.weight", "default 300\n", True),
        ("memory.max", "max\n", False),
    ],
)
def test_what_a_file_says_is_compared_in_the_kernels_own_form(file: str, found: str, holds: bool) -> None:
    write = next(write for write in changes(True, Limits(), ALL) if write.file.names[0] == file)
    assert write.holds(found) is holds


def fake_v2(top: Path, controllers: str = "cpu memory pids") -> Layout:
    """A directory that looks like a cgroup v2 file system as far as files go."""
    (top / "cgroup.subtree_control").write_text(controllers)
    return Layout((Hierarchy(top, frozenset(controllers.split()), unified=True),))


def test_a_controller_that_the_host_lacks_is_named(tmp_path: Path) -> None:
    groups = Cgroups("fofoca", fake_v2(tmp_path, "cpu memory"))
    with pytest.raises(CgroupError, match="no pids controller"):
        groups.create("a", Limits(pids_max=5))
    with pytest.raises(CgroupError, match=r"no memory controller with memory\.swappiness"):
        groups.create("a", Limits(swappiness=5))


def test_a_value_that_does_not_stick_is_an_error(tmp_path: Path) -> None:
    layout = fake_v2(tmp_path)
    payload = tmp_path / "fofoca" / "a" / "payload"
    payload.mkdir(parents=True)
    (payload.parent / "cgroup.subtree_control").write_text("cpu memory pids")
    (payload / "pids.max").symlink_to("/dev/null")
    with pytest.raises(CgroupError, match=r"pids\.max is  after writing 5"):
        Cgroups("fofoca", layout).update("a", Limits(), Limits(pids_max=5))


def test_a_weight_stands_among_the_containers_and_limits_around_the_payload(tmp_path: Path) -> None:
    payload = tmp_path / "fofoca" / "a" / "payload"
    payload.mkdir(parents=True)
    for file in (payload.parent / "cpu.weight", payload / "cpu.max"):
        file.touch()
    Cgroups("fofoca", fake_v2(tmp_path)).update("a", Limits(), Limits(cpu_milli=250, cpu_limit_milli=500))
    assert (payload.parent / "cpu.weight").read_text() == "25"
    assert (payload / "cpu.max").read_text() == "50000 100000"


def test_a_change_that_fails_half_way_is_taken_back(tmp_path: Path) -> None:
    payload = tmp_path / "fofoca" / "a" / "payload"
    payload.mkdir(parents=True)
    (payload / "memory.max").write_text(str(1 << 20))
    (payload / "memory.swap.max").write_text("0")
    (payload / "pids.max").symlink_to("/dev/null")
    old, new = Limits(memory_bytes=1 << 20, pids_max=5), Limits(memory_bytes=2 << 20, pids_max=6)
    with pytest.raises(CgroupError, match=r"pids\.max"):
        Cgroups("fofoca", fake_v2(tmp_path)).update("a", old, new)
    assert (payload / "memory.max").read_text() == str(1 << 20)


def test_on_v2_memory_below_what_is_in_use_is_refused_and_not_killed_for(tmp_path: Path) -> None:
    payload = tmp_path / "fofoca" / "a" / "payload"
    payload.mkdir(parents=True)
    for name, content in {"memory.max": 8 << 20, "memory.swap.max": 0, "memory.current": 5 << 20}.items():
        (payload / name).write_text(str(content))
    groups = Cgroups("fofoca", fake_v2(tmp_path))
    with pytest.raises(CgroupError, match="5242880 bytes are in use"):
        groups.update("a", Limits(memory_bytes=8 << 20), Limits(memory_bytes=4 << 20))
    assert (payload / "memory.max").read_text() == str(8 << 20)


def test_a_v1_list_stays_within_the_groups_above_at_every_step(tmp_path: Path) -> None:
    mount = tmp_path / "cpuset"
    payload = mount / "fofoca" / "a" / "payload"
    (payload / "lxc").mkdir(parents=True)
    for group, cores in ((payload.parent, "0-7"), (payload, "0-3"), (payload / "lxc", "0-3")):
        (group / "cpuset.cpus").write_text(cores)
    groups = Cgroups("fofoca", Layout((Hierarchy(mount, frozenset({"cpuset"}), unified=False),)))
    groups.update("a", Limits(cores=(0, 1, 2, 3)), Limits(cores=(4, 5)))
    assert [(payload / "cpuset.cpus").read_text(), (payload / "lxc/cpuset.cpus").read_text()] == ["4,5", "4,5"]
    groups.update("a", Limits(cores=(4, 5)), Limits())
    assert [(payload / "cpuset.cpus").read_text(), (payload / "lxc/cpuset.cpus").read_text()] == ["0-7", "0-7"]


def test_a_v2_list_is_never_emptied_for_processes_may_be_inside(tmp_path: Path) -> None:
    payload = tmp_path / "fofoca" / "a" / "payload"
    payload.mkdir(parents=True)
    (payload.parent / "cpuset.cpus.effective").write_text("0-7\n")
    (payload / "cpuset.cpus").write_text("4-5")
    Cgroups("fofoca", fake_v2(tmp_path, "cpuset")).update("a", Limits(cores=(4, 5)), Limits())
    assert (payload / "cpuset.cpus").read_text() == "0-7"


def test_v1_throttles_are_written_to_the_groups_below_too(tmp_path: Path) -> None:
    payload = tmp_path / "blkio" / "fofoca" / "a" / "payload"
    (payload / "lxc").mkdir(parents=True)
    name = "blkio.throttle.read_bps_device"
    for group in (payload, payload / "lxc"):
        (group / name).write_text("")
    groups = Cgroups("fofoca", Layout((Hierarchy(tmp_path / "blkio", frozenset({"blkio"}), unified=False),)))
    limits = Limits(disks=(DiskRate("8:0", read_bytes=5),))
    assert groups.own(limits) == [(name, "8:0 5")]
    assert groups.astray("a", limits) is not None
    groups.update("a", Limits(), limits)
    assert (payload / "lxc" / name).read_text() == "8:0 5"
    assert groups.astray("a", limits) is None


def test_a_host_can_do_what_its_kernel_has_files_for(tmp_path: Path) -> None:
    root = tmp_path / "fofoca"
    root.mkdir()
    for name in ("memory.max", "memory.swap.max", "memory.oom.group", "hugetlb.2MB.max", "io.max"):
        (root / name).touch()
    groups = Cgroups("fofoca", fake_v2(tmp_path, "memory hugetlb"))
    assert groups.abilities() == {"memory", "swap", "oom-group", "hugetlb-2MB"}


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
