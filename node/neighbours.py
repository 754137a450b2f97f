"""Which tasks run on other nodes, as far as their owners have some here: for names, and for who may reach whom.

Every node gossips a card: its pools, its address, and a version and the owners (as short digests) of its containers.
Who has an owner in common with a changed card asks its node for those owners' tasks, over a sealed call. So a node
keeps and hears only what concerns its own owners, and no home or leader is in the way. What a node said holds for as
long as it is a member. Digests may clash: then a question too many is asked, and answered by owner's name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

import msgspec
import trio

from cluster import MemberChanged, StateChanged
from cluster.errors import InvalidState
from node import logs
from node.errors import Busy, InvalidValue, PeerError
from node.host.network import NetworkError
from node.host.network_routes import apply, changes, current, leads_to, usable
from node.host.network_rules import Remote
from node.network import Network, addresses_of
from node.peers import Peers
from node.task_names import Resident
from scheduler.model import AllocationId

KEY = "net"
METHOD = "network.tasks"
DIGESTS_MAX = 24
"""A node may gossip a thousand bytes in all."""
POOLS_MAX = 8
TASKS_MAX = 100_000
CALL_TIMEOUT_S = 5.0
SETTLE_S = 0.1
RETRY_S = 1.0

log = logs.get("neighbours")


class Card(msgspec.Struct, frozen=True, array_like=True):
    """What a node says of its containers' network. `digests` empty with `many`: ask me whatever your owners are."""

    version: int
    address: str
    pools: tuple[str, ...]
    routed: bool
    digests: tuple[int, ...]
    many: bool = False


_decode_card = msgspec.msgpack.Decoder(Card).decode
_decode_owners = msgspec.msgpack.Decoder(tuple[str, ...]).decode
_decode_tasks = msgspec.msgpack.Decoder(tuple[Resident, ...]).decode
_encode = msgspec.msgpack.Encoder().encode


@dataclass(slots=True)
class _Node:
    """Another node: its card, and what it said of the owners that it was asked for."""

    card: Card
    asked: tuple[int, frozenset[str]] | None = None
    tasks: tuple[Resident, ...] = field(default=())
    named: tuple[Resident, ...] = field(default=())
    """The same with such addresses alone as there is a way to: programs try the first that they are told."""


class Neighbours:
    """Follows the other nodes for one node's network, and tells them of its own."""

    def __init__(
        self,
        network: Network,
        peers: Peers,
        publish: Callable[[str, bytes], None],
        address: str,
        *,
        routed: bool,
        boot_epoch: int,
    ) -> None:
        self._network = network
        self._peers = peers
        self._publish = publish
        self._address = address
        self._routed = routed
        self._version = boot_epoch << 20
        self._nodes: dict[str, _Node] = {}
        self._wake = trio.Event()
        peers.register(METHOD, self._on_asked)

    # --- what others ask

    def residents(self) -> Iterator[Resident]:
        """Yield the tasks with a network that run here, and those elsewhere whose owners have some here."""
        yield from self._own()
        for node in self._nodes.values():
            yield from node.named

    def changed(self) -> None:
        """A container of this node came or went: tell the others soon."""
        self._version += 1
        self._wake.set()

    # --- gossip

    def on_member(self, change: MemberChanged) -> None:
        """A member that is forgotten has no containers any more."""
        if change.new is None and self._nodes.pop(change.member.name, None) is not None:
            self._wake.set()

    def on_state(self, change: StateChanged) -> None:
        """A member's card."""
        if change.key != KEY or change.name == self._peers.name:
            return
        if change.value is None:
            self._nodes.pop(change.name, None)
        else:
            self.heard(change.name, change.value)
        self._wake.set()

    def heard(self, name: str, value: bytes) -> None:
        """Take a card."""
        try:
            card = _decode_card(value)
            usable(dict.fromkeys(card.pools, card.address))
        except (msgspec.MsgspecError, ValueError) as error:
            log.warning("a node's network can't be understood", node=name, why=str(error))
            return
        node = self._nodes.get(name)
        if node is None:
            self._nodes[name] = _Node(card)
        else:
            node.card = card
        self._wake.set()

    # --- the work

    async def run(self) -> None:
        """Publish this node's card and follow the others', until cancelled."""
        while True:
            self._wake = trio.Event()
            self._tell()
            await trio.to_thread.run_sync(self._follow_cluster)
            settled = await self._ask_all()
            self._follow_remotes()
            with trio.move_on_after(float("inf") if settled else RETRY_S):
                await self._wake.wait()
            await trio.sleep(SETTLE_S)

    def _tell(self) -> None:
        try:
            self._publish(KEY, _encode(self.card()))
        except InvalidState as error:
            log.error("this node's network can't be gossiped; fewer labels would leave room", why=str(error))

    def card(self) -> Card:
        """Return what this node says of itself."""
        digests = sorted({_digest(owner) for owner in self._owners()})
        many = len(digests) > DIGESTS_MAX
        pools = tuple(self._network.own_pools)
        return Card(self._version, self._address, pools, self._routed, () if many else tuple(digests), many)

    def _owners(self) -> frozenset[str]:
        return frozenset(each.owner for each in self._network.attachments().values())

    def _own(self) -> Iterator[Resident]:
        for attachment in self._network.attachments().values():
            addresses = tuple(addresses_of(attachment))
            for id_ in map(AllocationId.parse, attachment.containers):
                yield Resident(attachment.owner, id_.job, id_.index, addresses)

    def _follow_cluster(self) -> None:
        cards = [node.card for node in list(self._nodes.values())]
        routed = [card for card in cards if card.routed and self._routed]
        pools = [pool for card in routed for pool in card.pools[:POOLS_MAX]]
        try:
            self._network.follow_cluster(pools, {self._address, *(card.address for card in cards)})
            wanted = usable({pool: card.address for card in routed for pool in card.pools[:POOLS_MAX]})
            if self._routed and (lines := changes(current(), wanted)):
                apply(lines)
        except NetworkError as error:
            log.error("the cluster's network can't be followed", why=str(error))

    async def _ask_all(self) -> bool:
        """Ask whoever has news of our owners; return whether all of them answered."""
        owners = self._owners()
        answered: list[bool] = []

        async def ask(name: str, node: _Node, common: frozenset[str]) -> None:
            answered.append(await self._ask(name, node, common))

        async with trio.open_nursery() as nursery:
            for name, node in list(self._nodes.items()):
                common = self._common(owners, node.card)
                if not common:
                    node.asked, node.tasks, node.named = None, (), ()
                elif node.asked != (node.card.version, common):
                    nursery.start_soon(ask, name, node, common)
        return all(answered)

    def _common(self, owners: frozenset[str], card: Card) -> frozenset[str]:
        """Owners with containers on both nodes; none where there is no way from one to the other."""
        if not (self._routed and card.routed):
            return frozenset()
        return frozenset(each for each in owners if card.many or _digest(each) in card.digests)

    async def _ask(self, name: str, node: _Node, owners: frozenset[str]) -> bool:
        version = node.card.version
        try:
            answer = await self._peers.call(name, METHOD, _encode(tuple(owners)), CALL_TIMEOUT_S)
            node.tasks = tuple(each for each in _decode_tasks(answer) if each.owner in owners)[:TASKS_MAX]
        except (PeerError, Busy, msgspec.MsgspecError) as error:
            log.debug("a node does not tell its tasks", node=name, why=str(error))
            return False
        reached = [pool for pool in node.card.pools[:POOLS_MAX] if leads_to(pool)]
        node.named = node.tasks if len(reached) == len(node.card.pools) else tuple(_reached(node.tasks, reached))
        node.asked = (version, owners)
        return True

    def _follow_remotes(self) -> None:
        marks = {each.owner: each.owner_mark for each in self._network.attachments().values()}
        try:
            self._network.follow_remotes(_remotes(self._nodes, marks))
        except NetworkError as error:
            log.error("other nodes' containers can't be let in", why=str(error))

    async def _on_asked(self, sender: str, payload: bytes) -> bytes:
        try:
            owners = frozenset(_decode_owners(payload))
        except msgspec.MsgspecError:
            raise InvalidValue("owners", "(not shown)", "expected a list of names") from None
        return _encode([each for each in self._own() if each.owner in owners])


def _remotes(nodes: Mapping[str, _Node], marks: Mapping[str, int]) -> Iterable[Remote]:
    """Only addresses of the pools that a node has by its card: no node speaks for another's containers."""
    for node in nodes.values():
        for task in node.tasks:
            four = [each for each in task.addresses if ":" not in each and _within(each, node.card.pools)]
            six = [each for each in task.addresses if ":" in each and _within(each, node.card.pools)]
            if task.owner in marks and four:
                yield Remote(marks[task.owner], four[0], six[0] if six else "")


def _reached(tasks: Iterable[Resident], pools: Sequence[str]) -> Iterator[Resident]:
    for task in tasks:
        reached = tuple(each for each in task.addresses if _within(each, pools))
        yield msgspec.structs.replace(task, addresses=reached or task.addresses)


def _within(address: str, pools: Iterable[str]) -> bool:
    parsed = ip_address(address)
    return any(parsed in ip_network(pool) for pool in pools)


def _digest(owner: str) -> int:
    return int.from_bytes(hashlib.sha256(owner.encode()).digest()[:2], "big")
