"""What a host is said to have: measured, confined, overridden, and cheap to sample."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import psutil
import pytest

from node.host.confinement import Confinement, read_confinement
from node.host.errors import HostError
from node.host.inventory import CapacitySettings, UsageSampler, take_inventory
from scheduler.model import Resources

GIB = 2**30
FREE = Confinement(None, None, "v2")


def test_capacity_is_the_host_s_and_the_reserve_is_kept_back() -> None:
    inventory = take_inventory(CapacitySettings(reserve_cpu_milli=100, reserve_memory_bytes=2**28), "lxc", FREE)
    assert inventory.capacity.memory_bytes == psutil.virtual_memory().total
    assert inventory.capacity.cpu_milli % 1000 == 0
    assert inventory.capacity - inventory.allocatable == Resources(100, 2**28)


def test_settings_win_over_measurement() -> None:
    settings = CapacitySettings(cpu_milli=64_000, memory_bytes=999 * GIB, reserve_memory_bytes=0)
    assert take_inventory(settings, "lxc", Confinement(GIB, 500, "v2")).allocatable == Resources(64_000, 999 * GIB)


def test_a_confined_agent_offers_no_more_than_it_may_use() -> None:
    inventory = take_inventory(CapacitySettings(), "process", Confinement(GIB, 500, "v2"))
    assert inventory.capacity == Resources(500, GIB)


def test_a_reserve_that_leaves_nothing_is_refused_by_name() -> None:
    with pytest.raises(HostError, match=r"memory: the reserve \(268435456\) leaves nothing .* \(134217728\)"):
        take_inventory(CapacitySettings(memory_bytes=2**27), "lxc", FREE)


def test_labels_say_what_a_job_may_ask_for() -> None:
    labels = dict(take_inventory(CapacitySettings(), "lxc", FREE).labels)
    assert set(labels) == {"arch", "cgroup", "kernel", "runtime"}
    assert (labels["cgroup"], labels["runtime"]) == ("v2", "lxc")


class FakeHost:
    """A /proc and cgroup mounts in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mounts: list[str] = []
        self.groups = ["0::/"]
        (folder / "proc/self").mkdir(parents=True)

    def mount(self, point: str, options: str, root: str = "/", kind: str = "cgroup") -> None:
        self.mounts.append(f"31 23 0:28 {root} {point} rw,relatime shared:9 - {kind} {kind} {options}")

    def write(self, path: str, text: str) -> None:
        target = self.folder / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text + "\n")

    def confinement(self) -> Confinement:
        self.write("proc/self/mountinfo", "\n".join(["22 1 8:1 / / rw - ext4 /dev/sda rw", *self.mounts]))
        self.write("proc/self/cgroup", "\n".join(self.groups))
        return read_confinement(self.folder / "proc", self.folder)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def test_on_v2_the_tightest_limit_on_the_way_up_counts(host: FakeHost) -> None:
    host.mount("/sys/fs/cgroup", "rw,nsdelegate", kind="cgroup2")
    host.groups = ["0::/system.slice/fofoca.service"]
    host.write("/sys/fs/cgroup/system.slice/memory.max", str(2 * GIB))
    host.write("/sys/fs/cgroup/system.slice/cpu.max", "max 100000")
    host.write("/sys/fs/cgroup/system.slice/fofoca.service/memory.max", str(4 * GIB))
    host.write("/sys/fs/cgroup/system.slice/fofoca.service/cpu.max", "150000 100000")
    assert host.confinement() == Confinement(2 * GIB, 1500, "v2")


def test_on_v1_each_controller_has_a_hierarchy_and_unlimited_is_no_limit(host: FakeHost) -> None:
    host.mount("/sys/fs/cgroup/memory", "rw,memory")
    host.mount("/sys/fs/cgroup/cpu,cpuacct", "rw,cpu,cpuacct")
    host.groups = ["4:memory:/agent", "2:cpu,cpuacct:/agent"]
    host.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
    host.write("/sys/fs/cgroup/memory/agent/memory.limit_in_bytes", str(GIB))
    host.write("/sys/fs/cgroup/cpu,cpuacct/agent/cpu.cfs_quota_us", "-1")
    host.write("/sys/fs/cgroup/cpu,cpuacct/agent/cpu.cfs_period_us", "100000")
    assert host.confinement() == Confinement(GIB, None, "v1")
    host.write("/sys/fs/cgroup/cpu,cpuacct/agent/cpu.cfs_quota_us", "25000")
    assert host.confinement() == Confinement(GIB, 250, "v1")


def test_in_a_container_that_sees_the_host_s_path_the_mount_s_root_is_taken_off(host: FakeHost) -> None:
    host.mount("/sys/fs/cgroup/memory", "rw,memory", root="/docker/abc")
    host.groups = ["4:memory:/docker/abc"]
    host.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", str(GIB))
    assert host.confinement().memory_bytes == GIB


@pytest.mark.parametrize(
    ("mounts", "layout"),
    [
        ([], "none"),
        ([("/sys/fs/cgroup/systemd", "rw,name=systemd", "cgroup"), ("/c", "rw", "cgroup2")], "v2"),
        ([("/sys/fs/cgroup/memory", "rw,memory", "cgroup"), ("/sys/fs/cgroup/unified", "rw", "cgroup2")], "hybrid"),
        ([("/sys/fs/cgroup/memory", "rw,memory", "cgroup")], "v1"),
    ],
)
def test_the_cgroup_layout_is_told_from_the_mounts(
    host: FakeHost, mounts: list[tuple[str, str, str]], layout: str
) -> None:
    for point, options, kind in mounts:
        host.mount(point, options, kind=kind)
    assert host.confinement().layout == layout


def test_this_host_can_be_read() -> None:
    assert read_confinement().layout in ("v1", "v2", "hybrid", "none")


def test_a_sample_is_cheap_and_plausible(tmp_path: Path) -> None:
    sampler = UsageSampler(tmp_path)
    costs_s = []
    for _ in range(21):
        before = time.perf_counter()
        usage = sampler.sample()
        costs_s.append(time.perf_counter() - before)
    assert statistics.median(costs_s) < 0.002
    assert 0 < usage.used.memory_bytes <= psutil.virtual_memory().total
    assert 0 < usage.disk_used_bytes <= usage.disk_total_bytes


def test_pressure_is_read_where_the_kernel_measures_it(tmp_path: Path) -> None:
    assert UsageSampler(tmp_path, proc=tmp_path).sample().pressure is None
    (tmp_path / "pressure").mkdir()
    for name, percent in (("cpu", "1.50"), ("memory", "0.00"), ("io", "99.99")):
        (tmp_path / "pressure" / name).write_text(
            f"some avg10={percent} avg60=0.05 avg300=0.01 total=1\nfull avg10=7\n"
        )
    pressure = UsageSampler(tmp_path, proc=tmp_path).sample().pressure
    assert pressure is not None
    assert (pressure.cpu, pressure.memory, pressure.io) == (1.5, 0.0, 99.99)


def test_cpu_use_is_the_mean_between_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy_s, now_s = [100.0], [1000.0]
    monkeypatch.setattr("node.host.inventory._busy_s", lambda: busy_s[0])
    monkeypatch.setattr("node.host.inventory.time.monotonic", lambda: now_s[0])
    sampler = UsageSampler(tmp_path)
    busy_s[0], now_s[0] = 103.0, 1002.0
    assert sampler.sample().used.cpu_milli == 1500
    busy_s[0], now_s[0] = 109.0, 1002.01
    assert sampler.sample().used.cpu_milli == 1500, "a hundredth of a second says nothing"
    busy_s[0], now_s[0] = 103.0, 1004.0
    assert sampler.sample().used.cpu_milli == 0
