"""Who is alive, by the real gossip machines: the same membership, codec and seals that the agents run.

Does what node/members.py does between gossip and the scheduling machine, for every host of a fault world. Loss, delay,
cuts and dead hosts hit gossip as they hit everything else. Slower to simulate than the model in world_members.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster import MemberChanged, NameConflict, StateChanged, Status
from scheduler.events import Event, Heard, MemberDown, MemberFailed, MemberForgotten, MemberLeft, MemberUp
from sim.gossip_world import GossipWorld, SimNode

if TYPE_CHECKING:
    from sim.world import World
    from sim.world_host import Host

PUBLISHED_KEYS = ("report", "leader")


class GossipMembers:
    """A gossip machine beside every agent; it lives and dies with it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._gossip = GossipWorld(world.kernel, world.network, observer=self._observe)
        for name in world.hosts:
            self._gossip.add(name)

    def endpoint(self, name: str) -> tuple[str, int]:
        """Return the network endpoint of a host's gossip."""
        return self._gossip.nodes[name].address

    def started(self, host: Host) -> None:
        """An agent started."""
        others = [node.address for name, node in self._gossip.nodes.items() if name != host.name]
        self._gossip.nodes[host.name].boot(others[:2], known_peers=others)

    def stopped(self, host: Host) -> None:
        """An agent ended, with a goodbye if its host has `left`."""
        node = self._gossip.nodes[host.name]
        if node.running and host.left:
            node.call(node.machine.leave)
        if node.running:
            node.kill()

    def published(self, host: Host, key: str, value: bytes) -> None:
        """An agent publishes something."""
        self._gossip.nodes[host.name].set_state(key, value)

    def accuse(self, accuser: str, accused: str) -> None:
        """Real gossip is wrong only by itself."""

    def _observe(self, node: SimNode, effect: MemberChanged | StateChanged | NameConflict) -> None:
        host = self._world.hosts[node.name]
        match effect:
            case MemberChanged() if effect.member.name != node.name:
                self._changed(host, effect)
            case StateChanged(name=name, key=key, value=bytes(value)) if name != node.name and key in PUBLISHED_KEYS:
                host.post(Heard(name, key, value))

    def _changed(self, host: Host, change: MemberChanged) -> None:
        name = change.member.name
        event = event_of(change, self._world.hosts[name].number)
        if event is not None:
            host.post(event)
            self._world.note(host.name, f"hears that {name} is {change.new}: {change.why}")


def event_of(change: MemberChanged, number: int) -> Event | None:
    """Return what a change of membership is to the scheduling machine; None for what it need not know."""
    name = change.member.name
    match change.new:
        case Status.ALIVE:
            return MemberUp(name, number, change.member.boot_epoch)
        case Status.DOWN:
            return MemberDown(name)
        case Status.FAILED:
            return MemberFailed(name)
        case Status.LEFT:
            return MemberLeft(name)
        case None:
            return MemberForgotten(name)
        case _:
            return None
