"""
What each agent of a lab is told: its configuration file, the cluster's key, the administrator's token.

The timings are shorter than a real cluster's, so that a visitor sees a lost node's tasks move within seconds.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.lab import layout
from node.lab.record import LabNode

KEY_FILE_NAME = "cluster.key"
SEEDS_MAX = 3
LOST_GRACE_S = 3.0
PROBE_INTERVAL_S = 0.5
PROBE_TIMEOUT_S = 0.25
ADMINISTRATOR = "lab"


@dataclass(frozen=True)
class NodeShape:
    """What every node of a lab offers. `catalogue`: the file of the applications its doors know."""

    cpu_milli: int = 2000
    memory_bytes: int = 2 << 30
    overcommit_cpu: float = 1.0
    overcommit_memory: float = 1.0
    catalogue: str | None = None


@dataclass(frozen=True)
class Endpoint:
    """Where one agent listens."""

    host: str
    api_port: int
    gossip_port: int
    door_port: int


def endpoints(count: int, isolated: bool) -> list[Endpoint]:
    if isolated:
        numbers = range(1, count + 1)
        ports = (layout.API_PORT, layout.GOSSIP_PORT, layout.DOOR_PORT)
        return [Endpoint(layout.underlay_address(n), *ports) for n in numbers]
    return [Endpoint("127.0.0.1", *ports) for ports in _free_ports(count)]


def _free_ports(count: int) -> list[tuple[int, int, int]]:
    """Three ports a node that nobody listens on at the moment; the second one is free for UDP too."""
    found: list[tuple[int, int, int]] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            door = held.enter_context(socket.socket())
            api = held.enter_context(socket.socket())
            gossip = held.enter_context(socket.socket())
            datagrams = held.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            door.bind(("127.0.0.1", 0))
            api.bind(("127.0.0.1", 0))
            gossip.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                datagrams.bind(("127.0.0.1", gossip.getsockname()[1]))
                found.append((api.getsockname()[1], gossip.getsockname()[1], door.getsockname()[1]))
    return found


def create_key(folder: Path) -> tuple[Path, str]:
    """Make the cluster's key and a token of its administrator."""
    from node import keys
    from node.tokens import Role, Tokens

    path = folder / KEY_FILE_NAME
    keys.create_key(path)
    return path, Tokens(keys.read_keys(path).primary).create(ADMINISTRATOR, Role.ADMIN, time.time())


def write(
    node: LabNode, endpoint: Endpoint, all_endpoints: Sequence[Endpoint], shape: NodeShape, runtime: str, key: Path
) -> None:
    """Write one agent's configuration file."""
    seeds = [f"{other.host}:{other.gossip_port}" for other in all_endpoints if other != endpoint][:SEEDS_MAX]
    sections: dict[str, dict[str, Any]] = {
        "node": {"name": node.name, "number": node.number, "address": endpoint.host, "data_dir": node.data},
        "cluster": {"name": "lab", "key_file": str(key), "seeds": seeds},
        "gossip": {
            "host": endpoint.host,
            "port": endpoint.gossip_port,
            "probe_interval_s": PROBE_INTERVAL_S,
            "probe_timeout_s": PROBE_TIMEOUT_S,
        },
        "api": {"host": endpoint.host, "port": endpoint.api_port, "unix_socket": node.api_socket},
        "resources": {
            "cpu_milli": shape.cpu_milli,
            "memory_bytes": shape.memory_bytes,
            "reserve_memory_bytes": 0,
            "overcommit_cpu": shape.overcommit_cpu,
            "overcommit_memory": shape.overcommit_memory,
        },
        "runtime": {
            "kind": runtime,
            "cgroup_root": f"{layout.cgroup_root()}/{node.name}",
            "address_pool": layout.container_subnet(node.number),
        },
        "network": {
            "mode": "routed",
            "address_pool6": layout.container_subnet6(node.number),
        },
        "scheduler": {"lost_grace_s": LOST_GRACE_S},
        "door": {
            "listen": f"{endpoint.host}:{endpoint.door_port}",
            "front_ends": layout.front_ends(bool(node.netns)),
            **({"catalogue": shape.catalogue} if shape.catalogue else {}),
        },
    }
    if runtime == "lxc":
        homes = layout.homes_folder()
        homes.mkdir(mode=0o700, parents=True, exist_ok=True)
        sections["files.volumes"] = {"homes": f"{homes}:rw,create"}
    Path(node.config).write_text("\n".join(_table(name, values) for name, values in sections.items()))


def _table(name: str, values: dict[str, Any]) -> str:
    # JSON's texts, numbers and lists of texts are TOML's too.
    return "\n".join([f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]) + "\n"


def agent_command(node: LabNode) -> list[str]:
    return [sys.executable, "-m", "node.cli", "agent", "--config", node.config]
