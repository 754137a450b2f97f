"""Singletons: of an owner's jobs of one name, one at a time, over all homes (Slurm's `--dependency=singleton`).

A job waits for every unfinished job of its owner and name that came before it, or that has been let go already. Its
home asks the others; each question also announces the job, so of two that ask at once the later one gives way (Ricart
and Agrawala, CACM 1981, with the order of submission for a clock). Asked again while it waits. Homes out of reach are
not waited for: on both sides of a partition one may run. Soft: after a restart all is asked anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.index import ClusterView
from scheduler.jobs import Block, Job
from scheduler.messages import RivalAsk, RivalIs

Name = tuple[str, str]


class Singletons:
    """This home's jobs by owner and name, and what other homes answered of those that wait."""

    def __init__(self, config: SchedulerConfig, view: ClusterView, alarms: Alarms, jobs: Mapping[int, Job]) -> None:
        self._config = config
        self._view = view
        self._alarms = alarms
        self._jobs = jobs
        self._names: dict[Name, dict[int, None]] = {}
        self._answers: dict[int, dict[str, int]] = {}
        self._let_go: dict[int, None] = {}

    def enter(self, fx: Effects, job: Job) -> None:
        """A job is new here, or known again."""
        if job.finished:
            return
        self._names.setdefault(_name(job), {})[job.id] = None
        if job.spec.queueing.singleton and not _begun(job):
            self._answers[job.id] = {}
            self._ask(fx, job)
            self._alarms.set_if_unset(("rivals", None), fx.now + self._config.follow_interval_s)

    def leave(self, job: Job, now: float) -> None:
        """A job has ended: the next of its name may be looked at."""
        names = self._names.get(_name(job), {})
        names.pop(job.id, None)
        self._answers.pop(job.id, None)
        self._let_go.pop(job.id, None)
        for other in names:
            if other in self._answers:
                self._alarms.set(("gate", other), now)
        if not names:
            self._names.pop(_name(job), None)

    def blocks(self, job: Job) -> Iterator[Block]:
        """Yield what keeps a singleton waiting; nothing lets it go for good."""
        if job.id not in self._answers or job.id in self._let_go:
            return
        homes = [node.name for node in self._view.nodes() if node.alive and node.name != self._view.me]
        rival = self._rival(_name(job), _order(job), job.id)
        rivals = [rival, *(self._answers[job.id].get(home, 0) for home in homes)]
        found = next((each for each in rivals if each), 0)
        silent = [home for home in homes if home not in self._answers[job.id]]
        if found:
            yield Block("dependency", f"waits for job {found} of the same name (singleton)")
        elif silent:
            yield Block("dependency", f"asks {', '.join(silent)} for jobs of the same name (singleton)")
        else:
            self._let_go[job.id] = None

    def on_ask(self, fx: Effects, home: str, ask: RivalAsk) -> list[Job]:
        """Answer; return the jobs here that have to give way to the asking one."""
        name, order = (ask.owner, ask.name), (ask.submitted_unix_s, ask.job)
        fx.say(home, RivalIs(ask.job, self._rival(name, order, ask.job)))
        later = []
        for job_id in self._names.get(name, ()):
            if job_id in self._answers and job_id not in self._let_go and _order(self._jobs[job_id]) > order:
                self._answers[job_id][home] = ask.job
                later.append(self._jobs[job_id])
        return later

    def on_answer(self, home: str, answer: RivalIs) -> Job | None:
        """Take in what a home says; return the job to look at."""
        if answer.job not in self._answers:
            return None
        self._answers[answer.job][home] = answer.rival
        return self._jobs[answer.job]

    def ring(self, fx: Effects) -> list[Job]:
        """Ask again for what still waits; return it, for homes may have gone out of reach meanwhile."""
        waiting = [self._jobs[job_id] for job_id in self._answers if job_id not in self._let_go]
        for job in waiting:
            self._ask(fx, job)
        if waiting:
            self._alarms.set(("rivals", None), fx.now + self._config.follow_interval_s)
        return waiting

    def _rival(self, name: Name, order: tuple[float, int], job_id: int) -> int:
        """Return an unfinished job of this name that the one of this order has to wait for, 0 if there is none."""
        for other in self._names.get(name, ()):
            job = self._jobs[other]
            if other != job_id and (_order(job) < order or _begun(job) or other in self._let_go):
                return other
        return 0

    def _ask(self, fx: Effects, job: Job) -> None:
        for node in self._view.nodes():
            if node.alive and node.name != self._view.me:
                ask = RivalAsk(job.id, job.record.owner, job.spec.name, job.record.submitted_unix_s)
                fx.say(node.name, ask)


def _name(job: Job) -> Name:
    return job.record.owner, job.spec.name


def _order(job: Job) -> tuple[float, int]:
    return job.record.submitted_unix_s, job.id


def _begun(job: Job) -> bool:
    return bool(job.live) or job.begun_s is not None
