"""Containers' network on one node: addresses from the node's pool, the bridge, hardware addresses.

Owns: the record of who holds which address, one file per address, so that it survives the agent's death at any
moment and a restarted agent gives none away twice. May not know: LXC, routes between nodes' pools (the operator's
or the lab's).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

INTERFACES = Path("/sys/class/net")
IP_TIMEOUT_S = 10


class NetworkError(Exception):
    """The host's network cannot do what is asked: names the bridge or the pool, and the reason."""


class AddressPool:
    """Addresses of one subnet. The bridge's own address, the gateway, is never given away.

    Addresses are taken in a circle, so that a freed one rests as long as possible: neighbours may still have the
    former holder's hardware address in mind.
    """

    def __init__(self, bridge_address: str, directory: Path) -> None:
        """bridge_address: the bridge's address with the subnet's prefix length, "10.77.1.1/24".
        Raises NetworkError."""
        try:
            interface = IPv4Interface(bridge_address)
        except ValueError as error:
            raise NetworkError(f"address pool is {bridge_address!r}; it should be like 10.77.1.1/24: {error}") from None
        if "/" not in bridge_address or interface.network.num_addresses < 4:
            raise NetworkError(f"address pool is {bridge_address!r}; it should have a prefix length of 30 or less")
        self.network: IPv4Network = interface.network
        self.gateway: IPv4Address = interface.ip
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._held = self._read()
        self._next = max((int(address) for address in self._held.values()), default=int(self.network[0])) + 1

    def _read(self) -> dict[str, IPv4Address]:
        held = {}
        for entry in self._directory.iterdir():
            holder = entry.read_text()
            if holder and entry.name.count(".") == 3:
                held[holder] = IPv4Address(entry.name)
            else:
                entry.unlink()  # claimed, but the agent died before it was given to anybody
        return held

    def holders(self) -> dict[str, str]:
        """Name to address."""
        return {name: str(address) for name, address in self._held.items()}

    def take(self, name: str) -> str:
        """The name's address with prefix length; the same again for a name that has one.
        Raises NetworkError when none is free."""
        if name not in self._held:
            address = self._free()
            (self._directory / str(address)).write_text(name)
            self._held[name] = address
            self._next = int(address) + 1
        return f"{self._held[name]}/{self.network.prefixlen}"

    def give_back(self, name: str) -> None:
        """Idempotent."""
        address = self._held.pop(name, None)
        if address is not None:
            (self._directory / str(address)).unlink(missing_ok=True)

    def _free(self) -> IPv4Address:
        first, count = int(self.network[1]), self.network.num_addresses - 2
        taken = {int(address) for address in self._held.values()} | {int(self.gateway)}
        if len(taken) <= count:
            for step in range(count):
                candidate = first + (self._next - first + step) % count
                if candidate not in taken:
                    return IPv4Address(candidate)
        raise NetworkError(f"no address is free in {self.network}: {len(self._held)} containers hold them all")


def mac_address(name: str) -> str:
    """A locally administered hardware address: the same for the same name, so that caches stay true."""
    digest = hashlib.sha256(name.encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


def ensure_bridge(bridge: str, address: str, mtu: int | None = None) -> bool:
    """Makes the bridge with its address where there is none. True if it was made. Blocks for some milliseconds.
    Raises NetworkError where that isn't permitted, or the name belongs to something else."""
    if (INTERFACES / bridge / "bridge").exists():
        return False
    if (INTERFACES / bridge).exists():
        raise NetworkError(f"network interface {bridge} is not a bridge; name another one for containers")
    if os.geteuid() != 0:
        raise NetworkError(f"bridge {bridge} does not exist, and only root can make it")
    _ip("link", "add", bridge, "type", "bridge")
    try:
        _ip("address", "add", address, "dev", bridge)
        _ip("link", "set", bridge, *(("mtu", str(mtu)) if mtu else ()), "up")
    except NetworkError:
        remove_interface(bridge)
        raise
    return True


def remove_interface(name: str) -> None:
    """Idempotent: a bridge that we made, or the host's end of a veth pair that LXC left."""
    if (INTERFACES / name).exists():
        with suppress(NetworkError):
            _ip("link", "delete", name)


def _ip(*arguments: str) -> None:
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=IP_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"ip {' '.join(arguments)}: {error}") from error
    if done.returncode != 0:
        raise NetworkError(f"ip {' '.join(arguments)}: {done.stderr.strip() or done.returncode}")
