"""
Making and switching on the hosts of a lab.

A host's keeper (keeper.py) starts its agent. Where hosts have no network of their own, one that is switched off
leaves a silent process on its ports (silence.py).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from node.host import cgroups
from node.lab import configuration, layout, record
from node.lab.configuration import NodeShape
from node.lab.errors import LabFailure
from node.lab.record import Lab, LabNode


@dataclass(frozen=True)
class Plan:
    """What `lab up` is asked for."""

    nodes: int = 3
    runtime: str = "auto"
    shape: NodeShape = field(default_factory=NodeShape)
    image: bool = True


def describe(plan: Plan, isolated: bool) -> tuple[Lab, list[configuration.Endpoint]]:
    endpoints = configuration.endpoints(plan.nodes, isolated)
    nodes = []
    for number, endpoint in enumerate(endpoints, start=1):
        name = layout.node_name(number)
        folder = layout.data_folder() / name
        nodes.append(
            LabNode(
                name=name,
                number=number,
                host=endpoint.host,
                api_port=endpoint.api_port,
                gossip_port=endpoint.gossip_port,
                api_socket=str(folder / "run" / "api.sock"),
                data=str(folder),
                config=str(layout.state_folder() / f"{name}.toml"),
                log=str(layout.state_folder() / f"{name}.log"),
                netns=layout.namespace(name) if isolated else "",
                door_port=endpoint.door_port,
            )
        )
    return Lab(_runtime(plan, isolated), isolated, "", tuple(nodes), os.geteuid()), endpoints


def _runtime(plan: Plan, isolated: bool) -> str:
    if plan.runtime != "auto":
        return plan.runtime
    from node.runtime.opening import lxc_obstacles

    return "lxc" if isolated and not lxc_obstacles() else "process"


def can_isolate() -> bool:
    """Whether this process may make namespaces (in an unprivileged container even root may not)."""
    probe = ["unshare", "--net", "--pid", "--mount", "--fork", "mount", "-t", "sysfs", "sysfs", "/sys"]
    try:
        return subprocess.run(probe, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def switch_on(node: LabNode) -> LabNode:
    """Start a node's keeper, which starts its agent."""
    pid = _start_keeper(node, configuration.agent_command(node))
    return replace(node, keeper_pid=pid, keeper_start_ticks=record.start_ticks(pid))


def keep_silent(node: LabNode) -> None:
    """Let the ports of a node without a network of its own behave as a missing host's."""
    ports = [str(node.api_port), str(node.gossip_port), str(node.door_port)]
    _start_keeper(node, [sys.executable, "-m", "node.lab.silence", node.host, *ports])


def _start_keeper(node: LabNode, command: list[str]) -> int:
    keeper = [sys.executable, "-m", "node.lab.keeper", node.netns or "-", node.data, node.log]
    groups = cgroups.detect().hierarchies if node.netns else ()
    done = subprocess.run(
        [*keeper, *command], capture_output=True, text=True, timeout=20, check=False,
        preexec_fn=lambda: _join(groups),
    )  # fmt: skip
    if done.returncode != 0 or not done.stdout.strip().isdigit():
        raise LabFailure(f"cannot start {node.name}: {(done.stderr or done.stdout).strip()}")
    return int(done.stdout)


def _join(groups: Iterable[cgroups.Hierarchy]) -> None:
    """
    Leave the caller's control groups, say a login session's. A keeper is process 1 of its node, and agent and LXC make
    their groups below that one's: on v2 a session's, which holds processes, could not be divided.
    """
    for hierarchy in groups:
        with contextlib.suppress(OSError):  # where it stays, the agent says what it can't do
            (hierarchy.mount / "cgroup.procs").write_text("0")
