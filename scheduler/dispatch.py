"""The home: takes jobs, finds places for their tasks or lines them up at the leader, and keeps the only record of them.

Owns the jobs submitted to this node; nobody else writes them. A job is durable together with its first attempts before
anything is asked of any node (write-ahead, so a crash can't forget an attempt). Attempts are numbered from 1 and never
reused; a task's result counts only from its newest attempt, while that one is live. While nobody waits a job is placed
at once by this node's own view (optimistic, as in Omega, Schwarzkopf 2013); what finds no place or is refused goes to
the leader, never into a retry of our own. Does not know what other homes do, nor how a container is run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.errors import Overloaded, UnknownJob
from scheduler.events import Cancel, Submit
from scheduler.index import ClusterView
from scheduler.jobs import Job
from scheduler.lifecycle import Phase, Step, phase_of, take
from scheduler.messages import (
    BATCH_MAX,
    Admit,
    Admitted,
    Census,
    Declined,
    Ended,
    EndedTaken,
    Go,
    Gone,
    Holding,
    Leads,
    Refused,
    Stop,
    Told,
    Wait,
    WaitHeard,
)
from scheduler.model import (
    JOB_ID_STRIDE,
    AllocationId,
    JobKind,
    JobRecord,
    OnLost,
    Resources,
    Result,
    TaskRecord,
)
from scheduler.records import (
    JOBS,
    TASKS,
    Rows,
    get_number,
    put_job,
    put_number,
    put_task,
    read_table,
    task_key,
)
from scheduler.repeat import Repeat
from scheduler.validate import validate

SWEEP_ROWS = 1000
REFUSALS_FREE = 3


class Home:
    """One node's own jobs."""

    def __init__(
        self, config: SchedulerConfig, view: ClusterView, alarms: Alarms, number: int, boot_epoch: int
    ) -> None:
        self._config = config
        self._view = view
        self._alarms = alarms
        self._number = number
        self._boot_epoch = boot_epoch
        self._sequence = 0
        self._jobs: dict[int, Job] = {}
        self._by_node: dict[str, dict[AllocationId, None]] = {}
        self._lined: dict[int, None] = {}
        self._touched: dict[int, None] = {}
        self._finished: dict[int, int] = {}
        self._finished_tasks = 0
        self._sweep: deque[tuple[int, Iterator[int]]] = deque()
        self._leader = view.leader
        self.queue_epoch = 0
        self.queue_waiting = 0
        self._told_epoch = 0
        self._asks: Repeat[AllocationId] = Repeat("asks", config, alarms, view.alive, self._speak_asks)
        self._stops: Repeat[AllocationId] = Repeat("stops", config, alarms, view.alive, self._speak_stops)
        self._waits: Repeat[int] = Repeat("waits", config, alarms, view.alive, self._speak_waits)
        self._orders: dict[AllocationId, tuple[int, int]] = {}

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
        for record in read_table(rows, JOBS, JobRecord).values():
            self._jobs[record.id] = Job(record, fx.now - max(0.0, unix_s - record.submitted_unix_s))
            self._sequence = max(self._sequence, record.id // JOB_ID_STRIDE)
        for key, task in read_table(rows, TASKS, TaskRecord).items():
            job_id, index = task_key(key)
            if job_id in self._jobs:
                self._jobs[job_id].put(index, task)
            else:
                fx.delete(TASKS, key)
        for job in sorted(self._jobs.values(), key=lambda each: each.id):
            self._resume(fx, job)

    def _resume(self, fx: Effects, job: Job) -> None:
        job.resume()
        if job.finished:
            self._file(fx, job)
            return
        for index in job.live:
            record = job.tasks[index]
            id_ = AllocationId(job.id, index, record.attempt)
            self._bind(fx, id_, record.node)
            self._asks.say(record.node, id_)
            if not self._view.alive(record.node):
                self._alarms.set(("grace", record.node), fx.now + self._config.left_grace_s)
        self._touched[job.id] = None

    # --- what users ask

    def on_submit(self, fx: Effects, event: Submit) -> int:
        """Take a job and place what can be placed at once; returns its id. Raises before anything changed."""
        validate(event.spec, self._config.spec_bytes_max)
        if len(self._jobs) - len(self._finished) >= self._config.jobs_max:
            raise Overloaded(f"this node keeps {self._config.jobs_max} unfinished jobs (jobs_max); try another node")
        self._sequence += 1
        record = JobRecord(self._sequence * JOB_ID_STRIDE + self._number, event.owner, event.spec, event.unix_s)
        job = Job(record, fx.now)
        fast = not self.busy()
        self._jobs[job.id] = job
        put_job(fx, record)
        self._touched[job.id] = None
        if fast:
            self._place_now(fx, job)
        fx.job_changed(job.id)
        return job.id

    def on_cancel(self, fx: Effects, event: Cancel) -> None:
        """End everything of a job that has not ended; untouched tasks cost nothing."""
        job = self.job(event.job_id)
        if job.finished:
            return
        job.cancel()
        put_job(fx, job.record)
        for index in job.clear_waiting():
            self._alarms.cancel(("again", (job.id, index)))
            self._step(fx, job, index, Step.CANCEL, reason="cancelled")
        for index in list(job.live):
            record = job.tasks[index]
            self._stops.say(record.node, AllocationId(job.id, index, record.attempt))
            self._step(fx, job, index, Step.CANCEL, reason="cancelled")

    def busy(self) -> bool:
        """Whether somebody waits who could be served: then a new job must not slip past."""
        if self.queue_waiting:
            return True
        return any(self._possible(self._jobs[job_id]) for job_id in self._lined)

    # --- what nodes answer

    def on_admitted(self, fx: Effects, node: str, answer: Admitted) -> None:
        """The node took these attempts; outdated ones are stopped."""
        job = self._jobs.get(answer.job)
        for index, attempt in answer.tasks:
            id_ = AllocationId(answer.job, index, attempt)
            self._answered(node, id_)
            if job is None or not job.current(id_, node):
                self._outdated(fx, node, id_)
            elif phase_of(job.tasks[index]) is Phase.ASKED:
                job.refusals = 0
                self._step(fx, job, index, Step.ADMIT, reason=job.tasks[index].reason)

    def on_refused(self, fx: Effects, node: str, answer: Refused) -> None:
        """The node did not take these attempts: they wait again, at the leader."""
        job = self._jobs.get(answer.job)
        amounts = f": needs {answer.need}, free {answer.free}" if answer.need or answer.free else ""
        for index, attempt in answer.tasks:
            id_ = AllocationId(answer.job, index, attempt)
            self._answered(node, id_)
            if job is None or not job.current(id_, node) or phase_of(job.tasks[index]) is not Phase.ASKED:
                continue
            self._step(fx, job, index, Step.REFUSE, reason=f"{node} refused: {answer.cause}{amounts}")
            job.refusals += 1
            self._wait(fx, job, index, self._refusal_pause_s(job))

    def on_started(self, fx: Effects, node: str, id_: AllocationId) -> None:
        """The container runs."""
        job = self._jobs.get(id_.job)
        if job is None or not job.current(id_, node):
            self._outdated(fx, node, id_)
        elif phase_of(job.tasks[id_.index]) is not Phase.RUNNING:
            self._answered(node, id_)
            self._step(fx, job, id_.index, Step.START, reason=job.tasks[id_.index].reason)

    def on_ended(self, fx: Effects, node: str, ended: Ended) -> None:
        """Take the result if it is the newest attempt's; let the node forget it in any case."""
        id_, result = ended.id, ended.result
        job = self._jobs.get(id_.job)
        self._answered(node, id_)
        self._stops.answered(node, id_)
        if job is not None and job.current(id_, node):
            self._conclude(fx, job, id_.index, result)
        fx.say(node, EndedTaken((id_,)))

    def on_gone(self, fx: Effects, node: str, gone: Gone) -> None:
        """The node does not have these: what it had admitted is lost."""
        for id_ in gone.ids:
            self._stops.answered(node, id_)
            job = self._jobs.get(id_.job)
            if job is not None and job.current(id_, node) and phase_of(job.tasks[id_.index]) is not Phase.ASKED:
                self._lose(fx, job, id_.index, f"{node} no longer has it")

    def on_holding(self, fx: Effects, node: str, holding: Holding) -> None:
        """What a node holds of us: the outdated is stopped, the rest is brought up to date."""
        for id_, running in zip(holding.ids, holding.running, strict=False):
            job = self._jobs.get(id_.job)
            if job is None or not job.current(id_, node):
                self._outdated(fx, node, id_)
            elif running:
                self.on_started(fx, node, id_)
            elif phase_of(job.tasks[id_.index]) is Phase.ASKED:
                self.on_admitted(fx, node, Admitted(id_.job, ((id_.index, id_.attempt),)))

    # --- what the leader says

    def on_go(self, fx: Effects, leader: str, go: Go) -> None:
        """Obey an order, as far as there still are tasks for it; orders of older leaders are refused."""
        if go.epoch < self.queue_epoch:
            return
        self.queue_epoch = go.epoch
        job = self._jobs.get(go.job)
        if job is None:
            self._not_waiting(fx, leader, go)
            return
        if (go.epoch, go.go) <= (job.told.epoch, job.told.go):
            return
        count = min(go.count, job.wanted)
        job.told.epoch, job.told.go = go.epoch, go.go
        if count < go.count:
            fx.say(leader, Declined(go.epoch, go.go, go.count - count))
        self._view.release(("go", go.epoch, go.go))
        for _ in range(count):
            self._ask(fx, job, go.node, f"placed on {go.node} by the leader, {leader}", (go.epoch, go.go))
        self._touched[job.id] = None
        self._retell(job)

    def on_wait_heard(self, fx: Effects, leader: str, heard: WaitHeard) -> None:
        """The leader knows of a job's version."""
        job = self._jobs.get(heard.job)
        if job is None:
            self._waits.answered(leader, heard.job)
            return
        job.told.position, job.told.waiting = heard.position, heard.waiting
        if (heard.boot_epoch, heard.version) == (self._boot_epoch, job.told.version):
            self._waits.answered(leader, heard.job)

    def on_tell(self, fx: Effects, leader: str, epoch: int) -> None:
        """A new leader wants to know everything that waits."""
        if leader != self._view.leader or epoch < self.queue_epoch:
            return
        self.queue_epoch = self._told_epoch = epoch
        self._tell_all(leader)
        self._waits.flush(fx)
        fx.say(leader, Told(epoch))

    def on_leads(self, fx: Effects, leader: str, leads: Leads) -> None:
        """Gossip of a leader: how many wait; if its Tell was lost, this makes up for it."""
        if leads.epoch < self.queue_epoch:
            return
        self.queue_epoch, self.queue_waiting = leads.epoch, leads.waiting
        if leader == self._view.leader and leads.epoch != self._told_epoch:
            self._told_epoch = leads.epoch
            self._tell_all(leader)

    # --- members and alarms

    def on_up(self, fx: Effects, node: str) -> None:
        """A node is back: repeat what it did not answer, ask what it has."""
        self._alarms.cancel(("grace", node))
        self._asks.back(node)
        self._stops.back(node)
        self._waits.back(node)
        if self._by_node.get(node):
            self._alarms.set(("census", node), fx.now)

    def on_down(self, fx: Effects, node: str) -> None:
        """Only the agent is gone: its containers may run, so nothing is moved."""
        self._alarms.cancel(("grace", node))

    def on_gone_away(self, fx: Effects, node: str, grace_s: float) -> None:
        """The host is unreachable or has left: after the grace period its tasks go elsewhere."""
        self._alarms.set(("grace", node), fx.now + grace_s)

    def on_forgotten(self, fx: Effects, node: str) -> None:
        """Nobody remembers the node: what is still bound to it is lost now."""
        self._alarms.cancel(("grace", node))
        self.ring_grace(fx, node)
        self._asks.forget(node)
        self._waits.forget(node)

    def ring_grace(self, fx: Effects, node: str) -> None:
        """The grace period is over: fence what runs there and try elsewhere."""
        if self._view.alive(node):
            return
        self._stops.forget(node)
        for id_ in list(self._by_node.get(node, ())):
            self._lose(fx, self._jobs[id_.job], id_.index, f"{node} is lost")

    def ring_census(self, fx: Effects, node: str) -> None:
        """Ask a node for what we believe it to hold."""
        ids = [id_ for id_ in self._by_node.get(node, ()) if self._admitted(id_)]
        if not self._by_node.get(node):
            return
        if self._view.alive(node):
            for start in range(0, len(ids), BATCH_MAX):
                fx.say(node, Census(tuple(ids[start : start + BATCH_MAX])))
        self._alarms.set(("census", node), fx.now + self._config.census_interval_s)

    def ring_again(self, fx: Effects, job_id: int, index: int) -> None:
        """A task that was kept back may be tried again."""
        job = self._jobs.get(job_id)
        if job is not None and job.delayed(index):
            job.wait_again(index)
            self._touched[job_id] = None

    def ring_repeat(self, fx: Effects, kind: str, peer: str) -> None:
        """Repeat what a peer did not answer."""
        match kind:
            case "asks":
                self._asks.ring(fx, peer)
            case "stops":
                self._stops.ring(fx, peer)
            case "waits":
                self._waits.ring(fx, peer)

    def ring_sweep(self, fx: Effects) -> None:
        """Delete rows of dropped jobs, some at a time."""
        rows = SWEEP_ROWS
        while self._sweep and rows:
            job_id, indices = self._sweep[0]
            index = next(indices, None)
            if index is None:
                self._sweep.popleft()
                continue
            fx.delete(TASKS, f"{job_id}.{index}")
            rows -= 1
        if self._sweep:
            self._alarms.set(("sweep", None), fx.now + 0.01)

    def flush(self, fx: Effects) -> None:
        """At the end of an event: tell the leader what changed, say what is fresh, file what finished."""
        if self._leader != self._view.leader:
            self._waits.forget(self._leader)
            self._leader = self._view.leader
            self._tell_all(self._leader)
        touched, self._touched = self._touched, {}
        for job_id in touched:
            job = self._jobs.get(job_id)
            if job is not None:
                self._line_up(job)
                if job.finished:
                    self._file(fx, job)
        self._asks.flush(fx)
        self._stops.flush(fx)
        self._waits.flush(fx)

    # --- placing

    def _place_now(self, fx: Effects, job: Job) -> None:
        """The fast path: nobody waits, so place by our own view."""
        count = min(job.wanted, BATCH_MAX)
        places = self._view.place(job.spec.request, job.spec.constraints, count, job.id)
        for node, times in places.items():
            for _ in range(times):
                self._ask(fx, job, node, f"placed on {node} by its home")

    def _ask(self, fx: Effects, job: Job, node: str, reason: str, order: tuple[int, int] = (0, 0)) -> None:
        """Write the next attempt of the job's next task, then ask the node."""
        index = job.next_index()
        self._step(fx, job, index, Step.ASK, node=node, reason=reason)
        id_ = AllocationId(job.id, index, job.tasks[index].attempt)
        self._bind(fx, id_, node)
        self._view.claim(("ask", id_), node, job.spec.request)
        self._orders[id_] = order
        self._asks.say(node, id_)

    def _bind(self, fx: Effects, id_: AllocationId, node: str) -> None:
        self._by_node.setdefault(node, {})[id_] = None
        self._alarms.set_if_unset(("census", node), fx.now + self._config.census_interval_s)

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
        new = take(old, step, node=node, reason=reason, result=result)
        job.put(index, new)
        if step not in (Step.ADMIT, Step.START, Step.REFUSE):
            put_task(fx, job.id, index, new)
        if index not in job.live and old.node:
            self._unbind(old.node, AllocationId(job.id, index, old.attempt))
        self._touched[job.id] = None
        fx.job_changed(job.id)

    def _unbind(self, node: str, id_: AllocationId) -> None:
        self._answered(node, id_)
        held = self._by_node.get(node, {})
        held.pop(id_, None)
        if not held:
            self._by_node.pop(node, None)
            self._alarms.cancel(("census", node))

    def _answered(self, node: str, id_: AllocationId) -> None:
        self._asks.answered(node, id_)
        self._view.release(("ask", id_))
        self._orders.pop(id_, None)

    def _outdated(self, fx: Effects, node: str, id_: AllocationId) -> None:
        """A node has an attempt that no longer counts."""
        if id_.job % JOB_ID_STRIDE == self._number:
            fx.say(node, Stop(id_, "outdated at its home"))

    def _admitted(self, id_: AllocationId) -> bool:
        return phase_of(self._jobs[id_.job].tasks[id_.index]) is not Phase.ASKED

    # --- ends

    def _conclude(self, fx: Effects, job: Job, index: int, result: Result) -> None:
        """The newest attempt ended by itself (or could not be run)."""
        if job.spec.kind is JobKind.SERVICE:
            self._again_after(fx, job, index, _describe(result), _ran_s(result) >= self._config.service_stable_s)
        elif result.error is not None:
            self._unrunnable(fx, job, index, result)
        elif result.success:
            self._step(fx, job, index, Step.SUCCEED, result=result)
        else:
            self._step(fx, job, index, Step.FAIL, reason=_describe(result), result=result)

    def _unrunnable(self, fx: Effects, job: Job, index: int, result: Result) -> None:
        """It never ran, or its end was not seen: try again while the job allows."""
        if self._may_retry(job, index):
            self._again_after(fx, job, index, _describe(result), False)
        else:
            self._step(fx, job, index, Step.FAIL, reason=_describe(result), result=result)

    def _lose(self, fx: Effects, job: Job, index: int, reason: str) -> None:
        """The newest attempt is lost with its node: a new one, or the end, as the job says."""
        if self._may_retry(job, index):
            self._step(fx, job, index, Step.RETRY, reason=reason)
            self._wait(fx, job, index, 0.0)
        else:
            self._step(fx, job, index, Step.LOSE, reason=reason)

    def _may_retry(self, job: Job, index: int) -> bool:
        if job.spec.kind is JobKind.SERVICE:
            return True
        return job.spec.on_lost is OnLost.REQUEUE and job.tasks[index].tries + 1 < job.spec.attempts_max

    def _again_after(self, fx: Effects, job: Job, index: int, reason: str, stable: bool) -> None:
        tries = 0 if stable else min(job.tasks[index].tries, 30)
        pause_s = min(self._config.restart_s * 2**tries, self._config.restart_max_s)
        self._step(fx, job, index, Step.RETRY, reason=reason)
        self._wait(fx, job, index, pause_s)

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

    # --- waiting

    def _line_up(self, job: Job) -> None:
        """Tell the leader when the number of tasks that wait has changed."""
        wanted = job.wanted
        if wanted:
            self._lined[job.id] = None
        else:
            self._lined.pop(job.id, None)
        if wanted != job.told.wanted:
            self._retell(job)

    def _retell(self, job: Job) -> None:
        job.told.version += 1
        job.told.wanted = job.wanted
        self._waits.say(self._leader, job.id)

    def _tell_all(self, leader: str) -> None:
        for job_id in self._lined:
            self._retell(self._jobs[job_id])

    def _possible(self, job: Job) -> bool:
        return self._view.possible(job.spec.request, job.spec.constraints)

    def _not_waiting(self, fx: Effects, leader: str, go: Go) -> None:
        """An order for a job that is long gone."""
        fx.say(leader, Declined(go.epoch, go.go, go.count))
        nothing = Wait(go.job, self._boot_epoch, 1 << 62, 0, go.epoch, go.go, 0, fx.now, fx.now, Resources())
        fx.say(leader, nothing)

    # --- words

    def _speak_asks(self, fx: Effects, node: str, ids: list[AllocationId]) -> None:
        known = self._view.get(node)
        groups: dict[tuple[int, tuple[int, int]], list[tuple[int, int]]] = {}
        for id_ in ids:
            groups.setdefault((id_.job, self._orders.get(id_, (0, 0))), []).append((id_.index, id_.attempt))
        for (job_id, (epoch, go)), tasks in groups.items():
            record = self._jobs[job_id].record
            boot = known.boot_epoch if known else 0
            for start in range(0, len(tasks), BATCH_MAX):
                batch = tuple(tasks[start : start + BATCH_MAX])
                fx.say(node, Admit(job_id, record.owner, record.spec, batch, boot, epoch, go))

    def _speak_stops(self, fx: Effects, node: str, ids: list[AllocationId]) -> None:
        for id_ in ids:
            fx.say(node, Stop(id_, "cancelled"))

    def _speak_waits(self, fx: Effects, leader: str, job_ids: list[int]) -> None:
        for job_id in job_ids:
            job = self._jobs.get(job_id)
            if job is None:
                self._waits.answered(leader, job_id)
                continue
            told, spec = job.told, job.spec
            fx.say(
                leader,
                Wait(
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
                    constraints=spec.constraints,
                ),
            )

    # --- history

    def _file(self, fx: Effects, job: Job) -> None:
        """A finished job becomes history; the oldest history goes."""
        if job.id in self._finished:
            return
        self._finished[job.id] = len(job.tasks)
        self._finished_tasks += len(job.tasks)
        while self._finished and (
            len(self._finished) > self._config.history_jobs or self._finished_tasks > self._config.history_tasks
        ):
            self._drop(fx, next(iter(self._finished)))

    def _drop(self, fx: Effects, job_id: int) -> None:
        """The job's row goes first, so that a crash in between leaves rows without a job, never a job without rows."""
        job = self._jobs.pop(job_id)
        self._finished_tasks -= self._finished.pop(job_id)
        self._lined.pop(job_id, None)
        fx.delete(JOBS, str(job_id))
        put_number(fx, "sequence", self._sequence)
        self._sweep.append((job_id, iter(job.tasks)))
        self._alarms.set_if_unset(("sweep", None), fx.now)


def _describe(result: Result) -> str:
    """Say in a few words how an attempt ended."""
    if result.error is not None:
        return result.error
    if result.timed_out:
        return "time limit"
    if result.oom_killed:
        return "out of memory"
    if result.signal is not None:
        return f"signal {result.signal}"
    return f"exit code {result.exit_code}"


def _ran_s(result: Result) -> float:
    return max(0.0, result.ended_unix_s - result.started_unix_s) if result.started_unix_s else 0.0
