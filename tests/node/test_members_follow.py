"""From gossip to the machine: who is up, and under which number; on gossip that travels in a test's time."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import count

import msgspec
import pytest
import trio

from cluster import Member, MemberChanged, StateChanged, Status
from node.members import CARD, Card, Members
from node.peers import Peers
from scheduler.events import Event, Heard, MemberDown, MemberFailed, MemberForgotten, MemberLeft, MemberUp
from tests.node.shell import Wire


class Rumours:
    """Gossip between fakes: what one publishes, the others hear after a random delay (at once without a nursery)."""

    def __init__(self, nursery: trio.Nursery | None = None, seed: int = 0, delay_s_max: float = 0.0) -> None:
        self._nursery = nursery
        self._random = random.Random(seed)
        self._delay_s_max = delay_s_max
        self.nodes: dict[str, Ear] = {}

    def join(self, name: str, boot_epoch: int = 1) -> Ear:
        ear = self.nodes[name] = Ear(name, self, boot_epoch)
        for other in list(self.nodes.values()):
            if other is not ear:
                other.meet(ear.name)
                ear.meet(other.name)
                for key, value in other.published.items():
                    ear.hear(other.name, key, value)
        return ear

    def spread(self, name: str, key: str, value: bytes, version: int) -> None:
        for other in self.nodes.values():
            if other.name == name:
                continue
            if self._nursery is None:
                other.hear(name, key, value, version)
            else:
                self._nursery.start_soon(self._later, other, name, key, value, version)

    async def _later(self, other: Ear, name: str, key: str, value: bytes, version: int) -> None:
        await trio.sleep(self._random.uniform(0, self._delay_s_max))
        other.hear(name, key, value, version)


class Ear:
    """One node's gossip, and its Members."""

    def __init__(self, name: str, rumours: Rumours, boot_epoch: int) -> None:
        self.name = name
        self.boot_epoch = boot_epoch
        self.published: dict[str, bytes] = {}
        self._rumours = rumours
        self._known: dict[str, Member] = {}
        self._versions = count(1)
        self._newest: dict[tuple[str, str], int] = {}
        self._states: dict[str, dict[str, bytes]] = {}
        self.peers: Peers = Wire().join(name)
        self.members_ = Members(name, self, self.peers, f"{name}:8642")
        self.events: list[Event] = []
        self.appeared: list[str] = []

    def connect(self) -> None:
        self.members_.connect(self.events.append, self.appeared.append)

    def members(self) -> Sequence[Member]:
        return list(self._known.values())

    def state_of(self, name: str) -> Mapping[str, bytes]:
        return self._states.get(name, {})

    def set_state(self, key: str, value: bytes) -> None:
        self.published[key] = value
        self._rumours.spread(self.name, key, value, next(self._versions))

    def meet(self, name: str, state: Status | None = Status.ALIVE) -> None:
        member = Member(name, ("127.0.0.1", 1), Status.FAILED if state is None else state, 1, 1)
        self._known[name] = member
        if state is None:
            del self._known[name]
        self.members_.on_member(MemberChanged(member, None, state, "a test", self.name))

    def hear(self, name: str, key: str, value: bytes, version: int | None = None) -> None:
        """Take what a member published, unless something newer was heard before."""
        version = next(self._versions) if version is None else version
        if version < self._newest.get((name, key), 0):
            return
        self._newest[(name, key)] = version
        self._states.setdefault(name, {})[key] = value
        self.members_.on_state(StateChanged(name, key, value))


def card(number: int, boot_epoch: int = 1, *, settled: bool = True) -> bytes:
    return msgspec.msgpack.encode(Card(number, settled, boot_epoch, "127.0.0.1:1"))


@pytest.fixture
def n1() -> Ear:
    ear = Rumours().join("n1")
    ear.connect()
    return ear


def test_a_member_is_up_only_with_a_settled_card(n1: Ear) -> None:
    n1.meet("n2")
    n1.hear("n2", CARD, card(2, settled=False))
    assert n1.events == []
    assert n1.members_.alive() == []
    n1.hear("n2", CARD, card(2))
    assert n1.events == [MemberUp("n2", 2, 1)]
    assert n1.members_.alive() == n1.appeared == ["n2"]
    assert n1.peers.name_of(2) == "n2"


@pytest.mark.parametrize(
    ("state", "event"),
    [(Status.DOWN, MemberDown("n2")), (Status.FAILED, MemberFailed("n2")), (Status.LEFT, MemberLeft("n2"))],
)
def test_each_way_of_being_away_is_told_as_such_and_so_is_the_return(state: Status, event: Event, n1: Ear) -> None:
    n1.meet("n2")
    n1.hear("n2", CARD, card(2))
    n1.meet("n2", Status.SUSPECT)
    assert n1.events == [MemberUp("n2", 2, 1)], "a suspect is still up"
    n1.meet("n2", state)
    assert n1.events[-1] == event
    assert n1.members_.alive() == []
    n1.meet("n2")
    assert n1.events[-1] == MemberUp("n2", 2, 1)


def test_a_new_life_is_told_even_without_a_death_in_between(n1: Ear) -> None:
    n1.meet("n2")
    n1.hear("n2", CARD, card(2, boot_epoch=1))
    n1.hear("n2", CARD, card(2, boot_epoch=2))
    assert n1.events == [MemberUp("n2", 2, 1), MemberUp("n2", 2, 2)]


def test_a_forgotten_member_is_forgotten_everywhere(n1: Ear) -> None:
    n1.meet("n2")
    n1.hear("n2", CARD, card(2))
    n1.meet("n2", None)
    assert n1.events[-1] == MemberForgotten("n2")
    assert n1.peers.address_of("n2") is None
    assert n1.members_.alive() == []


def test_an_unreadable_card_is_ignored_and_its_node_can_still_go_down(n1: Ear) -> None:
    n1.meet("n2")
    n1.hear("n2", CARD, b"\xc1")
    assert n1.events == []
    n1.meet("n2", Status.DOWN)
    assert n1.events == [MemberDown("n2")]


def test_reports_and_leads_are_passed_on_and_nothing_else(n1: Ear) -> None:
    n1.meet("n2")
    for key in ("report", "leader", "weather"):
        n1.hear("n2", key, b"x")
    assert n1.events == [Heard("n2", "report", b"x"), Heard("n2", "leader", b"x")]


def test_what_was_known_before_the_machine_was_there_is_told_when_it_is() -> None:
    ear = Rumours().join("n1")
    ear.meet("n2")
    ear.hear("n2", CARD, card(2))
    ear.hear("n2", "report", b"x")
    assert ear.events == []
    ear.connect()
    assert ear.events == [MemberUp("n2", 2, 1), Heard("n2", "report", b"x")]


@pytest.mark.parametrize("seed", range(30))
async def test_nodes_that_claim_numbers_at_once_get_different_and_small_ones(
    seed: int, autojump_clock: trio.abc.Clock
) -> None:
    rng = random.Random(seed)
    names = [f"n{index}" for index in range(rng.randint(2, 12))]
    numbers: dict[str, int] = {}

    async def claim(ear: Ear) -> None:
        await trio.sleep(rng.uniform(0, 5))
        numbers[ear.name] = await ear.members_.claim_number(boot_epoch=ear.boot_epoch, seeds=True, probe_interval_s=1.0)
        ear.members_.publish(numbers[ear.name], ear.boot_epoch, settled=True)

    async with trio.open_nursery() as nursery:
        rumours = Rumours(nursery, seed, delay_s_max=len(names).bit_length())
        ears = [rumours.join(name, boot_epoch=rng.randint(1, 3)) for name in names]
        for ear in ears:
            nursery.start_soon(claim, ear)
    assert len(set(numbers.values())) == len(names), f"seed {seed}: {numbers}"
    assert max(numbers.values()) <= 2 * len(names), f"seed {seed}: {numbers}"


async def test_a_node_with_seeds_takes_no_number_before_it_has_met_one(autojump_clock: trio.abc.Clock) -> None:
    ear = Rumours().join("n1")
    with trio.move_on_after(1000):
        await ear.members_.claim_number(boot_epoch=1, seeds=True, probe_interval_s=1.0)
        raise AssertionError("a number out of thin air")
    ear.meet("n2")
    ear.hear("n2", CARD, card(1))
    assert await ear.members_.claim_number(boot_epoch=1, seeds=True, probe_interval_s=1.0) == 2
