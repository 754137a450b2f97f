"""Submissions by the names their clients gave them: who asks again gets the first one's id.

A key is kept with its job, so it is durable with it, and bounded by what a home remembers of jobs.
"""

from __future__ import annotations

from scheduler.errors import NotPossible
from scheduler.events import Submit
from scheduler.jobs import Job


class Submissions:
    """Jobs of one home by (owner, key)."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[str, str], Job] = {}

    def known(self, event: Submit) -> int | None:
        """Return the id of an earlier submission of this key; NotPossible when that was of something else."""
        job = self._jobs.get((event.owner, event.key)) if event.key else None
        if job is None:
            return None
        if (job.spec.argv, job.spec.name, job.spec.array) != (event.spec.argv, event.spec.name, event.spec.array):
            raise NotPossible(f"the key {event.key!r} was given to another submission, that of job {job.id}")
        return job.id

    def remember(self, job: Job) -> None:
        """A job is known from now on."""
        if job.record.key:
            self._jobs[job.record.owner, job.record.key] = job

    def forget(self, job: Job) -> None:
        """A job is dropped."""
        self._jobs.pop((job.record.owner, job.record.key), None)
