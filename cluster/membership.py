"""Membership: who belongs to the cluster, in which state, and which of two statements about a member wins.

Owns the member table, the precedence of statements and the ring. It knows nothing of packets, timers or probes. After
SWIM (Das, Gupta, Motivala 2002); the boot epoch before the incarnation and the state `down` are ours.

A statement about a member carries (boot epoch, incarnation, status) and wins if it is lexicographically greater than
what the table holds; so any two tables that heard the same statements, in any order, agree.
"""

from __future__ import annotations

import bisect
import hashlib
import random
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import msgspec

from cluster import wire
from cluster.config import MEMBERS_MAX
from cluster.errors import IllegalTransition
from cluster.suspicion import Suspicion
from cluster.wire import Status

Address = tuple[str, int]

_REFUSED: Final = "refused, and two others too"
# Every change of state there is, and what leads to it. Down the list of states at the same boot and incarnation; back
# to alive only with a newer one, which the member alone can make.
TRANSITIONS: Final[dict[tuple[Status | None, Status | None], str]] = {
    (None, Status.ALIVE): "heard of",
    (None, Status.DOWN): "heard of by repair",
    (None, Status.FAILED): "heard of by repair",
    (None, Status.LEFT): "heard of by repair",
    (Status.ALIVE, Status.SUSPECT): "no answer",
    (Status.ALIVE, Status.DOWN): _REFUSED,
    (Status.ALIVE, Status.FAILED): "another's time-out",
    (Status.ALIVE, Status.LEFT): "says good-bye",
    (Status.SUSPECT, Status.ALIVE): "refutes",
    (Status.SUSPECT, Status.DOWN): _REFUSED,
    (Status.SUSPECT, Status.FAILED): "time-out",
    (Status.SUSPECT, Status.LEFT): "says good-bye",
    (Status.DOWN, Status.ALIVE): "restarts, or refutes",
    (Status.DOWN, Status.FAILED): "time-out, two others confirm",
    (Status.DOWN, Status.LEFT): "its good-bye comes late",
    (Status.FAILED, Status.ALIVE): "restarts, or refutes",
    (Status.FAILED, Status.LEFT): "its good-bye comes late",
    (Status.LEFT, Status.ALIVE): "restarts",
    (Status.DOWN, None): "forgotten",
    (Status.FAILED, None): "forgotten",
    (Status.LEFT, None): "forgotten",
}


class Identity(msgspec.Struct, frozen=True):
    """Who a node is: a name kept for ever, where it listens, which life this is, and how often it had to assert it."""

    name: str
    address: Address
    boot_epoch: int
    incarnation: int = 0


class Member(msgspec.Struct, frozen=True):
    """What this node believes of a member; `since_s` is the machine's time of its last change of state."""

    name: str
    address: Address
    state: Status
    incarnation: int
    boot_epoch: int
    since_s: float = 0.0


@lru_cache(MEMBERS_MAX)
def short_id(name: str) -> int:
    """Return the 32-bit name of a node on the wire."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big")


@lru_cache(MEMBERS_MAX)
def _digest(name: str, boot_epoch: int, incarnation: int, status: int) -> int:
    text = f"{name} {boot_epoch} {incarnation} {status}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


class Entry:
    """One row of the table, changed in place by MemberTable alone."""

    __slots__ = ("alive", "digest", "position", "ring_key", "short_id", "since_s", "status", "suspicion")

    def __init__(self, alive: wire.Alive, status: Status, since_s: float) -> None:
        self.alive = alive
        self.status = status
        self.since_s = since_s
        self.short_id = short_id(alive.name)
        self.ring_key = (self.short_id, alive.name)
        self.suspicion: Suspicion | None = None
        self.position = -1
        self.digest = 0

    @property
    def name(self) -> str:
        return self.alive.name

    @property
    def address(self) -> Address:
        return (self.alive.host, self.alive.port)

    @property
    def live(self) -> bool:
        return self.status <= Status.SUSPECT

    def precedence(self) -> tuple[int, int, int]:
        """What a statement must exceed to win."""
        return (self.alive.boot_epoch, self.alive.incarnation, self.status)

    def snapshot(self) -> Member:
        """Return the row as a value."""
        alive = self.alive
        return Member(alive.name, self.address, self.status, alive.incarnation, alive.boot_epoch, self.since_s)

    def digest_now(self) -> int:
        """Return 63 bits that differ whenever two tables disagree on more than a passing suspicion."""
        alive = self.alive
        settled = Status.ALIVE if self.status == Status.SUSPECT else self.status
        return _digest(alive.name, alive.boot_epoch, alive.incarnation, settled)


class MemberTable:
    """All members but this node itself, with constant-time draws among the live ones and a ring ordered by hash."""

    def __init__(self, own_name: str) -> None:
        self._own_key = (short_id(own_name), own_name)
        self._entries: dict[str, Entry] = {}
        self._live: list[Entry] = []
        self._failed: dict[str, Entry] = {}
        self._ring: list[tuple[int, str]] = []
        self._by_session: dict[bytes, Entry] = {}
        self._by_id: dict[int, str] = {}
        self._by_address: dict[Address, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def get(self, name: str) -> Entry | None:
        """Return a row by name."""
        return self._entries.get(name)

    def by_session(self, session: bytes) -> Entry | None:
        """Return whose packets come with this session."""
        return self._by_session.get(session)

    def by_short_id(self, number: int) -> Entry | None:
        """Return a row by its name on the wire."""
        name = self._by_id.get(number)
        return None if name is None else self._entries.get(name)

    def by_address(self, address: Address) -> Entry | None:
        """Return who listens, or last listened, at an address."""
        return self._by_address.get(address)

    @property
    def live(self) -> list[Entry]:
        """The alive and suspect members, in no particular order; not to be changed."""
        return self._live

    @property
    def failed(self) -> dict[str, Entry]:
        """The failed members by name; not to be changed."""
        return self._failed

    def put(self, entry: Entry) -> None:
        """Take in a new row."""
        self._entries[entry.name] = entry
        self._by_session[entry.alive.session] = entry
        self._by_id[entry.short_id] = entry.name
        self._by_address[entry.address] = entry
        bisect.insort(self._ring, entry.ring_key)
        if entry.live:
            self._enlist(entry)
        elif entry.status == Status.FAILED:
            self._failed[entry.name] = entry

    def change(self, entry: Entry, status: Status, since_s: float, alive: wire.Alive | None = None) -> None:
        """Change a row's state, and with `alive` its identity too. Errors: IllegalTransition."""
        if status != entry.status and (entry.status, status) not in TRANSITIONS:
            raise IllegalTransition(f"{entry.name}: {entry.status.name} -> {status.name} is not in the table")
        if alive is not None and alive is not entry.alive:
            if alive.session != entry.alive.session:
                self._by_session.pop(entry.alive.session, None)
                self._by_session[alive.session] = entry
            self._leave_address(entry)
            entry.alive = alive
            self._by_address[entry.address] = entry
        was_live = entry.live
        if status != entry.status:
            entry.status = status
            entry.since_s = since_s
            if status == Status.FAILED:
                self._failed[entry.name] = entry
            else:
                self._failed.pop(entry.name, None)
        if was_live != entry.live:
            (self._delist if was_live else self._enlist)(entry)

    def forget(self, entry: Entry) -> None:
        """Drop a row."""
        if entry.live:
            self._delist(entry)
        del self._entries[entry.name]
        self._failed.pop(entry.name, None)
        self._by_session.pop(entry.alive.session, None)
        self._by_id.pop(entry.short_id, None)
        self._leave_address(entry)
        del self._ring[bisect.bisect_left(self._ring, entry.ring_key)]

    def draw(self, rng: random.Random, count: int, without: str = "") -> list[Entry]:
        """Return up to `count` different live members, drawn evenly."""
        live = self._live
        if count + 1 >= len(live):
            drawn = [entry for entry in live if entry.name != without]
            rng.shuffle(drawn)
            return drawn[:count]
        drawn = []
        while len(drawn) < count:
            entry = live[int(rng.random() * len(live))]
            if entry.name != without and entry not in drawn:
                drawn.append(entry)
        return drawn

    def ring_targets(self, down_max: int) -> list[Entry]:
        """Return whom this node watches: the next live member after it on the ring, and down ones before that one."""
        start = bisect.bisect(self._ring, self._own_key)
        targets: list[Entry] = []
        for step in range(len(self._ring)):
            entry = self._entries[self._ring[(start + step) % len(self._ring)][1]]
            if entry.live:
                return [*targets, entry]
            if entry.status == Status.DOWN and len(targets) < down_max:
                targets.append(entry)
        return targets

    def _leave_address(self, entry: Entry) -> None:
        if self._by_address.get(entry.address) is entry:
            del self._by_address[entry.address]

    def _enlist(self, entry: Entry) -> None:
        entry.position = len(self._live)
        self._live.append(entry)

    def _delist(self, entry: Entry) -> None:
        last = self._live.pop()
        if last is not entry:
            self._live[entry.position] = last
            last.position = entry.position
        entry.position = -1
