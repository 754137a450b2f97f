"""Who holds which address and which port of the host. Pure: no files, no clock; network_records.py makes it last.

An address that is given back rests: neighbours may still have the former holder's hardware address in mind, and others
a connection to it. A container's IPv6 address is at the place in its pool that its IPv4 address has in its own, so one
record serves for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from typing import NamedTuple

from node.host.network import NetworkError

REST_S = 10.0
REST_MIN_S = 3.0
"""With no other address free: other nodes have heard by then whose it is no more (node/neighbours.py)."""


class Range(NamedTuple):
    """A pool of IPv4 addresses and, maybe, one of IPv6; the first address of each is the bridge's own."""

    network: IPv4Network
    network6: IPv6Network | None = None

    @classmethod
    def parse(cls, network: str, network6: str = "") -> Range:
        """Read "10.77.1.0/24" and "fd77:0:0:1::/64"; raises NetworkError, naming what is wrong."""
        try:
            four, six = ip_network(network), ip_network(network6) if network6 else None
        except ValueError as error:
            raise NetworkError(f"address pool is {network} {network6}: {error}") from None
        if not isinstance(four, IPv4Network) or four.num_addresses < 4:
            raise NetworkError(f"address pool is {network}; it should be an IPv4 network, /30 or larger")
        if six is not None and (not isinstance(six, IPv6Network) or six.num_addresses < four.num_addresses):
            raise NetworkError(f"address pool is {network6}; it should be an IPv6 network, as large as {network}")
        return cls(four, six)

    @property
    def gateway(self) -> str:
        """The bridge's IPv4 address."""
        return str(self.network[1])

    @property
    def gateway6(self) -> str:
        """The bridge's IPv6 address, "" without one."""
        return str(self.network6[1]) if self.network6 else ""

    def address6(self, address: str) -> str:
        """Return the IPv6 address that goes with an IPv4 address, "" without IPv6."""
        return str(self.network6[int(IPv4Address(address)) - int(self.network[0])]) if self.network6 else ""


class AddressPool:
    """The addresses of one network. They are taken in a circle, so that a freed one rests as long as possible."""

    def __init__(self, range_: Range, held: Mapping[str, str], resting: Mapping[str, float]) -> None:
        """held: holder to address; resting: address to the time from which it may be given away again."""
        self.range = range_
        self._held = {name: int(IPv4Address(address)) for name, address in held.items()}
        self._resting = {int(IPv4Address(address)): until_s for address, until_s in resting.items()}
        self._taken = set(self._held.values()) | {int(range_.network[1])}
        self._next = max((*self._held.values(), *self._resting), default=int(range_.network[1])) + 1

    def holders(self) -> dict[str, str]:
        """Return holder to address."""
        return {name: str(IPv4Address(address)) for name, address in self._held.items()}

    def take(self, name: str, now_s: float) -> str:
        """Return the name's address, the same again for one that has it; raises NetworkError when none is free."""
        if name not in self._held:
            address = self._free(now_s)
            self._held[name] = address
            self._taken.add(address)
            self._resting.pop(address, None)
            self._next = address + 1
        return str(IPv4Address(self._held[name]))

    def give_back(self, name: str, now_s: float) -> str | None:
        """Let an address rest; return it. Idempotent."""
        address = self._held.pop(name, None)
        if address is None:
            return None
        self._taken.discard(address)
        self._resting[address] = now_s + REST_S
        return str(IPv4Address(address))

    def _free(self, now_s: float) -> int:
        first, count = int(self.range.network[1]), self.range.network.num_addresses - 2
        for step in range(count):
            candidate = first + (self._next - first + step) % count
            if candidate not in self._taken and self._resting.get(candidate, now_s) <= now_s:
                return candidate
        longest = min(self._resting, key=self._resting.__getitem__, default=None)
        if longest is not None and self._resting[longest] - now_s <= REST_S - REST_MIN_S:
            return longest
        resting = sum(until_s > now_s for until_s in self._resting.values())
        rest = f", {resting} rest for some seconds more" if resting else ""
        raise NetworkError(
            f"no address is free in {self.range.network}: {len(self._held)} containers hold theirs{rest}"
        )


PortKey = tuple[str, int]
"""Protocol and port of the host."""


class PortPool:
    """The ports of the host that containers publish."""

    def __init__(self, allowed: range, picked: range, held: Iterable[PortKey]) -> None:
        """allowed: what users may choose from; picked: what the node picks from."""
        self._allowed = allowed
        self._picked = picked
        self._held = set(held)
        self._next = 0

    def take(self, protocol: str, wanted: int, in_use: Iterable[PortKey] = ()) -> int:
        """Return the port wanted, or (0) one of the range; `in_use`: what the host listens on. NetworkError."""
        busy = self._held | set(in_use)
        if wanted:
            if wanted not in self._allowed:
                bounds = f"{self._allowed.start} to {self._allowed.stop - 1}"
                raise NetworkError(f"port {wanted} can't be published; this node's operator allows {bounds}")
            if (protocol, wanted) in busy:
                raise NetworkError(f"port {wanted}/{protocol} of the node is taken")
            port = wanted
        else:
            port = self._pick(protocol, busy)
        self._held.add((protocol, port))
        return port

    def give_back(self, keys: Iterable[PortKey]) -> None:
        """Idempotent."""
        self._held.difference_update(keys)

    def _pick(self, protocol: str, busy: set[PortKey]) -> int:
        """In a circle, too: a client of the former holder should find nobody rather than somebody else."""
        for step in range(len(self._picked)):
            port = self._picked[(self._next + step) % len(self._picked)]
            if (protocol, port) not in busy:
                self._next = port - self._picked.start + 1
                return port
        bounds = f"{self._picked.start} to {self._picked.stop - 1}"
        raise NetworkError(f"no {protocol} port of {bounds} is free on this node")
