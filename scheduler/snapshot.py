"""A copy of what one node knows for good: its unfinished jobs as their home, and what it holds as the executing node.

Pure reading, for those who try something on a copy of the cluster. A page is bounded, in jobs and in tasks, and the
next one begins after it. Commands, environments and secrets are left out: nobody who plans needs them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

import msgspec

from scheduler.admission import Admission
from scheduler.config import SchedulerConfig
from scheduler.jobs import Job, ranges
from scheduler.lifecycle import FINAL, phase_of
from scheduler.model import JobRecord, JobSpec, Report, Resources, TaskRecord
from scheduler.settings import AnySetting, Settings
from scheduler.usage import Usage

JOBS_PER_PAGE_MAX = 1_000
TASKS_PER_PAGE_MAX = 10_000
CHARGES_MAX = 1_000


class HeldCopy(msgspec.Struct, frozen=True):
    """An allocation as its node holds it; `ends_in_s` by the time limit, None for what has none to end by."""

    id: str
    home: str
    request: Resources
    ends_in_s: float | None


class JobCopy(msgspec.Struct, frozen=True):
    """A job that has not ended: its tasks that were tried and have not ended, and the others that have, by state.

    `tasks_left_out`: so many live tasks more than a page has room for.
    """

    record: JobRecord
    tasks: tuple[tuple[int, TaskRecord], ...] = ()
    ended: tuple[tuple[str, int, int], ...] = ()
    tasks_left_out: int = 0


class Rules(msgspec.Struct, frozen=True):
    """What decides on this node, and how far it lets itself be overcommitted."""

    policy: str
    near_equal_permille: int
    queue_policy: str
    estimate_s: float
    reservations_max: int
    cpu_ratio_permille: int
    memory_ratio_permille: int


class NodeSnapshot(msgspec.Struct, frozen=True):
    """One page. `report`, `rules`, `settings`, `charges` (core seconds, decayed, by account and user) and `held` are
    on the first; `next` is where the following page begins, None after the last.
    """

    node: str
    unix_s: float
    jobs: tuple[JobCopy, ...] = ()
    next: int | None = None
    report: Report | None = None
    rules: Rules | None = None
    settings: tuple[tuple[str, AnySetting], ...] = ()
    charges: tuple[tuple[str, str, float], ...] = ()
    held: tuple[HeldCopy, ...] = ()
    held_left_out: int = 0


def copy_jobs(node: str, unix_s: float, jobs: Mapping[int, Job], after: int, count: int) -> NodeSnapshot:
    """Return a page of unfinished jobs with ids above `after`, at most `count` of them."""
    copies: list[JobCopy] = []
    tasks = 0
    for job_id in sorted(job_id for job_id, job in jobs.items() if job_id > after and not job.finished):
        if len(copies) >= min(count, JOBS_PER_PAGE_MAX) or tasks >= TASKS_PER_PAGE_MAX:
            return NodeSnapshot(node, unix_s, tuple(copies), copies[-1].record.id)
        copies.append(_copy(jobs[job_id]))
        tasks += len(copies[-1].tasks)
    return NodeSnapshot(node, unix_s, tuple(copies))


def copy_node(
    page: NodeSnapshot, config: SchedulerConfig, admission: Admission, settings: Settings, usage: Usage, now: float
) -> NodeSnapshot:
    """Return the first page: with what the node holds, says of itself and counted."""
    held, left_out = _held(admission, now)
    charges = usage.charges_s(now, settings.ranking.half_life_s)
    most = sorted(((*key, round(charge_s, 3)) for key, charge_s in charges.items()), key=lambda each: -each[2])
    values = sorted((each.name, each.value) for each in settings.entries() if each.value is not None)
    return msgspec.structs.replace(
        page,
        report=admission.reporting.report(),
        rules=Rules(**{name: getattr(config, name) for name in Rules.__struct_fields__}),
        settings=tuple(values),
        charges=tuple(most[:CHARGES_MAX]),
        held=held,
        held_left_out=left_out,
    )


def _held(admission: Admission, now: float) -> tuple[tuple[HeldCopy, ...], int]:
    live = [(id_, each.allocation) for id_, each in admission.held().items() if each.result is None]
    copies = []
    for id_, allocation in live[:TASKS_PER_PAGE_MAX]:
        end_s = admission.reporting.end_of(id_)
        ends_in_s = None if end_s == inf else round(max(0.0, end_s - now), 3)
        copies.append(HeldCopy(str(id_), allocation.home, allocation.spec.request, ends_in_s))
    return tuple(copies), max(0, len(live) - TASKS_PER_PAGE_MAX)


def _copy(job: Job) -> JobCopy:
    record = msgspec.structs.replace(job.record, spec=_without_secrets(job.spec), key="")
    shown = list(job.live)[:TASKS_PER_PAGE_MAX]
    waiting = [i for i, task in job.tasks.items() if i not in job.live and phase_of(task) not in FINAL]
    shown += waiting[: TASKS_PER_PAGE_MAX - len(shown)]
    left_out = len(job.live) + len(waiting) - len(shown)
    tasks = tuple((index, msgspec.structs.replace(job.task(index), result=None)) for index in sorted(shown))
    return JobCopy(record, tasks, tuple(_ended(job.tasks.items())), left_out)


def _ended(tasks: Iterable[tuple[int, TaskRecord]]) -> list[tuple[str, int, int]]:
    by_state: dict[str, list[int]] = {}
    for index, task in tasks:
        if phase_of(task) in FINAL:
            by_state.setdefault(task.state.value, []).append(index)
    return [(state, *pair) for state, indices in sorted(by_state.items()) for pair in ranges(sorted(indices))]


def _without_secrets(spec: JobSpec) -> JobSpec:
    files = msgspec.structs.replace(spec.files, secrets=())
    return msgspec.structs.replace(spec, argv=spec.argv[:1], env=(), files=files)
