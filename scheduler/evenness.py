"""Where a job's own tasks are, for rules that count them: at most so many on a node, as many under each rack.

A job's home knows all its live tasks, so its answer is exact, however old its view of the nodes is. The leader is told
the rules as constraints and may see too late what it ordered; then the home declines what would break one.
"""

from __future__ import annotations

from collections import Counter

from scheduler.abilities import requirements
from scheduler.company import rules
from scheduler.index import ClusterView
from scheduler.jobs import Job
from scheduler.model import Constraint, Operator


class Evenness:
    """A job's live tasks, by node and by the value of the label they are to be spread over."""

    def __init__(self, job: Job, view: ClusterView) -> None:
        self._view = view
        self._placement = placement = job.spec.placement
        self._label = placement.spread or placement.prefer_spread
        self._on = Counter(job.tasks[index].node for index in job.live)
        self._own = tuple(each for each in rules(job.spec, job.id) if each not in rules(job.spec))
        self._under: dict[str, int] = {}
        if self._label:
            self._under = dict.fromkeys(view.values(self._label, job.spec.request, requirements(job.spec)), 0)
            for node, count in self._on.items():
                self._count(node, count)

    def add(self, node: str) -> None:
        """One more task is bound to this node."""
        self._on[node] += 1
        self._count(node, 1)

    def _count(self, node: str, count: int) -> None:
        value = self._value(node)
        if value in self._under:
            self._under[value] += count

    def _value(self, node: str) -> str:
        known = self._view.get(node)
        return known.labels.get(self._label, "") if known is not None else ""

    def rules(self) -> tuple[Constraint, ...]:
        """Return what the next task's node must be, besides the spec's own requirements."""
        if not self._label:
            return self._own
        least = min(self._under.values(), default=0)
        values = tuple(value for value, count in self._under.items() if count == least)
        soft = not self._placement.spread
        return (*self._own, Constraint(self._label, Operator.EVEN, values, soft))

    def room(self, node: str, count: int) -> int:
        """Return how many of so many more tasks the hard rules allow on a node."""
        placement = self._placement
        if placement.per_node:
            count = min(count, placement.per_node - self._on[node])
        if placement.spread:
            under = self._under.get(self._value(node))
            count = min(count, min(self._under.values()) + 1 - under) if under is not None else 0
        return max(0, count)
