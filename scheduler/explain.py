"""Why does a job wait, or where and why does it run? A pure reading of a job and this node's view of the cluster.

No pending task without a reason: what is short by how much and on how many nodes, which constraint excludes how many,
which nodes take nothing, and whose turn it is.
"""

from __future__ import annotations

from itertools import islice
from math import inf

import msgspec

from scheduler.abilities import requirements
from scheduler.condition import ORDINARY, said
from scheduler.evenness import Evenness
from scheduler.jobs import Block, Job
from scheduler.model import State
from scheduler.survey import NOTHING, Short, Survey, Surveys

TASKS_SHOWN = 100
_MIB = 1 << 20
_GIB = 1 << 30


class Placed(msgspec.Struct, frozen=True):
    """Where a task is, and why there."""

    index: int
    node: str
    state: State
    reason: str


class Explanation(msgspec.Struct, frozen=True):
    """`summary` is one line for people; the rest are its parts. Counts are of nodes, unless they say tasks.

    `blocks` keep the whole job out of the line. `position` is its place in the leader's line (0: next), -1 when not
    known or not in line. `start_in_s`: when its reservation begins, None without one. `making_room`: on how many nodes
    lower tiers give way to it.
    """

    job: int
    state: State
    summary: str
    pending_tasks: int
    nodes: int
    fitting: int
    short: tuple[Short, ...] = ()
    constraints: tuple[tuple[str, int], ...] = ()
    not_accepting: int = 0
    unreachable: int = 0
    leader: str = ""
    position: int = -1
    waiting: int = 0
    placed: tuple[Placed, ...] = ()
    blocks: tuple[Block, ...] = ()
    quota: str = ""
    making_room: int = 0
    start_in_s: float | None = None


def explain(job: Job, surveys: Surveys, position: int, waiting: int, now: float = inf) -> Explanation:
    """Explain one job of this home."""
    view = surveys.view
    own = Evenness(job, view).rules() if job.spec.placement.one_by_one else ()
    survey = NOTHING if job.finished else surveys.of(job.spec.request, (*requirements(job.spec), *own))
    unfinished = list(islice(job.live, TASKS_SHOWN))
    placed = tuple(_placed(job, index) for index in unfinished)
    pending = job.waiting
    in_line = pending > 0 and job.wanted > 0 and not job.blocks
    return Explanation(
        job=job.id,
        state=job.state,
        summary=_summary(job, survey, pending, position, waiting, view.leader),
        pending_tasks=pending,
        nodes=survey.nodes,
        fitting=survey.fitting,
        short=survey.shorts(),
        constraints=tuple(sorted(survey.excluded.items())),
        not_accepting=survey.not_accepting,
        unreachable=survey.unreachable,
        blocks=job.blocks if pending else (),
        quota=job.told.quota if pending else "",
        leader=view.leader,
        position=position,
        waiting=waiting,
        placed=placed,
        making_room=job.told.making_room if in_line else 0,
        start_in_s=max(0.0, job.told.start_s - now) if in_line and job.told.start_s < inf else None,
    )


def _placed(job: Job, index: int) -> Placed:
    record, doing = job.tasks[index], said(job.conditions.get(index, ORDINARY))
    return Placed(index, record.node, record.state, f"{record.reason}; {doing}" if doing else record.reason)


def amount(dimension: str, value: int) -> str:
    """Write an amount with its unit."""
    if dimension == "cpu":
        return f"{value}m"
    if dimension != "memory":
        return str(value)
    return f"{value / _MIB:.0f}M" if value < _GIB else f"{value / _GIB:.4g}G"


def _summary(job: Job, survey: Survey, pending: int, position: int, waiting: int, leader: str) -> str:
    if job.finished:
        return f"the job has ended: {job.state.value}{_worst(job)}"
    if pending == 0:
        where = sorted({job.tasks[index].node for index in islice(job.live, TASKS_SHOWN)})
        return f"every task has its place, on {', '.join(where)}{_frozen(job)}" if where else "every task has ended"
    causes = [each.text for each in job.blocks] or [*_causes(job, survey), *_turn(position, waiting, leader)]
    return f"{pending} task{'s' * (pending != 1)} waiting: {'; '.join(causes)}"


def _frozen(job: Job) -> str:
    """Say how many have to stand still for higher tiers, and for whom one of them does."""
    found = [each for each in job.conditions.values() if each.frozen_for is not None]
    return f"; {len(found)} of them can't run now: {said(found[0])}" if found else ""


def _worst(job: Job) -> str:
    """Name the first task that did not succeed, and why."""
    bad = ((index, record) for index, record in job.tasks.items() if record.state in (State.FAILED, State.LOST))
    index, record = next(bad, (0, None))
    return f"; task {index} on {record.node}: {record.reason}" if record is not None else ""


def _causes(job: Job, survey: Survey) -> list[str]:
    causes = [
        f"{each.dimension} is short on {each.nodes} of {survey.nodes} nodes (asks {amount(each.dimension, each.need)}, "
        f"at best {amount(each.dimension, max(0, each.most_free))} free)"
        + (f", {each.never} of them could never take it" if each.never else "")
        for each in survey.shorts()
    ]
    causes += [f"{_nodes(count)} excluded: {text}" for text, count in sorted(survey.excluded.items())]
    if survey.not_accepting:
        causes.append(f"{_nodes(survey.not_accepting)} cordoned or with a full disk")
    if survey.unreachable:
        causes.append(f"{_nodes(survey.unreachable)} not in reach")
    throttle = job.spec.array.throttle if job.spec.array else 0
    if job.told.quota:
        kind, _, name = job.told.quota.partition("/")
        causes.append(f"nothing is left of the limit of {kind} {name}")
    if job.told.making_room:
        causes.append(f"room is being made for it on {_nodes(job.told.making_room)}, by preempting lower tiers")
    if throttle and len(job.live) >= throttle:
        causes.append(f"the array's throttle lets {throttle} tasks run at once")
    elif job.one_by_one and job.wanted == 0:
        causes.append(f"each for the task of the same index of job {_corresponding(job)}")
    elif job.wanted == 0:
        causes.append("a pause before the next attempt")
    elif survey.fitting:
        causes.append(f"room on {_nodes(survey.fitting)} now")
    return causes


def _corresponding(job: Job) -> int:
    dependency = job.spec.queueing.corresponding
    return dependency.job if dependency is not None else 0


def _nodes(count: int) -> str:
    return f"{count} node{'s' * (count != 1)}"


def _turn(position: int, waiting: int, leader: str) -> list[str]:
    if position >= 0:
        return [f"place {position + 1} of {max(waiting, position + 1)} in the line kept by {leader}"]
    return [f"the line is kept by {leader}"]
