"""The home: takes jobs, finds places for their tasks or lines them up at the leader, and keeps the only record of them.

Owns the jobs submitted to this node; nobody else writes them. A job is durable together with its first attempts before
anything is asked of any node (write-ahead, so a crash can't forget an attempt). Attempts are numbered from 1 and never
reused; a task's result counts only from its newest attempt, while that one is live. While nobody waits a job is placed
at once (`fast_path.py`); what finds no place or is refused goes to the leader, never into a retry of our own. Does
not know what other homes do, nor how a container is run.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from scheduler.alarms import Alarms
from scheduler.amendments import AmendmentsGiven
from scheduler.attempts import NO_TERMS, Attempts, Terms
from scheduler.condition import ORDINARY, Condition
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.eligibility import OWNER, Eligibility
from scheduler.endings import Endings
from scheduler.errors import InvalidSpec, Overloaded, UnknownJob
from scheduler.evenness import Evenness
from scheduler.events import AmendJob, Cancel, Hold, Release, Submit
from scheduler.fast_path import FastPath
from scheduler.gangs import Gangs, Hands
from scheduler.handover import Handovers, Turn
from scheduler.history import History
from scheduler.index import ClusterView, Membership
from scheduler.jobs import Job
from scheduler.leases import LeasesGiven
from scheduler.lifecycle import Phase, Step, phase_of, take
from scheduler.lineup import Lineup
from scheduler.messages import (
    Admitted,
    Ended,
    EndedTaken,
    Go,
    Gone,
    Holding,
    LeaseAsk,
    Muster,
    News,
    Refused,
    Reserved,
    RivalAsk,
    RivalIs,
    Stop,
)
from scheduler.model import (
    JOB_ID_STRIDE,
    NOWHERE,
    AllocationId,
    JobRecord,
    JobSpec,
    Reach,
    Result,
    TaskRecord,
)
from scheduler.moves import Moves
from scheduler.numbers import home_number
from scheduler.quotas import QuotasTold
from scheduler.records import (
    JOBS,
    TASKS,
    Rows,
    delete_task,
    get_number,
    put_job,
    put_number,
    put_task,
    read_table,
    task_key,
)
from scheduler.rules import Rules
from scheduler.submissions import Submissions
from scheduler.usage import Usage
from scheduler.validate import validate

REFUSALS_FREE = 3


class Home:
    """One node's own jobs."""

    def __init__(
        self, config: SchedulerConfig, view: ClusterView, alarms: Alarms, number: int, boot_epoch: int, rules: Rules
    ) -> None:
        self._config = config
        self._view = view
        self._alarms = alarms
        self._number = number
        self._rules = rules
        self._sequence = 0
        self._jobs: dict[int, Job] = {}
        self._submissions = Submissions()
        self._touched: dict[int, None] = {}
        self._history = History(config, alarms)
        self.quotas = QuotasTold(config, view, alarms, rules.settings, boot_epoch)
        self.gate = Eligibility(config, view, alarms, self._jobs, number, rules)
        self.attempts = Attempts(config, view, alarms, self._jobs)
        self.leases = LeasesGiven(config, alarms)
        self.usage = Usage(rules.wall)
        turn = Turn(self._step, self._wait, lambda fx, job, node: self._fast.place_at(fx, job, node))
        self.handovers = Handovers(config, view, alarms, self._jobs, self.attempts, rules, turn)
        self.moves = Moves(self._jobs, self.attempts, self.handovers, self._outdated, rules.settings)
        self.lineup = Lineup(config, view, alarms, self._jobs, boot_epoch, rules, self.quotas)
        self.amendments = AmendmentsGiven(alarms, self._jobs, boot_epoch, self._amend)
        hands = Hands(self._ask, self._step, self._wait, self._refusal_pause_s)
        self.gangs = Gangs(config, view, alarms, self._jobs, self.attempts, hands)
        self._fast = FastPath(config, view, rules, self.lineup, self.quotas, self.gangs, self._ask)
        self._endings = Endings(config, self.gangs, self.leases, self._step, self._wait)

    # --- what the rest of this node asks

    @property
    def jobs(self) -> dict[int, Job]:
        """All jobs of this home. Read only."""
        return self._jobs

    def job(self, job_id: int) -> Job:
        """Return a job of this home; raises UnknownJob."""
        job = self._jobs.get(job_id)
        if job is None:
            raise UnknownJob(f"no job {job_id} at this node")
        return job

    def restore(self, fx: Effects, rows: Rows, unix_s: float) -> None:
        """Take over what the ledger remembers, ask the nodes what became of it, drop rows of dropped jobs."""
        self._sequence = get_number(rows, "sequence")
        self.usage.restore(rows)
        self._alarms.set(("spent", None), fx.now + self._config.usage_interval_s)
        for record in read_table(rows, JOBS, JobRecord).values():
            self._remember(Job(record, fx.now - max(0.0, unix_s - record.submitted_unix_s)))
            self._sequence = max(self._sequence, record.id // JOB_ID_STRIDE)
        for key, task in read_table(rows, TASKS, TaskRecord).items():
            job_id, index = task_key(key)
            if job_id in self._jobs:
                self._jobs[job_id].put(index, task)
            else:
                delete_task(fx, job_id, index)
        for job_id in sorted(self._jobs):
            self._resume(fx, self._jobs[job_id])

    def _resume(self, fx: Effects, job: Job) -> None:
        job.resume()
        self.gate.enter(fx, job)
        self._touched[job.id] = None
        for index in job.live:
            record = job.tasks[index]
            id_ = AllocationId(job.id, index, record.attempt)
            self.attempts.bind(fx, id_, record.node)
            self.leases.assume(fx.now, id_)
            if record.leaving:
                self.attempts.stop(record.node, id_)
            self._watch(fx, record.node)

    # --- what users ask

    def on_submit(self, fx: Effects, event: Submit) -> int:
        """Take a job and place what can be placed at once; returns its id. Raises before anything changed."""
        known = self._submissions.known(event)
        if known is None:
            self._check_room(event.owner, 1)
        return self._take(fx, event, self._checked(event)) if known is None else known

    def on_submit_all(self, fx: Effects, events: Sequence[Submit]) -> list[int]:
        """Take jobs of one owner, all or none, each as if it came by itself; returns their ids."""
        known = [self._submissions.known(event) for event in events]
        if coming := known.count(None):
            self._check_room(events[0].owner, coming)
        taken: list[JobSpec | None] = []
        for position, (event, id_) in enumerate(zip(events, known, strict=True)):
            try:
                taken.append(self._checked(event) if id_ is None else None)
            except InvalidSpec as error:
                raise InvalidSpec(f"[{position}].{error.field}", error.value, error.expected) from None
        return [
            self._take(fx, event, spec) if spec is not None else id_ or 0
            for event, spec, id_ in zip(events, taken, known, strict=True)
        ]

    def _check_room(self, owner: str, coming: int) -> None:
        """Raise Overloaded unless so many jobs more of an owner can be taken."""
        if len(self._jobs) - len(self._history) + coming > self._config.jobs_max:
            raise Overloaded(f"this node keeps {self._config.jobs_max} unfinished jobs (jobs_max); try another node")
        self._rules.check_count(owner, self._jobs.values(), coming)

    def _checked(self, event: Submit) -> JobSpec:
        """Return the spec as it is to be queued, or raise why it can't be taken."""
        validate(event.spec, self._config.spec_bytes_max)
        self.gate.check(event.owner, event.spec)
        return self._rules.applied(event.owner, event.spec, event.unix_s)

    def _take(self, fx: Effects, event: Submit, spec: JobSpec) -> int:
        self._sequence += 1
        job_id = self._sequence * JOB_ID_STRIDE + self._number
        held = OWNER if event.spec.queueing.hold else ""
        record = JobRecord(job_id, event.owner, spec, event.unix_s, key=event.key, held=held)
        job = Job(record, fx.now)
        fast = self._fast.open(fx.now)
        self._remember(job)
        put_job(fx, record)
        self.gate.enter(fx, job)
        self._touched[job.id] = None
        if fast:
            self._fast.place(fx, job)
            # Who finds no place is in line from now on, so that the next of the same list does not slip past.
            self.lineup.update(job)
        fx.job_changed(job.id)
        return job.id

    def _remember(self, job: Job) -> None:
        self._jobs[job.id] = job
        self._submissions.remember(job)

    def on_settings(self, fx: Effects) -> None:
        """The cluster's settings changed: look anew at every job that has not ended."""
        for job in self._jobs.values():
            if not job.finished:
                self._looked_at(fx, self.gate.review(fx, job))
                self.lineup.renew(job)

    def on_hold(self, fx: Effects, event: Hold) -> None:
        """Keep a job from starting anything more; what runs goes on."""
        self._looked_at(fx, self.gate.hold(fx, self.job(event.job_id), event))

    def on_release(self, fx: Effects, event: Release) -> None:
        """Let a held job start."""
        self._looked_at(fx, self.gate.release(fx, self.job(event.job_id), event))

    def on_lease_ask(self, fx: Effects, node: str, ask: LeaseAsk) -> None:
        """May single attempts run on?"""
        jobs = self._jobs
        self.leases.on_ask(fx, node, ask, lambda id_: id_.job in jobs and jobs[id_.job].current(id_, node))

    def on_news(self, fx: Effects, home: str, news: News | RivalAsk | RivalIs) -> None:
        """How jobs stand that jobs here wait for."""
        for job in self.gate.heard(fx, home, news):
            self._looked_at(fx, job)

    def ring_rivals(self, fx: Effects) -> None:
        """Singletons that wait are asked for again."""
        for job in self.gate.singletons.ring(fx):
            self._looked_at(fx, self.gate.review(fx, job))

    def ring_gate(self, fx: Effects, job_id: int) -> None:
        """The time has come that a job waited for."""
        if job_id in self._jobs:
            self._looked_at(fx, self.gate.review(fx, self._jobs[job_id]))

    def _looked_at(self, fx: Effects, job: Job) -> None:
        """What keeps a job from starting may have changed: if nothing does, it may be placed at once."""
        self._touched[job.id] = None
        fx.job_changed(job.id)
        if job.wanted and not job.told.wanted and self._fast.open(fx.now):
            self._fast.place(fx, job)

    def on_cancel(self, fx: Effects, event: Cancel) -> None:
        """End everything of a job that has not ended; untouched tasks cost nothing."""
        self._cancel(fx, self.job(event.job_id), "cancelled")

    def _cancel(self, fx: Effects, job: Job, why: str) -> None:
        if job.finished:
            return
        job.cancel(why)
        self.gangs.forget(job)
        put_job(fx, job.record)
        self._touched[job.id] = None
        fx.job_changed(job.id)
        for index in job.clear_waiting():
            self._alarms.cancel(("again", (job.id, index)))
            self._step(fx, job, index, Step.CANCEL, reason=why)
        for index in list(job.live):
            record = job.tasks[index]
            self.attempts.stop(record.node, AllocationId(job.id, index, record.attempt))
            self._step(fx, job, index, Step.CANCEL, reason=why)

    def _cancel_doomed(self, fx: Effects) -> None:
        """Cancel what can never start, or the tasks of it that can't."""
        for job_id, why in self.gate.doomed():
            job = self._jobs[job_id]
            if not job.one_by_one or job.blocks:
                self._cancel(fx, job, why)
            else:
                for index in job.never_freed():
                    self._step(fx, job, index, Step.CANCEL, reason=why)

    def on_amend_job(self, fx: Effects, event: AmendJob) -> int:
        """Change limits of what runs, and of the job; returns the change's revision. Raises before anything changed."""
        job = self.job(event.job_id)
        validate(event.spec, self._config.spec_bytes_max)
        return self.amendments.on_amend_job(fx, job, event)

    def _amend(self, fx: Effects, job: Job, spec: JobSpec) -> None:
        """Take another spec for what comes; what waits lines up anew with it."""
        job.record = msgspec.structs.replace(job.record, spec=spec)
        put_job(fx, job.record)
        self.lineup.drop(job.id)
        job.told.wanted = -1
        self._touched[job.id] = None

    # --- what nodes answer

    def on_admitted(self, fx: Effects, node: str, answer: Admitted) -> None:
        """The node took these attempts; outdated ones are stopped."""
        job = self._jobs.get(answer.job)
        for index, attempt in answer.tasks:
            id_ = AllocationId(answer.job, index, attempt)
            self.attempts.answered(node, id_)
            if job is None or not job.current(id_, node):
                self._outdated(fx, node, id_)
            elif phase_of(job.tasks[index]) is Phase.ASKED:
                job.refusals = 0
                self._step(fx, job, index, Step.ADMIT, reason=job.tasks[index].reason)
                self.gangs.admitted(job, index)

    def on_reserved(self, fx: Effects, node: str, answer: Reserved) -> None:
        """The node keeps room for these members of a gang."""
        job = self._jobs.get(answer.job)
        for index, attempt in answer.tasks:
            id_ = AllocationId(answer.job, index, attempt)
            if job is None or not job.current(id_, node):
                self._outdated(fx, node, id_)
            elif phase_of(job.tasks[index]) is Phase.ASKED:
                self.gangs.reserved(fx, job, id_, node)

    def on_refused(self, fx: Effects, node: str, answer: Refused) -> None:
        """The node did not take these attempts: they wait again, at the leader."""
        job = self._jobs.get(answer.job)
        amounts = f": needs {answer.need}, free {answer.free}" if answer.need or answer.free else ""
        why = f"{node} refused: {answer.cause}{amounts}"
        self._fast.refused(fx.now)
        members = []
        for index, attempt in answer.tasks:
            id_ = AllocationId(answer.job, index, attempt)
            self.attempts.answered(node, id_)
            if job is None or not job.current(id_, node) or phase_of(job.tasks[index]) is not Phase.ASKED:
                continue
            if job.spec.gang is not None:
                members.append(index)
                continue
            self._step(fx, job, index, Step.REFUSE, reason=why)
            job.refusals += 1
            self._wait(fx, job, index, self._refusal_pause_s(job))
            self.lineup.renew(job)
        if job is not None and members:
            self.gangs.refused(fx, job, members, why)

    def on_started(self, fx: Effects, node: str, id_: AllocationId, reach: Reach = NOWHERE) -> None:
        """The container runs; where it is reached is not kept in the ledger, its node tells it again."""
        job = self._jobs.get(id_.job)
        if job is None or not job.current(id_, node):
            self._outdated(fx, node, id_)
            return
        if reach != NOWHERE and job.reach.get(id_.index) != reach:
            job.reach[id_.index] = reach
            fx.job_changed(job.id)
        if phase_of(job.tasks[id_.index]) is not Phase.RUNNING:
            self.attempts.answered(node, id_)
            self._step(fx, job, id_.index, Step.START, reason=job.tasks[id_.index].reason)
            self.handovers.changed(job, id_.index)

    def on_condition(self, fx: Effects, node: str, id_: AllocationId, condition: Condition) -> None:
        """What a task is doing just now; nobody but who looks at the job needs it."""
        job = self._jobs.get(id_.job)
        if job is not None and job.current(id_, node) and job.notice(id_.index, condition):
            fx.job_changed(job.id)
            self.handovers.changed(job, id_.index)

    def on_ended(self, fx: Effects, node: str, ended: Ended) -> None:
        """Take the result if it is the newest attempt's; let the node forget it in any case."""
        id_, result = ended.id, ended.result
        job = self._jobs.get(id_.job)
        self.attempts.answered(node, id_)
        self.handovers.over(node, id_)
        self.attempts.stopped(node, id_)
        if job is not None and job.current(id_, node):
            self._endings.conclude(fx, job, id_.index, result)
        fx.say(node, EndedTaken((id_,)))

    def on_gone(self, fx: Effects, node: str, gone: Gone) -> None:
        """The node does not have these: what it had admitted is lost."""
        for id_ in gone.ids:
            self.attempts.stopped(node, id_)
            job = self._jobs.get(id_.job)
            if job is not None and job.current(id_, node) and phase_of(job.tasks[id_.index]) is not Phase.ASKED:
                self._endings.lose(fx, job, id_.index, f"{node} no longer has it")

    def on_holding(self, fx: Effects, node: str, holding: Holding) -> None:
        """What a node holds of us: the outdated is stopped, the rest is brought up to date."""
        reaches = holding.reach or (NOWHERE,) * len(holding.ids)
        conditions = holding.conditions or (ORDINARY,) * len(holding.ids)
        for id_, running, reach, condition in zip(holding.ids, holding.running, reaches, conditions, strict=False):
            self.on_condition(fx, node, id_, condition)
            job = self._jobs.get(id_.job)
            if job is None or not job.current(id_, node):
                self._outdated(fx, node, id_)
            elif running:
                self.on_started(fx, node, id_, reach)
            elif phase_of(job.tasks[id_.index]) is Phase.ASKED:
                self.on_admitted(fx, node, Admitted(id_.job, ((id_.index, id_.attempt),)))

    # --- what the leader says

    def on_go(self, fx: Effects, leader: str, go: Go) -> None:
        """Obey an order, as far as there still are tasks for it."""
        count = self.lineup.obey(fx, leader, go)
        job = self._jobs.get(go.job)
        if job is None or not count:
            return
        for _ in range(self._allowed(fx, job, leader, go, count)):
            terms = Terms(go.epoch, go.go, go.rank)
            self._ask(fx, job, go.node, f"placed on {go.node} by the leader, {leader}{go.why}", terms)
        self.lineup.obeyed(job)

    def on_muster(self, fx: Effects, leader: str, muster: Muster) -> None:
        """Gather a gang as ordered, if it still waits."""
        count = self.lineup.obey(fx, leader, muster)
        job = self._jobs.get(muster.job)
        if job is not None and count:
            self.gangs.muster(fx, job, leader, muster)
            self.lineup.obeyed(job)

    # --- members and alarms

    def on_up(self, fx: Effects, node: str) -> None:
        """A node is back."""
        self.leases.pardon(self.attempts.on_node(node))
        self._alarms.cancel(("grace", node))
        self.attempts.on_up(fx, node)
        self.lineup.on_up(node)
        self.quotas.on_up(node)
        self.gate.following.on_up(fx, node)

    def on_down(self, fx: Effects, node: str) -> None:
        """Only the agent is gone: its containers may run, so nothing is moved."""
        self.leases.pardon(self.attempts.on_node(node))
        self._alarms.cancel(("grace", node))

    def on_gone_away(self, fx: Effects, node: str, grace_s: float) -> None:
        """The host is unreachable or has left: after the grace period its tasks go elsewhere."""
        self._alarms.set(("grace", node), fx.now + grace_s)

    def on_forgotten(self, fx: Effects, node: str) -> None:
        """Nobody remembers the node: what is still bound to it is lost now."""
        self._alarms.cancel(("grace", node))
        self.ring_grace(fx, node)
        self.attempts.on_forgotten(node)

    def ring_grace(self, fx: Effects, node: str) -> None:
        """The grace period is over: fence what runs there and try elsewhere."""
        if self._view.alive(node):
            return
        self.attempts.on_lost(node)
        for id_ in self.attempts.on_node(node):
            self._endings.lose(fx, self._jobs[id_.job], id_.index, f"{node} is lost")

    def ring_lease(self, fx: Effects, id_: AllocationId) -> None:
        """The last lease that a lost attempt may have had has passed."""
        job = self._jobs.get(id_.job)
        if job is not None and id_.index in job.live and job.tasks[id_.index].attempt == id_.attempt:
            self._endings.lose(fx, job, id_.index, job.tasks[id_.index].reason)

    def ring_again(self, fx: Effects, job_id: int, index: int) -> None:
        """A task that was kept back may be tried again."""
        job = self._jobs.get(job_id)
        if job is not None and job.delayed(index):
            job.wait_again(index)
            self._touched[job_id] = None

    def tell_spent(self, fx: Effects) -> None:
        """Tell the leader, if it can be reached, what was used of late; and again after a while."""
        if self._view.alive(self._view.leader):
            self.usage.tell(fx, self._view.leader, self._rules.settings.ranking.half_life_s)
        self._alarms.set(("spent", None), fx.now + self._config.usage_interval_s)

    def ring_sweep(self, fx: Effects) -> None:
        """Delete rows of dropped jobs."""
        self._history.ring_sweep(fx)

    def flush(self, fx: Effects) -> None:
        """At the end of an event: tell the leader what changed, file what ended, say what is fresh."""
        self.lineup.follow()
        self._cancel_doomed(fx)
        touched, self._touched = self._touched, {}
        for job_id in touched:
            job = self._jobs.get(job_id)
            if job is None:
                continue
            self.quotas.count(job)
            self.lineup.update(job)
            self.gate.changed(fx, job)
            if job.finished:
                self.gate.leave(fx, job)
                for surplus in self._history.add(job):
                    self._drop(fx, surplus)
        self.attempts.flush(fx)
        self.quotas.flush(fx)
        self.lineup.flush(fx)

    # --- placing

    def _allowed(self, fx: Effects, job: Job, leader: str, go: Go, count: int) -> int:
        """Return how many of the tasks ordered the job's own rules allow there, and decline the others."""
        if not job.spec.placement.one_by_one:
            return count
        allowed = Evenness(job, self._view).room(go.node, count)
        if allowed < count:
            self.lineup.decline(fx, leader, go, count - allowed)
            if not allowed:
                # The leader did not see what it had ordered before; it should not try again at once for ever.
                job.refusals += 1
                self._wait(fx, job, job.next_index(), self._refusal_pause_s(job))
        return allowed

    def _ask(self, fx: Effects, job: Job, node: str, reason: str, terms: Terms = NO_TERMS) -> AllocationId:
        """Write the next attempt of the job's next task, then ask the node."""
        index = job.next_index()
        self._step(fx, job, index, Step.ASK, node=node, reason=reason)
        id_ = AllocationId(job.id, index, job.tasks[index].attempt)
        self.attempts.ask(fx, id_, node, terms)
        self._watch(fx, node)
        return id_

    def _watch(self, fx: Effects, node: str) -> None:
        """A node that is away already when something is bound to it (after a restart, or by a leader that sees it)."""
        membership = self._view.membership(node)
        if membership in (Membership.FAILED, Membership.LEFT, Membership.UNHEARD):
            failed = membership is Membership.FAILED
            grace_s = self._config.lost_grace_s if failed else self._config.left_grace_s
            self._alarms.set_if_unset(("grace", node), fx.now + grace_s)

    def _step(
        self,
        fx: Effects,
        job: Job,
        index: int,
        step: Step,
        *,
        node: str = "",
        reason: str = "",
        result: Result | None = None,
    ) -> None:
        """Take a task one step along the table; write what must not be forgotten."""
        old = job.task(index)
        boot_epoch = self._view.boot_epoch(node)
        new = take(old, step, node=node, boot_epoch=boot_epoch, reason=reason, result=result)
        job.put(index, new)
        # A member of a gang is given back without its node's word: it may have run, and its end may still come.
        if step not in (Step.ADMIT, Step.START, Step.REFUSE) or (step is Step.REFUSE and job.spec.gang is not None):
            put_task(fx, job.id, index, new)
        if step is Step.START:
            self.usage.began(AllocationId(job.id, index, old.attempt), fx.now)
        if new.state.final:
            self.handovers.changed(job, index)
        if index not in job.live and old.node:
            id_ = AllocationId(job.id, index, old.attempt)
            if step is not Step.REFUSE:
                self.usage.ended(fx, job, id_, result)
            self.attempts.over(old.node, id_)
            self.leases.over(id_)
        self._touched[job.id] = None
        fx.job_changed(job.id)

    def _outdated(self, fx: Effects, node: str, id_: AllocationId) -> None:
        """A node has an attempt that no longer counts."""
        if home_number(id_.job) == self._number and not self.handovers.keeps(node, id_):
            fx.say(node, Stop(id_, "outdated at its home"))

    # --- ends

    def _wait(self, fx: Effects, job: Job, index: int, pause_s: float) -> None:
        """Line a task up again, now or later."""
        if pause_s > 0:
            job.wait_later(index)
            self._alarms.set(("again", (job.id, index)), fx.now + pause_s)
        else:
            job.wait_again(index)

    def _refusal_pause_s(self, job: Job) -> float:
        """A job that is refused over and over slows down: somebody's view of the cluster is wrong."""
        excess = job.refusals - REFUSALS_FREE
        return min(self._config.retry_s * 2 ** min(excess, 30) / 10, self._config.retry_max_s) if excess > 0 else 0.0

    def _drop(self, fx: Effects, job_id: int) -> None:
        job = self._jobs.pop(job_id)
        self.lineup.drop(job_id)
        self.usage.drop(fx, job_id)
        self._submissions.forget(job)
        self._history.drop(fx, job)
        put_number(fx, "sequence", self._sequence)
