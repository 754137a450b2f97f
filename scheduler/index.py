"""The cluster as one node sees it: members, their newest reports, and claims that no report covers yet.

Owns who can take tasks and how much each has free in this node's eyes. A claim is what home or leader promised itself
on a node; it counts until whoever made it releases it, so that a view a few seconds old is not promised twice. The
view may be stale: it costs refusals, never double bookings, for every node decides on its own resources.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from math import inf

from scheduler.fit import fits, unmet
from scheduler.images import locality
from scheduler.model import Constraint, Report, Resources
from scheduler.score import Score, draw

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
        self.report = report
        self.number = report.number
        self.permitted = report.permitted
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

    def __init__(self, me: str, number: int, score: Score, near_equal_permille: int) -> None:
        self.me = me
        self.shape = 0
        self.version = 0
        self.changed: dict[str, None] = {me: None}
        self._score = score
        self._steps = 1000 // near_equal_permille if near_equal_permille else 1_000_000
        self._nodes: dict[str, Node] = {me: Node(me, number, Membership.ALIVE)}
        self._claims: dict[Hashable, tuple[str, Resources]] = {}
        self._leader = me
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
        return self._leader

    def heard_of(self, name: str, membership: Membership, number: int = 0) -> None:
        """Gossip's word on a node; about ourselves we know better."""
        if name == self.me:
            return
        node = self._nodes.setdefault(name, Node(name))
        node.membership = membership
        if membership is Membership.ALIVE:
            node.number = number
        self.shape += 1
        self.version += 1
        self.changed[name] = None
        self._leader = min((each.number, each.name) for each in self._nodes.values() if each.alive)[1]

    def forget(self, name: str) -> None:
        """Drop a node that is not alive and on which nothing is claimed."""
        node = self._nodes.get(name)
        if node is not None and not node.alive and node.claimed == Resources():
            del self._nodes[name]
            self.changed[name] = None
            self.shape += 1

    # --- how full they are

    def hear(self, report: Report) -> bool:
        """Take a report when it is newer than the one known; return whether it was."""
        node = self._nodes.setdefault(report.node, Node(report.node))
        old = node.report
        if old and (report.boot_epoch, report.sequence) <= (old.boot_epoch, old.sequence):
            return False
        if old is None or _ability(old) != _ability(report):
            self.shape += 1
        node.take(report)
        self.version += 1
        self.changed[report.node] = None
        return True

    def hear_images(self, name: str, held: frozenset[bytes]) -> None:
        """Believe what a node says of the images it has."""
        self._nodes.setdefault(name, Node(name)).images = held

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
    ) -> dict[str, int]:
        """Choose nodes for up to `count` equal tasks: {node: how many}, best score first, near-equals by `seed`.

        `images`: what the tasks need of images (`scheduler.images.wanted`); nodes that have them are preferred.

        Costs O(nodes) to look at each node once and O(log nodes) for each task placed.
        """
        heap: list[tuple[int, int, str, Resources]] = []
        for node in self._nodes.values():
            if node.usable and fits(request, node.free) and unmet(constraints, node.labels) is None:
                grade = self._class_of(request, node.free, node, images)
                heap.append((grade, draw(seed, node.number), node.name, node.free))
        heapq.heapify(heap)
        places: dict[str, int] = {}
        while heap and count > 0:
            _, tie, name, free = heap[0]
            places[name] = places.get(name, 0) + 1
            count -= 1
            free = free - request
            if fits(request, free):
                grade = self._class_of(request, free, self._nodes[name], images)
                heapq.heapreplace(heap, (grade, tie, name, free))
            else:
                heapq.heappop(heap)
        return places

    def grade(self, request: Resources, node: Node, seed: int, images: tuple[bytes, ...] = ()) -> tuple[int, int]:
        """Return how good a node is for a request that fits there: `place` prefers the smallest of these keys."""
        return self._class_of(request, node.free, node, images), draw(seed, node.number)

    def _class_of(self, request: Resources, free: Resources, node: Node, images: tuple[bytes, ...]) -> int:
        score = self._score(request, free, node.permitted) + locality(images, node.images)
        return -int(score * self._steps)


def _ability(report: Report) -> tuple[Resources, tuple[tuple[str, str], ...], bool]:
    return report.permitted, report.labels, report.accepting
