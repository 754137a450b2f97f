"""Limits are where they should be, and what cannot be done is told in an operator's words."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import trio

from node.host.image_stack import locate
from node.runtime import ContainerSpec, NetworkSpec, StartError
from node.runtime.lxc.lxc import LxcRuntime

pytestmark = [pytest.mark.lxc, pytest.mark.root]


def spec(image: Path, **changes: object) -> ContainerSpec:
    fields: dict[str, object] = {"name": "1.1.1", "argv": ("sleep", "60"), "rootfs": image, "user_base": 300_000}
    return ContainerSpec(**{**fields, **changes})  # type: ignore[arg-type]


async def test_every_process_inside_is_below_each_limit(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    wanted = spec(busybox_image, memory_bytes=32 << 20, cpu_milli=250, cpu_limit_milli=500, pids_max=30)
    await lxc_runtime.prepare(wanted)
    await lxc_runtime.start(wanted)
    groups = lxc_runtime._cgroups
    for controller, files in {
        "memory": {"memory.limit_in_bytes": str(32 << 20), "memory.max": str(32 << 20)},
        "cpu": {"cpu.cfs_quota_us": "50000", "cpu.max": "50000 100000"},
        "pids": {"pids.max": "30"},
    }.items():
        payload = groups.directory(controller, "1.1.1")
        assert payload is not None
        found = {name: (payload / name).read_text().strip() for name in files if (payload / name).exists()}
        assert found == {name: files[name] for name in found}
        assert found
        processes = (payload / "lxc" / "cgroup.procs").read_text().split()
        assert processes, f"nothing of it is in the {controller} group"


async def test_a_containers_weight_counts_against_the_other_containers(
    lxc_runtime: LxcRuntime, busybox_image: Path
) -> None:
    spinning = ("sh", "-c", "for i in 1 2 3 4; do while :; do :; done & done; wait")
    for name, cpu_milli in (("1.1.1", 100), ("2.1.1", 1600)):
        wanted = spec(busybox_image, name=name, argv=spinning, cpu_milli=cpu_milli)
        await lxc_runtime.prepare(wanted)
        await lxc_runtime.start(wanted)
    before = lxc_runtime.usage()  # the first one had the cores to itself while the second one started
    await trio.sleep(1.5)
    after = lxc_runtime.usage()
    used = {name: after[name].cpu_ns - before[name].cpu_ns for name in after}
    assert used["2.1.1"] > 3 * used["1.1.1"], used


async def test_what_was_reserved_has_its_limits_and_is_taken_back_by_who_comes_after(
    lxc_runtime: LxcRuntime, busybox_image: Path
) -> None:
    wanted = spec(busybox_image, memory_bytes=32 << 20, pids_max=30)
    await lxc_runtime.reserve(wanted)
    groups = lxc_runtime._cgroups
    payload = groups.directory("pids", "1.1.1")
    assert payload is not None
    assert (payload / "pids.max").read_text().strip() == "30"
    with pytest.raises(StartError, match="no/such"):
        await lxc_runtime.prepare(spec(Path("/no/such/image")))
    await lxc_runtime.remove("1.1.1")
    assert groups.names() == set()
    await lxc_runtime.reserve(wanted)
    await lxc_runtime.recover()
    assert groups.names() == set()


async def test_what_hastened_a_start_is_gone_when_the_container_runs(
    lxc_runtime: LxcRuntime, busybox_image: Path
) -> None:
    wanted = spec(busybox_image)
    await lxc_runtime.reserve(wanted)
    hastened = set(lxc_runtime._joining)
    await lxc_runtime.prepare(wanted)
    await lxc_runtime.start(wanted)
    with trio.fail_after(30):
        while lxc_runtime._joining:
            lxc_runtime._see_off()
            await trio.sleep(0.005)
    assert len(hastened) == (len(lxc_runtime._program) == 1)
    assert not hastened & set(psutil.pids())


async def test_a_missing_bridge_is_told_by_name(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    wanted = spec(busybox_image, network=NetworkSpec("nobridge0", "10.0.0.2/24"))
    await lxc_runtime.prepare(wanted)
    with pytest.raises(StartError, match="nobridge0"):
        await lxc_runtime.start(wanted)


async def test_a_missing_image_is_told_by_path(lxc_runtime: LxcRuntime) -> None:
    with pytest.raises(StartError, match="/no/such/image"):
        await lxc_runtime.prepare(spec(Path("/no/such/image")))
    await lxc_runtime.remove("1.1.1")
    assert await lxc_runtime.recover() == []


async def test_a_missing_command_is_told_by_name(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    wanted = spec(busybox_image, argv=("frobnicate",))
    await lxc_runtime.prepare(wanted)
    await lxc_runtime.start(wanted)
    ending = await lxc_runtime.wait("1.1.1")
    assert ending.exit_code == 127
    assert ending.error == "the image has no command frobnicate"


def test_an_images_links_do_not_lead_out_of_it(tmp_path: Path) -> None:
    root = tmp_path / "image"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/tool").write_text("")
    for name, target in {
        "bin": "usr/bin",
        "absolute": "/usr/bin",
        "out": "../../../../../../../../etc",
        "host": str(tmp_path),
        "loop": "loop",
    }.items():
        (root / name).symlink_to(target)
    (tmp_path / "secret").write_text("")
    for path in ("/usr/bin/tool", "bin/tool", "/absolute/tool", "/bin/../bin/./tool"):
        assert locate((root,), path), path
    for path in ("/out/passwd", "/host/secret", "/loop/x", "/bin/other", "../secret"):
        assert not locate((root,), path), path


async def test_usage_of_what_runs_is_what_the_kernel_counts(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    wanted = spec(busybox_image, argv=("sh", "-c", "sleep 60 & sleep 60"), memory_bytes=32 << 20)
    await lxc_runtime.prepare(wanted)
    await lxc_runtime.start(wanted)
    found = lxc_runtime.usage()["1.1.1"]
    assert 0 < found.memory_bytes <= 32 << 20
    assert found.cpu_ns > 0
    assert 1 <= found.pids <= 4


async def test_a_frozen_container_can_be_stopped(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    wanted = spec(busybox_image)
    await lxc_runtime.prepare(wanted)
    await lxc_runtime.start(wanted)
    freezer = lxc_runtime._cgroups.layout.having("freezer")
    for directory in lxc_runtime._cgroups.directories("1.1.1"):
        for name, value in (("freezer.state", "FROZEN"), ("cgroup.freeze", "1")):
            file = directory / "payload" / name
            if file.exists() and (name != "cgroup.freeze" or freezer is None):
                file.write_text(value)
    await lxc_runtime.stop("1.1.1", 10)
    assert (await lxc_runtime.wait("1.1.1")).exit_code == 143


async def test_images_are_shared_by_one_mount_a_range(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    for number in range(3):
        await lxc_runtime.prepare(spec(busybox_image, name=f"1.{number}.1", user_base=300_000 + number // 2 * 65536))
    mounts = [
        line for line in Path("/proc/self/mounts").read_text().splitlines() if str(lxc_runtime._root.parent) in line
    ]
    assert len(mounts) == 2
    assert all(" ro," in line for line in mounts)
