"""From the agent's parts to its sites: the keeper's side, the door's side, and the door itself if one is configured."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from node import logs
from node.config import AgentConfig, split_address
from node.door.catalogue import Catalogue, read_catalogue
from node.door.cluster_sites import ClusterSites
from node.door.http import serve
from node.door.inside import Inside, open_inside
from node.door.keeping import Keeping
from node.door.second_copies import SecondCopies
from node.effects import Effects
from node.home import Home
from node.network import Network
from node.peers import Peers
from node.sessions import Sessions
from node.tokens import Principal
from scheduler.events import Action, Event, MemberDown, MemberFailed, MemberForgotten, MemberLeft
from scheduler.model import AllocationId

log = logs.get("door")


class NodeSites:
    """What one node does for sites."""

    def __init__(
        self,
        config: AgentConfig,
        effects: Effects,
        home: Home,
        peers: Peers,
        sessions: Sessions,
        nursery: trio.Nursery,
        *,
        fetch: Callable[[str], Awaitable[object]],
        published: bool,
    ) -> None:
        """`fetch` gets an image by its digest. `published`: containers' own addresses mean nothing to other nodes.

        InvalidConfig for a bad catalogue.
        """
        self.config = config.door
        self.catalogue: Catalogue = read_catalogue(config.door.catalogue)
        copies = SecondCopies(peers, effects.machine.keepers, fetch, nursery)
        self.keeping = Keeping(effects, peers, home.completed, sessions.set_frozen, nursery, copy=copies.see_to)
        self.sites = ClusterSites(peers, effects.machine.keepers, nursery, published=published)
        self._post = effects.post
        nursery.start_soon(self.sites.run)

    def perform(self, action: Action) -> None:
        """Carry out an action about sites."""
        self.keeping.perform(action)

    def follow(self, event: Event) -> None:
        """Tell the machine, and the door what it means for it: an agent that stopped leaves its containers running."""
        self._post(event)
        match event:
            case MemberFailed() | MemberForgotten():
                self.sites.on_gone(event.node)
            case MemberDown() | MemberLeft():
                self.sites.on_away(event.node)

    async def listen_inside(self, network: Network | None, nursery: trio.Nursery) -> None:
        """Let this node's containers say that they are busy, where they have a network to say it over."""
        if network is None:
            return

        def owner_of(address: str) -> AllocationId | None:
            attachment = network.owner_at(address)
            return None if attachment is None else AllocationId.parse(attachment.name)

        hosts = [gateway for gateway in network.gateways if ":" not in gateway]
        await open_inside(Inside(self.sites, owner_of), hosts, self.config.inside_port, nursery)

    async def serve(self, verify: Callable[[str], Principal] | None, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve this node's door, if it has one, until cancelled; OSError if its address can't be had."""
        if self.config.listen is None:
            task_status.started()
            return
        listen = split_address("door.listen", self.config.listen)
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, listen, self.config, self.sites, self.catalogue, verify)
            log.info("the door is open", listen=self.config.listen)
            task_status.started()
