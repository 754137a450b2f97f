"""Every knob of a container's limits on the kernel that runs here, v1 or v2: set, read back, where possible felt."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from node.host.block_devices import whole_disk
from node.host.cgroups import CgroupError, DiskRate, HugePageLimit, MoreLimits
from node.host.cores import CorePool, cores_by_memory_node
from node.limit_policy import LimitPolicy
from node.limiter import Limiter
from node.runtime import ContainerSpec, StartError, UpdateError
from node.runtime.limits import Device, FurtherLimits, hard_maximum, set_rlimits
from node.runtime.lxc.limits import group_limits
from node.runtime.lxc.lxc import LxcRuntime
from node.runtime.lxc.places import OPEN_FILES_HARD
from scheduler.spec.limits import Limits, Rlimit

pytestmark = [pytest.mark.lxc, pytest.mark.root]
CAP_SYS_RESOURCE = 24

DISK = whole_disk(Path(tempfile.gettempdir()))
SPINNING = ("sh", "-c", "while :; do :; done & while :; do :; done")


def spec(image: Path, groups: MoreLimits | None = None, **changes: Any) -> ContainerSpec:
    further = {key: changes.pop(key) for key in ("devices", "rlimits") if key in changes}
    fields: dict[str, Any] = {"name": "1.1.1", "argv": ("sleep", "60"), "rootfs": image, "user_base": 300_000}
    limits = FurtherLimits(groups=groups or MoreLimits(), **further)
    return ContainerSpec(**{**fields, "limits": limits, **changes})


async def started(runtime: LxcRuntime, wanted: ContainerSpec) -> None:
    await runtime.prepare(wanted)
    await runtime.start(wanted)


def shown(runtime: LxcRuntime, controller: str, *names: str, name: str = "1.1.1") -> str:
    """What the payload's file says, of whichever name this kernel has."""
    payload = runtime._cgroups.directory(controller, name)
    assert payload is not None
    return next((payload / each).read_text().strip() for each in names if (payload / each).exists())


def needs(runtime: LxcRuntime, ability: str) -> None:
    if ability not in runtime._cgroups.abilities():
        pytest.skip(f"this kernel has no {ability}")


async def test_what_it_can_do_is_what_the_layout_says(lxc_runtime: LxcRuntime) -> None:
    layout, abilities = lxc_runtime._cgroups.layout, lxc_runtime._cgroups.abilities()
    memory = layout.having("memory")
    assert memory is not None
    assert abilities >= {"memory", "cpu", "pids", "soft"}
    assert ("swappiness" in abilities) == (not memory.unified)
    assert ("oom-group" in abilities) == ("high" in abilities) == memory.unified


async def test_soft_limit_and_swap_are_set(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    groups = MoreLimits(memory_soft_bytes=8 << 20, swap_bytes=16 << 20)
    await started(lxc_runtime, spec(busybox_image, groups, memory_bytes=32 << 20))
    assert shown(lxc_runtime, "memory", "memory.soft_limit_in_bytes", "memory.low") == str(8 << 20)
    assert shown(lxc_runtime, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max") in (
        str(48 << 20),
        str(16 << 20),
    )


async def test_without_swap_memory_is_all_there_is(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    hog = ("sh", "-c", "dd if=/dev/zero of=/dev/null bs=48M count=1")
    await started(lxc_runtime, spec(busybox_image, argv=hog, memory_bytes=32 << 20))
    ending = await lxc_runtime.wait("1.1.1")
    assert ending.oom_killed or ending.exit_code == 137


@pytest.mark.parametrize(
    ("ability", "groups", "file", "value"),
    [
        ("swappiness", MoreLimits(swappiness=7), "memory.swappiness", "7"),
        ("oom-group", MoreLimits(oom_group=True), "memory.oom.group", "1"),
        ("high", MoreLimits(memory_high_bytes=16 << 20), "memory.high", str(16 << 20)),
    ],
)
async def test_what_only_one_version_has_is_set_there_and_refused_elsewhere(
    lxc_runtime: LxcRuntime, busybox_image: Path, ability: str, groups: MoreLimits, file: str, value: str
) -> None:
    needs(lxc_runtime, ability)
    await started(lxc_runtime, spec(busybox_image, groups))
    assert shown(lxc_runtime, "memory", file) == value


async def test_huge_pages_are_limited_by_size(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    needs(lxc_runtime, "hugetlb-2MB")
    await started(lxc_runtime, spec(busybox_image, MoreLimits(huge_pages=(HugePageLimit("2MB", 4 << 20),))))
    assert shown(lxc_runtime, "hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max") == str(4 << 20)


async def test_the_period_is_the_one_asked_for_and_the_quota_is_felt(
    lxc_runtime: LxcRuntime, busybox_image: Path
) -> None:
    wanted = spec(busybox_image, MoreLimits(cpu_period_us=20_000), argv=SPINNING, cpu_limit_milli=300)
    await started(lxc_runtime, wanted)
    before_ns, began_s = lxc_runtime.usage()["1.1.1"].cpu_ns, trio.current_time()
    await trio.sleep(1.0)
    used = (lxc_runtime.usage()["1.1.1"].cpu_ns - before_ns) / 1e9 / (trio.current_time() - began_s)
    assert used < 0.4, "0.3 cores were allowed"
    assert shown(lxc_runtime, "cpu", "cpu.cfs_period_us", "cpu.max").split()[-1] == "20000"


async def test_it_runs_on_its_cores_alone(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    needs(lxc_runtime, "cpuset")
    last = max(os.sched_getaffinity(0))
    await started(lxc_runtime, spec(busybox_image, MoreLimits(cores=(last,), memory_nodes=(0,))))
    assert shown(lxc_runtime, "cpuset", "cpuset.cpus") == str(last)
    assert shown(lxc_runtime, "cpuset", "cpuset.mems") == "0"
    assert all(os.sched_getaffinity(pid) == {last} for pid in lxc_runtime._cgroups.inside("1.1.1"))


async def test_owned_cores_are_left_by_all_who_run_and_come_back_at_the_end(
    lxc_runtime: LxcRuntime, busybox_image: Path, tmp_path: Path
) -> None:
    needs(lxc_runtime, "cpuset")
    if len(usable := os.sched_getaffinity(0)) < 2:
        pytest.skip("one core alone can't be shared out")
    pool = CorePool(tmp_path / "cores.json", cores_by_memory_node(), len(usable) - 1)
    limiter = Limiter(LimitPolicy(), pool, lxc_runtime.features, lxc_runtime.update)

    def on(name: str) -> set[int]:
        return {core for pid in lxc_runtime._cgroups.inside(name) for core in os.sched_getaffinity(pid)}

    for name, asked in (("1.1.1", Limits()), ("2.1.1", Limits(exclusive_cores=1))):
        wanted = await limiter.add(spec(busybox_image, name=name, argv=SPINNING, user_base=300_000), asked)
        await started(lxc_runtime, wanted)
        await limiter.started(wanted, asked)
    (owned,) = pool.holders()["2.1.1"]
    assert on("2.1.1") == {owned}
    assert on("1.1.1") == usable - {owned}
    again = CorePool(tmp_path / "cores.json", cores_by_memory_node(), len(usable) - 1)
    assert again.holders() == {"2.1.1": (owned,)}
    limiter.ended("2.1.1")
    await lxc_runtime.remove("2.1.1")
    await limiter.removed("2.1.1")
    assert on("1.1.1") == usable


async def test_a_core_that_is_not_there_fails_the_start_with_the_reason(
    lxc_runtime: LxcRuntime, busybox_image: Path
) -> None:
    needs(lxc_runtime, "cpuset")
    with pytest.raises(StartError, match=r"cpuset\.cpus=4000"):
        await lxc_runtime.prepare(spec(busybox_image, MoreLimits(cores=(4000,))))


@pytest.mark.skipif(DISK is None, reason="the temporary directory is on no disk")
async def test_writes_to_the_disk_are_throttled(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    needs(lxc_runtime, "disk")
    assert DISK is not None
    writing = ("sh", "-c", "dd if=/dev/zero of=/big bs=1M count=3 oflag=direct")
    groups = MoreLimits(disks=(DiskRate(DISK, write_bytes=2 << 20),))
    began_s = trio.current_time()
    await started(lxc_runtime, spec(busybox_image, groups, argv=writing, memory_bytes=64 << 20))
    assert shown(lxc_runtime, "blkio" if lxc_runtime._cgroups.layout.having("blkio") else "io",
                 "blkio.throttle.write_bps_device", "io.max").startswith(f"{DISK} ")  # fmt: skip
    with trio.fail_after(20):
        assert (await lxc_runtime.wait("1.1.1")).exit_code == 0
    assert trio.current_time() - began_s > 0.9


async def test_all_rates_of_a_disk_are_read_back(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    needs(lxc_runtime, "disk")
    if DISK is None:
        pytest.skip("the temporary directory is on no disk")
    rates = DiskRate(DISK, read_bytes=1 << 20, write_bytes=2 << 20, read_ops=100, write_ops=200)
    await started(lxc_runtime, spec(busybox_image, MoreLimits(disks=(rates,))))
    assert lxc_runtime._cgroups.astray("1.1.1", group_limits(spec(busybox_image, MoreLimits(disks=(rates,))))) is None
    await lxc_runtime.update(spec(busybox_image))
    freed = shown(lxc_runtime, "blkio" if lxc_runtime._cgroups.layout.having("blkio") else "io",
                  "blkio.throttle.read_bps_device", "io.max")  # fmt: skip
    assert freed == ""


async def test_its_weight_at_the_disk_is_set(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    needs(lxc_runtime, "disk-weight")
    await started(lxc_runtime, spec(busybox_image, MoreLimits(disk_weight=250)))
    controller = "blkio" if lxc_runtime._cgroups.layout.having("blkio") else "io"
    payload = lxc_runtime._cgroups.directory(controller, "1.1.1")
    assert payload is not None
    found = [payload.parent / each for each in ("blkio.bfq.weight", "io.bfq.weight", "io.weight")]
    assert "250" in next(each.read_text() for each in found if each.exists())


async def test_processes_are_counted(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    forks = ("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 30 & done; wait")
    await started(lxc_runtime, spec(busybox_image, argv=forks, pids_max=8))
    await trio.sleep(0.3)
    assert lxc_runtime.usage().get("1.1.1", None) is None or lxc_runtime.usage()["1.1.1"].pids <= 8


async def test_rlimits_hold_inside(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    asked = (
        Rlimit(name="nofile", soft=100, hard=200),
        Rlimit(name="nproc", soft=500),
        Rlimit(name="core", soft=0),
        Rlimit(name="stack", soft=4 << 20, hard=8 << 20),
        Rlimit(name="memlock", soft=32 << 10),
        Rlimit(name="fsize", soft=1 << 20, hard=-1),
    )
    await started(lxc_runtime, spec(busybox_image, argv=("sh", "-c", "cat /proc/self/limits"), rlimits=asked))
    await lxc_runtime.wait("1.1.1")
    lines = {line[:26].strip(): line[26:].split() for line in
             lxc_runtime.read_log("1.1.1", "stdout", 0, 5000).data.decode().splitlines()}  # fmt: skip
    assert lines["Max open files"][:2] == ["100", "200"]
    assert lines["Max processes"][:2] == ["500", "500"]
    assert lines["Max stack size"][:2] == [str(4 << 20), str(8 << 20)]
    assert lines["Max locked memory"][:2] == [str(32 << 10)] * 2
    assert lines["Max file size"][:2] == [str(1 << 20), "unlimited"]


async def test_an_rlimit_beyond_the_hosts_own_fails_the_start(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    wanted = spec(busybox_image, rlimits=(Rlimit(name="nofile", soft=1 << 30),))
    await lxc_runtime.prepare(wanted)
    with pytest.raises(StartError, match=r"(?i)limit"):
        await lxc_runtime.start(wanted)


def test_an_rlimit_that_can_not_be_raised_any_more_is_named() -> None:
    """Root may lack the right to, as in a container of its own; where it has it, the limit is raised."""
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            set_rlimits([Rlimit(name="nofile", soft=100, hard=200)], [process.pid])
            expected: AbstractContextManager[object] = (
                nullcontext() if _may_raise() else pytest.raises(PermissionError, match="nofile is 200 at most")
            )
            with expected:
                set_rlimits([Rlimit(name="nofile", soft=100, hard=300)], [process.pid])
        finally:
            process.kill()


def _may_raise() -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("CapEff")]
    return bool(int(line.split()[1], 16) >> CAP_SYS_RESOURCE & 1)


@pytest.fixture
def granting_runtime(supervisors: dict[str, tuple[str, ...]]) -> Iterator[LxcRuntime]:
    root = Path(tempfile.mkdtemp(prefix="fofoca-devices."))
    root.chmod(0o711)
    found = LxcRuntime(root, supervisors["compiled"], f"fofoca-test-{os.getpid()}/{root.name[-8:]}", ("c 10:229 rwm",))
    yield found
    trio.run(found.purge)
    shutil.rmtree(root)


@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="no /dev/fuse here")
def test_a_device_is_there_for_whom_it_was_granted_and_for_nobody_else(
    granting_runtime: LxcRuntime, busybox_image: Path
) -> None:
    opening = ("sh", "-c", "[ -c /dev/fuse ] && exec 3<>/dev/fuse && echo opened; mknod /mine c 10 229 || echo no more")
    fuse = Device(Path("/dev/fuse"), "c 10:229 rwm")

    async def outputs() -> tuple[str, str]:
        found = []
        for name, devices in (("1.1.1", (fuse,)), ("1.2.1", ())):
            await started(granting_runtime, spec(busybox_image, name=name, argv=opening, devices=devices))
            await granting_runtime.wait(name)
            found.append(granting_runtime.read_log(name, "stdout", 0, 2000).data.decode())
        return found[0], found[1]

    granted, denied = trio.run(outputs)
    assert "opened" in granted, granted
    assert denied == "no more\n"
    devices = granting_runtime._cgroups.layout.having("devices")
    if devices is not None:
        group = devices.mount / granting_runtime._cgroups.root
        assert "c 10:229 rwm" in (group / "1.1.1/payload/devices.list").read_text()
        assert "c 10:229 rwm" not in (group / "1.2.1/payload/devices.list").read_text()


# --- changes of what runs


async def test_everything_can_be_changed_while_it_runs(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    before = spec(busybox_image, memory_bytes=32 << 20, cpu_milli=100, cpu_limit_milli=500, pids_max=20)
    await started(lxc_runtime, before)
    last, hard = max(os.sched_getaffinity(0)), min(OPEN_FILES_HARD, hard_maximum("nofile"))
    cores = (last,) if "cpuset" in lxc_runtime._cgroups.abilities() else ()
    groups = MoreLimits(memory_soft_bytes=8 << 20, cores=cores, cpu_period_us=50_000)
    after = replace(
        before,
        memory_bytes=96 << 20,
        cpu_milli=400,
        cpu_limit_milli=1500,
        pids_max=40,
        limits=FurtherLimits(groups=groups, rlimits=(Rlimit(name="nofile", soft=64, hard=hard),)),
    )
    for wanted in (after, before, after):
        await lxc_runtime.update(wanted)
        assert shown(lxc_runtime, "memory", "memory.limit_in_bytes", "memory.max") == str(wanted.memory_bytes)
        assert shown(lxc_runtime, "pids", "pids.max") == str(wanted.pids_max)
        assert lxc_runtime._verify(wanted) is None
    inside = lxc_runtime._cgroups.inside("1.1.1")
    assert cores == () or all(os.sched_getaffinity(pid) == {last} for pid in inside)
    (found,) = await lxc_runtime.recover()
    assert found.spec == after


async def test_memory_below_what_is_in_use_is_refused_and_nothing_changes(
    lxc_runtime: LxcRuntime, busybox_image: Path
) -> None:
    holding = ("sh", "-c", "dd if=/dev/zero of=/tmp/held bs=1M count=24 && echo held && sleep 60")
    before = spec(busybox_image, argv=holding, memory_bytes=64 << 20, tmpfs_bytes=32 << 20, pids_max=20)
    await started(lxc_runtime, before)
    with trio.fail_after(10):
        while not lxc_runtime.read_log("1.1.1", "stdout", 0, 10).data:
            await trio.sleep(0.01)
    with pytest.raises(UpdateError, match="in use"):
        await lxc_runtime.update(replace(before, memory_bytes=8 << 20, pids_max=9))
    assert shown(lxc_runtime, "memory", "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert shown(lxc_runtime, "pids", "pids.max") == "20"
    assert "1.1.1" in lxc_runtime.usage()
    (found,) = await lxc_runtime.recover()
    assert found.spec == before


async def test_a_raised_quota_is_felt(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    before = spec(busybox_image, argv=SPINNING, cpu_limit_milli=100)
    await started(lxc_runtime, before)

    async def rate() -> float:
        used_ns, began_s = lxc_runtime.usage()["1.1.1"].cpu_ns, trio.current_time()
        await trio.sleep(0.8)
        return (lxc_runtime.usage()["1.1.1"].cpu_ns - used_ns) / 1e9 / (trio.current_time() - began_s)

    await lxc_runtime.update(before)
    assert await rate() < 0.25
    await lxc_runtime.update(replace(before, cpu_limit_milli=600))
    with trio.fail_after(20):  # a busy machine may give less than the quota for a while
        while await rate() <= 0.25:
            pass


async def test_what_has_ended_has_no_limits_to_change(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    before = spec(busybox_image, argv=("true",), pids_max=9)
    await started(lxc_runtime, before)
    await lxc_runtime.wait("1.1.1")
    with pytest.raises(UpdateError, match="does not run"):
        await lxc_runtime.update(replace(before, pids_max=10))


async def test_a_group_that_is_missing_is_an_error_and_no_silence(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    wanted = group_limits(spec(busybox_image, pids_max=9))
    with pytest.raises(CgroupError, match=r"no pids\.max"):
        lxc_runtime._cgroups.update("9.9.9", group_limits(spec(busybox_image)), wanted)


def test_a_disk_is_found_below_partitions_and_mounts() -> None:
    if DISK is None:
        pytest.skip("the temporary directory is on no disk")
    assert Path(f"/sys/dev/block/{DISK}/queue").exists()
    assert subprocess.run(["test", "-e", f"/sys/dev/block/{DISK}"], check=False).returncode == 0
