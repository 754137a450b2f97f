"""Between homes: tell me how that job stands, and when it changes.

The asking home repeats its question for as long as the answer may still change, so a told home may forget who asked
(it restarts, a message is lost) without harm; changes are pushed, so that nobody waits for the next question. Owns who
asked for what on both sides, and what was heard. What the facts mean is dependencies.py's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.dependencies import Ranges, Standing, standing_of, succeeded_ranges
from scheduler.effects import Effects
from scheduler.index import ClusterView
from scheduler.jobs import Job
from scheduler.messages import BATCH_MAX, Follow, News
from scheduler.numbers import home_number

NEWS_DELAY_S = 0.02
NEWS_DELAY_PER_TASK_S = 1e-5
NOTHING_YET = -1


@dataclass(slots=True)
class _Followed:
    """A job of this home that others wait for: their homes (True: wanting it task by task), and what was said last."""

    homes: dict[str, bool] = field(default_factory=dict)
    said: tuple[bool, int] = (False, 0)


class Following:
    """Both sides of following; `jobs` is the home's book, read only here."""

    def __init__(
        self, config: SchedulerConfig, view: ClusterView, alarms: Alarms, jobs: Mapping[int, Job], number: int
    ) -> None:
        self._config = config
        self._view = view
        self._alarms = alarms
        self._jobs = jobs
        self._number = number
        self._followed: dict[int, _Followed] = {}
        self._dependents: dict[int, dict[int, bool]] = {}
        self._standings: dict[int, Standing] = {}
        self._open: dict[int, int] = {}

    # --- the asking side

    def standing(self, job_id: int) -> Standing | None:
        """Return what is known of a job that some job here depends on."""
        return self._standings.get(job_id)

    def dependents(self, job_id: int) -> list[int]:
        """Return the jobs here that wait for this one."""
        return list(self._dependents.get(job_id, ()))

    def closed(self, job_id: int) -> bool:
        """Whether all is known of a job that ever will be."""
        return job_id in self._standings and job_id not in self._open

    def follow(self, fx: Effects, job_id: int, dependent: int, *, task_by_task: bool) -> None:
        """Have it known how `job_id` stands, for `dependent`'s sake."""
        self._dependents.setdefault(job_id, {})[dependent] = task_by_task
        self._open[job_id] = NOTHING_YET
        if home_number(job_id) == self._number:
            job = self._own(job_id, self._jobs[dependent].record.owner)
            self._standings[job_id] = Standing(False) if job is None else standing_of(job)
        self._ask(fx, [job_id])
        self._alarms.set_if_unset(("follow", None), fx.now + self._config.follow_interval_s)

    def unfollow(self, job_id: int, dependent: int) -> None:
        """The dependent does not care any more."""
        dependents = self._dependents.get(job_id, {})
        dependents.pop(dependent, None)
        if not dependents:
            self._dependents.pop(job_id, None)
            self._standings.pop(job_id, None)
            self._open.pop(job_id, None)

    def on_news(self, fx: Effects, sender: str, news: News) -> list[int]:
        """Take in facts from the job's own home; return the jobs here that wait for it."""
        node = self._view.get(sender)
        if news.job not in self._dependents or node is None or node.number != home_number(news.job):
            return []
        begun_s = fx.now - news.begun_ago_s if news.begun_ago_s >= 0 else None
        heard = Standing(news.known, begun_s, news.ended, news.succeeded)
        self._standings.setdefault(news.job, Standing()).learn(heard)
        if heard.settled and self._open.get(news.job) == news.past:
            if news.more:
                self._open[news.job] = news.ranges[-1][1]
                self._ask(fx, [news.job])
            else:
                del self._open[news.job]
        return self.dependents(news.job)

    def ring_follow(self, fx: Effects) -> None:
        """Ask again for what may still change; some at a time, whoever waited longest first."""
        ids = list(islice(self._open, self._config.window))
        for job_id in ids:
            self._open[job_id] = self._open.pop(job_id)
        self._ask(fx, ids)
        if self._open:
            self._alarms.set(("follow", None), fx.now + self._config.follow_interval_s)

    def on_up(self, fx: Effects, node: str) -> None:
        """A home is back: it may have news, and has forgotten who asked."""
        found = self._view.get(node)
        number = found.number if found is not None else -1
        self._ask(fx, [job_id for job_id in self._open if home_number(job_id) == number])

    def _ask(self, fx: Effects, job_ids: list[int]) -> None:
        names = {node.number: node.name for node in self._view.nodes() if node.alive} if job_ids else {}
        for job_id in job_ids:
            home = names.get(home_number(job_id))
            if home is None:
                continue
            dependents = self._dependents[job_id]
            by_owner = {self._jobs[each].record.owner: None for each in dependents}
            for owner in by_owner:
                fx.say(home, Follow(job_id, owner, any(dependents.values()), self._open[job_id]))

    # --- the told side

    def on_follow(self, fx: Effects, home: str, follow: Follow) -> None:
        """Tell now, and again when it changes. Another owner's job looks like one that does not exist."""
        job = self._own(follow.job, follow.owner)
        if job is None:
            fx.say(home, News(follow.job, False))
            return
        if not job.finished:
            followed = self._followed.setdefault(follow.job, _Followed(said=self._sayable(job)))
            followed.homes[home] = follow.task_by_task
        self._say(fx, job, home, follow.task_by_task, follow.past)

    def changed(self, fx: Effects, job: Job) -> None:
        """A job of this home changed: whoever follows it hears of it, at once when it ended."""
        followed = self._followed.get(job.id)
        if followed is None or (followed.said == self._sayable(job) and not job.finished):
            return
        if job.finished:
            self._alarms.cancel(("news", job.id))
            self.ring_news(fx, job.id)
            del self._followed[job.id]
        else:
            pause_s = NEWS_DELAY_S + NEWS_DELAY_PER_TASK_S * len(job.tasks)
            self._alarms.set_if_unset(("news", job.id), fx.now + pause_s)

    def ring_news(self, fx: Effects, job_id: int) -> None:
        """Say what changed to all who follow."""
        job, followed = self._jobs.get(job_id), self._followed.get(job_id)
        if job is None or followed is None:
            return
        followed.said = self._sayable(job)
        for home, task_by_task in followed.homes.items():
            self._say(fx, job, home, task_by_task)

    def _own(self, job_id: int, owner: str) -> Job | None:
        job = self._jobs.get(job_id)
        return job if job is not None and job.record.owner == owner else None

    @staticmethod
    def _sayable(job: Job) -> tuple[bool, int]:
        return job.begun_s is not None, job.succeeded_count

    @staticmethod
    def _say(fx: Effects, job: Job, home: str, task_by_task: bool, past: int = NOTHING_YET) -> None:
        """One page: an asker that wants the next one names the last index it has."""
        standing = standing_of(job)
        ago_s = -1.0 if standing.begun_s is None else max(0.0, fx.now - standing.begun_s)
        ranges: Ranges = succeeded_ranges(job, past) if task_by_task else ()
        page, more = ranges[:BATCH_MAX], len(ranges) > BATCH_MAX
        fx.say(home, News(job.id, True, ago_s, standing.ended, standing.succeeded, page, past, more))
