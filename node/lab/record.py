"""
lab.json: what a running lab consists of, for later commands. It is read at the start of nearly every command, so it
needs only the standard library.

The record is written before anything is made, and removed after everything is gone. Losing it loses no clean-up: see
leftovers.py.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from node.lab import layout


@dataclass(frozen=True)
class LabNode:
    name: str
    number: int
    host: str
    api_port: int
    gossip_port: int
    api_socket: str
    data: str
    config: str
    log: str
    netns: str  # "" without network namespaces
    keeper_pid: int = 0  # 0: switched off
    keeper_start_ticks: int = 0  # tells the keeper from a later process with the same pid
    door_port: int = 0

    @property
    def api_url(self) -> str:
        """Where its agent's API listens."""
        return f"http://{self.host}:{self.api_port}"

    @property
    def door_url(self) -> str:
        """Where its request door listens."""
        return f"http://{self.host}:{self.door_port}"


@dataclass(frozen=True)
class Lab:
    runtime: str  # lxc | process
    isolated: bool  # every node in namespaces of its own
    token: str  # of an administrator
    nodes: tuple[LabNode, ...]
    owner_uid: int

    def node(self, name: str) -> LabNode | None:
        return next((node for node in self.nodes if node.name == name), None)

    def with_node(self, changed: LabNode) -> Lab:
        return replace(self, nodes=tuple(changed if node.name == changed.name else node for node in self.nodes))


def path() -> Path:
    return layout.state_folder() / "lab.json"


def load() -> Lab | None:
    """The lab of this user, or None where there is none (or where its record is not readable by this user)."""
    try:
        raw: dict[str, Any] = json.loads(path().read_bytes())
        return Lab(**{**raw, "nodes": tuple(LabNode(**node) for node in raw["nodes"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def store(lab: Lab) -> None:
    target = path()
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = target.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(lab), file, indent=1)
    temporary.replace(target)


def start_ticks(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 when there is no such process (or only its zombie)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def is_on(node: LabNode) -> bool:
    return node.keeper_pid > 0 and start_ticks(node.keeper_pid) == node.keeper_start_ticks
