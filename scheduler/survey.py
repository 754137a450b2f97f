"""What keeps nodes from taking a task: counted over all nodes, and remembered for those who ask again.

People poll, and a look at ten thousand nodes takes tens of milliseconds. So an answer is given again until one node in
a hundred has changed: in a small cluster it is always exact.
"""

from __future__ import annotations

import msgspec

from scheduler.abilities import describe
from scheduler.fit import Shortage, shortages, unmet
from scheduler.index import ClusterView, Node
from scheduler.model import Constraint, Resources

REMEMBERED_MAX = 1000
STALE_SHARE = 100


class Short(msgspec.Struct, frozen=True):
    """A dimension that is short: on `nodes` nodes; at best `most_free` is free, where `need` is asked for.

    `never` counts those of them that could not take one task even when empty.
    """

    dimension: str
    need: int
    most_free: int
    nodes: int
    never: int


class Survey:
    """Looks at every node once and sorts it by the first thing that keeps it from taking a task."""

    def __init__(self, request: Resources, constraints: tuple[Constraint, ...]) -> None:
        self._request = request
        self._constraints = constraints
        self._short: dict[str, list[tuple[Shortage, bool]]] = {}
        self.nodes = self.fitting = self.not_accepting = self.unreachable = 0
        self.excluded: dict[str, int] = {}

    def look(self, node: Node) -> None:
        self.nodes += 1
        if not node.alive or node.report is None:
            self.unreachable += 1
        elif not node.report.accepting:
            self.not_accepting += 1
        elif (constraint := unmet(self._constraints, node.labels)) is not None:
            text = describe(constraint)
            self.excluded[text] = self.excluded.get(text, 0) + 1
        else:
            short = list(shortages(self._request, node.free))
            self.fitting += not short
            for each in short:
                never = each.need > node.permitted.get(each.dimension)
                self._short.setdefault(each.dimension, []).append((each, never))

    def shorts(self) -> tuple[Short, ...]:
        return tuple(
            Short(
                dimension,
                found[0][0].need,
                max(short.free for short, _ in found),
                len(found),
                sum(never for _, never in found),
            )
            for dimension, found in self._short.items()
        )


NOTHING = Survey(Resources(), ())


class Surveys:
    """Surveys by what is asked for."""

    def __init__(self, view: ClusterView) -> None:
        self.view = view
        self._known: dict[tuple[Resources, tuple[Constraint, ...]], tuple[int, int, Survey]] = {}

    def of(self, request: Resources, constraints: tuple[Constraint, ...]) -> Survey:
        """Return what keeps nodes from taking such a task."""
        key = (request, constraints)
        known = self._known.get(key)
        if known is not None:
            shape, changes, survey = known
            if shape == self.view.shape and self.view.changes - changes <= survey.nodes // STALE_SHARE:
                return survey
        survey = Survey(request, constraints)
        for node in self.view.nodes():
            survey.look(node)
        if len(self._known) >= REMEMBERED_MAX:
            self._known.clear()
        self._known[key] = (self.view.shape, self.view.changes, survey)
        return survey
