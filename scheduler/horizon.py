"""When what is taken comes free again, on every node, by the estimates; in the clock of the node that looks.

Owns how other nodes' clocks lie to ours: the least delayed of a node's reports tells best, and an old answer is
measured anew, for clocks drift. What nodes report and what is still in flight count alike: an order on its way that is
missing here would leave the head of the queue without a reservation. Knows no jobs and no queue.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from scheduler.fit import fits
from scheduler.index import ClusterView, Node
from scheduler.model import Report, Resources

MEASURE_AGAIN_S = 600.0


class _Clock(NamedTuple):
    """Our clock less the node's, as a report of that life of the node showed it at `measured_s`."""

    boot_epoch: int
    offset_s: float
    measured_s: float


class Horizon:
    """The expected releases of all nodes of a view."""

    def __init__(self, view: ClusterView) -> None:
        self._view = view
        self._clocks: dict[str, _Clock] = {}

    def heard(self, now: float, report: Report, *, pushed: bool) -> None:
        """A report came in: straight from its node (`pushed`), or by gossip, which may have had it for seconds."""
        offset_s = now - report.clock_ms / 1000
        known = self._clocks.get(report.node)
        if (
            known is None
            or known.boot_epoch != report.boot_epoch
            or offset_s < known.offset_s
            or (pushed and now > known.measured_s + MEASURE_AGAIN_S)
        ):
            self._clocks[report.node] = _Clock(report.boot_epoch, offset_s, now)

    def forget(self, node: str) -> None:
        """The node is forgotten."""
        self._clocks.pop(node, None)

    def releases(self, node: Node) -> list[tuple[float, Resources]]:
        """Return what is expected to come free on a node, in order of time; what never does is left out."""
        found = [each for each in node.in_flight.values() if each[0] < inf]
        if node.report is not None and node.report.ends:
            offset_s = self._offset_s(node.report)
            found += [(end.at_ms / 1000 + offset_s, end.amount) for end in node.report.ends]
        found.sort(key=lambda release: release[0])
        return found

    def free_from_s(self, node: Node, amount: Resources) -> float:
        """Return when a node is expected to have so much free: -infinity now, infinity never. Costs O(its releases)."""
        if fits(amount, node.free):
            return -inf
        if not fits(amount, node.permitted):
            return inf
        free = node.free
        for time_s, released in self.releases(node):
            free = free + released
            if fits(amount, free):
                return time_s
        return inf

    def _offset_s(self, report: Report) -> float:
        if report.node == self._view.me:
            return 0.0
        clock = self._clocks.get(report.node)
        return clock.offset_s if clock is not None else 0.0
