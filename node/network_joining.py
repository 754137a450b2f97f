"""From the agent's configuration to its containers' network, and into the cluster. The one place that knows both."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import trio

from node import logs
from node.config import AgentConfig, split_address
from node.gossip_io import GossipService
from node.host.network_pools import Range
from node.neighbours import KEY, Neighbours
from node.network import OWN, Network, NetworkSettings, open_network
from node.peers import Peers
from node.resolver import RESOLV_CONF, Resolver, upstream_of
from node.runtime.protocol import Runtime
from node.task_names import Asker, Resident
from scheduler.model import AllocationId

log = logs.get("network")


async def open_configured(config: AgentConfig, runtime: Runtime, root: Path) -> Network | None:
    """Make bridges and rules; None for a runtime without networks. Raises NetworkError."""
    if "network" not in runtime.features:
        return None
    return await trio.to_thread.run_sync(open_network, settings_of(config), root / "network")


def settings_of(config: AgentConfig) -> NetworkSettings:
    """Return what the operator says; NetworkError for pools that are none."""
    runtime, network = config.runtime, config.network
    networks = {OWN: (runtime.bridge, Range.parse(runtime.address_pool, network.address_pool6))}
    for name, text in network.networks.items():
        bridge, *pools = text.split()
        networks[name] = (bridge, Range.parse(*pools))
    return NetworkSettings(
        networks=networks,
        cgroup_root=runtime.cgroup_root,
        published=network.ports("published_ports"),
        picked=network.ports("picked_ports"),
        classes=network.classes,
        names=network.names,
        routed=network.mode == "routed",
        inside=config.door.inside_port,
        closed=(config.api.port, config.gossip.port, *_door_port(config)),
    )


def _door_port(config: AgentConfig) -> tuple[int, ...]:
    """Behind a node's address a container could pass for one of the door's front ends."""
    return (split_address("door.listen", config.door.listen)[1],) if config.door.listen is not None else ()


async def join_cluster(
    network: Network, config: AgentConfig, peers: Peers, gossip: GossipService, nursery: trio.Nursery
) -> None:
    """Have names answered, tell the other nodes of this network, and follow theirs."""
    neighbours = Neighbours(
        network,
        peers,
        gossip.set_state,
        gossip.address[0],
        routed=config.network.mode == "routed",
        boot_epoch=gossip.boot_epoch,
    )
    gossip.subscribe(neighbours.on_member, neighbours.on_state)
    for member in gossip.members():
        card = gossip.state_of(member.name).get(KEY)
        if card is not None and member.name != peers.name:
            neighbours.heard(member.name, card)
    network.changed = neighbours.changed
    network.names = network.names and await _serve_names(network, neighbours.residents, nursery)
    nursery.start_soon(neighbours.run)


async def _serve_names(network: Network, residents: Callable[[], Iterable[Resident]], nursery: trio.Nursery) -> bool:
    def asker(address: str) -> Asker | None:
        attachment = network.owner_at(address)
        if attachment is None:
            return None
        return Asker(attachment.owner, AllocationId.parse(attachment.name).job, attachment.gang_size)

    upstream = upstream_of(RESOLV_CONF.read_text(), network.gateways) if RESOLV_CONF.exists() else []
    try:
        await Resolver(asker, residents, upstream).listen(network.gateways, nursery)
    except OSError as error:
        log.error("no names for tasks: port 53 of a bridge can't be had", why=str(error))
        return False
    return True
