"""Agents killed between any two steps, supervisors and lxc-execute killed at random: nothing is lost, nothing left."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from node.runtime import lxc_obstacles, supervisor
from node.runtime.lxc.lxc import LxcRuntime
from node.runtime.process import ProcessRuntime

AGENT = Path(__file__).with_name("runtime_agent.py")
MISSING = [*lxc_obstacles(), *([] if shutil.which("busybox") else ["no busybox"])]
needs_lxc = pytest.mark.skipif(bool(MISSING), reason="; ".join(MISSING))
OWN_HOST = """
mkdir "$1" && mount --rbind /sys/fs/cgroup "$1" && mount -t sysfs sysfs /sys && mount --rbind "$1" /sys/fs/cgroup
shift; ip link set lo up; exec "$@"
"""
"""A network namespace needs its own /sys, and that needs the control groups mounted again."""


@pytest.fixture
def root() -> Iterator[Path]:
    top = Path(tempfile.mkdtemp(prefix="fofoca-agent."))
    top.chmod(0o711)
    yield top
    shutil.rmtree(top)


def traces(root: Path, cgroup_root: str) -> list[str]:
    """What is left on the host of a runtime that has been purged."""
    found = [f"process {path}" for path in Path("/proc").glob("[0-9]*/cmdline") if os.fsencode(root) in content(path)]
    found += [f"group {path}" for path in Path("/sys/fs/cgroup").glob(f"*/{cgroup_root}*")]
    found += [f"group {path}" for path in Path("/sys/fs/cgroup").glob(f"{cgroup_root}*")]
    found += [f"mount {line}" for line in Path("/proc/self/mounts").read_text().splitlines() if str(root) in line]
    locks = Path("/run/lxc/lock") / str(root).lstrip("/")
    return found + ([f"lock {locks}"] if locks.exists() else [])


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.lxc
@pytest.mark.root
@pytest.mark.slow
@needs_lxc
def test_after_many_lives_and_deaths_no_trace_is_left(root: Path, busybox_image: Path) -> None:
    seed = random.randrange(1 << 32)
    cgroup_root = f"fofoca-test-{os.getpid()}-census"
    command = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-ec", OWN_HOST, "sh", f"{root}/cgroup"]
    command += [sys.executable, str(AGENT), "census", f"{root}/run", cgroup_root, str(busybox_image), "32", str(seed)]
    (root / "run").mkdir(mode=0o711)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    assert json.loads(done.stdout) == {"wrong": [], "left": []}, f"seed {seed}"
    assert traces(root, cgroup_root) == [], f"seed {seed}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["process", pytest.param("lxc", marks=[pytest.mark.lxc, pytest.mark.root, needs_lxc])])
async def test_an_agent_may_be_killed_between_any_two_steps(kind: str, root: Path, busybox_image: Path) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    cgroup_root = f"fofoca-test-{os.getpid()}-{kind}"
    program = supervisor.build(root / "bin")
    for turn in range(6):
        kill_agent_after(chance.uniform(0, 0.15), [str(root), cgroup_root, str(busybox_image), kind])
        runtime = LxcRuntime(root, program, cgroup_root) if kind == "lxc" else ProcessRuntime(root, program)
        with trio.fail_after(60):
            for container in await runtime.recover():
                assert container.running == (container.exit is None), f"seed {seed}, turn {turn}"
                if container.running:
                    await runtime.kill(container.name)
                ending = await runtime.wait(container.name)
                assert ending.error is not None or ending.exit_code in (3, 137), f"seed {seed}, turn {turn}: {ending}"
                await runtime.remove(container.name)
            assert await runtime.recover() == [], f"seed {seed}, turn {turn}"
            await runtime.purge()
        assert traces(root, cgroup_root) == [], f"seed {seed}, turn {turn}"


def kill_agent_after(delay_s: float, arguments: list[str]) -> None:
    with subprocess.Popen([sys.executable, str(AGENT), "start", *arguments], stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"ready\n"
        time.sleep(delay_s)
        agent.kill()
