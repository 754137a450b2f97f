"""LXC keys of a container's network interfaces, and the two files in /etc that go with them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from node.runtime.lxc.places import Line
from node.runtime.protocol import INTERFACES_MAX, ContainerSpec, NetworkSpec

STUB_OPTIONS = "options timeout:3 attempts:4"
"""So long a program waits for a peer's name: four times three seconds with glibc, three in all with musl."""


def lines(network: NetworkSpec | None, cgroup: str, up: Path | None = None, of: int | None = None) -> Iterator[Line]:
    """`up`: a script to run once the host's end of eth0 is there, before the container starts; `of`: a process whose
    network it shares, with the user namespace that owns it."""
    if of is not None:
        yield "lxc.namespace.share.user", of
        yield "lxc.namespace.share.net", of
        return
    if network is None:
        yield "lxc.net.0.type", "empty"
        yield "lxc.net.0.flags", "up"  # means loopback here
        return
    for index, interface in enumerate((network, *network.more)):
        key = f"lxc.net.{index}"
        yield f"{key}.type", "veth"
        yield f"{key}.link", interface.bridge
        yield f"{key}.veth.pair", host_end(cgroup, index)
        yield f"{key}.flags", "up"
        yield f"{key}.name", f"eth{index}"
        yield f"{key}.ipv4.address", interface.address
        optional = {
            "ipv4.gateway": interface.gateway,
            "ipv6.address": interface.address6,
            "ipv6.gateway": interface.gateway6,
            "hwaddr": interface.mac,
            "mtu": interface.mtu,
        }
        yield from ((f"{key}.{name}", value) for name, value in optional.items() if value is not None)
    if up is not None:
        yield "lxc.net.0.script.up", up


def host_end(cgroup: str, index: int = 0) -> str:
    """Name the host's end of a veth pair: the same for the same container, at most 15 characters."""
    return "ff" + hashlib.sha256(cgroup.encode()).hexdigest()[:12] + (str(index) if index else "")


def host_ends(cgroup: str) -> list[str]:
    """Return all that a container could have."""
    return [host_end(cgroup, index) for index in range(INTERFACES_MAX)]


def etc_files(spec: ContainerSpec) -> dict[str, str]:
    """Return the files that go over the image's own, by name in /etc."""
    hostname, network = spec.hostname or spec.name.replace(".", "-"), spec.network
    addresses = [network.address, *([network.address6] if network.address6 else [])] if network else ["127.0.1.1"]
    hosts = "".join(f"{address.partition('/')[0]} {hostname}\n" for address in addresses)
    found = {"hosts": f"127.0.0.1 localhost\n::1 localhost ip6-localhost\n{hosts}"}
    if network is not None and network.nameserver:
        search = f"search {network.search}\n" if network.search else ""
        found["resolv.conf"] = f"{search}nameserver {network.nameserver}\n{STUB_OPTIONS}\n"
    return found


def write_etc(delta: Path, spec: ContainerSpec) -> None:
    """Make the container's own layer with these files; they lie over the image's, which needs no mount.

    Modes are set whatever the agent's umask is: these are the container's own / and /etc.
    """
    etc = delta / "etc"
    etc.mkdir(parents=True)
    written = []
    for name, text in etc_files(spec).items():
        (etc / name).write_text(text)
        written.append((etc / name, 0o644))
    for path, mode in ((delta.parent, 0o755), (delta, 0o755), (etc, 0o755), *written):
        path.chmod(mode)
        os.chown(path, spec.user_base, spec.user_base)
