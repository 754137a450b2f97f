"""From gossip to the scheduling machine: who is there, under which number, and what they publish.

Translates and decides nothing, except this node's own number, which `scheduler.numbers` chooses. A member counts as up
for the machine once gossip says that it is alive and its card (number, API address) is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec
import trio

from cluster import Member, MemberChanged, StateChanged, Status
from node import logs
from node.errors import Busy
from node.peers import Peers
from scheduler.events import Event, Heard, MemberDown, MemberFailed, MemberForgotten, MemberLeft, MemberUp
from scheduler.numbers import Claim, choose

CARD = "card"
HEARD_KEYS = frozenset({"report", "leader", "images", "settings"})
JOIN_LOG_S = 10.0

log = logs.get("members")


class Card(msgspec.Struct, frozen=True, array_like=True):
    """What a node says of itself in one life: its number (a claim until settled), which life, where its API is."""

    number: int
    settled: bool
    boot_epoch: int
    api_address: str


_decode_card = msgspec.msgpack.Decoder(Card).decode


class Gossip(Protocol):
    """What is used of the gossip service (node/gossip_io.py)."""

    def members(self) -> Sequence[Member]:
        """Return every member known, this node included."""

    def state_of(self, name: str) -> Mapping[str, bytes]:
        """Return what a member published."""

    def set_state(self, key: str, value: bytes) -> None:
        """Publish under this node's name."""


class Members:
    """The other nodes, kept in step in the address book (Peers) and in the machine (by `post`)."""

    def __init__(self, me: str, gossip: Gossip, peers: Peers, api_address: str) -> None:
        self._me = me
        self._gossip = gossip
        self._peers = peers
        self._api_address = api_address
        self._cards: dict[str, Card] = {}
        self._up: dict[str, Card] = {}
        self._number: int | None = None
        self._met = trio.Event()
        self._post: Callable[[Event], None] | None = None
        self._appeared: Callable[[str], None] = lambda name: None

    def alive(self) -> Sequence[str]:
        """Return the names of the other nodes whose agents can be asked."""
        return list(self._up)

    # --- this node's number

    async def claim_number(self, *, boot_epoch: int, seeds: bool, probe_interval_s: float) -> int:
        """Return the number this node takes for good; with seeds, waits until it has met another member."""
        while seeds and not self._met.is_set():
            log.info("waiting for a seed to answer before this node takes a number")
            with trio.move_on_after(JOIN_LOG_S):
                await self._met.wait()
        mine = Claim(unsettled=True, boot_epoch=boot_epoch, node=self._me, number=0)
        while True:
            number = choose(mine, self._claims())
            if number == mine.number:
                return number
            mine = Claim(unsettled=True, boot_epoch=boot_epoch, node=self._me, number=number)
            self.publish(number, boot_epoch, settled=False)
            await trio.sleep(self._settle_s(probe_interval_s))

    def _settle_s(self, probe_interval_s: float) -> float:
        """Return how long a claim must stand: until each claim made in ignorance of it has been heard here.

        That is twice the time a rumour needs to reach all, which is about a probe interval for each doubling.
        """
        others = sum(member.name != self._me for member in self._gossip.members())
        return 2 * probe_interval_s * (1 + others.bit_length()) if others else 0.0

    def publish(self, number: int, boot_epoch: int, *, settled: bool) -> None:
        """Tell everyone this node's card."""
        self._number = number if settled else None
        self._gossip.set_state(CARD, msgspec.msgpack.encode(Card(number, settled, boot_epoch, self._api_address)))

    def _claims(self) -> dict[str, Claim]:
        return {name: Claim(not card.settled, card.boot_epoch, name, card.number) for name, card in self._cards.items()}

    # --- the others

    def connect(self, post: Callable[[Event], None], appeared: Callable[[str], None]) -> None:
        """From now on tell the machine, beginning with all that is known already; `appeared`: a node came up."""
        self._post, self._appeared = post, appeared
        for member in self._gossip.members():
            self._follow(member)
            for key, value in self._gossip.state_of(member.name).items():
                self._heard(member.name, key, value)

    def on_member(self, change: MemberChanged) -> None:
        """Gossip: a member came, changed or was forgotten."""
        if change.member.name == self._me:
            return
        self._met.set()
        if change.new is None:
            self._forget(change.member.name)
        else:
            self._follow(change.member)

    def on_state(self, change: StateChanged) -> None:
        """Gossip: a member published something."""
        if change.name == self._me:
            return
        if change.key == CARD:
            self._take_card(change.name, change.value)
            for member in self._gossip.members():
                if member.name == change.name:
                    self._follow(member)
        elif change.value is not None:
            self._heard(change.name, change.key, change.value)

    def _heard(self, name: str, key: str, value: bytes) -> None:
        if key in HEARD_KEYS and name != self._me and self._post:
            self._post(Heard(name, key, value))

    def _take_card(self, name: str, value: bytes | None) -> None:
        if value is None:
            self._cards.pop(name, None)
            return
        try:
            card = _decode_card(value)
            self._peers.set_member(name, card.number if card.settled else None, card.api_address)
        except (msgspec.MsgspecError, Busy) as error:
            log.warning("a member's card can't be taken", name=name, why=str(error))
            return
        self._cards[name] = card
        if card.settled and card.number == self._number:
            log.error("two nodes have one number: stop one and give it another", number=card.number, other=name)

    def _follow(self, member: Member) -> None:
        """Bring the machine's picture of a member up to date."""
        name = member.name
        if name == self._me or self._post is None:
            return
        if name not in self._cards and CARD in (state := self._gossip.state_of(name)):
            self._take_card(name, state[CARD])
        match member.state:
            case Status.ALIVE | Status.SUSPECT:
                self._follow_up(member)
            case Status.DOWN:
                self._follow_away(name, MemberDown(name))
            case Status.FAILED:
                self._follow_away(name, MemberFailed(name))
            case Status.LEFT:
                self._follow_away(name, MemberLeft(name))

    def _follow_up(self, member: Member) -> None:
        card = self._cards.get(member.name)
        if card is None or not card.settled or self._post is None:
            return
        if self._up.get(member.name) != card:
            self._up[member.name] = card
            self._post(MemberUp(member.name, card.number, card.boot_epoch))
            self._appeared(member.name)

    def _follow_away(self, name: str, event: Event) -> None:
        self._up.pop(name, None)
        if self._post is not None:
            self._post(event)

    def _forget(self, name: str) -> None:
        self._cards.pop(name, None)
        self._peers.remove_member(name)
        self._follow_away(name, MemberForgotten(name))
