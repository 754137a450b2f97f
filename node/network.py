"""This node's network for containers: what each one gets of it, kept in step with the rules in the kernel.

Owns the order of things: a record before a rule, a rule before a container; and the other way round at the end. After
an agent's death all rules are made anew from the records of containers that are still wanted, in one go, so none is
ever orphaned. May not know: how LXC makes an interface, nor why a container is wanted.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from pathlib import Path
from typing import Protocol

import msgspec

from node import logs
from node.host import network_known
from node.host import network_rules as rules
from node.host.listening import listening_ports
from node.host.network import NetworkError, bridge_mtu, ensure_bridge, forward, has_ipv6, mac_address
from node.host.network_known import Known
from node.host.network_pools import AddressPool, PortKey, PortPool, Range
from node.host.network_records import Attachment, Interface, PublishedPort, Records
from node.host.nftables import Nftables
from node.runtime.lxc.network import host_end
from node.runtime.protocol import NetworkSpec
from scheduler.model import NOWHERE, Allocation, Reach
from scheduler.spec.networking import MTU_MIN, SHARED, Networking

DOMAIN = "fofoca"
OWN = ""
"""The name of the network that every container is in."""
REMEMBERED_S = 60.0
"""After its start an agent adds to what it hears of the cluster what was known before: gossip may need that long."""

log = logs.get("network")


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """What the operator says. `networks`: the node's own one under OWN, and others by name."""

    networks: Mapping[str, tuple[str, Range]]
    cgroup_root: str
    published: range
    picked: range
    classes: Mapping[str, str] = field(default_factory=dict)
    names: bool = True
    routed: bool = False
    closed: tuple[int, ...] = ()
    """Ports of all nodes that no container may reach: the agents' own."""
    inside: int = 0
    """A port at the gateways that all containers of this node may reach; 0: none."""


class Tables(Protocol):
    """Who loads rules (`nftables.Nftables`)."""

    def run(self, text: str) -> None:
        """Carry out a whole text or nothing of it; raises NetworkError."""


def open_network(settings: NetworkSettings, directory: Path) -> Network:
    """Make bridges and rules; without IPv6 in the kernel there is none for containers. Blocks; raises NetworkError."""
    if not has_ipv6():
        networks = {name: (bridge, each._replace(network6=None)) for name, (bridge, each) in settings.networks.items()}
        settings = replace(settings, networks=networks)
    ranges = [range_ for _, range_ in settings.networks.values()]
    for bridge, range_ in settings.networks.values():
        ensure_bridge(bridge, *_bridge_addresses(range_))
    forward(any(range_.network6 for range_ in ranges))
    network = Network(settings, directory, Nftables())
    network.recover(network.attachments().keys())
    return network


class Network:
    """The network of one node's containers. Blocking calls, each of some milliseconds at most."""

    def __init__(self, settings: NetworkSettings, directory: Path, tables: Tables) -> None:
        """Nothing is made in the kernel yet: links come with `make_links`, rules with `recover`."""
        self._settings = settings
        networks = self._networks = settings.networks
        self._directory = directory
        self._records = Records(directory)
        held, resting = self._records.attachments.values(), self._records.resting()
        self._pools = {
            name: AddressPool(range_, _held_of(name, held), _within(range_, resting))
            for name, (_, range_) in networks.items()
        }
        keys = [port.key for each in held for port in each.ports]
        self._ports = PortPool(settings.published, settings.picked, keys)
        self._tables = tables
        # The cluster is followed in a thread of its own, while all rules may be made anew.
        self._in_step = threading.Lock()
        self._remotes: frozenset[rules.Remote] = frozenset()
        self._remembered = network_known.read(directory)
        self._remembered_until_s = time.monotonic() + REMEMBERED_S
        self._setting = rules.Setting(
            table=f"fofoca_{hashlib.sha256(str(directory).encode()).hexdigest()[:10]}",
            bridges=tuple(bridge for bridge, _ in networks.values()),
            ranges=tuple(range_ for _, range_ in networks.values()),
            published=settings.published,
            routed=settings.routed,
            closed=settings.closed,
            inside=settings.inside,
        )
        self._setting = self._following(self._remembered)
        self.names = settings.names
        """Whether a resolver answers on the bridges."""
        self.changed: Callable[[], None] = lambda: None
        """Called when a container came or went."""

    # --- containers

    def recover(self, wanted: Iterable[str]) -> None:
        """Forget containers that are gone, and make all rules anew. Raises NetworkError."""
        kept = set(wanted)
        for each in [*self._records.attachments.values()]:
            living = tuple(name for name in each.containers if name in kept)
            if not living:
                self._forget(each.name)
            elif living != each.containers:
                self._records.put(_without(each, set(each.containers) - kept))
        self._load_all()

    def attach(self, allocation: Allocation, owner_mark: int) -> NetworkSpec | None:
        """Give a container what it asks for, the same again if it has it; None: loopback alone. NetworkError."""
        if allocation.spec.network == "none":
            return None
        attachment = self._of(str(allocation.id)) or self._joined(allocation)
        if attachment is None:
            attachment = self._attach(allocation, allocation.spec.networking, owner_mark)
            self.changed()
        return self._spec(allocation, attachment)

    def _of(self, name: str) -> Attachment | None:
        """What a container has, alone or with others; alone is looked for first, which is quick."""
        found = self._records.attachments.get(name)
        if found is not None and name in found.containers:
            return found
        return next((each for each in self._records.attachments.values() if name in each.members), None)

    def _joined(self, allocation: Allocation) -> Attachment | None:
        """Let one have what another task of its gang has here already, if that is how they want it."""
        if allocation.spec.network != SHARED:
            return None
        having = (each for each in self._records.attachments.values() if each.could_take(allocation.id))
        found = next(having, None)
        if found is not None:
            found = msgspec.structs.replace(found, members=(*found.members, str(allocation.id)))
            self._records.put(found)
            self.changed()
        return found

    def detach(self, name: str) -> None:
        """Take everything back from a container that is gone. Idempotent."""
        attachment = self._of(name)
        if attachment is None:
            return
        if attachment.containers != (name,):
            self._records.put(_without(attachment, {name}))
            self.changed()
            return
        self._forget(attachment.name)
        try:
            self._tables.run(rules.removed(self._setting.table, attachment))
        except NetworkError as error:
            log.warning(
                "a container's rules are not as they were made; making all anew", container=name, why=str(error)
            )
            self._make_anew()
        self.changed()

    def attachments(self) -> Mapping[str, Attachment]:
        """Return what containers have, by the name of the one that has it, or had it first."""
        return self._records.attachments

    def reach(self, name: str) -> Reach:
        """Return where a container is reached."""
        attachment = self._of(name)
        if attachment is None:
            return NOWHERE
        ports = tuple((port.protocol, port.host_port, port.port) for port in attachment.ports)
        return Reach(tuple(addresses_of(attachment)), ports)

    def owner_at(self, address: str) -> Attachment | None:
        """Return the container that has an address here."""
        return next((each for each in self._records.attachments.values() if address in addresses_of(each)), None)

    def remove(self) -> None:
        """Remove all rules: for a node that is taken down for good."""
        self._tables.run(rules.removed_whole(self._setting.table))

    # --- the cluster

    def follow_cluster(self, pools: Iterable[str], hosts: Iterable[str]) -> None:
        """Know the pools and addresses of all nodes, this one's included. Raises NetworkError."""
        known = Known(frozenset(pools), frozenset(hosts))
        if time.monotonic() < self._remembered_until_s:
            known = Known(known.pools | self._remembered.pools, known.hosts | self._remembered.hosts)
        with self._in_step:
            setting = self._following(known)
            if setting != self._setting:
                self._tables.run(rules.cluster_changed(setting))
                self._setting = setting
                self._remember(known)

    def _following(self, known: Known) -> rules.Setting:
        own = {str(each) for _, range_ in self._networks.values() for each in range_ if each is not None}
        pools4, pools6 = _by_version(_apart(known.pools | own))
        hosts4, hosts6 = _by_version(known.hosts)
        return replace(self._setting, pools4=pools4, pools6=pools6, hosts4=hosts4, hosts6=hosts6)

    def _remember(self, known: Known) -> None:
        try:
            network_known.write(self._directory, known)
        except OSError as error:
            log.warning("what is known of the cluster's network can't be written", why=str(error))

    def follow_remotes(self, remotes: Iterable[rules.Remote]) -> None:
        """Know the containers of other nodes whose owners have some here. Raises NetworkError."""
        now = frozenset(remotes)
        gone, come = self._remotes - now, now - self._remotes
        if gone or come:
            self._tables.run(rules.remotes_changed(self._setting.table, gone, come))
            self._remotes = now

    # --- what this node is

    @property
    def gateways(self) -> list[str]:
        """The addresses of the bridges."""
        return [gateway for each in self._setting.ranges for gateway in (each.gateway, each.gateway6) if gateway]

    @property
    def own_pools(self) -> list[str]:
        """The networks of the containers in this node's own network, which other nodes may route to."""
        return [str(each) for each in self._networks[OWN][1] if each is not None]

    def labels(self) -> dict[str, str]:
        """Return what jobs may count on here, as labels of the node."""
        able = ["isolation", "mac", "mtu", "publish"]
        able += ["ipv6"] if self._networks[OWN][1].network6 else []
        able += ["rates"] if shutil.which("tc") else []
        able += ["shared"] if shutil.which("unshare") and shutil.which("nsenter") else []
        named = sorted(set(self._networks) - {OWN})
        mtu = bridge_mtu(self._networks[OWN][0])
        found = {"network": ",".join(sorted(able)), "max.mtu": str(mtu)}
        found |= {"networks": ",".join(named)} if named else {}
        return found | ({"classes": ",".join(sorted(self._settings.classes))} if self._settings.classes else {})

    # --- inside

    def _make_anew(self) -> None:
        try:
            self._load_all()
        except NetworkError as error:  # the container is gone all the same, and the next start tries again
            log.error("rules are left behind", why=str(error))

    def _load_all(self) -> None:
        with self._in_step:
            self._tables.run(rules.whole(self._setting, self._records.attachments.values(), self._remotes))

    def _attach(self, allocation: Allocation, asked: Networking, owner_mark: int) -> Attachment:
        name = str(allocation.id)
        ports: tuple[PublishedPort, ...] = ()
        try:
            interfaces = tuple(
                self._interface(name, network, index, asked.mac if index == 0 else "", _end_of(allocation))
                for index, network in enumerate((OWN, *asked.networks))
            )
            busy = listening_ports() if any(each.host_port for each in asked.publish) else frozenset[PortKey]()
            for each in asked.publish:
                port = self._ports.take(each.protocol.value, each.host_port, busy)
                ports += (PublishedPort(each.protocol.value, port, each.port),)
            attachment = Attachment(
                name,
                allocation.owner,
                owner_mark,
                interfaces,
                ports,
                asked.open,
                asked.rate_out,
                self._class(asked),
                allocation.spec.gang.size if allocation.spec.gang is not None else 0,
                (name,) if allocation.spec.network == SHARED else (),
            )
            self._records.put(attachment)
            self._tables.run(rules.added(self._setting.table, attachment))
        except (NetworkError, OSError):
            self._ports.give_back(port.key for port in ports)
            self._forget(name)
            raise
        return attachment

    def _class(self, asked: Networking) -> str:
        if asked.traffic_class and asked.traffic_class not in self._settings.classes:
            raise NetworkError(f"this node has no traffic class {asked.traffic_class}")
        return self._settings.classes.get(asked.traffic_class, "")

    def _interface(self, name: str, network: str, index: int, mac: str, end_of: str) -> Interface:
        if network not in self._pools:
            raise NetworkError(f"this node has no network {network}")
        pool = self._pools[network]
        end = host_end(f"{self._settings.cgroup_root}/{end_of}", index)
        mac = mac or mac_address(f"{name}/{network}" if network else name)
        used = [each.mac for other in self._records.attachments.values() for each in other.interfaces]
        if mac in used:
            raise NetworkError(f"the hardware address {mac} is in use on this node")
        address = pool.take(name, time.time())
        return Interface(network, end, address, pool.range.address6(address), mac)

    def _forget(self, name: str) -> None:
        for pool in self._pools.values():
            pool.give_back(name, time.time())
        attachment = self._records.attachments.get(name)
        if attachment is not None:
            self._ports.give_back(port.key for port in attachment.ports)
        self._records.drop(name)

    def _spec(self, allocation: Allocation, attachment: Attachment) -> NetworkSpec:
        asked = allocation.spec.networking
        first, *others = (self._interface_spec(each, asked) for each in attachment.interfaces)
        range_ = self._networks[OWN][1]
        return replace(
            first,
            gateway=range_.gateway,
            gateway6=range_.gateway6 or None,
            rate_in=asked.rate_in,
            nameserver=range_.gateway if self.names else None,
            search=f"job-{allocation.id.job}.{DOMAIN}" if self.names else None,
            more=tuple(others),
            group=_group(attachment.name) if attachment.members else "",
        )

    def _interface_spec(self, interface: Interface, asked: Networking) -> NetworkSpec:
        bridge, range_ = self._networks[interface.network]
        six = f"{interface.address6}/{range_.network6.prefixlen}" if range_.network6 and interface.address6 else None
        mtu = min(asked.mtu, bridge_mtu(bridge)) if asked.mtu else bridge_mtu(bridge)
        return NetworkSpec(
            bridge=bridge,
            address=f"{interface.address}/{range_.network.prefixlen}",
            mac=interface.mac,
            mtu=max(MTU_MIN, mtu),
            address6=six,
        )


def addresses_of(attachment: Attachment) -> list[str]:
    """Return all addresses of a container, those of its first interface first."""
    return [each for one in attachment.interfaces for each in (one.address, one.address6) if each]


def _group(name: str) -> str:
    """A name that no container has, for what belongs to no single one."""
    return f"{name}.net"


def _end_of(allocation: Allocation) -> str:
    return _group(str(allocation.id)) if allocation.spec.network == SHARED else str(allocation.id)


def _without(attachment: Attachment, gone: set[str]) -> Attachment:
    living = tuple(name for name in attachment.members if name not in gone)
    return msgspec.structs.replace(attachment, members=living, left=(*attachment.left, *sorted(gone)))


def _bridge_addresses(range_: Range) -> list[str]:
    four = f"{range_.gateway}/{range_.network.prefixlen}"
    return [four, f"{range_.gateway6}/{range_.network6.prefixlen}"] if range_.network6 else [four]


def _held_of(network: str, attachments: Iterable[Attachment]) -> dict[str, str]:
    return {each.name: one.address for each in attachments for one in each.interfaces if one.network == network}


def _within(range_: Range, resting: Mapping[str, float]) -> dict[str, float]:
    first, last = range_.network[0], range_.network[-1]
    return {address: until_s for address, until_s in resting.items() if first <= type(first)(address) <= last}


def _apart(pools: Iterable[str]) -> frozenset[str]:
    """Pools that overlap as one: the kernel would refuse the whole set, and no node would be followed any more."""
    networks = [ip_network(each) for each in pools]
    four = collapse_addresses(each for each in networks if isinstance(each, IPv4Network))
    six = collapse_addresses(each for each in networks if isinstance(each, IPv6Network))
    return frozenset(map(str, (*four, *six)))


def _by_version(texts: frozenset[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    six = {text for text in texts if ":" in text}
    return tuple(sorted(texts - six)), tuple(sorted(six))
