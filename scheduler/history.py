"""Jobs that have ended: kept for a while, then dropped, so that memory and disk have a bound.

Owns the order in which jobs ended and the rows still to be deleted. A job's own row goes first, its tasks' rows follow
some at a time: a crash in between leaves tasks without a job, which the next start removes, and never a job that looks
as if some of its tasks had never been tried.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.jobs import Job
from scheduler.records import JOBS, delete_task

SWEEP_ROWS = 1000
SWEEP_PAUSE_S = 0.01


class History:
    """Ended jobs, oldest end first."""

    def __init__(self, config: SchedulerConfig, alarms: Alarms) -> None:
        self._config = config
        self._alarms = alarms
        self._ended: dict[int, int] = {}
        self._tasks = 0
        self._doomed: deque[tuple[int, Iterator[int]]] = deque()

    def __len__(self) -> int:
        return len(self._ended)

    def add(self, job: Job) -> list[int]:
        """Take in a job that has ended; return the jobs that are to be dropped for it, oldest first."""
        if job.id in self._ended:
            return []
        self._ended[job.id] = len(job.tasks)
        self._tasks += len(job.tasks)
        surplus = []
        while self._ended and (
            len(self._ended) > self._config.history_jobs or self._tasks > self._config.history_tasks
        ):
            oldest = next(iter(self._ended))
            self._tasks -= self._ended.pop(oldest)
            surplus.append(oldest)
        return surplus

    def drop(self, fx: Effects, job: Job) -> None:
        """Delete a job's row now, and its tasks' rows soon."""
        fx.delete(JOBS, str(job.id))
        self._doomed.append((job.id, iter(job.tasks)))
        self._alarms.set_if_unset(("sweep", None), fx.now)

    def ring_sweep(self, fx: Effects) -> None:
        """Delete some rows of dropped jobs."""
        for _ in range(SWEEP_ROWS):
            if not self._doomed:
                return
            job_id, indices = self._doomed[0]
            index = next(indices, None)
            if index is None:
                self._doomed.popleft()
            else:
                delete_task(fx, job_id, index)
        self._alarms.set(("sweep", None), fx.now + SWEEP_PAUSE_S)
