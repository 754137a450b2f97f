"""A site's container moves without a gap: another one is started, takes over when it answers, and only then the old
one ends, after a while for requests that are under way.

Owns the order of these steps; the keeper owns the site. The node that is drained goes on asking until it may stop the
old one, so a successor that fails is followed by the next one at its next question.
"""

from __future__ import annotations

from collections.abc import Callable

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.errors import SchedulerError
from scheduler.events import Submit
from scheduler.model import AllocationId
from scheduler.sites.kept import Jobs, Kept


class Succession:
    """Successors and those they succeeded, of all sites kept here. `by_job` is the keeper's book of jobs."""

    def __init__(
        self,
        config: SchedulerConfig,
        alarms: Alarms,
        jobs: Jobs,
        by_job: dict[int, str],
        unix_s: Callable[[float], float],
    ) -> None:
        self._config = config
        self._alarms = alarms
        self._jobs = jobs
        self._by_job = by_job
        self._unix_s = unix_s

    def begin(self, fx: Effects, kept: Kept) -> None:
        """Start a successor, unless one is on its way."""
        if kept.next_job:
            return
        try:
            wanted = Submit(kept.site.owner, kept.site.container, self._unix_s(fx.now))
            kept.next_job = self._jobs.submit(fx, wanted)
        except SchedulerError as error:
            kept.reason = f"it can't be moved: {error}"
            return
        self._by_job[kept.next_job] = kept.site.key

    def take_over(self, fx: Effects, kept: Kept, id_: AllocationId) -> None:
        """The successor answers: it is the site's container from now on."""
        old, kept.job, kept.attempt, kept.next_job = kept.job, kept.next_job, id_.attempt, 0
        kept.unfreezable = False
        if old:
            self._by_job.pop(old, None)
            kept.retired += (old,)
            self._alarms.set(("retire", (kept.site.key, old)), fx.now + self._config.site_linger_s)
        kept.changed(fx)

    def promote(self, kept: Kept) -> bool:
        """The site's own container is gone before its successor answers: wait for that one. Whether there is one."""
        kept.job, kept.attempt, kept.forgiven, kept.next_job = kept.next_job, 0, 0, 0
        return bool(kept.job)

    def give_up(self, fx: Effects, kept: Kept) -> None:
        """End the successor."""
        job, kept.next_job = kept.next_job, 0
        self._by_job.pop(job, None)
        self._jobs.end(fx, job)

    def retire(self, fx: Effects, kept: Kept, job: int) -> None:
        """Requests that were under way have had their time."""
        kept.retired = tuple(each for each in kept.retired if each != job)
        self._jobs.end(fx, job)

    def end_all(self, fx: Effects, kept: Kept) -> None:
        """End all that are not the site's own container."""
        self.give_up(fx, kept)
        for job in kept.retired:
            self._alarms.cancel(("retire", (kept.site.key, job)))
            self.retire(fx, kept, job)
