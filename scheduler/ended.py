"""Tasks that have ended and that their home still remembers: its history, page by page, for accounts and for replays.

Pure reading. A task has one line, of its last attempt; what earlier attempts used is in the counters (usage.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from scheduler.jobs import Job
from scheduler.lifecycle import FINAL, phase_of
from scheduler.model import Result

TASKS_PER_PAGE_MAX = 10_000
NEVER_RAN = Result()


class EndedTask(msgspec.Struct, frozen=True, kw_only=True):
    """What a task asked for and what became of it; times are 0 where it never ran. `gang`: of so many tasks, or 0."""

    job: int
    index: int
    name: str
    owner: str
    account: str
    kind: str
    state: str
    node: str
    attempt: int
    exit_code: int | None
    submitted_unix_s: float
    started_unix_s: float
    ended_unix_s: float
    time_limit_s: float | None
    cpu_milli: int
    memory_bytes: int
    gang: int
    cpu_ns: int
    memory_peak_bytes: int


class EndedPage(msgspec.Struct, frozen=True):
    """Ended tasks by job and index; `next` is after which (job, index) the following page begins, None at the end."""

    node: str
    tasks: tuple[EndedTask, ...]
    next: tuple[int, int] | None


def ended_tasks(
    jobs: Mapping[int, Job], owner: str | None, after: tuple[int, int], count: int
) -> tuple[tuple[EndedTask, ...], tuple[int, int] | None]:
    """Return at most `count` tasks after that (job, index), of one owner or of all, and where the next page begins."""
    found: list[EndedTask] = []
    for job_id in sorted(job_id for job_id in jobs if job_id >= after[0]):
        job = jobs[job_id]
        if owner not in (None, job.record.owner):
            continue
        for index in _indices(job, after[1] if job_id == after[0] else -1):
            if len(found) == count:
                return tuple(found), (found[-1].job, found[-1].index)
            found.append(_line(job, index))
    return tuple(found), None


def _indices(job: Job, after: int) -> Iterator[int]:
    return (i for i in job.spec.indices() if i > after and i in job.tasks and phase_of(job.tasks[i]) in FINAL)


def _line(job: Job, index: int) -> EndedTask:
    record, spec, task = job.record, job.spec, job.tasks[index]
    result = task.result or NEVER_RAN
    return EndedTask(
        job=job.id,
        index=index,
        name=spec.name,
        owner=record.owner,
        account=spec.queueing.account,
        kind=spec.kind.value,
        state=task.state.value,
        node=task.node,
        attempt=task.attempt,
        exit_code=result.exit_code,
        submitted_unix_s=record.submitted_unix_s,
        started_unix_s=result.started_unix_s,
        ended_unix_s=result.ended_unix_s,
        time_limit_s=spec.time_limit_s,
        cpu_milli=spec.request.cpu_milli,
        memory_bytes=spec.request.memory_bytes,
        gang=spec.gang.size if spec.gang is not None else 0,
        cpu_ns=result.cpu_ns,
        memory_peak_bytes=result.memory_peak_bytes,
    )
