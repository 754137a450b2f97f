"""The promises, as checkers that look at a fault world from outside, at every commit, message and container.

They trust no machine's own account: what a node committed to is summed up from the containers that really run, what a
task's result should be is what its container really did. A broken promise becomes a `Violation`; the world runs on, so
that one seed shows all that is wrong with it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from scheduler.errors import UnknownJob
from scheduler.events import Change, Put
from scheduler.fit import shortage
from scheduler.messages import Admit, EndedTaken, decode, decode_leads
from scheduler.model import (
    Allocation,
    AllocationId,
    JobKind,
    JobRecord,
    JobSpec,
    OnLost,
    Resources,
    Result,
    State,
    TaskRecord,
)
from scheduler.numbers import home_number
from scheduler.records import ALLOCATIONS, JOBS, TASKS, HeldRecord, task_key
from scheduler.reporting import WHOLE
from scheduler.spec.queueing import After, Dependency, Queueing
from scheduler.views import JobView
from sim.faults import PARTITIONS, PREEMPTED_MAX

if TYPE_CHECKING:
    from sim.world import World
    from sim.world_host import Host

GATHERING_MAX_S = 5.0
"""A gang whose home died while it started is whole again, or given up, after the first repeated messages."""

Disk = dict[str, dict[str, bytes]]
_task = msgspec.msgpack.Decoder(TaskRecord)
_job = msgspec.msgpack.Decoder(JobRecord)
_held = msgspec.msgpack.Decoder(HeldRecord)


def _tier(spec: JobSpec) -> int:
    return PARTITIONS.get(spec.queueing.partition, 0)


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise: when, whose, and what was seen."""

    at_s: float
    promise: str
    text: str

    def __str__(self) -> str:
        return f"{self.at_s:9.3f}  {self.promise}: {self.text}"


class Checkers:
    """Sees everything that leaves a trace outside a machine."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.violations: list[Violation] = []
        self._newest: dict[tuple[int, int], int] = {}
        self._results: dict[AllocationId, Result | None] = {}
        self._started: dict[AllocationId, str] = {}
        self._load: defaultdict[str, Resources] = defaultdict(Resources)
        self._requests: dict[AllocationId, Resources] = {}
        self._epochs: dict[int, tuple[str, int]] = {}
        self.preempted = 0
        self.frozen_ever = 0
        self.acknowledged: dict[int, str] = {}
        self.cancelled: dict[int, None] = {}

    @property
    def started(self) -> int:
        """How many containers were started."""
        return len(self._started)

    def has_started(self, id_: AllocationId) -> bool:
        """Whether the attempt's container was ever started."""
        return id_ in self._started

    def started_ids(self) -> list[AllocationId]:
        """The attempts whose containers were started, in that order."""
        return list(self._started)

    def broken(self, promise: str, text: str) -> None:
        """Note a violation."""
        self._world.note("world", f"VIOLATION of {promise}: {text}")
        self.violations.append(Violation(self._world.kernel.now, promise, text))

    # --- the ledger

    def committing(self, node: str, change: Change, disk: Disk) -> None:
        """A change is about to become durable."""
        number = self._world.hosts[node].number
        if change.table in (JOBS, TASKS):
            job = int(change.key.split(".")[0])
            if home_number(job) != number:
                self.broken("a home is the only writer of its jobs", f"{node} writes {change.table} {change.key}")
        if isinstance(change, Put) and change.table == TASKS:
            self._task_written(node, change, disk)
        if isinstance(change, Put) and change.table == JOBS:
            self._job_written(change, disk)
        if not isinstance(change, Put) and change.table == JOBS:
            self._job_dropped(node, change.key, disk)

    def _job_dropped(self, node: str, key: str, disk: Disk) -> None:
        """Only history is forgotten: jobs of which every task has ended."""
        record = _job.decode(disk[JOBS][key])
        rows = [_task.decode(disk[TASKS][f"{key}.{i}"]) for i in record.spec.indices() if f"{key}.{i}" in disk[TASKS]]
        # Of a job that is cancelled for what it waits for, and forgotten in the same moment, no row says so.
        doomed = not rows and bool(record.spec.queueing.after)
        whole = record.cancelled or doomed or len(rows) == len(record.spec.indices())
        if not all(row.state.final for row in rows) or not whole:
            self.broken("acknowledged is durable", f"{node} drops job {key}, which has not ended")
        if not self._forgets():
            self.broken("acknowledged is durable", f"{node} drops job {key} from a history that is not full")

    def _job_written(self, change: Put, disk: Disk) -> None:
        old = disk[JOBS].get(change.key)
        if old is not None and _job.decode(old).cancelled and not _job.decode(change.value).cancelled:
            self.broken("acknowledged is durable", f"the cancellation of job {change.key} is undone")

    def _task_written(self, node: str, change: Put, disk: Disk) -> None:
        job, index = task_key(change.key)
        new = _task.decode(change.value)
        raw = disk[TASKS].get(change.key)
        old = _task.decode(raw) if raw is not None else TaskRecord()
        if old.state.final and old != new:
            self.broken("one attempt counts", f"task {change.key} changes after its end, from {old} to {new}")
        if not old.attempt <= new.attempt <= old.attempt + 1:
            self.broken("one attempt counts", f"attempt of {change.key} goes from {old.attempt} to {new.attempt}")
        row = disk[JOBS].get(str(job))
        if new.preempted != old.preempted:
            self._preempted(change.key, old, new, row)
        if new.attempt > old.attempt and row is not None and _job.decode(row).held:
            self.broken("what is held does not start", f"{node} attempts {change.key} of a held job")
        self._newest[(job, index)] = max(new.attempt, self._newest.get((job, index), 0))
        if new.state in (State.SUCCEEDED, State.FAILED):
            self._result_written(AllocationId(job, index, new.attempt), new)

    def _preempted(self, key: str, old: TaskRecord, new: TaskRecord, row: bytes | None) -> None:
        """Nobody of the highest tier gives way, nobody too often, and it costs no try."""
        self.preempted += 1
        if self._world.plan.features.freezing:
            self.broken("what is frozen loses nothing", f"task {key} is stopped for a higher tier")
        queueing = _job.decode(row).spec.queueing if row is not None else Queueing()
        if PARTITIONS.get(queueing.partition, 0) == max(PARTITIONS.values()):
            self.broken("only lower tiers give way", f"task {key} of the highest one does")
        if not old.preempted < new.preempted <= PREEMPTED_MAX:
            self.broken("preemptions are bounded", f"those of {key} go from {old.preempted} to {new.preempted}")
        if not new.again or new.tries != old.tries:
            self.broken("what is preempted runs again", f"{key} would not, or at the cost of a try: {new}")

    def _result_written(self, id_: AllocationId, record: TaskRecord) -> None:
        real = self._results.get(id_)
        if id_.attempt != self._newest[(id_.job, id_.index)]:
            self.broken("one attempt counts", f"a result of the outdated attempt {id_} is taken")
        if record.state is State.SUCCEEDED and (real is None or not real.success):
            self.broken("one attempt counts", f"{id_} is recorded as succeeded, but its container says {real}")
        if record.state is State.FAILED and real is not None and real.success:
            self.broken("one attempt counts", f"{id_} is recorded as failed, but its container succeeded")

    # --- messages

    def sending(self, node: str, message: bytes, disk: Disk) -> None:
        """A message leaves a node, after its changes are durable."""
        for item in decode(message, 1 << 30):
            if isinstance(item, Admit):
                self._asking(node, item, disk)
            elif isinstance(item, EndedTaken):
                self._taking(node, item, disk)

    def _asking(self, node: str, item: Admit, disk: Disk) -> None:
        if str(item.job) not in disk[JOBS] and not self._forgets():
            self.broken("acknowledged is durable", f"{node} asks for a place for job {item.job} before it is durable")
        for index, attempt in item.tasks:
            raw = disk[TASKS].get(f"{item.job}.{index}")
            if (raw is None and not self._forgets()) or (raw is not None and _task.decode(raw).attempt < attempt):
                self.broken("one attempt counts", f"{node} asks for {item.job}.{index}.{attempt} before it is durable")

    def _taking(self, node: str, item: EndedTaken, disk: Disk) -> None:
        for id_ in item.ids:
            raw = disk[TASKS].get(f"{id_.job}.{id_.index}")
            if raw is None:
                continue
            record = _task.decode(raw)
            if record.attempt == id_.attempt and record.state is State.PENDING and record.node:
                self.broken("acknowledged is durable", f"{node} takes the end of {id_} before it is durable")

    def _forgets(self) -> bool:
        return self._world.plan.features.short_history

    def published(self, node: str, boot_epoch: int, key: str, value: bytes) -> None:
        """A node gossips something about itself."""
        if key == "leader":
            epoch = decode_leads(value).epoch
            holder = self._epochs.setdefault(epoch, (node, boot_epoch))
            if holder != (node, boot_epoch) and not self._world.plan.features.disk_losses:
                self.broken("no epoch twice", f"{node} (boot {boot_epoch}) leads with epoch {epoch} of {holder}")

    # --- containers

    def starting(self, node: str, allocation: Allocation) -> None:
        """A container is about to be set up."""
        id_ = allocation.id
        if id_ in self._started:
            self.broken("one attempt counts", f"{id_} starts on {node}, but it started on {self._started[id_]} already")
        self._started[id_] = node
        if allocation.spec.on_lost is OnLost.SINGLE:
            self._starting_single(id_)
        home = self._world.hosts[allocation.home]
        if home.number != home_number(id_.job):
            self.broken("a home is the only writer of its jobs", f"{id_} was ordered by {home.name}")
        if str(id_) not in self._world.hosts[node].disk[ALLOCATIONS]:
            self.broken("nothing leaks", f"{id_} starts on {node} without a durable allocation")
        queueing = allocation.spec.queueing
        met = [self._met(each, id_.index) for each in queueing.after]
        if met and not (any(met) if queueing.after_any else all(met)):
            self.broken("dependencies are respected", f"{id_} starts on {node} before {queueing.after} is met: {met}")
        self._requests[id_] = allocation.spec.request
        self._load[node] = self._load[node] + allocation.spec.request
        self._within(node)

    def amended(self, node: str, allocation: Allocation) -> None:
        """A running container takes another amount from now on."""
        self._count(node, allocation.id, allocation.spec.request)

    def frozen(self, node: str, allocation: Allocation, job: int) -> None:
        """A container stands still from now on, for a job: it has its memory, and no CPU."""
        self.frozen_ever += 1
        id_, spec = allocation.id, allocation.spec
        row = self._world.hosts[node].disk[ALLOCATIONS].get(str(id_))
        if row is None or _held.decode(row).frozen_for is None:
            self.broken("nobody stands for nobody", f"{id_} stands still on {node}, and its ledger does not say so")
        over = self._world.spec(job)
        if over is not None and _tier(over) <= _tier(spec):
            self.broken("only lower tiers give way", f"{id_} stands still for job {job}")
        alone = spec.gang is None and spec.kind is JobKind.BATCH and spec.on_lost is not OnLost.SINGLE
        if not alone or spec.time_limit_s is not None:
            self.broken("what is frozen loses nothing", f"{id_} stands still, though it is none that may")
        self._count(node, id_, Resources(0, spec.request.memory_bytes, spec.request.extra))

    def thawed(self, node: str, allocation: Allocation) -> None:
        """It runs again."""
        self._count(node, allocation.id, allocation.spec.request)

    def _count(self, node: str, id_: AllocationId, amount: Resources) -> None:
        old, self._requests[id_] = self._requests[id_], amount
        self._load[node] = self._load[node] - old + amount
        self._within(node)

    def _within(self, node: str) -> None:
        short = shortage(self._load[node], self._world.permitted(node) + WHOLE)
        if short is not None:
            self.broken(
                "a node is the authority", f"{node} runs {short.need} of {short.dimension}, permits {short.free}"
            )

    def _starting_single(self, id_: AllocationId) -> None:
        for host in self._world.hosts.values():
            for other, container in host.containers.items():
                if (other.job, other.index) == (id_.job, id_.index) and container.result is None:
                    self.broken("a single job never runs twice", f"{id_} starts while {other} runs on {host.name}")

    def _met(self, dependency: Dependency, index: int) -> bool:
        """Judge a dependency by the disk of the other job's home; what was forgotten there has ended."""
        number = home_number(dependency.job)
        disk = next(host.disk for host in self._world.hosts.values() if host.number == number)
        raw = disk[JOBS].get(str(dependency.job))
        if raw is None:
            return True
        job = _job.decode(raw)
        rows = {i: disk[TASKS].get(f"{job.id}.{i}") for i in job.spec.indices()}
        tasks = {i: _task.decode(row) for i, row in rows.items() if row is not None}
        whole = job.cancelled or len(tasks) == len(rows)
        ended = whole and all(task.state.final for task in tasks.values())
        succeeded = len(tasks) == len(rows) and all(task.state is State.SUCCEEDED for task in tasks.values())
        match dependency.kind:
            case After.CORRESPONDING:
                return index in tasks and tasks[index].state is State.SUCCEEDED
            case After.AFTER:
                return whole and all(task.attempt for task in tasks.values() if not task.state.final)
            case After.OK:
                return ended and succeeded
            case After.NOT_OK:
                return ended and not succeeded
            case After.ANY:
                return ended

    def container_over(self, node: str, id_: AllocationId, result: Result | None) -> None:
        """A container ended, or died with its host (None)."""
        self._results[id_] = result
        self._load[node] = self._load[node] - self._requests[id_]

    def removing(self, node: str, id_: AllocationId, result: Result | None) -> None:
        """What is left of a container is about to be removed."""
        if result is None:
            self.broken("containers outlive agents", f"{node} removes {id_}, which has not ended")
        raw = self._world.hosts[node].disk[ALLOCATIONS].get(str(id_))
        if raw is not None and _held.decode(raw).result is None:
            self.broken("acknowledged is durable", f"{node} removes {id_} whose end is not durable")

    # --- when all is healed, and time was given for a few rounds of gossip

    def after_healing(self, healed_s: float) -> None:
        """No container of an outdated attempt, nor of a cancelled job, has survived."""
        for host in self._world.hosts.values():
            for id_, container in host.containers.items():
                if container.result is None and container.since_s < healed_s and self._outdated(container.allocation):
                    self.broken("one attempt counts", f"{id_} still runs on {host.name}, though it is outdated")

        self._check_gangs()
        self._check_frozen()

    def _check_frozen(self) -> None:
        """What stands still does so as its node knows, which alone can let it go on."""
        for host in self._world.hosts.values():
            known = host.agent.frozen() if host.agent is not None else {}
            for id_, container in host.containers.items():
                if container.frozen and id_ not in known:
                    self.broken("nobody stands for nobody", f"{id_} stands still on {host.name}, which does not know")

    def _check_gangs(self) -> None:
        """Of a gang all members run, or have run, or none: longer than a moment it is never half placed."""
        now = self._world.kernel.now
        ranks: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
        fresh: set[int] = set()
        for host in self._world.hosts.values():
            for id_, container in host.containers.items():
                home = self._world.hosts[container.allocation.home]
                if container.allocation.spec.gang is None or home.lost or self._outdated(container.allocation):
                    continue
                ranks[(home.name, id_.job)].add(id_.index)
                if container.since_s > now - GATHERING_MAX_S:
                    fresh.add(id_.job)
        for (name, job), found in ranks.items():
            disk = self._world.hosts[name].disk
            if job in fresh or str(job) not in disk[JOBS]:
                continue
            members = set(_job.decode(disk[JOBS][str(job)]).spec.indices())
            rows = {rank: disk[TASKS].get(f"{job}.{rank}") for rank in members}
            found |= {rank for rank, raw in rows.items() if raw is not None and _task.decode(raw).state.final}
            if found != members:
                self.broken("gangs start whole or not at all", f"of job {job} only the ranks {sorted(found)} run")

    def _outdated(self, allocation: Allocation) -> bool:
        id_, home = allocation.id, self._world.hosts[allocation.home]
        raw = home.disk[TASKS].get(f"{id_.job}.{id_.index}")
        if raw is None or home.lost:
            return False
        record = _task.decode(raw)
        return record.attempt != id_.attempt or record.state.final or not record.node

    # --- at the end, when all is healed and time was given

    def at_end(self) -> None:
        """All jobs acknowledged are there and have ended, or wait for a reason; nothing is left over."""
        hosts = self._world.hosts
        for job, node in self.acknowledged.items():
            if not hosts[node].lost:
                self._check_job(job, node)
        for host in hosts.values():
            if not host.lost:
                self._check_host(host)

    def _check_host(self, host: Host) -> None:
        """Ends that a lost home can't take any more are kept; anything else is a leak."""
        for id_, container in host.containers.items():
            if not self._world.hosts[container.allocation.home].lost:
                self.broken("nothing leaks", f"container {id_} is left on {host.name}")
        for key, row in host.disk[ALLOCATIONS].items():
            if not self._world.hosts[_held.decode(row).allocation.home].lost:
                self.broken("nothing leaks", f"allocation {key} is left in the ledger of {host.name}")
        self._check_agent(host.name)

    def unfinished(self) -> bool:
        """Whether some acknowledged job that could run has not ended, as its home sees it."""
        views = (self._view(job, node) for job, node in self.acknowledged.items())
        return any(view is not None and self._can_go_on(view) for view in views)

    def _can_go_on(self, view: JobView) -> bool:
        return view.state is State.RUNNING or (not view.state.final and self._world.possible(view.spec))

    def _view(self, job_id: int, node: str) -> JobView | None:
        """A job as its home shows it; None when the home has dropped it, or has no agent."""
        agent = self._world.hosts[node].agent
        try:
            return agent.job(job_id) if agent is not None else None
        except UnknownJob:
            return None

    def _check_agent(self, name: str) -> None:
        agent = self._world.hosts[name].agent
        assert agent is not None
        for node in agent.nodes():
            committed = node.report.committed if node.report is not None else Resources()
            excused = self._world.hosts[node.name].lost or self._orphans(node.name)
            if any(amount for _, amount in committed.items()) and not excused:
                self.broken("nothing leaks", f"{name} sees {node.name} committed to {committed}")
        for claim in agent.claims():
            self.broken("nothing leaks", f"{name} still claims {claim}")

    def _orphans(self, node: str) -> bool:
        """Whether containers of a lost home run on a node; they may run on."""
        containers = self._world.hosts[node].containers.values()
        return any(each.result is None and self._world.hosts[each.allocation.home].lost for each in containers)

    def _check_job(self, job_id: int, node: str) -> None:
        host = self._world.hosts[node]
        job = self._view(job_id, node)
        if job is None:
            if not self._forgets() or str(job_id) in host.disk[JOBS]:
                self.broken("acknowledged is durable", f"{node} does not know job {job_id} any more")
            return
        for task in job.tasks:
            name = f"{job_id}.{task.index}.{task.attempt}"
            if task.state.final:
                continue
            if job_id in self.cancelled:
                self.broken("acknowledged is durable", f"{name} is {task.state}, though its job is cancelled")
            elif self._world.possible(job.spec):
                self.broken("everything ends", f"{name} on {task.node!r} is {task.state}: {task.reason}")
            elif not task.reason:
                self.broken("nothing waits without a reason", f"{name} names none")
