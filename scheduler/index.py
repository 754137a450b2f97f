"""The cluster as one node sees it: members, their newest reports, and claims that no report covers yet.

Owns who can take tasks and how much each has free in this node's eyes. A claim is what home or leader promised itself
on a node; it counts until whoever made it releases it, so that a view a few seconds old is not promised twice. The
view may be stale: it costs refusals, never double bookings, for every node decides on its own resources.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Container, Hashable, Iterator
from dataclasses import dataclass, field
from math import inf

from sortedcontainers import SortedList

from scheduler.beside import Unfit, beside, lasting
from scheduler.company import RUNS, joined
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
    when what is claimed ends, on this node's clock (infinity: not known), and how much it is. `coming`: the tags of
    what is claimed; with the reported ones they are the label `RUNS`, which is changed in place.
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
    coming: Counter[str] = field(default_factory=Counter)

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
        self.retag()
        self.refresh()

    def retag(self) -> None:
        """Recompute the tags of what runs there."""
        runs = joined(self.report.runs if self.report is not None else "", self.coming)
        if runs or RUNS in self.labels:
            self.labels[RUNS] = runs

    def refresh(self) -> None:
        """Recompute what is free."""
        if self.report is not None:
            self.free = self.permitted - self.report.committed - self.claimed


class ClusterView:
    """Nodes by name. `shape` counts changes of what the cluster could ever take (members, capacity, labels),
    `version` all changes that could make room, `changes` all. `changed` names the nodes of which anything changed since
    its reader emptied it.
    """

    def __init__(self, me: str, number: int, policy: Policy, near_equal_permille: int) -> None:
        self.me = me
        self.shape = 0
        self.version = 0
        self.changes = 0
        self.changed: dict[str, None] = {me: None}
        self._finder = Finder(policy, 1000 // near_equal_permille if near_equal_permille else 1_000_000)
        self._living: SortedList[tuple[int, str]] = SortedList([(number, me)])
        self._nodes: dict[str, Node] = {me: Node(me, number, Membership.ALIVE)}
        self._claims: dict[Hashable, tuple[str, Resources, tuple[str, ...]]] = {}
        self._values: dict[tuple[str, Resources, tuple[Constraint, ...]], tuple[str, ...]] = {}
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
        self.changes += 1
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

    def claim(
        self, key: Hashable, name: str, amount: Resources, end_s: float = inf, tags: tuple[str, ...] = ()
    ) -> None:
        """Count `amount` as taken on a node until released; a key's newer claim replaces its older one.

        `end_s`: when it will be free again, on this node's clock, if all goes as estimated; `tags`:
        what the task goes by (scheduler.company).
        """
        if key in self._claims:
            self.release(key)
        node = self._nodes.get(name)
        if node is None:
            node = self._nodes[name] = Node(name)
        self._claims[key] = (name, amount, tags)
        if tags:
            node.coming.update(tags)
            node.retag()
        node.in_flight[key] = (end_s, amount)
        node.claimed = node.claimed + amount
        if node.report is not None:
            node.free = node.free - amount
        self.changes += 1
        self.changed[name] = None
        self._finder.changed(node)

    def shrink(self, key: Hashable, amount: Resources) -> None:
        """Lower a claim that still stands to `amount`."""
        if key in self._claims:
            name, _, tags = self._claims[key]
            self.claim(key, name, amount, self._nodes[name].in_flight[key][0], tags)

    def release(self, key: Hashable) -> None:
        """Drop a claim, if there is one."""
        name, amount, tags = self._claims.pop(key, ("", None, ()))
        if amount is not None:
            node = self._nodes[name]
            del node.in_flight[key]
            node.claimed = node.claimed - amount
            if tags:
                node.coming = +(node.coming - Counter(tags))
                node.retag()
            node.refresh()
            self.version += 1
            self.changes += 1
            self.changed[name] = None
            self._finder.changed(node)

    def claims(self) -> list[str]:
        """Return all claims, as text."""
        return [f"{key} on {name}" for key, (name, *_) in self._claims.items()]

    # --- what fits where

    def possible(self, request: Resources, constraints: tuple[Constraint, ...]) -> bool:
        """Whether any usable node could take one such task, were it empty. Remembered until `shape` changes.

        What a node runs is no question here: that may change.
        """
        self._forget_if_changed()
        key = (request, constraints)
        known = self._possible.get(key)
        if known is None:
            known = self._possible[key] = any(self._able(request, lasting(constraints)))
        return known

    def values(self, label: str, request: Resources, constraints: tuple[Constraint, ...]) -> tuple[str, ...]:
        """Return a label's values on the usable nodes that could take such a task, were they empty. Remembered, too."""
        self._forget_if_changed()
        key = (label, request, constraints)
        known = self._values.get(key)
        if known is None:
            able = self._able(request, lasting(constraints))
            found = {value for node in able if (value := node.labels.get(label)) is not None}
            known = self._values[key] = tuple(sorted(found))
        return known

    def _able(self, request: Resources, constraints: tuple[Constraint, ...]) -> Iterator[Node]:
        for node in self._nodes.values():
            if node.usable and unmet(constraints, node.labels) is None and fits(request, node.permitted):
                yield node

    def _forget_if_changed(self) -> None:
        full = len(self._possible) > POSSIBLE_MAX or len(self._values) > POSSIBLE_MAX // 10
        if full or self._possible_shape != self.shape:
            self._possible, self._values = {}, {}
            self._possible_shape = self.shape

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
        if any(each.soft or each.operator.passing for each in constraints):
            return beside(self._finder, self._nodes, request, constraints, count, seed, images)
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
        if any(each.soft or each.operator.passing for each in constraints):
            avoid = Unfit(self._nodes, request, tuple(each for each in constraints if each.operator.passing), avoid)
        return self._finder.best(request, lasting(constraints), seed, images, count=count, avoid=avoid)

    def able(self, request: Resources, constraints: tuple[Constraint, ...]) -> list[str]:
        """Return all nodes that could take one such task now, in no order, whatever they would run beside it softly."""
        avoid: Container[str] = NONE
        if any(each.operator.passing and not each.soft for each in constraints):
            avoid = Unfit(self._nodes, request, tuple(each for each in constraints if each.operator.passing))
        return self._finder.able(request, lasting(constraints), avoid)

    def grade(self, request: Resources, node: Node, seed: int, images: tuple[bytes, ...] = ()) -> tuple[int, int]:
        """Return how good a node is for a request that fits there: `place` prefers the smallest of these keys."""
        return self._finder.grade(request, node, seed, images)


def _ability(report: Report) -> tuple[Resources, tuple[tuple[str, str], ...], bool]:
    return report.permitted, report.labels, report.accepting
