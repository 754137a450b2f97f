"""LXC keys of a container's network interfaces."""

from __future__ import annotations

from collections.abc import Iterator

from node.runtime.lxc.places import Line
from node.runtime.protocol import NetworkSpec


def lines(network: NetworkSpec | None, host_end: str) -> Iterator[Line]:
    if network is None:
        yield "lxc.net.0.type", "empty"
        yield "lxc.net.0.flags", "up"  # means loopback here
        return
    yield "lxc.net.0.type", "veth"
    yield "lxc.net.0.link", network.bridge
    yield "lxc.net.0.veth.pair", host_end
    yield "lxc.net.0.flags", "up"
    yield "lxc.net.0.name", "eth0"
    yield "lxc.net.0.ipv4.address", network.address
    optional = {"ipv4.gateway": network.gateway, "hwaddr": network.mac, "mtu": network.mtu}
    yield from ((f"lxc.net.0.{key}", value) for key, value in optional.items() if value is not None)
