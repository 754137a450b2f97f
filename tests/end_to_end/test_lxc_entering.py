"""What is run inside a container from outside is confined as the container is, and brings nothing along."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import trio

from node.runtime import ContainerSpec
from node.runtime.lxc.lxc import LxcRuntime
from node.runtime.protocol import EnterError

pytestmark = [pytest.mark.lxc, pytest.mark.root]

CONFINEMENT = ("Seccomp", "NoNewPrivs", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Uid", "Gid", "Groups")
OWN_STATUS = "cat /proc/self/status; echo; cat /proc/self/cgroup; for n in /proc/self/ns/*; do readlink $n; done"


def spec(image: Path, line: str) -> ContainerSpec:
    return ContainerSpec(
        name="1.1.1",
        argv=("sh", "-c", line),
        env=(("WORD", "given"),),
        rootfs=image,
        user_base=300_000,
        memory_bytes=64 << 20,
        pids_max=20,
    )


async def started(runtime: LxcRuntime, wanted: ContainerSpec) -> None:
    await runtime.prepare(wanted)
    await runtime.start(wanted)


async def entered(runtime: LxcRuntime, line: str) -> str:
    words = [*runtime.entrance("1.1.1").command, "sh", "-c", line]
    done = await trio.run_process(words, capture_stdout=True, capture_stderr=True, check=False, stdin=b"")
    return (done.stdout + done.stderr).decode()


def facts(status: str) -> dict[str, list[str]]:
    lines = (line.partition(":") for line in status.splitlines())
    return {key: value.split() for key, _, value in lines if key in CONFINEMENT}


async def test_it_is_confined_as_the_container_itself(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    await started(lxc_runtime, spec(busybox_image, f"{OWN_STATUS}; exec sleep 60"))
    with trio.fail_after(10):
        while "uts:" not in (own := lxc_runtime.read_log("1.1.1", "stdout", 0, 65536).data.decode()):
            await trio.sleep(0.01)
    found = await entered(lxc_runtime, OWN_STATUS)
    assert facts(found) == facts(own)
    assert facts(found)["Seccomp"] == ["2"]
    groups = found.replace("/.lxc\n", "/\n")  # the leaf that LXC makes on v2 for what enters, below the same limits
    assert groups.partition("\n\n")[2] == own.partition("\n\n")[2], "control groups and namespaces"


async def test_it_gets_no_descriptor_and_no_variable_of_ours(
    lxc_runtime: LxcRuntime, busybox_image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "secret")
    await started(lxc_runtime, spec(busybox_image, "sleep 60"))
    with tempfile.TemporaryFile() as ours:
        os.set_inheritable(ours.fileno(), True)
        found = await entered(lxc_runtime, "ls /proc/self/fd; env")
    assert [word for word in found.split() if word.isdigit()] == ["0", "1", "2", "3"], "3 is the listed folder itself"
    assert "WORD=given" in found
    assert "OURS" not in found


async def test_its_processes_count_against_the_containers_limit(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    await started(lxc_runtime, spec(busybox_image, "sleep 60"))
    await entered(lxc_runtime, "for i in $(seq 40); do sleep 5 >/dev/null 2>&1 & done")
    assert lxc_runtime.usage()["1.1.1"].pids <= 20


async def test_a_frozen_container_keeps_its_memory_and_is_not_entered(
    lxc_runtime: LxcRuntime, busybox_image: Path
) -> None:
    await started(lxc_runtime, spec(busybox_image, "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"))
    await trio.sleep(0.1)
    await lxc_runtime.freeze("1.1.1")
    await trio.sleep(0.02)
    stood = lxc_runtime.read_log("1.1.1", "stdout", 0, 65536).size
    memory_bytes = lxc_runtime.usage()["1.1.1"].memory_bytes
    await trio.sleep(0.1)
    assert lxc_runtime.read_log("1.1.1", "stdout", 0, 65536).size == stood
    assert lxc_runtime.usage()["1.1.1"].memory_bytes > memory_bytes // 2
    with pytest.raises(EnterError, match="frozen"):
        lxc_runtime.entrance("1.1.1")
    with trio.fail_after(0.1):
        await lxc_runtime.thaw("1.1.1")
    with trio.fail_after(5):
        while lxc_runtime.read_log("1.1.1", "stdout", 0, 65536).size == stood:
            await trio.sleep(0.005)
    counted = lxc_runtime.read_log("1.1.1", "stdout", 0, 65536).data.split()
    assert counted == [b"%d" % number for number in range(1, len(counted) + 1)]


@pytest.mark.parametrize("trick", ["ln -s /etc /out", "mkdir /out && ln -s ../../../../etc/shadow /out/shadow"])
async def test_a_copy_follows_links_inside_alone(lxc_runtime: LxcRuntime, busybox_image: Path, trick: str) -> None:
    await started(lxc_runtime, spec(busybox_image, f"{trick}; echo done; exec sleep 60"))
    with trio.fail_after(5):
        while not lxc_runtime.read_log("1.1.1", "stdout", 0, 10).data:
            await trio.sleep(0.01)
    files = lxc_runtime.entrance("1.1.1").files
    for path in ("/out", "/out/shadow"):
        done = await trio.run_process([*files, "get", path], capture_stdout=True, capture_stderr=True, check=False)
        assert Path("/etc/shadow").read_bytes() not in done.stdout
