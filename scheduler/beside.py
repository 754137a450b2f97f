"""Places under rules that change with what runs: near, apart, evenly; and under wishes that may be left.

The engine's rosters are for what a node is; what it runs at the moment is tested node by node, on those that the engine
proposes. Wishes are rules first; when no node obeys them all, the last is left, then the one before it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Protocol

from scheduler.company import RUNS, counts_itself, met
from scheduler.finder import NONE, Candidate, Finder
from scheduler.fit import fits, unmet
from scheduler.model import Constraint, Resources


class Known(Protocol):
    """The nodes by name."""

    def get(self, name: str, /) -> Candidate | None: ...


class Unfit:
    """The nodes that break a rule, or have no room for one task more than those `placed`."""

    def __init__(
        self,
        nodes: Known,
        request: Resources,
        rules: tuple[Constraint, ...],
        avoid: Container[str] = NONE,
        placed: Mapping[str, int] | None = None,
    ) -> None:
        self._nodes = nodes
        self._request = request
        self._counted = tuple(each for each in rules if counts_itself(each))
        self._rules = tuple(each for each in rules if not counts_itself(each))
        self._avoid = avoid
        self._placed = placed or {}

    def __contains__(self, name: object) -> bool:
        assert isinstance(name, str)
        node = self._nodes.get(name)
        if node is None or name in self._avoid or unmet(self._rules, node.labels) is not None:
            return True
        if not self._counted:
            return False
        more, runs = self._placed.get(name, 0), node.labels.get(RUNS, "")
        if more and not fits(self._request * (more + 1), node.free):
            return True
        return not all(met(each, runs, more) for each in self._counted)


def lasting(constraints: tuple[Constraint, ...]) -> tuple[Constraint, ...]:
    """Return those that say what a node has to be, whatever it runs."""
    return tuple(each for each in constraints if not each.soft and not each.operator.passing)


def beside(
    finder: Finder,
    nodes: Known,
    request: Resources,
    constraints: tuple[Constraint, ...],
    count: int,
    seed: int,
    images: tuple[bytes, ...],
) -> dict[str, int]:
    """Choose nodes for up to `count` equal tasks, as Finder.place does, under all kinds of rules."""
    firm = lasting(constraints)
    rules = tuple(each for each in constraints if each.operator.passing and not each.soft)
    wishes = [_firm(each) for each in constraints if each.soft]
    places: dict[str, int] = {}
    while True:
        # Where an earlier round placed, nothing fits any more, or no more is allowed.
        avoid = frozenset(places)
        found = _under(finder, nodes, request, (firm, (*rules, *wishes)), count, seed, images, avoid)
        places |= found
        count -= sum(found.values())
        if not wishes or count <= 0:
            return places
        wishes.pop()


def _under(
    finder: Finder,
    nodes: Known,
    request: Resources,
    constraints: tuple[tuple[Constraint, ...], tuple[Constraint, ...]],
    count: int,
    seed: int,
    images: tuple[bytes, ...],
    avoid: Container[str],
) -> dict[str, int]:
    """Where tasks count against a rule themselves, each node gets one in a round, and rounds follow while one can."""
    firm, rules = constraints
    if not any(counts_itself(each) for each in rules):
        return finder.place(request, firm, count, seed, images, avoid=Unfit(nodes, request, rules, avoid))
    places: dict[str, int] = {}
    while count > 0:
        unfit = Unfit(nodes, request, rules, avoid, places)
        found = finder.place(request, firm, count, seed, images, per_node=1, avoid=unfit)
        if not found:
            break
        for name in found:
            places[name] = places.get(name, 0) + 1
        count -= len(found)
    return places


def _firm(constraint: Constraint) -> Constraint:
    return Constraint(constraint.label, constraint.operator, constraint.values)
