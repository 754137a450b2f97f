"""May this job start at all? Holds, begin times and dependencies: whatever keeps a job out of the line by its own wish.

Owns the blocks of every job of this home, and what must be remembered for good of how they went away. A job with
blocks asks nobody for a place, so neither leader nor nodes know of it. Looks at a job when something happened that
concerns it, never at all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.dependencies import Verdict, describe, together, verdict, why
from scheduler.effects import Effects
from scheduler.errors import InvalidSpec, NotPossible
from scheduler.events import Hold, Release
from scheduler.follow import Following
from scheduler.index import ClusterView
from scheduler.jobs import Block, Job
from scheduler.messages import News, RivalAsk, RivalIs
from scheduler.model import JobSpec
from scheduler.numbers import home_number
from scheduler.records import put_job
from scheduler.rules import Rules
from scheduler.singletons import Singletons
from scheduler.spec.queueing import After, Dependency, Unmet
from scheduler.wall import date

OWNER, OPERATOR = "owner", "operator"
LOOK_AGAIN_S = 60.0


class Eligibility:
    """The gate before the line; `jobs` is the home's book, of which blocks and released tasks are written here."""

    def __init__(
        self,
        config: SchedulerConfig,
        view: ClusterView,
        alarms: Alarms,
        jobs: Mapping[int, Job],
        number: int,
        rules: Rules,
    ) -> None:
        self._alarms = alarms
        self._jobs = jobs
        self._number = number
        self._wall = rules.wall
        self._rules = rules
        self._doomed: dict[int, str] = {}
        self._wakes: list[float] = []
        self.following = Following(config, view, alarms, jobs, number)
        self.singletons = Singletons(config, view, alarms, jobs)

    # --- a job's way through the gate

    def check(self, owner: str, spec: JobSpec) -> None:
        """Raise InvalidSpec for a dependency on a job that this home should know and does not."""
        for each in spec.queueing.after:
            job = self._jobs.get(each.job)
            if home_number(each.job) == self._number and (job is None or job.record.owner != owner):
                raise InvalidSpec("queueing.after.job", each.job, "a job of yours that is still remembered")

    def enter(self, fx: Effects, job: Job) -> None:
        """A job is new here, or known again after a restart."""
        for position, each in enumerate(job.spec.queueing.after):
            if position not in job.record.met and not job.finished:
                self.following.follow(fx, each.job, job.id, task_by_task=each.kind is After.CORRESPONDING)
        self.singletons.enter(fx, job)
        self.review(fx, job)

    def leave(self, fx: Effects, job: Job) -> None:
        """A job has ended, or is forgotten."""
        self.singletons.leave(job, fx.now)
        self._alarms.cancel(("gate", job.id))
        self._doomed.pop(job.id, None)
        for each in job.spec.queueing.after:
            self.following.unfollow(each.job, job.id)

    def review(self, fx: Effects, job: Job) -> Job:
        """Look anew at what keeps a job from starting."""
        self._wakes.clear()
        job.blocks = () if job.finished else tuple(self._blocks(fx, job))
        if self._wakes:
            # Looked at again before its time too, for the wall clock may be set meanwhile.
            self._alarms.set(("gate", job.id), min(*self._wakes, fx.now + LOOK_AGAIN_S))
        return job

    def changed(self, fx: Effects, job: Job) -> None:
        """A job of this home changed: others may wait for it."""
        if job.begun_s is None and job.begun:
            job.begun_s = fx.now
        self.following.changed(fx, job)

    def doomed(self) -> list[tuple[int, str]]:
        """Return once which jobs are to be cancelled, and why."""
        doomed, self._doomed = self._doomed, {}
        return list(doomed.items())

    # --- what happens

    def hold(self, fx: Effects, job: Job, event: Hold) -> Job:
        """Keep a job from starting; an operator's hold replaces an owner's, never the other way round."""
        if job.finished:
            raise NotPossible(f"job {job.id} has ended")
        held = OPERATOR if event.operator or job.record.held == OPERATOR else OWNER
        self._remember(fx, job, held=held)
        return self.review(fx, job)

    def release(self, fx: Effects, job: Job, event: Release) -> Job:
        """Let a held job start."""
        if job.record.held == OPERATOR and not event.operator:
            raise NotPossible(f"job {job.id} is held by an operator; only an operator can release it")
        self._remember(fx, job, held="")
        return self.review(fx, job)

    def heard(self, fx: Effects, home: str, item: News | RivalAsk | RivalIs) -> list[Job]:
        """Take in another home's word; return the jobs here that it concerns, looked at anew."""
        match item:
            case News():
                return self.on_news(fx, home, item)
            case RivalAsk():
                return [self.review(fx, job) for job in self.singletons.on_ask(fx, home, item)]
            case RivalIs():
                job = self.singletons.on_answer(home, item)
                return [self.review(fx, job)] if job is not None else []

    def on_news(self, fx: Effects, sender: str, news: News) -> list[Job]:
        """Take in how a job stands; return the jobs that were waiting for it, looked at anew."""
        jobs = [self._jobs[each] for each in self.following.on_news(fx, sender, news)]
        for job in jobs:
            corresponding = job.spec.queueing.corresponding
            if corresponding is not None and corresponding.job == news.job:
                self._free(fx, job, corresponding, news)
            self.review(fx, job)
        return jobs

    # --- inside

    def _blocks(self, fx: Effects, job: Job) -> Iterator[Block]:
        queueing, held = job.spec.queueing, job.record.held
        if held:
            who = "an operator" if held == OPERATOR else "its owner"
            yield Block("hold", f"held by {who} (`fofoca release {job.id}` lets it start)")
        if queueing.begin_unix_s > self._wall.unix_s(fx.now):
            self._wakes.append(self._wall.when(queueing.begin_unix_s))
            yield Block("begin", f"not to begin before {date(queueing.begin_unix_s)}")
        for block, look_s in self._rules.blocks(job, fx.now):
            self._wakes.append(look_s)
            yield block
        if queueing.singleton:
            yield from self.singletons.blocks(job)
        if queueing.after:
            yield from self._dependencies(fx, job)

    def _dependencies(self, fx: Effects, job: Job) -> Iterator[Block]:
        queueing = job.spec.queueing
        verdicts = {each: self._verdict(fx, job, at, each) for at, each in enumerate(queueing.after)}
        outcome = together(verdicts.values(), queueing.after_any)
        if outcome is Verdict.MET:
            return
        texts = [why(each, self.following.standing(each.job)) for each, found in verdicts.items() if found is outcome]
        if outcome is Verdict.NEVER:
            text = f"a dependency can never be met: {' and '.join(texts)}"
            if queueing.unmet is Unmet.CANCEL:
                self._doomed[job.id] = text
            yield Block("dependency", text)
        else:
            yield Block("dependency", f"waits for {(' or ' if queueing.after_any else ' and ').join(texts)}")

    def _verdict(self, fx: Effects, job: Job, position: int, dependency: Dependency) -> Verdict:
        """Judge, and remember for good what is met: the other job may be forgotten before this one starts."""
        if position in job.record.met:
            return Verdict.MET
        standing = self.following.standing(dependency.job)
        found = verdict(dependency, standing, fx.now)
        if standing is not None and dependency.delay_s and standing.begun_s is not None and found is Verdict.WAITS:
            self._wakes.append(standing.begun_s + dependency.delay_s)
        if found is Verdict.MET and dependency.kind is not After.CORRESPONDING:
            self._met(fx, job, position)
        return found

    def _met(self, fx: Effects, job: Job, position: int, **facts: object) -> None:
        """A dependency is met for good; the other job need not be followed any more, unless for another one."""
        self._remember(fx, job, met=(*job.record.met, position), **facts)
        after = job.spec.queueing.after
        other = after[position].job
        if all(at in job.record.met for at, each in enumerate(after) if each.job == other):
            self.following.unfollow(other, job.id)

    def _free(self, fx: Effects, job: Job, dependency: Dependency, news: News) -> None:
        """Let the tasks go whose corresponding ones have succeeded."""
        for first, last in news.ranges:
            job.free(first, last)
        if news.known and self.following.closed(news.job):
            position = job.spec.queueing.after.index(dependency)
            self._met(fx, job, position, released=job.freed_ranges())
            if job.spec.queueing.unmet is Unmet.CANCEL and job.never_freed():
                self._doomed[job.id] = f"{describe(dependency)}: the corresponding task has not succeeded"

    @staticmethod
    def _remember(fx: Effects, job: Job, **facts: object) -> None:
        job.record = msgspec.structs.replace(job.record, **facts)
        put_job(fx, job.record)
