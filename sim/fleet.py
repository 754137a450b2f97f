"""A cluster under one policy: takes demands, gives them back, and says what is free.

Two kinds behind one face. Scored: for every distinct demand the scores of all nodes are kept, and only those of nodes
that changed since are worked out anew; right for any policy. Indexed: CPU and memory only, best fit or spread, through
the agents' index over free amounts; right for many nodes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import inf
from typing import Protocol

from scheduler.buckets import FreeIndex
from sim.nodes import Demand, Node, NodeSpec
from sim.policies import Policy, make_policy

CHANGES_KEPT = 100_000

Place = tuple[int, list[int]]


class Fleet(Protocol):
    """Nodes by number; a place is a node and the devices taken there."""

    def place(self, demand: Demand) -> Place | None:
        """Take a demand where the policy says; None when it fits nowhere."""
        ...

    def leave(self, demand: Demand, place: Place) -> None:
        """Give back what was placed."""
        ...

    def close(self, number: int) -> None:
        """A node that nothing is placed on is down: offer nothing of it."""
        ...

    def open(self, number: int) -> None:
        """It is up again, and empty."""
        ...

    def nodes(self) -> list[Node]:
        """Return the nodes with what they have free."""
        ...


def make_fleet(specs: Sequence[NodeSpec], demands: list[Demand], policy: str, seed: int) -> Fleet:
    """Return a fleet of empty nodes; raises BadValue for an unknown policy."""
    whole = [Node(spec) for spec in specs]
    chosen = make_policy(policy, whole, demands)
    if policy in ("best-fit", "spread") and not any(spec.gpus for spec in specs):
        return Indexed(specs, policy)
    return Scored(whole, chosen, random.Random(f"ties {seed}"))


class Scored:
    """Any policy, any resources: scores by distinct demand, brought up to date from a list of changed nodes."""

    def __init__(self, nodes: list[Node], policy: Policy, ties: random.Random) -> None:
        self._nodes = nodes
        self._policy = policy
        self._ties = ties
        self._changed: list[int] = []
        self._scores: dict[Demand, tuple[list[float], list[int]]] = {}

    def nodes(self) -> list[Node]:
        """Return the nodes with what they have free."""
        return self._nodes

    def place(self, demand: Demand) -> Place | None:
        """Take a demand where the policy says; None when it fits nowhere."""
        scores = self._scores_of(demand)
        best = max(scores, default=-inf)
        if best == -inf:
            return None
        if self._policy.drawn:
            number = self._ties.choice([number for number, score in enumerate(scores) if score == best])
        else:
            number = scores.index(best)
        devices = self._policy.devices(self._nodes[number], demand)
        self._nodes[number].take(demand, devices)
        self._note(number)
        return number, devices

    def leave(self, demand: Demand, place: Place) -> None:
        """Give back what was placed."""
        number, devices = place
        self._nodes[number].give_back(demand, devices)
        self._note(number)

    def close(self, number: int) -> None:
        """A node that nothing is placed on is down: offer nothing of it."""
        self._nodes[number].take(self._whole(number), ())
        self._note(number)

    def open(self, number: int) -> None:
        """It is up again, and empty."""
        self._nodes[number].give_back(self._whole(number), ())
        self._note(number)

    def _whole(self, number: int) -> Demand:
        # One more than it has, so that not even a task that asks for nothing fits.
        spec = self._nodes[number].spec
        return Demand(spec.cpu_milli + 1, spec.memory_mib + 1)

    def _note(self, number: int) -> None:
        self._changed.append(number)
        if len(self._changed) > CHANGES_KEPT:
            # Scores not asked for in so long are cheaper to work out anew.
            self._changed.clear()
            self._scores.clear()

    def _scores_of(self, demand: Demand) -> list[float]:
        known = self._scores.get(demand)
        if known is None:
            scores = [self._score(node, demand) for node in self._nodes]
            self._scores[demand] = (scores, [len(self._changed)])
            return scores
        scores, seen = known
        for number in set(self._changed[seen[0] :]):
            scores[number] = self._score(self._nodes[number], demand)
        seen[0] = len(self._changed)
        return scores

    def _score(self, node: Node, demand: Demand) -> float:
        return self._policy.score(node, demand) if node.fits(demand) else -inf


class Indexed:
    """CPU and memory only; the mean share of a node's own CPU and memory left over decides, as with the agents."""

    def __init__(self, specs: Sequence[NodeSpec], policy: str) -> None:
        self._specs = specs
        self._index = FreeIndex()
        self._find = self._index.best_fit if policy == "best-fit" else self._index.spread
        for number, spec in enumerate(specs):
            self._index.add(number, max(1, spec.cpu_milli), max(1, spec.memory_mib))

    def nodes(self) -> list[Node]:
        """Return the nodes with what they have free."""
        nodes = [Node(spec) for spec in self._specs]
        for number, node in enumerate(nodes):
            cpu, memory = self._index.free(number)
            node.cpu_milli, node.memory_mib = min(cpu, node.spec.cpu_milli), min(memory, node.spec.memory_mib)
        return nodes

    def place(self, demand: Demand) -> Place | None:
        """Take a demand where the policy says; None when it fits nowhere."""
        found = self._find(demand.cpu_milli, demand.memory_mib) if not demand.gpus else None
        if found is None:
            return None
        self._index.change(found.node, -demand.cpu_milli, -demand.memory_mib)
        return found.node, []

    def leave(self, demand: Demand, place: Place) -> None:
        """Give back what was placed."""
        self._index.change(place[0], demand.cpu_milli, demand.memory_mib)

    def close(self, number: int) -> None:
        """A node that nothing is placed on is down: offer nothing of it."""
        cpu, memory = self._index.free(number)
        self._index.change(number, -cpu, -memory)

    def open(self, number: int) -> None:
        """It is up again, and empty."""
        spec = self._specs[number]
        self._index.change(number, max(1, spec.cpu_milli), max(1, spec.memory_mib))
