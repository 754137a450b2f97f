"""Changes of a live job's limits: its home asks the nodes that run it, and each node is the judge of its own room.

Owns what is under way: at the home one change a job, at the node one change a container. A node reserves the larger of
the old and the new request while its runtime works, so that neither way can fail for room. The job's spec changes when
all its live tasks took the change; when one refuses, those that took it are told to go back. A home that ends in the
middle forgets the change: some tasks may have it then, and asking again is harmless.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from scheduler.abilities import describe, requirements
from scheduler.alarms import Alarms
from scheduler.effects import Effects
from scheduler.errors import NotPossible
from scheduler.events import AmendContainer, AmendJob, ContainerChanged
from scheduler.fit import shortage, unmet
from scheduler.jobs import Job
from scheduler.lifecycle import Phase, phase_of
from scheduler.messages import Amend, Amended
from scheduler.model import Allocation, AllocationId, JobSpec, Resources
from scheduler.reporting import Reporting

REPEAT_S = 1.0
TIMEOUT_S = 8.0
OUTCOMES_MAX = 1_000
TASKS_MAX = 1_000
REVISIONS_PER_BOOT = 1_000_000
GONE = "it does not run there (any more)"
STANDS = "it was frozen for a higher tier; try again when it goes on"


class AmendmentView(msgspec.Struct, frozen=True):
    """How a change went, once `done`: `refusals` is empty, or says by whom and why nothing changed."""

    revision: int
    done: bool = False
    tasks: int = 0
    refusals: tuple[str, ...] = ()


@dataclass(slots=True)
class _Asked:
    """One change of a job: `spec` is what the waiting ones are asked to take."""

    revision: int
    spec: JobSpec
    whole_job: bool
    deadline_s: float
    waiting: dict[AllocationId, str]
    taken: dict[AllocationId, str] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    going_back: bool = False


class AmendmentsGiven:
    """The home's part. `commit` makes a spec the job's own, durably."""

    def __init__(
        self,
        alarms: Alarms,
        jobs: Mapping[int, Job],
        boot_epoch: int,
        commit: Callable[[Effects, Job, JobSpec], None],
    ) -> None:
        self._alarms = alarms
        self._jobs = jobs
        self._revision = boot_epoch * REVISIONS_PER_BOOT
        self._commit = commit
        self._asked: dict[int, _Asked] = {}
        self._outcomes: OrderedDict[int, AmendmentView] = OrderedDict()

    def on_amend_job(self, fx: Effects, job: Job, event: AmendJob) -> int:
        """Ask the nodes, or change the job at once where nothing of it runs; return the change's revision. Raises
        NotPossible, with nothing changed."""
        waiting = self._concerned(job, event.index)
        self._revision += 1
        revision = self._revision
        asked = _Asked(revision, event.spec, event.index is None, fx.now + TIMEOUT_S, waiting)
        self._asked[job.id] = asked
        self._outcomes[job.id] = AmendmentView(revision)
        self._speak(fx, job.id, asked)
        self._settle(fx, job.id, asked)
        return revision

    def _concerned(self, job: Job, index: int | None) -> dict[AllocationId, str]:
        if job.finished:
            raise NotPossible(f"job {job.id} has ended")
        if job.id in self._asked:
            raise NotPossible(f"another change of job {job.id} is under way; try again in a moment")
        if index is not None and index not in job.live:
            raise NotPossible(f"task {index} of job {job.id} does not run")
        indices = list(job.live) if index is None else [index]
        if len(indices) > TASKS_MAX:
            raise NotPossible(f"{len(indices)} tasks of job {job.id} run; {TASKS_MAX} can be changed at once")
        for each in indices:
            if phase_of(job.tasks[each]) is not Phase.RUNNING:
                raise NotPossible(f"task {each} of job {job.id} is being started; try again in a moment")
        return {AllocationId(job.id, each, job.tasks[each].attempt): job.tasks[each].node for each in indices}

    def outcome(self, job_id: int) -> AmendmentView:
        """Return how the job's last change goes or went; raises NotPossible where there was none."""
        if job_id not in self._outcomes:
            raise NotPossible(f"no change of job {job_id} is known")
        return self._outcomes[job_id]

    def on_amended(self, fx: Effects, node: str, answer: Amended) -> None:
        """A node took the change for these tasks, or refused it."""
        asked = self._asked.get(answer.job)
        if asked is None or answer.revision != asked.revision:
            return
        for index, attempt in answer.tasks:
            id_ = AllocationId(answer.job, index, attempt)
            if asked.waiting.get(id_) != node:
                continue
            del asked.waiting[id_]
            if not answer.cause:
                asked.taken[id_] = node
            elif self._jobs[answer.job].current(id_, node):
                amounts = f": needs {answer.need} more, free {answer.free}" if answer.need or answer.free else ""
                keeps = " keeps the new limits" if asked.going_back else ""
                asked.refusals.append(f"task {index} on {node}{keeps}: {answer.cause}{amounts}")
        self._settle(fx, answer.job, asked)

    def ring(self, fx: Effects, job_id: int) -> None:
        """Ask again those that did not answer; in the end, count that as a refusal."""
        asked, job = self._asked.get(job_id), self._jobs.get(job_id)
        if asked is None:
            return
        for id_, node in list(asked.waiting.items()):
            if job is None or not job.current(id_, node):
                del asked.waiting[id_]
            elif fx.now >= asked.deadline_s:
                del asked.waiting[id_]
                asked.taken[id_] = node  # it may have, so it is told to go back
                may = " may keep the new limits" if asked.going_back else ""
                asked.refusals.append(f"task {id_.index} on {node}{may}: no answer")
        self._speak(fx, job_id, asked)
        self._settle(fx, job_id, asked)

    def _speak(self, fx: Effects, job_id: int, asked: _Asked) -> None:
        by_node: dict[str, list[tuple[int, int]]] = {}
        for id_, node in asked.waiting.items():
            by_node.setdefault(node, []).append((id_.index, id_.attempt))
        for node, tasks in by_node.items():
            fx.say(node, Amend(job_id, asked.revision, asked.spec, tuple(tasks)))
        if by_node:
            self._alarms.set(("amend", job_id), fx.now + REPEAT_S)

    def _settle(self, fx: Effects, job_id: int, asked: _Asked) -> None:
        """When all have answered: keep the change, or have it undone."""
        if asked.waiting:
            return
        job = self._jobs.get(job_id)
        if asked.refusals and asked.taken and not asked.going_back and job is not None:
            self._go_back(fx, job, asked)
            return
        del self._asked[job_id]
        self._alarms.cancel(("amend", job_id))
        if not asked.refusals and asked.whole_job and job is not None:
            self._commit(fx, job, asked.spec)
        self._outcomes[job_id] = AmendmentView(asked.revision, True, len(asked.taken), tuple(asked.refusals))
        self._outcomes.move_to_end(job_id)
        while len(self._outcomes) > OUTCOMES_MAX:
            self._outcomes.popitem(last=False)
        fx.job_changed(job_id)

    def _go_back(self, fx: Effects, job: Job, asked: _Asked) -> None:
        self._revision += 1
        asked.revision, asked.spec, asked.going_back = self._revision, job.spec, True
        asked.waiting, asked.taken = asked.taken, {}
        asked.deadline_s = fx.now + TIMEOUT_S
        self._speak(fx, job.id, asked)


@dataclass(slots=True)
class _Taken:
    """A change that the runtime works on."""

    home: str
    revision: int
    changed: Allocation


class AmendmentsTaken:
    """The node's part. `allocation` returns a live, running one; `replace` makes another spec its own, durably;
    `stands`: whether it was frozen for a higher tier, so that less is booked for it than it asks for.
    """

    def __init__(
        self,
        reporting: Reporting,
        allocation: Callable[[AllocationId], Allocation | None],
        replace: Callable[[Effects, Allocation], None],
        stands: Callable[[AllocationId], bool],
    ) -> None:
        self._reporting = reporting
        self._allocation = allocation
        self._replace = replace
        self._stands = stands
        self._taken: dict[AllocationId, _Taken] = {}

    def on_amend(self, fx: Effects, home: str, order: Amend) -> None:
        """Judge the change for each task; what is taken is answered when the runtime has done it."""
        for index, attempt in order.tasks:
            id_ = AllocationId(order.job, index, attempt)
            under_way = self._taken.get(id_)
            if under_way is not None and under_way.revision >= order.revision:
                continue
            now = self._allocation(id_)
            refusal = self._refusal(home, order.spec, now, under_way)
            if refusal is not None:
                fx.say(home, Amended(order.job, order.revision, ((index, attempt),), *refusal))
            elif now is not None:
                self._take(fx, home, order, now)

    def _refusal(
        self, home: str, spec: JobSpec, now: Allocation | None, under_way: _Taken | None
    ) -> tuple[str, int, int] | None:
        measured = self._reporting.measured
        if now is None or now.home != home:
            return GONE, 0, 0
        if self._stands(now.id):
            return STANDS, 0, 0
        if under_way is not None:
            return "another change of it is under way", 0, 0
        if measured is None:
            return "the node is starting", 0, 0
        if (constraint := unmet(requirements(spec), dict(measured.labels))) is not None:
            return describe(constraint), 0, 0
        growth = _larger(now.spec.request, spec.request) - now.spec.request
        short = shortage(growth, self._reporting.free)
        return None if short is None else (short.dimension, short.need, short.free)

    def _take(self, fx: Effects, home: str, order: Amend, now: Allocation) -> None:
        changed = msgspec.structs.replace(now, spec=order.spec)
        self._taken[now.id] = _Taken(home, order.revision, changed)
        self._reporting.rebook(now.id, _larger(now.spec.request, order.spec.request))
        fx.act(AmendContainer(changed, order.revision))

    def on_changed(self, fx: Effects, event: ContainerChanged) -> None:
        """The runtime did it, or put the former limits back."""
        taken = self._taken.get(event.id)
        if taken is None or taken.revision != event.revision:
            return
        del self._taken[event.id]
        now = self._allocation(event.id)
        if now is None:
            self._say(fx, taken, GONE)
            return
        if not event.why:
            self._replace(fx, taken.changed)
        self._reporting.rebook(event.id, (now if event.why else taken.changed).spec.request)
        self._say(fx, taken, event.why)

    def under_way(self, id_: AllocationId) -> bool:
        """Whether the runtime works on a change of it."""
        return id_ in self._taken

    def ended(self, fx: Effects, id_: AllocationId) -> None:
        """It ended meanwhile."""
        taken = self._taken.pop(id_, None)
        if taken is not None:
            self._say(fx, taken, GONE)

    def _say(self, fx: Effects, taken: _Taken, why: str) -> None:
        id_ = taken.changed.id
        self._reporting.tell(fx, taken.home)
        self._reporting.push()
        fx.say(taken.home, Amended(id_.job, taken.revision, ((id_.index, id_.attempt),), why[:1000]))


def _larger(one: Resources, other: Resources) -> Resources:
    """Return the larger amount in each dimension."""
    names = {name for name, _ in (*one.extra, *other.extra)}
    return Resources(
        max(one.cpu_milli, other.cpu_milli),
        max(one.memory_bytes, other.memory_bytes),
        tuple(sorted((name, max(one.get(name), other.get(name))) for name in names)),
    )
