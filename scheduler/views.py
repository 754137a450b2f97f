"""What users see of jobs and nodes: read-only structs whose JSON is the contract of API and command line."""

from __future__ import annotations

from itertools import islice

import msgspec

from scheduler.condition import ORDINARY, Condition, HealthState, Stood, said, said_of
from scheduler.index import Membership
from scheduler.jobs import Job
from scheduler.lifecycle import Phase, phase_of
from scheduler.model import NOWHERE, JobSpec, Reach, Report, Result, State, TaskRecord


class TaskView(msgspec.Struct, frozen=True):
    """One task, as users see it."""

    index: int
    state: State
    node: str
    attempt: int
    exit_code: int | None
    reason: str
    result: Result | None = None
    reach: Reach = NOWHERE
    condition: Condition = ORDINARY

    @property
    def stood(self) -> Stood:
        """How often and how long its newest attempt stood still for higher tiers, without what goes on now."""
        return (self.result.stood if self.result is not None else self.condition.stood) or Stood()


class JobSummary(msgspec.Struct, frozen=True):
    """One line of a list of jobs; `counts` has the number of tasks in each state, `frozen` ones are running, too."""

    id: int
    name: str
    home: str
    state: State
    owner: str
    submitted_unix_s: float
    counts: dict[State, int]
    frozen: int = 0
    unhealthy: int = 0


class JobView(msgspec.Struct, frozen=True):
    """A whole job; `tasks` are those asked for, untouched ones of an array filled in."""

    id: int
    name: str
    home: str
    state: State
    owner: str
    submitted_unix_s: float
    counts: dict[State, int]
    spec: JobSpec
    tasks: tuple[TaskView, ...]


class NodeStatus(msgspec.Struct, frozen=True):
    """A node as another one sees it: what gossip says of it, and its newest report (None before the first)."""

    name: str
    number: int
    state: Membership
    report: Report | None


class WaitingView(msgspec.Struct, frozen=True):
    """A job in the leader's line; `position` 0 is next, -1 is set aside or has all its orders on their way.

    `quota`: the one that has no room for it, and so it is aside. `start_in_s`: when its reservation begins,
    None without one. `making_room`: on how many nodes lower tiers give way to it.
    """

    job: int
    home: str
    wanted: int
    priority: int
    position: int
    owner: str = ""
    account: str = ""
    waiting_s: float = 0.0
    quota: str = ""
    start_in_s: float | None = None
    making_room: int = 0


def summary(job: Job, home: str) -> JobSummary:
    """Return one line on a job; costs nothing per task, but for those of which there is something to say."""
    record = job.record
    frozen = sum(each.frozen for each in job.conditions.values())
    unhealthy = sum(each.health is HealthState.UNHEALTHY for each in job.conditions.values())
    return JobSummary(
        record.id,
        record.spec.name,
        home,
        job.state,
        record.owner,
        record.submitted_unix_s,
        job.counts(),
        frozen,
        unhealthy,
    )


def view(job: Job, home: str, pending_reason: str, first: int, count: int | None) -> JobView:
    """Return a job with `count` of its tasks (None: all), beginning with the `first`-th."""
    indices = islice(job.spec.indices(), first, None if count is None else first + count)
    record = job.record
    return JobView(
        id=record.id,
        name=record.spec.name,
        home=home,
        state=job.state,
        owner=record.owner,
        submitted_unix_s=record.submitted_unix_s,
        counts=job.counts(),
        spec=record.spec,
        tasks=tuple(_task(job, index, job.task(index), pending_reason) for index in indices),
    )


def _task(job: Job, index: int, record: TaskRecord, pending_reason: str) -> TaskView:
    state, reason = record.state, record.reason
    if phase_of(record) is Phase.WAITING:
        if job.record.cancelled:
            state, reason = State.CANCELLED, job.record.why_cancelled or "cancelled"
        else:
            reason = f"{reason}; {pending_reason}" if reason else pending_reason
    condition = job.conditions.get(index, ORDINARY)
    if record.result is not None:
        reason = "; ".join(filter(None, (reason, said_of(record.result.stood))))
    reason = said(condition) or reason
    exit_code = record.result.exit_code if record.result else None
    reach = job.reach.get(index, NOWHERE)
    return TaskView(index, state, record.node, record.attempt, exit_code, reason, record.result, reach, condition)
