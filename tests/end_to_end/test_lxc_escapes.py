"""Escapes tried from inside real containers, as root there: each fails, and neither host nor neighbours notice.

What a shell can try is in test_lxc_isolation.py; here are system calls, bombs and what /proc and /sys tell.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from node.runtime import StartError
from node.runtime.lxc import masks, seccomp
from node.runtime.lxc.lxc import LxcRuntime
from node.runtime.parts import CAPABILITIES, Privileges
from tests.end_to_end.inside import Inside

pytestmark = [pytest.mark.lxc, pytest.mark.root]
SOURCE = Path(__file__).with_name("attempts.c")
NAMES = re.findall(r'ON\("([a-z0-9-]+)"\)', SOURCE.read_text())


@pytest.fixture(scope="module")
def armed_image(busybox_image: Path) -> Iterator[Path]:
    """The usual image with the program of attempts, and the libraries it needs."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("tcc")
    if compiler is None:
        pytest.skip("no C compiler")
    top = Path(tempfile.mkdtemp(prefix="fofoca-armed."))
    shutil.copytree(busybox_image, top, symlinks=True, dirs_exist_ok=True)
    top.chmod(0o755)
    program = top / "bin" / "attempts"
    subprocess.run([compiler, "-o", str(program), str(SOURCE)], check=True, capture_output=True)
    needed = subprocess.run(["ldd", str(program)], check=True, capture_output=True, text=True).stdout
    for library in re.findall(r"(/\S+) \(0x", needed):
        (top / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, top / library[1:])
    yield top
    shutil.rmtree(top)


@pytest.fixture
def inside(lxc_runtime: LxcRuntime, armed_image: Path) -> Inside:
    return Inside(lxc_runtime, armed_image)


async def test_no_system_call_leads_out(inside: Inside) -> None:
    _, output = await inside.run("; ".join(f"attempts {name}" for name in NAMES))
    told = {line.split(":")[0] for line in output.splitlines()}
    assert "got through" not in output
    assert told == set(NAMES), output


async def test_nor_with_every_capability_an_operator_could_allow(inside: Inside) -> None:
    """Capabilities count in the user namespace alone, and the filter stays."""
    names = [name for name in NAMES if name not in ("raw-socket", "packet-socket", "sethostname-of-host", "root-again")]
    wide = Privileges((*CAPABILITIES, "mknod", "net_admin", "net_raw", "sys_admin", "sys_module", "sys_ptrace"))
    _, output = await inside.run("; ".join(f"attempts {name}" for name in names), privileges=wide)
    assert "got through" not in output, output
    assert {line.split(":")[0] for line in output.splitlines()} == set(names)


async def test_who_enters_a_container_is_confined_as_it_is(inside: Inside) -> None:
    spec = inside.spec("sleep 60")
    await inside.runtime.prepare(spec)
    await inside.runtime.start(spec)
    line = "; ".join(f"attempts {name}" for name in NAMES)
    entering = [*inside.runtime.entrance(spec.name).command, "sh", "-c", f"cat /proc/self/status; {line}; env"]
    entered = await trio.run_process(entering, capture_stdout=True, capture_stderr=True, check=False)
    output = entered.stdout.decode()
    fields = dict(line.split(":\t", 1) for line in output.splitlines() if ":\t" in line)
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert int(fields["CapBnd"], 16) == int(fields["CapEff"], 16) == 0x800405FB
    assert "got through" not in output, output
    assert "PYTEST" not in output


async def test_raw_sockets_open_where_they_were_granted_alone(inside: Inside) -> None:
    granted = Privileges((*CAPABILITIES, "net_raw"))
    _, output = await inside.run("attempts raw-socket", privileges=granted)
    assert output == "raw-socket got through\n"
    _, output = await inside.run("grep CapBnd /proc/self/status", privileges=Privileges(()))
    assert int(output.split()[1], 16) == 0


async def test_what_proc_and_sys_tell_of_the_host_reads_as_empty(inside: Inside) -> None:
    """Of each that this kernel has: the mask holds, or the kernel refuses; /proc/keys shows that masks do."""
    files, folders = (" ".join(paths) for paths in masks.files_and_folders(()))
    _, output = await inside.run(
        f"for each in {files}; do test -e $each && echo $each $(head -c 100 $each 2>/dev/null | wc -c); done;"
        f"for each in {folders}; do test -e $each && echo $each $(ls -A $each | wc -l); done;"
        "grep -c /proc/keys /proc/mounts"
    )
    lines = [line.split() for line in output.splitlines()]
    assert lines[-1] == ["1"], output
    told = dict(lines[:-1])
    assert set(told.values()) == {"0"}, told
    assert {"/proc/keys", "/proc/kcore", "/sys/firmware"} & set(told)


async def test_a_job_masks_more(inside: Inside) -> None:
    line = "wc -c < /proc/version; ls /sys/kernel | wc -l; cat /proc/uptime | wc -l"
    plain = (await inside.run(line))[1].split()
    masked = (await inside.run(line, privileges=Privileges(masked_paths=("/proc/version", "/sys/kernel"))))[1].split()
    assert plain[0] != "0"
    assert plain[1] != "0"
    assert masked == ["0", "0", "1"]


@pytest.mark.parametrize(
    "line",
    [
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "echo 65536 > /proc/sys/kernel/pid_max",
        "echo '|/bin/sh' > /proc/sys/kernel/core_pattern",
        "echo /bin/sh > /sys/kernel/uevent_helper",
        "echo 1 > /proc/self/oom_score_adj && echo -1000 > /proc/self/oom_score_adj",
        "mount -t proc none /tmp || mount -t sysfs none /tmp || mount -t cgroup2 none /tmp",
        "umount /proc/keys || umount -l /proc/keys",
        "find /sys/fs/cgroup -type f | head -1 | grep .",
        "cat /etc/shadow",
        "ls /root/.ssh || ls /work || ls /home/*",
        "for n in 3 4 5 6 7 8 9; do test -e /proc/1/fd/$n -o -e /proc/self/fd/$n && echo $n; done | grep .",
        "env | grep -v -e ^PATH= -e ^SHLVL= -e ^PWD= -e ^HOME= -e ^container",
        "cp /bin/busybox /tmp/su && chmod 4755 /tmp/su && setuidgid nobody /tmp/su id",
        "chroot /proc/1/root ls",
        "cat /proc/1/environ | tr '\\0' '\\n' | grep -v -e ^container -e ^PATH | grep .",
        "echo b > /proc/sysrq-trigger",
        "cat /proc/kallsyms | grep -v '^0000000000000000' | head -1 | grep .",
        "dmesg",
    ],
)
async def test_a_shell_gets_nothing_of_the_host(inside: Inside, line: str) -> None:
    ending, output = await inside.run(line)
    assert ending.exit_code != 0, output


async def test_a_custom_filter_is_the_one_that_holds(inside: Inside, tmp_path: Path) -> None:
    tight = tmp_path / "tight.seccomp"
    tight.write_text(seccomp.profile() + "mkdir errno 1\nmkdirat errno 1\n")
    ending, output = await inside.run("echo before; mkdir /x", privileges=Privileges(seccomp=tight))
    assert ending.exit_code == 1
    assert output.startswith("before\n")
    assert "not permitted" in output


@pytest.mark.parametrize(
    "filter_text",
    [
        "2\nallowlist\n[all]\nread\nwrite\n",
        "2\nallowlist errno 1\n[all]\nread\nfutex\npoll\nppoll\n",
        "2\ndenylist\n[all]\nsendmsg errno 11\nsendto errno 11\nwrite errno 11\nexecve errno 11\n",
    ],
)
async def test_a_filter_too_tight_for_a_start_is_told_and_does_not_hang(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filter_text: str
) -> None:
    """LXC sets the filter before its own last steps; what it can't say any more, the supervisor's time-out does."""
    monkeypatch.setattr("node.runtime.lxc.lxc.START_TIMEOUT_S", 2.0)
    tight = tmp_path / "tight.seccomp"
    tight.write_text(filter_text)
    told: str | None
    with trio.fail_after(20):
        try:
            told = (await inside.run("true", privileges=Privileges(seccomp=tight)))[0].error
        except StartError as error:
            told = error.reason
    assert told


async def test_a_filter_that_is_none_is_told(inside: Inside, tmp_path: Path) -> None:
    broken = tmp_path / "broken.seccomp"
    broken.write_text("no filter\n")
    with pytest.raises(StartError, match="seccomp"):
        await inside.run("true", privileges=Privileges(seccomp=broken))


async def test_bombs_of_all_kinds_leave_a_neighbour_alone(inside: Inside) -> None:
    """Processes, memory, output and open files at once; the neighbour goes on counting."""
    neighbour = inside.spec("i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
    await inside.runtime.prepare(neighbour)
    await inside.runtime.start(neighbour)

    async def bomb(line: str) -> None:
        await inside.run(line, time_limit_s=1.0, stop_grace_s=0.1, log_bytes_max=1 << 16, cpu_limit_milli=300)

    async with trio.open_nursery() as nursery:
        for line in (
            "b() { b | b & }; b; wait",
            "x=x; while :; do x=$x$x; done",
            "yes",
            "yes > /tmp/x; yes > /x & wait",
        ):
            nursery.start_soon(bomb, line)
    before = inside.output(neighbour.name).count("\n")
    await trio.sleep(0.5)
    assert inside.output(neighbour.name).count("\n") > before
    assert neighbour.name in inside.runtime.usage()
