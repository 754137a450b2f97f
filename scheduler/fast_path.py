"""The fast path: while nobody waits a home places its jobs at once, by its own view of the cluster.

Optimistic, as in Omega (Schwarzkopf and others, EuroSys 2013): nodes decide, and what one refuses goes to the leader.
May not know: how an attempt is written down and asked for (`dispatch.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

from scheduler.choice import RUNNERS_UP, by_policy
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.evenness import Evenness
from scheduler.gangs import Gangs
from scheduler.images import wanted
from scheduler.index import ClusterView
from scheduler.jobs import Job
from scheduler.lineup import Lineup
from scheduler.messages import BATCH_MAX
from scheduler.model import AllocationId, Constraint
from scheduler.quotas import QuotasTold
from scheduler.rules import Rules

Ask = Callable[[Effects, Job, str, str], AllocationId]
"""Ask a node for a job's next task, for a reason that people read."""


class FastPath:
    """Of one home."""

    def __init__(
        self,
        config: SchedulerConfig,
        view: ClusterView,
        rules: Rules,
        lineup: Lineup,
        quotas: QuotasTold,
        gangs: Gangs,
        ask: Ask,
    ) -> None:
        self._config = config
        self._view = view
        self._rules = rules
        self._lineup = lineup
        self._quotas = quotas
        self._gangs = gangs
        self._ask = ask
        self._contended_until_s = -inf

    def open(self, now: float) -> bool:
        """Whether to place by our own view: nobody waits, and it was not too old just now."""
        return now >= self._contended_until_s and not self._lineup.busy()

    def refused(self, now: float) -> None:
        """A node did not take what our view said that it would: for a while the leader places."""
        self._contended_until_s = now + self._config.contended_s

    def place(self, fx: Effects, job: Job) -> None:
        """Ask nodes for as many of the job's tasks as find a place by our own view."""
        count = min(job.wanted, BATCH_MAX)
        if not count:
            return
        if job.spec.gang is not None:
            self._gangs.place_now(fx, job)
            return
        images = wanted(job.spec.image_digest)
        if self._quotas.draws(job):
            return
        required = self._rules.constraints(job.spec, fx.now)
        if job.spec.placement.one_by_one:
            self._place_evenly(fx, job, required, count, images)
            return
        places = self._view.place(job.spec.request, required, count, job.id, images)
        why = self._why(job, required, places, images) if count == 1 and places else ""
        for node, times in places.items():
            for _ in range(times):
                self._ask(fx, job, node, f"placed on {node} by its home{why}")

    def place_at(self, fx: Effects, job: Job, node: str) -> None:
        """Ask one node for a task, unless there are others to be asked first."""
        alone = not job.spec.placement.one_by_one and not self._quotas.draws(job)
        if alone and job.wanted and not job.told.wanted and self.open(fx.now):
            self._ask(fx, job, node, f"placed on {node} by its home")

    def _why(
        self, job: Job, required: tuple[Constraint, ...], places: Mapping[str, int], images: tuple[bytes, ...]
    ) -> str:
        """Say what spoke for the node of a single task, and which were the next best."""
        others = self._view.best(job.spec.request, required, job.id, images, count=RUNNERS_UP, avoid=frozenset(places))
        return by_policy(self._config.policy, others)

    def _place_evenly(
        self, fx: Effects, job: Job, required: tuple[Constraint, ...], count: int, images: tuple[bytes, ...]
    ) -> None:
        """One by one: where a task may go depends on where the job's others are."""
        evenness = Evenness(job, self._view)
        for _ in range(count):
            places = self._view.place(job.spec.request, (*required, *evenness.rules()), 1, job.id, images)
            for node in places:
                self._ask(fx, job, node, f"placed on {node} by its home")
                evenness.add(node)
            if not places:
                return
