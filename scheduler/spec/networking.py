"""Interfaces, rates, published ports and names of a task beyond its network mode.

Addresses are no option: they belong to nodes, and a task may run anywhere. What stays the same is its name,
`task-INDEX.job-ID.fofoca`, and the ports it publishes.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator

from scheduler.spec.files import Need
from scheduler.spec.part import Part, require

SHARED = "shared"
"""The network mode of gangs whose tasks on one node are in one network: JobSpec.network."""
PORTS_MAX = 32
NETWORKS_MAX = 4
MTU_MIN, MTU_MAX = 1280, 65_535
"""The least that IPv6 works with, and the most that a packet can have."""
RATE_BYTES_MIN, RATE_BYTES_MAX = 1_000, 1 << 37
_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
LOCAL_BIT, GROUP_BIT = 0x02, 0x01


class Protocol(enum.StrEnum):
    """What a port is published for."""

    TCP = "tcp"
    UDP = "udp"


class Publish(Part, frozen=True):
    """A port of the task that is reached through its node; `host_port` 0: the node picks one of its range."""

    port: int
    host_port: int = 0
    protocol: Protocol = Protocol.TCP


class Networking(Part, frozen=True):
    """Interfaces, rates, published ports and names of a task beyond its network mode. Rates: bytes per second."""

    publish: tuple[Publish, ...] = ()
    rate_in: int = 0
    rate_out: int = 0
    mac: str = ""
    mtu: int | None = None
    networks: tuple[str, ...] = ()
    ipv6: bool = False
    open: bool = False
    traffic_class: str = ""
    hostname: str = ""


def check(networking: Networking) -> None:
    """Raise InvalidSpec for the first field that no cluster could take."""
    _check_published(networking.publish)
    for field in ("rate_in", "rate_out"):
        rate = getattr(networking, field)
        good = rate == 0 or RATE_BYTES_MIN <= rate <= RATE_BYTES_MAX
        require(good, f"networking.{field}", rate, f"0 (not limited), or from {RATE_BYTES_MIN} bytes per second")
    mac, mtu, networks = networking.mac, networking.mtu, networking.networks
    require(not mac or _is_own(mac), "networking.mac", mac, "an address such as 02:00:00:00:00:01, the first byte x2")
    require(mtu is None or MTU_MIN <= mtu <= MTU_MAX, "networking.mtu", mtu, f"from {MTU_MIN} to {MTU_MAX} bytes")
    once = len(networks) <= NETWORKS_MAX and len(set(networks)) == len(networks)
    require(once, "networking.networks", ", ".join(networks), f"{NETWORKS_MAX} at most, each once")
    for name in networks:
        require(_NAME.fullmatch(name), "networking.networks", name, "a network by the name its operators gave it")
    name = networking.traffic_class
    require(not name or _NAME.fullmatch(name), "networking.traffic_class", name, "a class by its operators' name")
    good = not networking.hostname or _HOSTNAME.fullmatch(networking.hostname)
    require(good, "networking.hostname", networking.hostname, "one label: letters, digits and -, 63 characters at most")


def _check_published(ports: tuple[Publish, ...]) -> None:
    require(len(ports) <= PORTS_MAX, "networking.publish", len(ports), f"{PORTS_MAX} ports at most")
    for each in ports:
        require(1 <= each.port <= 65_535, "networking.publish.port", each.port, "from 1 to 65535")
        require(0 <= each.host_port <= 65_535, "networking.publish.host_port", each.host_port, "0, or up to 65535")
    chosen = [f"{each.host_port}/{each.protocol.value}" for each in ports if each.host_port]
    twice = ", ".join(sorted({each for each in chosen if chosen.count(each) > 1}))
    require(not twice, "networking.publish.host_port", twice, "each port of the host once")


def _is_own(mac: str) -> bool:
    """Whether it is one that users may make up: of one station, and of no maker of hardware."""
    return _MAC.fullmatch(mac) is not None and int(mac[:2], 16) & (LOCAL_BIT | GROUP_BIT) == LOCAL_BIT


def needs(networking: Networking) -> Iterator[Need]:
    """Yield the labels a node must have to carry this out."""
    asked = {
        "publish": networking.publish,
        "rates": networking.rate_in or networking.rate_out,
        "mac": networking.mac,
        "mtu": networking.mtu is not None,
        "ipv6": networking.ipv6,
        "isolation": networking.open,
    }
    yield from (("network", name) for name, wanted in asked.items() if wanted)
    yield from (("networks", name) for name in networking.networks)
    if networking.traffic_class:
        yield "classes", networking.traffic_class
