"""The home's side of the queue: which of its jobs wait, told to whoever leads, and told again when the leader changes.

Owns what the leader was told of each job and whether it knows. The leader's memory is soft, so this is the truth about
what waits here. Also knows, by gossip, whether anybody waits anywhere: then new jobs must not slip past.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import inf

from scheduler import images
from scheduler.abilities import requirements
from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.estimate import estimate_s
from scheduler.evenness import Evenness
from scheduler.index import ClusterView
from scheduler.jobs import Job
from scheduler.messages import Declined, Draws, Go, Leads, Muster, Told, Wait, WaitHeard
from scheduler.model import Constraint, JobSpec, Resources
from scheduler.orders import claim_key
from scheduler.quotas import QuotasTold
from scheduler.repeat import Repeat
from scheduler.rules import Rules

LAST_VERSION = 1 << 62

Asked = tuple[Resources, tuple[Constraint, ...]]


class Lineup:
    """Waiting jobs of this home; `jobs` is the home's book, of which only `told` is written here."""

    def __init__(
        self,
        config: SchedulerConfig,
        view: ClusterView,
        alarms: Alarms,
        jobs: Mapping[int, Job],
        boot_epoch: int,
        rules: Rules,
        quotas: QuotasTold,
    ) -> None:
        self._view = view
        self._jobs = jobs
        self._boot_epoch = boot_epoch
        self._rules = rules
        self._quotas = quotas
        self._config = config
        self._lined: dict[int, Asked | None] = {}
        self._asked: Counter[Asked] = Counter()
        self._hopeful = 0
        self._shape = -1
        self._leader = view.leader
        self._told_epoch = 0
        self._epoch = 0
        self._waiting = 0
        self._waits: Repeat[int] = Repeat("waits", config, alarms, view.alive, self._speak, config.quick_retry_s)

    @property
    def waiting(self) -> int:
        """How many jobs wait in the whole cluster, by the leader's last word."""
        return self._waiting

    def busy(self) -> bool:
        """Whether somebody waits who could be served. Costs nothing per waiting job."""
        if self._shape != self._view.shape:
            self._shape = self._view.shape
            self._hopeful = sum(count for asked, count in self._asked.items() if self._view.possible(*asked))
        return self._waiting > 0 or self._hopeful > 0

    def update(self, job: Job) -> None:
        """Tell the leader if the number of this job's tasks that wait has changed."""
        wanted = job.wanted
        if not wanted:
            self._unline(job.id)
        elif job.id not in self._lined:
            self._line_up(job)
        if wanted != job.told.wanted:
            self._retell(job)

    def _line_up(self, job: Job) -> None:
        """A job with a quota may wait though there is room: whether it holds others up, the leader knows alone."""
        asked = self._lined[job.id] = None if self._quotas.draws(job) else (job.spec.request, requirements(job.spec))
        if asked is not None:
            self._asked[asked] += 1
            self._hopeful += self._view.possible(*asked)

    def renew(self, job: Job) -> None:
        """What is asked for may have changed without the number: tell the leader anew."""
        if job.id in self._lined:
            self._retell(job)

    def drop(self, job_id: int) -> None:
        """The job is forgotten."""
        self._unline(job_id)
        self._waits.answered(self._leader, job_id)

    # --- what the leader says

    def obey(self, fx: Effects, leader: str, go: Go | Muster) -> int:
        """Return how many tasks to place by this order: none if it is old, or came before."""
        if go.epoch < self._epoch:
            return 0
        self._epoch = go.epoch
        job = self._jobs.get(go.job)
        if job is None:
            self.decline(fx, leader, go, go.count)
            fx.say(leader, Wait(go.job, self._boot_epoch, LAST_VERSION, 0, go.epoch, go.go, 0, 0.0, 0.0, Resources()))
            return 0
        if (go.epoch, go.go) <= (job.told.epoch, job.told.go):
            return 0
        job.told.epoch, job.told.go = go.epoch, go.go
        count = min(go.count, job.wanted)
        if count < go.count:
            # What the leader knows of this job is not what we last told it, or on its way: say it anew.
            self.decline(fx, leader, go, go.count - count)
            self._retell(job)
        # If we lead ourselves: our own claim, made with the attempt, takes the place of the order's.
        for node in go.nodes:
            self._view.release(claim_key(go.epoch, go.go, node))
        return count

    def obeyed(self, job: Job) -> None:
        """The order's attempts are made; what the leader hears next of this job reflects it."""
        self._retell(job)

    def on_heard(self, fx: Effects, leader: str, heard: WaitHeard) -> None:
        """The leader knows of a job's version."""
        job = self._jobs.get(heard.job)
        if job is None:
            return
        job.told.position, job.told.waiting, job.told.quota = heard.position, heard.waiting, heard.quota
        job.told.making_room = heard.making_room
        job.told.start_s = fx.now + heard.start_in_s if heard.start_in_s >= 0 else inf
        if (heard.boot_epoch, heard.version) == (self._boot_epoch, job.told.version):
            self._waits.answered(leader, heard.job)

    def on_tell(self, fx: Effects, leader: str, epoch: int) -> None:
        """A new leader wants to know everything that waits."""
        if leader != self._view.leader or epoch < self._epoch:
            return
        self._epoch = self._told_epoch = epoch
        self._quotas.retell()
        self._quotas.flush(fx)
        self._retell_all()
        self._waits.flush(fx)
        fx.say(leader, Told(epoch))

    def on_leads(self, leader: str, leads: Leads) -> None:
        """Gossip of a leader: how many wait; if its Tell was lost, this makes up for it."""
        if leads.epoch < self._epoch:
            return
        self._epoch, self._waiting = leads.epoch, leads.waiting
        if leader == self._leader and leads.epoch != self._told_epoch:
            self._told_epoch = leads.epoch
            self._retell_all()

    # --- members and alarms

    def on_up(self, node: str) -> None:
        """A node is back; if it leads, it is told again what it did not answer."""
        self._waits.back(node)

    def ring(self, fx: Effects, leader: str) -> None:
        """Repeat what the leader did not answer."""
        self._waits.ring(fx, leader)

    def follow(self) -> None:
        """If another node leads now, tell it everything."""
        if self._leader != self._view.leader:
            self._waits.forget(self._leader)
            self._quotas.follow(self._leader)
            self._leader = self._view.leader
            self._retell_all()

    def flush(self, fx: Effects) -> None:
        """At the end of an event: say what is fresh."""
        self._waits.flush(fx)

    # --- inside

    def _retell(self, job: Job) -> None:
        job.told.version += 1
        job.told.wanted = job.wanted
        self._waits.say(self._leader, job.id)

    def _retell_all(self) -> None:
        for job_id in self._lined:
            self._retell(self._jobs[job_id])

    def _unline(self, job_id: int) -> None:
        asked = self._lined.pop(job_id, None)
        if asked is not None:
            self._asked[asked] -= 1
            if not self._asked[asked]:
                del self._asked[asked]
            # A change of the cluster's shape since then has everybody counted anew anyway.
            self._hopeful -= self._view.possible(*asked)

    @staticmethod
    def decline(fx: Effects, leader: str, go: Go | Muster, count: int) -> None:
        """So many tasks of an order have no use for it."""
        if count:
            fx.say(leader, Declined(go.epoch, go.go, count))

    def _own_rules(self, job: Job) -> tuple[Constraint, ...]:
        """Rules on where the job's own tasks are: as they are now, so the leader is told anew after each step."""
        return Evenness(job, self._view).rules() if job.spec.placement.one_by_one else ()

    def _speak(self, fx: Effects, leader: str, job_ids: list[int]) -> None:
        for job_id in job_ids:
            job = self._jobs.get(job_id)
            if job is None:
                self._waits.answered(leader, job_id)
                continue
            told, spec = job.told, job.spec
            draws = _of_unit(self._quotas.draws(job), spec)
            self._quotas.speak(fx, leader, [name for name, _ in draws])
            wait = Wait(
                job=job_id,
                boot_epoch=self._boot_epoch,
                version=told.version,
                wanted=told.wanted,
                epoch=told.epoch,
                go_seen=told.go,
                priority=spec.priority,
                since_s=job.since_s,
                clock_s=fx.now,
                request=spec.request,
                constraints=(*self._rules.constraints(spec, fx.now), *self._own_rules(job)),
                estimate_s=estimate_s(spec, self._config),
                nodes=spec.gang.nodes if spec.gang else 0,
                per_node=spec.gang.tasks_per_node if spec.gang else 1,
                attempt=job.task(0).attempt + 1 if spec.gang else 0,
                images=images.wanted(spec.image_digest),
                draws=draws,
                owner=job.record.owner,
                account=spec.queueing.account,
                tier=self._rules.tier(spec),
            )
            fx.say(leader, wait)


def _of_unit(draws: Draws, spec: JobSpec) -> Draws:
    """What is waited for at once: a task, or a whole gang."""
    tasks = spec.gang.nodes * spec.gang.tasks_per_node if spec.gang else 1
    return tuple((name, amount * tasks) for name, amount in draws) if tasks > 1 else draws
