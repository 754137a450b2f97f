"""Routes from this node to the containers of the others, where the network between nodes has none of its own.

They carry a protocol number of their own, by which the agent finds what it has set, also after it was killed; routes of
others are left alone.
"""

from __future__ import annotations

import ipaddress
import socket
import subprocess
from collections.abc import Mapping

from node.host.network import IP_TIMEOUT_S, NetworkError

PROTOCOL = 197
"""Of 256 in rtnetlink(7); none of iproute2's rt_protos."""

Routes = Mapping[str, str]
"""Pool to the address of its node."""


def changes(current: Routes, wanted: Routes) -> list[str]:
    """Return what `ip -batch` is to do, a line each."""
    lines = [f"route del {pool} proto {PROTOCOL}" for pool in current if pool not in wanted]
    lines += [
        f"route replace {pool} via {node} proto {PROTOCOL}"
        for pool, node in wanted.items()
        if current.get(pool) != node
    ]
    return sorted(lines)


def usable(routes: Routes) -> dict[str, str]:
    """Leave out what no route can be made of: a pool of one version and a node of the other, or a node on loopback."""
    found = {}
    for pool, node in routes.items():
        network, address = ipaddress.ip_network(pool), ipaddress.ip_address(node)
        if network.version == address.version and not address.is_loopback:
            found[pool] = node
    return found


def current() -> dict[str, str]:
    """Return the routes that an agent has set here."""
    found = {}
    for version in ("-4", "-6"):
        for line in _run(["ip", version, "route", "show", "proto", str(PROTOCOL)]).splitlines():
            words = line.split()
            if "via" in words:
                found[words[0]] = words[words.index("via") + 1]
    return found


def leads_to(pool: str) -> bool:
    """Whether the host has a route into the pool, an agent's or another. Sends nothing."""
    network = ipaddress.ip_network(pool)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asked:
            asked.connect((str(network[1]), 9))
    except OSError:
        return False
    return True


def apply(lines: list[str]) -> None:
    """Change them; what can't be changed is named (NetworkError), the rest is."""
    for version, mark in (("-4", "."), ("-6", ":")):
        batch = [line for line in lines if mark in line.split()[2]]
        if batch:
            _run(["ip", version, "-force", "-batch", "-"], "\n".join(batch) + "\n")


def _run(command: list[str], text: str = "") -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=IP_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        raise NetworkError(f"routes to other nodes' containers: {' '.join(done.stderr.split())}")
    return done.stdout
