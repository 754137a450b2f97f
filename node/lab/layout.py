"""
Where a lab's things are: names, addresses, folders. Pure arithmetic on names; nothing here touches the machine except
for asking who runs it.

Every name is derived from the node's number, so that a lab can be removed without any record of it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

NODES_MAX = 200
API_PORT = 8642
GOSSIP_PORT = 7946
NAMESPACE_PREFIX = "fofoca-"
FABRIC = "fofoca-fab"
FABRIC_BRIDGE = "fab0"
NETNS_FOLDER = Path("/run/netns")
CGROUP_ROOT = "fofoca-lab"
SOCKET_PATH_BYTES_MAX = 107  # sun_path less its closing zero


def is_root() -> bool:
    return os.geteuid() == 0


def state_folder() -> Path:
    """Holds lab.json. For root it is gone after a reboot, as the namespaces are."""
    return Path("/run/fofoca-lab") if is_root() else _user_folder()


def data_folder() -> Path:
    """Holds one folder a node: its disk."""
    return Path("/var/lib/fofoca-lab") if is_root() else _user_folder() / "nodes"


def lock_path() -> Path:
    folder = state_folder()
    return folder.with_name(folder.name + ".lock")


def _user_folder() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    folder = base / "fofoca-lab"
    longest = folder / "nodes" / f"n{NODES_MAX}" / "run" / "api.sock"
    if len(os.fsencode(longest)) > SOCKET_PATH_BYTES_MAX:
        # A unix socket's path is short; a home directory's need not be.
        return Path(tempfile.gettempdir()) / f"fofoca-lab-{os.geteuid()}"
    return folder


def node_name(number: int) -> str:
    return f"n{number}"


def namespace(name: str) -> str:
    return NAMESPACE_PREFIX + name


def fabric_port(number: int) -> str:
    return f"p{number}"


def underlay_address(number: int) -> str:
    return f"10.78.0.{number}"


def container_subnet(number: int) -> str:
    return f"10.77.{number}.0/24"


def bridge_address(number: int) -> str:
    return f"10.77.{number}.1"
