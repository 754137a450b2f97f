"""Who is there and what they published, by the real gossip machines, for a trace that is played through agents.

A gossip machine lives beside every agent of `sim.many_homes`, with the agents' own timing, codec and seals, on the
simulator's network: reports travel as far and as slowly as they do, and a host's loss is noticed when it is. It costs
some hundred events a node and virtual minute, which is what keeps this for hours of a cluster, not for years.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster import MemberChanged, NameConflict, StateChanged
from scheduler.events import Heard, MemberUp
from sim.gossip_world import GossipWorld, SimNode
from sim.network import Link, Network
from sim.world_gossip import PUBLISHED_KEYS, event_of

if TYPE_CHECKING:
    from sim.machines import Host, Machines


class HomesGossip:
    """The gossip of some machines, which lose as many packets as messages."""

    def __init__(self, machines: Machines) -> None:
        links = machines.links
        self._machines = machines
        self._network = Network(machines.kernel, Link(links.latency_s / 5, links.latency_s, loss=links.loss))
        self._gossip = GossipWorld(machines.kernel, self._network, observer=self._observe)
        for name in machines.hosts:
            self._gossip.add(name)

    def meet_all(self) -> None:
        """Let all know each other from the first moment on, as in a cluster that has run for a while."""
        nodes = list(self._gossip.nodes.values())
        everybody = [node.machine.alive_message for node in nodes]
        for node in nodes:
            node.perform(node.machine.adopt(self._machines.kernel.now, everybody))
        machines = self._machines
        for host in machines.hosts.values():
            for other in machines.hosts.values():
                if other is not host:
                    machines.give(host, MemberUp(other.name, other.number, other.boot_epoch))

    def started(self, host: Host) -> None:
        """An agent started; what it has published by then is published here."""
        node = self._gossip.nodes[host.name]
        self._network.set_host(node.address, up=True)
        node.boot((), known_peers=[other.address for other in self._gossip.nodes.values() if other is not node])
        for key, value in host.published.items():
            node.set_state(key, value)

    def stopped(self, host: Host) -> None:
        """An agent ended without a word."""
        self._gossip.nodes[host.name].kill()

    def lost(self, host: Host) -> None:
        """A host is gone: it does not even refuse."""
        self._network.set_host(self._gossip.nodes[host.name].address, up=False)

    def published(self, host: Host, key: str, value: bytes) -> None:
        """An agent publishes something."""
        node = self._gossip.nodes[host.name]
        if node.running:
            node.set_state(key, value)

    def _observe(self, node: SimNode, effect: MemberChanged | StateChanged | NameConflict) -> None:
        machines = self._machines
        match effect:
            case MemberChanged() if effect.member.name != node.name:
                event = event_of(effect, machines.hosts[effect.member.name].number)
            case StateChanged(name=name, key=key, value=bytes(value)) if name != node.name and key in PUBLISHED_KEYS:
                event = Heard(name, key, value)
            case _:
                event = None
        if event is not None:
            machines.kernel.after(0.0, machines.give, machines.hosts[node.name], event)
