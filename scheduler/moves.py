"""Attempts that are to end here so that another may run elsewhere or later: requeued, evicted, or preempted.

What is moved is stopped first, and marked in the ledger: when its end is heard, it is lined up again and has cost no
try. What becomes of it then is dispatch.py's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from scheduler.attempts import Attempts
from scheduler.effects import Effects
from scheduler.errors import NotPossible
from scheduler.handover import Handovers
from scheduler.jobs import Job
from scheduler.lifecycle import Phase, phase_of
from scheduler.messages import Evict, GiveWay, Keeps
from scheduler.model import AllocationId, JobKind
from scheduler.records import put_task
from scheduler.settings import Settings

Outdated = Callable[[Effects, str, AllocationId], None]


class Moves:
    """Of one home; `outdated` has a node stop what does not count any more."""

    def __init__(
        self,
        jobs: Mapping[int, Job],
        attempts: Attempts,
        handovers: Handovers,
        outdated: Outdated,
        settings: Settings,
    ) -> None:
        self._handovers = handovers
        self._settings = settings
        self._jobs = jobs
        self._attempts = attempts
        self._outdated = outdated
        self.replaced: Callable[[Effects, int], bool] = lambda _fx, _job: False
        """Whether somebody sees to it that another job takes this one's place before it ends."""

    def on_requeue(self, fx: Effects, job: Job) -> None:
        """Stop what runs, and line it up again whatever the job says of losses: its owner wants it so."""
        if not job.live:
            raise NotPossible(f"job {job.id} has {'ended' if job.finished else 'nothing that runs'}")
        self._handovers.end_all(job)
        for index in list(job.live):
            self.requeue(fx, job, index, "requeued by its owner", again=True)

    def requeue(self, fx: Effects, job: Job, index: int, why: str, *, again: bool) -> None:
        """Have a live attempt stopped; another follows its end (if not `again`: as the job says of losses)."""
        record = job.tasks[index]
        if not record.leaving:
            job.put(index, msgspec.structs.replace(record, leaving=why, again=again, reason=why))
            put_task(fx, job.id, index, job.tasks[index])
            self._attempts.stop(record.node, AllocationId(job.id, index, record.attempt))
            fx.job_changed(job.id)

    def on_evict(self, fx: Effects, node: str, evict: Evict) -> None:
        """A node is being drained."""
        for id_ in evict.ids:
            job = self._jobs.get(id_.job)
            if job is None or not job.current(id_, node):
                self._outdated(fx, node, id_)
            elif not self.replaced(fx, job.id) and not self._handovers.begin(fx, job, id_.index, evict.within_s):
                self.requeue(fx, job, id_.index, f"{node} is drained", again=job.spec.kind is JobKind.SERVICE)

    def on_give_way(self, fx: Effects, node: str, item: GiveWay) -> None:
        """Room is wanted for a job of a higher tier: let go what may be, a gang as a whole, as often as is allowed."""
        kept: dict[bool, list[AllocationId]] = {}
        for id_ in item.ids:
            job = self._jobs.get(id_.job)
            if job is None or not job.current(id_, node):
                self._handovers.over(node, id_)
                self._outdated(fx, node, id_)
            elif not job.tasks[id_.index].leaving:
                members = list(job.live) if job.spec.gang is not None else [id_.index]
                often = self._often(job, members)
                if often or self._not_whole(job, members):
                    kept.setdefault(often, []).append(id_)
                    continue
                for index in members:
                    self._preempt(fx, job, index, f"preempted on {node} for job {item.job} (tier {item.tier})")
        for ever, ids in kept.items():
            fx.say(node, Keeps(tuple(ids), ever))

    def _often(self, job: Job, members: list[int]) -> bool:
        """Whether any of these had to leave as often as is allowed."""
        return any(job.tasks[index].preempted >= self._settings.preemption.times_max for index in members)

    @staticmethod
    def _not_whole(job: Job, members: list[int]) -> bool:
        """A gang that is not running whole could not begin anew, or is about to."""
        running = all(phase_of(job.tasks[index]) is Phase.RUNNING for index in members)
        return job.spec.gang is not None and (job.ended_any or not running)

    def _preempt(self, fx: Effects, job: Job, index: int, why: str) -> None:
        record = job.tasks[index]
        if not record.leaving:
            job.put(index, msgspec.structs.replace(record, preempted=record.preempted + 1))
            self.requeue(fx, job, index, why, again=True)
