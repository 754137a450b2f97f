"""What a container may not do, tried from inside as its root; and what it may, so that confinement stays usable."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import trio

from node.runtime import Exit, StartError
from node.runtime.lxc.lxc import LxcRuntime
from tests.end_to_end.inside import BASE, Inside

pytestmark = [pytest.mark.lxc, pytest.mark.root]


@pytest.fixture
def inside(lxc_runtime: LxcRuntime, busybox_image: Path) -> Inside:
    return Inside(lxc_runtime, busybox_image)


@pytest.mark.parametrize(
    "attempt",
    [
        "mknod /tmp/disk b 254 0",
        "mknod /tmp/kmem c 1 1",
        "mount -t tmpfs none /tmp",
        "mount -o remount,rw /sys",
        "umount /proc",
        "unshare -U true",
        "unshare -m true",
        "unshare -n true",
        "echo 1 > /proc/sys/kernel/panic",
        "echo c > /proc/sysrq-trigger",
        "echo 1 > /sys/kernel/mm/ksm/run",
        "cat /proc/kcore | head -c 1 | wc -c | while read n; do test $n = 1; done",
        "mkdir -p /sys/fs/cgroup/x",
        "echo hi > /bin/busybox",
        "chmod 4755 /bin/busybox && false",
        "kill -9 1 && sleep 1 && false",
        "ip link add dummy0 type dummy",
        "dd if=/dev/zero of=/proc/self/mem bs=1 count=1",
        "test $(ls /proc | head -c 300 | wc -w) -gt 200",
        "head -c 1 /dev/mem",
        "head -c 1 /dev/kmsg",
        "head -c 1 /dev/vda",
    ],
)
async def test_an_attempt_from_inside_fails(inside: Inside, attempt: str) -> None:
    ending, output = await inside.run(attempt)
    assert ending.exit_code != 0, output
    assert ending.error is None


async def test_its_root_is_nobody_on_the_host(inside: Inside) -> None:
    spec = inside.spec("echo mine > /root.txt; sleep 60")
    await inside.runtime.prepare(spec)
    await inside.runtime.start(spec)
    delta = inside.runtime.log_path(spec.name, "stdout").parent / "fs" / "delta"
    with trio.fail_after(10):
        while not (delta / "root.txt").exists():
            await trio.sleep(0.01)
    assert (delta / "root.txt").stat().st_uid == BASE
    inner = [pid for pid in inside.runtime._cgroups.processes(spec.name) if os.stat(f"/proc/{pid}").st_uid >= BASE]
    assert inner, "its processes belong to the mapped range"
    assert not (inside.image / "root.txt").exists(), "the shared image is untouched"


async def test_no_new_privileges_few_capabilities_and_a_filter(inside: Inside) -> None:
    _, output = await inside.run("cat /proc/self/status")
    fields = dict(line.split(":\t", 1) for line in output.splitlines() if ":\t" in line)
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    assert int(fields["CapBnd"], 16) == int(fields["CapEff"], 16) == 0x800405FB


async def test_it_sees_its_own_processes_and_its_own_host_name(inside: Inside) -> None:
    _, output = await inside.run("ps -o pid,args; cat /proc/sys/kernel/hostname; cat /etc/hosts", hostname="here")
    assert "systemd" not in output
    assert "pytest" not in output
    assert output.splitlines()[-4] == "here"
    assert "127.0.1.1 here" in output


async def test_without_a_network_there_is_loopback_alone(inside: Inside) -> None:
    ending, output = await inside.run("grep -c : /proc/net/dev; ip addr show lo")
    assert ending.exit_code == 0, output
    assert output.splitlines()[0] == "1"
    assert "127.0.0.1/8" in output


async def test_ordinary_work_works(inside: Inside) -> None:
    line = "echo a > /tmp/a && cat /tmp/a && mkdir -p /var/lib/x && echo b > /var/lib/x/b && chmod 600 /tmp/a"
    line += " && echo c > /dev/shm/c && echo d > /dev/stdout && echo e > /dev/stderr && head -c 4 /dev/urandom | wc -c"
    ending, output = await inside.run(line)
    assert ending.exit_code == 0, output
    assert output.split() == ["a", "d", "4", "e"]


async def test_a_memory_bomb_hurts_itself_alone(inside: Inside) -> None:
    neighbour = inside.spec("sleep 60")
    await inside.runtime.prepare(neighbour)
    await inside.runtime.start(neighbour)
    ending, _ = await inside.run("exec dd if=/dev/zero of=/dev/null bs=200M count=1")
    assert ending.oom_killed
    assert ending.exit_code == 137
    assert (60 << 20) < ending.memory_peak_bytes <= (64 << 20)
    assert neighbour.name in inside.runtime.usage()


async def test_files_in_memory_count_against_its_memory(inside: Inside) -> None:
    ending, output = await inside.run("dd if=/dev/zero of=/dev/shm/x bs=1M count=500")
    assert ending.exit_code != 0, output
    assert ending.memory_peak_bytes <= 64 << 20


@pytest.mark.parametrize("memory_bytes", [256 << 10, 1 << 20])
async def test_too_little_memory_even_for_the_start_is_told_and_does_not_hang(
    inside: Inside, memory_bytes: int
) -> None:
    with trio.fail_after(20):
        try:
            ending, _ = await inside.run("head -c 4000000 /dev/zero | dd bs=4M | wc -c", memory_bytes=memory_bytes)
        except StartError as error:
            ending = Exit(oom_killed="memory limit" in error.reason or "before its command ran" in error.reason)
    assert ending.oom_killed


async def test_a_fork_bomb_ends_at_its_limit(inside: Inside) -> None:
    spec = inside.spec("b() { b | b & }; b; sleep 60", time_limit_s=1.0, stop_grace_s=0.2)
    await inside.runtime.prepare(spec)
    await inside.runtime.start(spec)
    most = 0
    with trio.fail_after(30):
        while spec.name in inside.runtime.usage():
            most = max(most, inside.runtime.usage()[spec.name].pids if inside.runtime.usage() else 0)
            await trio.sleep(0.05)
        ending = await inside.runtime.wait(spec.name)
    assert most <= 40
    assert ending.timed_out or ending.exit_code != 0


async def test_a_log_bomb_costs_no_more_disk_than_allowed(inside: Inside) -> None:
    ending, _ = await inside.run("yes", time_limit_s=0.5, stop_grace_s=0.1, log_bytes_max=1 << 16)
    assert ending.timed_out
    directory = inside.runtime.log_path("1.1.1", "stdout").parent
    assert sum(path.stat().st_size for path in directory.glob("stdout*")) <= 1 << 16


async def test_a_cpu_quota_holds(inside: Inside) -> None:
    began = time.monotonic()
    ending, _ = await inside.run("while :; do :; done", cpu_limit_milli=200, time_limit_s=1.5, stop_grace_s=0)
    share = ending.cpu_ns / 1e9 / (time.monotonic() - began)
    assert share < 0.35, f"of one core, where 0.2 was allowed: {share:.2f}"


async def test_the_open_files_and_core_limits_are_set(inside: Inside) -> None:
    _, output = await inside.run("ulimit -n; ulimit -c")
    assert output.split() == ["1024", "0"]


@pytest.mark.parametrize(
    "value", [" blanks ", "'quoted'", '"double"', "a=b", "#no comment", "$HOME", "tab\there", "ümläut", "", "\\n"]
)
async def test_the_environment_arrives_as_it_was_given(inside: Inside, value: str) -> None:
    _, output = await inside.run('echo "[$GIVEN]"', env=(("GIVEN", value),))
    assert output == f"[{value}]\n"


async def test_lines_in_a_variable_arrive(inside: Inside) -> None:
    _, output = await inside.run('echo "[$GIVEN]"; echo $PATH', env=(("GIVEN", "one\ntwo"), ("PATH", "/bin")))
    assert output == "[one\ntwo]\n/bin\n"
