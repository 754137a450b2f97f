"""What would become of a job if it were submitted now: where it fits, and when, as far as estimates tell.

Pure reading, with the same rules as for a real submission. The moment is the earliest at which a node is expected to
have room, by the time limits of what runs there; the line before the job, if there is one, can only make it later.
"""

from __future__ import annotations

from math import inf

import msgspec

from scheduler.explain import Explanation
from scheduler.fit import unmet
from scheduler.horizon import Horizon
from scheduler.index import ClusterView
from scheduler.model import Constraint, JobSpec


class Forecast(msgspec.Struct, frozen=True):
    """`places`: where its tasks could be now, {node: how many}. `start_in_s`: 0 now; None when no estimate tells.

    `waiting` jobs are in line before it; `why` explains as it would for the job itself.
    """

    places: dict[str, int]
    start_in_s: float | None
    waiting: int
    why: Explanation


def start_in_s(
    spec: JobSpec, constraints: tuple[Constraint, ...], view: ClusterView, horizon: Horizon, now: float
) -> float | None:
    """Return in how many seconds enough nodes are expected to have room for a task, or for a gang; None for never."""
    amount = spec.request * (spec.gang.tasks_per_node if spec.gang else 1)
    times = sorted(
        horizon.free_from_s(node, amount)
        for node in view.nodes()
        if node.usable and unmet(constraints, node.labels) is None
    )
    needed = spec.gang.nodes if spec.gang else 1
    due_s = times[needed - 1] if len(times) >= needed else inf
    return None if due_s == inf else max(0.0, due_s - now)
