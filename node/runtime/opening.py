"""Chooses and opens a runtime for an agent.

Owns: which runtime this host can carry, said in an operator's words. May not know: what will run in it.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import trio

from node.host.cgroups import CgroupError, detect
from node.runtime import supervisor
from node.runtime.lxc.lxc import LxcRuntime
from node.runtime.process import ProcessRuntime
from node.runtime.protocol import ContainerError, Runtime

RuntimeKind = Literal["auto", "lxc", "process"]


class UnavailableError(ContainerError):
    """The runtime asked for cannot work on this host: says what is missing."""


def lxc_obstacles() -> list[str]:
    """What keeps LXC from running here, each with its remedy; empty if nothing does."""
    obstacles = []
    if os.geteuid() != 0:
        obstacles.append("the agent is not root; start it as root")
    if shutil.which("lxc-execute") is None:
        obstacles.append("lxc-execute is not installed; install the package lxc")
    if not Path("/proc/self/ns/user").exists():
        obstacles.append("the kernel has no user namespaces; enable CONFIG_USER_NS")
    layout = detect()
    missing = [controller for controller in ("memory", "cpu", "pids") if layout.having(controller) is None]
    if missing:
        obstacles.append(f"no cgroup controller {', '.join(missing)}; mount them below /sys/fs/cgroup")
    return obstacles


async def open_runtime(
    kind: RuntimeKind, root: Path, cgroup_root: str = "fofoca", devices: Sequence[str] = ()
) -> Runtime:
    """A runtime whose files are below `root`, which is this agent's alone (two agents never share one).
    "auto": LXC where nothing stands against it, otherwise plain processes. Call `recover` next.
    `devices`: rules that single containers may be granted.
    Raises UnavailableError."""
    obstacles = lxc_obstacles() if kind != "process" else []
    if kind == "lxc" and obstacles:
        raise UnavailableError(f"containers by LXC cannot run here: {'; '.join(obstacles)}")
    return await trio.to_thread.run_sync(_open, kind != "process" and not obstacles, root, cgroup_root, devices)


def _open(lxc: bool, root: Path, cgroup_root: str, devices: Sequence[str]) -> Runtime:
    root = root.absolute()
    root.mkdir(mode=0o711, parents=True, exist_ok=True)
    program = supervisor.build(root / "bin")
    if not lxc:
        return ProcessRuntime(root, program)
    closed = [parent for parent in (root, *root.parents) if not parent.stat().st_mode & stat.S_IXOTH]
    if closed:
        raise UnavailableError(
            f"containers by LXC cannot use {root}: their users, nobody on this host, may not pass {closed[-1]}; "
            f"choose another data directory or allow it (chmod o+x {closed[-1]})"
        )
    try:
        return LxcRuntime(root, program, cgroup_root, devices)
    except CgroupError as error:
        raise UnavailableError(f"containers by LXC cannot run here: {error}") from error
