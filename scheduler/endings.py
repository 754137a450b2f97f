"""What becomes of a task whose attempt ended, could not be run, or was lost with its node.

The rules of restarts, retries and losses, one place for all: what a job says (`kind`, `attempts_max`, `on_lost`,
`life`) decides. Owns no task: steps and waiting are the home's (dispatch.py), gangs end as a whole (gangs.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.gangs import Gangs
from scheduler.jobs import Job
from scheduler.leases import LeasesGiven
from scheduler.lifecycle import Step
from scheduler.model import AllocationId, JobKind, JobSpec, OnLost, Result
from scheduler.outcomes import describe, ran_s

Wait = Callable[[Effects, Job, int, float], None]


class Stepper(Protocol):
    """Takes a task one step along the table."""

    def __call__(
        self, fx: Effects, job: Job, index: int, step: Step, *, reason: str = "", result: Result | None = None
    ) -> None:
        """Raises IllegalTransition where the table has no such step."""


class Endings:
    """Of one home."""

    def __init__(self, config: SchedulerConfig, gangs: Gangs, leases: LeasesGiven, step: Stepper, wait: Wait) -> None:
        self._config = config
        self._gangs = gangs
        self._leases = leases
        self._step = step
        self._wait = wait

    def conclude(self, fx: Effects, job: Job, index: int, result: Result) -> None:
        """The newest attempt ended by itself (or could not be run), or was ended to run again elsewhere or later."""
        leaving = job.tasks[index].leaving
        # Programs that end in order when they are told to stop say 0, too, and have not done their work.
        if leaving and (result.stopped or not result.success):
            self.lose(fx, job, index, leaving, ended=True)
        elif job.spec.gang is not None:
            self._gangs.ended(fx, job, index, result, self._may_retry(job, index))
        elif job.spec.kind is JobKind.SERVICE and _goes_on(job.spec, result):
            self._again_after(fx, job, index, describe(result), ran_s(result) >= self._config.service_stable_s)
        elif _is_batch(job) if result.unhealthy else result.error is not None and result.exit_code is None:
            self._unrunnable(fx, job, index, result)
        elif result.success:
            self._step(fx, job, index, Step.SUCCEED, result=result)
        else:
            self._step(fx, job, index, Step.FAIL, reason=describe(result), result=result)

    def _unrunnable(self, fx: Effects, job: Job, index: int, result: Result) -> None:
        """It never ran, its end was not seen, or it was ended as unhealthy: try again while the job allows."""
        if self._may_retry(job, index):
            self._again_after(fx, job, index, describe(result), False)
        else:
            self._step(fx, job, index, Step.FAIL, reason=describe(result), result=result)

    def lose(self, fx: Effects, job: Job, index: int, reason: str, *, ended: bool = False) -> None:
        """The newest attempt is lost with its node: a new one, or the end, as the job says."""
        if not ended and job.spec.on_lost is OnLost.SINGLE and self._must_wait(fx, job, index, reason):
            return
        if job.spec.gang is not None:
            self._gangs.lost(fx, job, index, reason, self._may_retry(job, index))
        elif self._may_retry(job, index):
            self._step(fx, job, index, Step.RETRY, reason=reason)
            self._wait(fx, job, index, 0.0)
        else:
            self._step(fx, job, index, Step.LOSE, reason=reason)

    def _must_wait(self, fx: Effects, job: Job, index: int, reason: str) -> bool:
        """Whether the lost attempt of a single job may still run: then the next one waits until it surely does not."""
        record = job.tasks[index]
        id_ = AllocationId(job.id, index, record.attempt)
        if not self._leases.give_up(fx.now, id_, job.spec.stop_grace_s):
            return False
        job.put(index, msgspec.structs.replace(record, reason=reason))
        return True

    def _may_retry(self, job: Job, index: int) -> bool:
        record = job.tasks[index]
        if job.spec.kind is JobKind.SERVICE or record.again:
            return True
        left = bool(record.leaving) or record.tries + 1 < job.spec.attempts_max
        return job.spec.on_lost is not OnLost.FAIL and left

    def _again_after(self, fx: Effects, job: Job, index: int, reason: str, stable: bool) -> None:
        tries = 0 if stable else min(job.tasks[index].tries, 30)
        pause_s = job.spec.life.pause_s(tries, self._config.restart_s, self._config.restart_max_s)
        self._step(fx, job, index, Step.RETRY, reason=reason)
        self._wait(fx, job, index, pause_s)


def _is_batch(job: Job) -> bool:
    return job.spec.kind is JobKind.BATCH


def _goes_on(spec: JobSpec, result: Result) -> bool:
    """Whether a service is started again; what never ran has not had its chance yet."""
    never_ran = result.exit_code is None and not result.unhealthy
    return never_ran or spec.life.goes_on(result.success)
