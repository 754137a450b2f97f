"""
Where a lab's things are: names, addresses, folders. Pure arithmetic on names; nothing here touches the machine except
for asking who runs it.

Every name is derived from the node's number, so that a lab can be removed without any record of it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from node.errors import InvalidValue

NODES_MAX = 200
API_PORT = 8642
GOSSIP_PORT = 7946
DOOR_PORT = 8650
FABRIC_BRIDGE = "fab0"
NETNS_FOLDER = Path("/run/netns")
LAB_NAME = re.compile(r"[a-z][a-z0-9]{0,11}", re.ASCII)
SOCKET_PATH_BYTES_MAX = 107  # sun_path less its closing zero


def is_root() -> bool:
    return os.geteuid() == 0


def lab_name() -> str:
    """A user has one lab, unless FOFOCA_LAB names another: tests have their own, so that they leave a user's alone."""
    name = os.environ.get("FOFOCA_LAB", "")
    if name and LAB_NAME.fullmatch(name) is None:
        raise InvalidValue("FOFOCA_LAB", name, "expected up to 12 small letters and digits, a letter first")
    return name


def own_name() -> str:
    """`fofoca-lab`, or `fofoca-lab-NAME`: folders and cgroups are called so."""
    return f"fofoca-lab-{lab_name()}" if lab_name() else "fofoca-lab"


def state_folder() -> Path:
    """Holds lab.json. For root it is gone after a reboot, as the namespaces are."""
    return Path("/run") / own_name() if is_root() else _user_folder()


def data_folder() -> Path:
    """Holds one folder a node: its disk."""
    return Path("/var/lib") / own_name() if is_root() else _user_folder() / "nodes"


def homes_folder() -> Path:
    """Holds users' homes, the same ones on all nodes, as shared storage would."""
    return data_folder() / "homes"


def cgroup_root() -> str:
    """Below it, in every hierarchy, each node has a cgroup of its name."""
    return own_name()


def lock_path() -> Path:
    folder = state_folder()
    return folder.with_name(folder.name + ".lock")


def _user_folder() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    folder = base / own_name()
    longest = folder / "nodes" / f"n{NODES_MAX}" / "run" / "api.sock"
    if len(os.fsencode(longest)) > SOCKET_PATH_BYTES_MAX:
        # A unix socket's path is short; a home directory's need not be.
        import tempfile  # not at the top: it weighs more than all of this module, and every command loads it

        return Path(tempfile.gettempdir()) / f"{own_name()}-{os.geteuid()}"
    return folder


def node_name(number: int) -> str:
    return f"n{number}"


def namespace(name: str) -> str:
    """The network namespace of a node."""
    return f"fofoca-{lab_name()}-{name}" if lab_name() else f"fofoca-{name}"


def fabric() -> str:
    """The network namespace that joins the nodes."""
    return namespace("fab")


def is_namespace(name: str) -> bool:
    """Whether a network namespace is one of this lab's."""
    return name == fabric() or re.fullmatch(re.escape(namespace("n")) + r"\d+", name) is not None


def fabric_port(number: int) -> str:
    return f"p{number}"


def underlay_address(number: int) -> str:
    return f"10.78.0.{number}"


def front_ends(isolated: bool) -> list[str]:
    """The networks whose requests at the lab's doors count as a front end's: the nodes' own."""
    return ["10.78.0.0/24"] if isolated else ["127.0.0.0/8"]


def container_subnet(number: int) -> str:
    return f"10.77.{number}.0/24"


def container_subnet6(number: int) -> str:
    return f"fd77:0:0:{number:x}::/64"


def bridge_address(number: int) -> str:
    return f"10.77.{number}.1"
