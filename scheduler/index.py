"""The cluster as one node sees it: members, their newest reports, and claims that no report covers yet.

Owns who can take tasks and how much each has free in this node's eyes. A claim is what home or leader promised itself
on a node; it counts until whoever made it releases it, so that a view a few seconds old is not promised twice. The
view may be stale: it costs refusals, never double bookings, for every node decides on its own resources.
"""

from __future__ import annotations

import enum
from collections.abc import Container, Hashable, Iterator
from dataclasses import dataclass, field
from math import inf

from sortedcontainers import SortedList

from scheduler.finder import NONE, Finder
from scheduler.fit import fits, unmet
from scheduler.model import Constraint, Report, Resources
from scheduler.score import Policy

POSSIBLE_MAX = 10_000


class Membership(enum.StrEnum):
    """What gossip says of a node; `unheard` until it says anything."""

    UNHEARD = "unheard"
    ALIVE = "alive"
    DOWN = "down"
    FAILED = "failed"
    LEFT = "left"


@dataclass(slots=True)
class Node:
    """One node in this view. `free` is what its report leaves, less the claims on it; `in_flight` has the claims:
    when what is claimed ends, on this node's clock (infinity: not known), and how much it is.
    """

    name: str
    number: int = 0
    membership: Membership = Membership.UNHEARD
    report: Report | None = None
    permitted: Resources = field(default_factory=Resources)
    claimed: Resources = field(default_factory=Resources)
    free: Resources = field(default_factory=Resources)
    labels: dict[str, str] = field(default_factory=dict)
    images: frozenset[bytes] = frozenset()
    in_flight: dict[Hashable, tuple[float, Resources]] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        """Whether its agent answers."""
        return self.membership is Membership.ALIVE

    @property
    def usable(self) -> bool:
        """Whether tasks may be offered to it at all."""
        return self.alive and self.report is not None and self.report.accepting

    def take(self, report: Report) -> None:
        """Believe a newer report."""
        old, self.report = self.report, report
        self.number = report.number
        self.permitted = report.permitted
        if old is None or old.labels != report.labels:
            self.labels = {"node": report.node, **dict(report.labels)}
        self.refresh()

    def refresh(self) -> None:
        """Recompute what is free."""
        if self.report is not None:
            self.free = self.permitted - self.report.committed - self.claimed


class ClusterView:
    """Nodes by name. `shape` counts changes of what the cluster could ever take (members, capacity, labels),
    `version` all changes that could make room. `changed` names the nodes of which anything changed since its reader
    emptied it.
    """

    def __init__(self, me: str, number: int, policy: Policy, near_equal_permille: int) -> None:
        self.me = me
        self.shape = 0
        self.version = 0
        self.changed: dict[str, None] = {me: None}
        self._finder = Finder(policy, 1000 // near_equal_permille if near_equal_permille else 1_000_000)
        self._living: SortedList[tuple[int, str]] = SortedList([(number, me)])
        self._nodes: dict[str, Node] = {me: Node(me, number, Membership.ALIVE)}
        self._claims: dict[Hashable, tuple[str, Resources]] = {}
        self._possible: dict[tuple[Resources, tuple[Constraint, ...]], bool] = {}
        self._possible_shape = -1

    # --- who is there

    def get(self, name: str) -> Node | None:
        """Return a node, or None when it was never heard of."""
        return self._nodes.get(name)

    def nodes(self) -> Iterator[Node]:
        """Yield all nodes ever heard of, in the order they were."""
        yield from self._nodes.values()

    def alive(self, name: str) -> bool:
        """Whether this node's agent answers."""
        node = self._nodes.get(name)
        return node is not None and node.alive

    def membership(self, name: str) -> Membership:
        """Return what gossip says of a node."""
        node = self._nodes.get(name)
        return node.membership if node is not None else Membership.UNHEARD

    def boot_epoch(self, name: str) -> int:
        """Return the boot epoch a node's newest report is of; 0 before the first."""
        node = self._nodes.get(name)
        return node.report.boot_epoch if node is not None and node.report is not None else 0

    @property
    def leader(self) -> str:
        """The live node with the lowest number: the one that should lead the queue."""
        return str(self._living[0][1])

    def heard_of(self, name: str, membership: Membership, number: int = 0) -> None:
        """Gossip's word on a node; about ourselves we know better."""
        if name == self.me:
            return
        node = self._nodes.setdefault(name, Node(name))
        self._living.discard((node.number, name))
        node.membership = membership
        if membership is Membership.ALIVE:
            node.number = number
            self._living.add((number, name))
        self.shape += 1
        self.version += 1
        self._see(node)

    def forget(self, name: str) -> None:
        """Drop a node that is not alive and on which nothing is claimed."""
        node = self._nodes.get(name)
        if node is not None and not node.alive and node.claimed == Resources():
            del self._nodes[name]
            self._finder.forget(name)
            self.changed[name] = None
            self.shape += 1

    def _see(self, node: Node) -> None:
        self.changed[node.name] = None
        self._finder.see(node)

    # --- how full they are

    def hear(self, report: Report) -> bool:
        """Take a report when it is newer than the one known; return whether it was."""
        node = self._nodes.setdefault(report.node, Node(report.node))
        old = node.report
        if old and (report.boot_epoch, report.sequence) <= (old.boot_epoch, old.sequence):
            return False
        if old is None or _ability(old) != _ability(report):
            self.shape += 1
        if node.alive and node.number != report.number:
            self._living.discard((node.number, node.name))
            self._living.add((report.number, node.name))
        node.take(report)
        self.version += 1
        self._see(node)
        return True

    def hear_images(self, name: str, held: frozenset[bytes]) -> None:
        """Believe what a node says of the images it has."""
        node = self._nodes.setdefault(name, Node(name))
        node.images = held
        self._finder.see(node)

    def claim(self, key: Hashable, name: str, amount: Resources, end_s: float = inf) -> None:
        """Count `amount` as taken on a node until released; a key's newer claim replaces its older one.

        `end_s`: when it will be free again, on this node's clock, if all goes as estimated.
        """
        self.release(key)
        node = self._nodes.setdefault(name, Node(name))
        self._claims[key] = (name, amount)
        node.in_flight[key] = (end_s, amount)
        node.claimed = node.claimed + amount
        node.refresh()
        self.changed[name] = None
        self._finder.changed(node)

    def shrink(self, key: Hashable, amount: Resources) -> None:
        """Lower a claim that still stands to `amount`."""
        if key in self._claims:
            name = self._claims[key][0]
            self.claim(key, name, amount, self._nodes[name].in_flight[key][0])

    def release(self, key: Hashable) -> None:
        """Drop a claim, if there is one."""
        name, amount = self._claims.pop(key, ("", None))
        if amount is not None:
            node = self._nodes[name]
            del node.in_flight[key]
            node.claimed = node.claimed - amount
            node.refresh()
            self.version += 1
            self.changed[name] = None
            self._finder.changed(node)

    def claims(self) -> list[str]:
        """Return all claims, as text."""
        return [f"{key} on {name}" for key, (name, _) in self._claims.items()]

    # --- what fits where

    def possible(self, request: Resources, constraints: tuple[Constraint, ...]) -> bool:
        """Whether any usable node could take one such task, were it empty. Remembered until `shape` changes."""
        if self._possible_shape != self.shape or len(self._possible) > POSSIBLE_MAX:
            self._possible = {}
            self._possible_shape = self.shape
        key = (request, constraints)
        known = self._possible.get(key)
        if known is None:
            known = self._possible[key] = any(
                node.usable and unmet(constraints, node.labels) is None and fits(request, node.permitted)
                for node in self._nodes.values()
            )
        return known

    def place(
        self,
        request: Resources,
        constraints: tuple[Constraint, ...],
        count: int,
        seed: int,
        images: tuple[bytes, ...] = (),
        *,
        per_node: int = 0,
        avoid: Container[str] = NONE,
    ) -> dict[str, int]:
        """Choose nodes for up to `count` equal tasks: {node: how many}, the policy's best first, near-equals by `seed`.

        `images`: what the tasks need of images (`scheduler.images.wanted`); nodes that have them are preferred. At most
        `per_node` on one node (0: what fits), none on those to `avoid`. Costs O(log nodes) for each node chosen.
        """
        return self._finder.place(request, constraints, count, seed, images, per_node=per_node, avoid=avoid)

    def best(
        self,
        request: Resources,
        constraints: tuple[Constraint, ...],
        seed: int,
        images: tuple[bytes, ...] = (),
        *,
        count: int,
        avoid: Container[str] = NONE,
    ) -> list[str]:
        """Return up to `count` nodes that could take one such task, the one that `place` would choose first."""
        return self._finder.best(request, constraints, seed, images, count=count, avoid=avoid)

    def grade(self, request: Resources, node: Node, seed: int, images: tuple[bytes, ...] = ()) -> tuple[int, int]:
        """Return how good a node is for a request that fits there: `place` prefers the smallest of these keys."""
        return self._finder.grade(request, node, seed, images)


def _ability(report: Report) -> tuple[Resources, tuple[tuple[str, str], ...], bool]:
    return report.permitted, report.labels, report.accepting
