"""What can be seen of a lab: what its agents say, whether they run, what they logged."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from node.caller import Agents, parse_address
from node.errors import AgentUnreachable, ApiProblem
from node.lab import leftovers, record
from node.lab.errors import LabFailure, LabMisuse
from node.lab.record import Lab, LabNode

POLL_S = 0.1
ASK_TIMEOUT_S = 2.0
LOG_LINES_SHOWN = 8
Progress = Callable[[str], None]


def running() -> Lab:
    """The lab that is up. Raises LabMisuse."""
    lab = record.load()
    if lab is None:
        raise LabMisuse("no lab is up; start one with `fofoca lab up`")
    return lab


def node_of(lab: Lab, name: str) -> LabNode:
    node = lab.node(name)
    if node is None:
        raise LabMisuse(f"the lab has no node {name!r}; it has {', '.join(each.name for each in lab.nodes)}")
    return node


def require_on(node: LabNode) -> None:
    """Raises LabMisuse when the node is switched off."""
    if not record.is_on(node):
        raise LabMisuse(f"{node.name} is switched off; `fofoca lab start {node.name}` brings it back")


def first_on(lab: Lab) -> LabNode:
    """Return the first node that is switched on. Raises LabMisuse."""
    node = next((node for node in lab.nodes if record.is_on(node)), None)
    if node is None:
        raise LabMisuse("all nodes are switched off; `fofoca lab start NODE` brings one back")
    return node


def agents(lab: Lab) -> Agents:
    """All agents of the lab that are switched on, as the lab's administrator."""
    places = [parse_address(f"unix://{node.api_socket}") for node in lab.nodes if record.is_on(node)]
    return Agents(places, lab.token)


def agent_of(lab: Lab, node: LabNode) -> Agents:
    return Agents([parse_address(f"unix://{node.api_socket}")], lab.token)


def view_of(lab: Lab, node: LabNode) -> list[dict[str, Any]] | None:
    """What one node's agent says of all nodes; None where it does not answer."""
    try:
        answer = agent_of(lab, node).get("/v1/nodes", read_timeout_s=ASK_TIMEOUT_S).json()
    except (AgentUnreachable, ApiProblem, ValueError):
        return None
    return answer if isinstance(answer, list) else None


def agent_pid(node: LabNode) -> int:
    """The agent's process id as this machine sees it; 0 if it does not run."""
    wanted = os.fsencode(node.config)
    return next((pid for pid in leftovers.children(node.keeper_pid) if wanted in leftovers.command_line(pid)), 0)


def last_log_lines(node: LabNode, count: int = LOG_LINES_SHOWN) -> list[str]:
    try:
        lines = Path(node.log).read_text(errors="replace").splitlines()
    except OSError:
        return []
    return lines[-count:]


def wait_until_met(lab: Lab, timeout_s: float, progress: Progress) -> None:
    """Return when every node sees every other alive. Raises LabFailure with the log of a node that does not."""
    deadline = time.monotonic() + timeout_s
    while True:
        waiting = [node for node in lab.nodes if not _sees_all(lab, node)]
        if not waiting:
            return
        for node in waiting:
            if _has_ended(node):
                raise LabFailure(f"the agent of {node.name} ended; its log {node.log} ends with:", last_log_lines(node))
        if time.monotonic() > deadline:
            names = ", ".join(node.name for node in waiting)
            raise LabFailure(
                f"after {timeout_s:g} s {names} did not see all nodes; the log of {waiting[0].name} ends with:",
                last_log_lines(waiting[0]),
            )
        progress(f"{len(lab.nodes) - len(waiting)} of {len(lab.nodes)} nodes see all others")
        time.sleep(POLL_S)


def _has_ended(node: LabNode) -> bool:
    if agent_pid(node):
        return False
    # A process that is just replacing its program has no command line for a moment.
    time.sleep(POLL_S)
    return not agent_pid(node)


def _sees_all(lab: Lab, node: LabNode) -> bool:
    view = view_of(lab, node)
    if view is None:
        return False
    alive = {str(other.get("name")) for other in view if other.get("state") == "alive" and other.get("accepting", True)}
    return {other.name for other in lab.nodes} <= alive
