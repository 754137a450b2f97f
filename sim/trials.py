"""One replay as a planner sees it: parameters in, figures by name out, the same for batch jobs and for tasks on nodes.

Owns how a search or a sweep turns a trace into runs. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sim.nodes import NodeSpec
from sim.overcommitted import ONCE, Ratios, overcommit
from sim.placement import Outcome, Visit, visit
from sim.replay import replay_jobs
from sim.resample import resample_jobs, resample_visits
from sim.results import Summary, summarise
from sim.usage import Usage
from sim.workload import Workload

BATCH_FIGURES = tuple(name for name in Summary._fields if name not in ("policy", "clairvoyant"))
NODE_FIGURES = (
    "pods", "refused", "allocated", "peak_allocated", "cpu_allocated", "memory_allocated", "gpu_allocated",
    "nodes_used",
)  # fmt: skip


class BatchInputs:
    """A batch trace and its resamples; number 0 is the trace."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self._drawn: dict[int, Workload] = {0: workload}

    @property
    def largest(self) -> int:
        """Processors of the largest job."""
        return max(self.workload.needs)

    @property
    def mean_load(self) -> float:
        """Processors that would be busy on the mean, were there enough."""
        times = self.workload.submit_s
        area = sum(map(float.__mul__, map(float, self.workload.run_s), map(float, self.workload.needs)))
        return area / ((times[-1] - times[0]) or 1.0)

    def get(self, number: int) -> Workload:
        """Return an input."""
        if number not in self._drawn:
            self._drawn[number] = resample_jobs(self.workload, number)
        return self._drawn[number]

    def run(self, number: int, processors: int, policy: str, clairvoyant: bool = False) -> dict[str, float]:
        """Return an input's figures on so many processors."""
        summary = summarise(replay_jobs(self.get(number), processors, policy, clairvoyant))
        return {name: getattr(summary, name) for name in BATCH_FIGURES}


class NodeInputs:
    """Tasks that come and go, and their resamples; number 0 is the trace."""

    def __init__(self, visits: Sequence[Visit]) -> None:
        self.visits = visits
        self._drawn: dict[int, Sequence[Visit]] = {0: visits}

    def get(self, number: int) -> Sequence[Visit]:
        """Return an input."""
        if number not in self._drawn:
            self._drawn[number] = resample_visits(self.visits, number)
        return self._drawn[number]

    def run(
        self, number: int, specs: Sequence[NodeSpec], policy: str, ratios: Ratios = ONCE, usage: Usage | None = None
    ) -> Mapping[str, float]:
        """Return an input's figures on these nodes; with a ratio or a use, those of overcommit too."""
        if ratios == ONCE and usage is None:
            return node_figures(visit(specs, self.get(number), policy))
        found = overcommit(specs, self.get(number), policy, ratios, usage)
        return {
            "pods": found.tasks,
            "refused": found.refused / found.tasks if found.tasks else 0.0,
            "allocated": found.cpu_committed,
            "peak_allocated": found.memory_committed_peak,
            "cpu_allocated": found.cpu_committed,
            "memory_allocated": found.memory_committed,
            "gpu_allocated": 0.0,
            "nodes_used": found.nodes_used,
            "oom_kills": found.oom_kills,
            "cpu_short": found.cpu_short,
            "cpu_used": found.cpu_used,
            "memory_used": found.memory_used,
        }


def node_figures(outcome: Outcome) -> dict[str, float]:
    """Return an outcome's figures by name; shares from 0 to 1."""
    return {
        "pods": outcome.pods,
        "refused": outcome.refused / outcome.pods if outcome.pods else 0.0,
        "allocated": outcome.allocated_fraction,
        "peak_allocated": outcome.peak_fraction,
        "cpu_allocated": outcome.allocated.cpu,
        "memory_allocated": outcome.allocated.memory,
        "gpu_allocated": outcome.allocated.gpu,
        "nodes_used": outcome.nodes_used,
    }
