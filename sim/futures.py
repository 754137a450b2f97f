"""What would change? A copy of the live cluster goes on in virtual time, as it is and as it would be.

Every node has a whole agent's machine (`sim.machines`) that is started, like after a stop of all agents, from the
ledger's rows: what is rebuilt of a snapshot. So nothing here decides: order, places, refusals and moves are those of
the agents' own code. Owns the rebuilding, the changes and the comparison.

Assumed: batch tasks run as long as their time limits, or, without one, as long as the agents plan them; services run
for ever. A node that is removed is gone with what ran on it; the jobs whose home it is live on, as if it were there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

import msgspec

from scheduler import SchedulerConfig
from scheduler.draining import ROW, AcceptingRow
from scheduler.errors import SchedulerError
from scheduler.estimate import estimate_s
from scheduler.events import Drain, Event, Received, Submit
from scheduler.lifecycle import LIVE, phase_of
from scheduler.messages import BATCH_MAX, Gone, encode
from scheduler.model import (
    NODE_NUMBER_MAX,
    Allocation,
    AllocationId,
    JobKind,
    JobSpec,
    Resources,
    Result,
    State,
    TaskRecord,
)
from scheduler.records import ALLOCATIONS, JOBS, META, SETTINGS, TASKS, USAGE, HeldRecord
from scheduler.reporting import WHOLE
from scheduler.settings import Entry
from scheduler.snapshot import JobCopy, NodeSnapshot
from scheduler.usage import DAY_S, Used
from sim.cluster import NodeType
from sim.errors import BadValue
from sim.live import Live
from sim.machines import Host, Links, Machines
from sim.many_homes import QUIET_S

HORIZON_S = 7 * 86_400.0
SETTLED_S = 60.0
STEP_S = 600.0
NEW_JOBS_MAX = 1_000
LEFT_GRACE_S = 30.0
MESSAGE_BYTES = 1 << 20

Watch = Callable[[float, float], bool]
_encode = msgspec.msgpack.Encoder().encode


class Addition(NamedTuple):
    """So many nodes of a type."""

    number: int
    type: NodeType


@dataclass(frozen=True, slots=True)
class Changes:
    """What is tried. `drain` maps nodes to the deadline of their batch tasks (None: they may end)."""

    drain: Mapping[str, float | None] = field(default_factory=dict)
    remove: Sequence[str] = ()
    add: Sequence[Addition] = ()
    cpu_ratio: float | None = None
    memory_ratio: float | None = None
    jobs: Sequence[JobSpec] = ()
    owner: str = "what-if"


class Wait(NamedTuple):
    """A job with tasks that wait: in how many seconds the first and the last of them start, None for not so soon."""

    job: int
    name: str
    owner: str
    waiting: int
    started: int
    first_s: float | None
    last_s: float | None
    nodes: tuple[str, ...]


class Moved(NamedTuple):
    """A task that ran and had to go: where it starts anew, or why it does not ("": not within the horizon)."""

    task: str
    name: str
    owner: str
    was: str
    now: str
    in_s: float | None
    lost: bool


class Load(NamedTuple):
    """A node once things have settled, and on the mean until the horizon: shares of what it lets tasks have."""

    node: str
    cpu: float
    memory: float
    cpu_mean: float
    memory_mean: float
    tasks: int


class Future(NamedTuple):
    """How the cluster goes on, `until_s` at most."""

    waits: list[Wait]
    new_jobs: list[Wait]
    refused: list[str]
    moved: list[Moved]
    loads: list[Load]
    until_s: float
    complete: bool


class Comparison(NamedTuple):
    """As it is, and as it would be."""

    now: Future
    then: Future


def what_if(live: Live, changes: Changes, horizon_s: float = HORIZON_S, watch: Watch | None = None) -> Comparison:
    """Return both futures; raises BadValue for what can't be tried. `watch(virtual time, horizon)` ends it by False."""
    check(live, changes)
    if not 60 <= horizon_s <= 366 * 86_400:
        raise BadValue("horizon", horizon_s, "seconds, from a minute to a year")
    return Comparison(_Copy(live, Changes(), horizon_s).run(watch), _Copy(live, changes, horizon_s).run(watch))


def check(live: Live, changes: Changes) -> None:
    """Raise BadValue for a change that makes no sense on this cluster."""
    known = [node.node for node in live.nodes]
    if not known:
        raise BadValue("snapshot", "no node", "a cluster with at least one node that answers")
    for option, names in (("drain", changes.drain), ("remove", changes.remove)):
        for name in names:
            if name not in known:
                raise BadValue(option, name, f"one of {', '.join(sorted(known)[:20])}")
    both = set(changes.drain) & set(changes.remove)
    if both:
        raise BadValue("drain", min(both), "a node that is not removed as well")
    for name, ratio in (("cpu ratio", changes.cpu_ratio), ("memory ratio", changes.memory_ratio)):
        if ratio is not None and not 0.001 <= ratio <= 100:
            raise BadValue(name, ratio, "from 0.001 to 100")
    added = sum(each.number for each in changes.add)
    if added + len(known) > NODE_NUMBER_MAX:
        raise BadValue("add", added, f"at most {NODE_NUMBER_MAX} nodes in all; there are {len(known)}")
    if len(changes.jobs) > NEW_JOBS_MAX:
        raise BadValue("job", f"{len(changes.jobs)} jobs", f"at most {NEW_JOBS_MAX}")


class _Copy(Machines):
    """The cluster in virtual time, from the snapshot on."""

    def __init__(self, live: Live, changes: Changes, horizon_s: float) -> None:
        self.unix_began_s = live.taken_unix_s
        self._live, self._changes, self._horizon_s = live, changes, horizon_s
        self._nodes = {node.node: node for node in live.nodes}
        self._jobs = {job.record.id: (home, job) for home, job in live.jobs()}
        self._placed: dict[tuple[int, int], list[tuple[float, str]]] = {}
        self._ran: dict[tuple[int, int], str] = {}
        self._attempts: dict[tuple[int, int], int] = {}
        self._ended: set[tuple[int, int]] = set()
        self._new: list[tuple[int, JobSpec]] = []
        self._refused: list[str] = []
        hosts = [*map(self._host, live.nodes), *self._added()]
        listeners = {home for home, _ in live.jobs()} | {host.name for host in hosts[:3]}
        super().__init__(hosts, sorted(listeners), Links(gossip_s=0.0))
        self._remaining = self._rebuild()
        self._loads = {host.name: _Loads(host) for host in hosts}

    # --- the hosts, as the snapshot has them and as the changes want them

    def _host(self, node: NodeSnapshot) -> Host:
        report = node.report
        assert report is not None
        gone = node.node in self._changes.remove
        has = Resources() if gone else _without_whole(report.allocatable)
        host = Host(node.node, report.number, has, report.labels, self._config(node))
        accepting = report.accepting and not gone
        host.disk[META][ROW] = _encode(AcceptingRow(accepting, report.draining, None))
        self._common_rows(host, node)
        return host

    def _config(self, node: NodeSnapshot) -> SchedulerConfig:
        rules = node.rules
        assert rules is not None
        given = msgspec.structs.asdict(rules)
        for name in ("cpu", "memory"):
            ratio = getattr(self._changes, f"{name}_ratio")
            if ratio is not None:
                given[f"{name}_ratio_permille"] = round(ratio * 1000)
        return SchedulerConfig(
            **given, report_interval_s=QUIET_S, holding_interval_s=QUIET_S, census_interval_s=QUIET_S,
            settings_interval_s=QUIET_S, follow_interval_s=QUIET_S, usage_interval_s=QUIET_S,
            leader_publish_s=60.0, hold_ttl_s=10 * QUIET_S, left_grace_s=LEFT_GRACE_S, lost_grace_s=LEFT_GRACE_S,
        )  # fmt: skip

    def _common_rows(self, host: Host, node: NodeSnapshot) -> None:
        for name, value in node.settings:
            host.disk[SETTINGS][name] = _encode(Entry(name, 1, 1, value))
        today = int(self._live.taken_unix_s // DAY_S)
        for account, user, charge_s in node.charges:
            host.disk[USAGE][f"{today}/{account}/{user}"] = _encode(Used(charged_ms=round(charge_s * 1000)))

    def _added(self) -> list[Host]:
        numbers = (number for number in range(1, NODE_NUMBER_MAX + 1) if number not in self._numbers())
        names = {node.node for node in self._live.nodes}
        hosts = []
        for number, kind in self._changes.add:
            for place in range(1, number + 1):
                name = f"{kind.name}-new-{place}"
                while name in names:
                    name += "x"
                names.add(name)
                model = self._nodes.get(kind.name, self._live.nodes[0])
                has = Resources(kind.cpu_milli, kind.memory_bytes, self._extra(kind))
                labels = tuple(sorted(kind.labels.items()))
                host = Host(name, next(numbers), has, labels, self._config(model))
                self._common_rows(host, msgspec.structs.replace(model, charges=()))
                hosts.append(host)
        return hosts

    def _extra(self, kind: NodeType) -> tuple[tuple[str, int], ...]:
        node = self._nodes.get(kind.name)
        if node is not None and node.report is not None:
            return _without_whole(node.report.allocatable).extra
        return (("gpu", kind.gpus),) if kind.gpus else ()

    def _numbers(self) -> set[int]:
        return {node.report.number for node in self._live.nodes if node.report is not None}

    # --- what runs and what waits, as rows of the ledger

    def _rebuild(self) -> dict[AllocationId, float]:
        """Write the homes' and nodes' rows; return how much longer each container runs."""
        ends = {held.id: held.ends_in_s for node in self._live.nodes for held in node.held}
        remaining: dict[AllocationId, float] = {}
        for home, job in self._jobs.values():
            disk, record = self.hosts[home].disk, job.record
            disk[JOBS][str(record.id)] = _encode(record)
            for state, first, last in job.ended:
                for index in record.spec.indices():
                    if first <= index <= last:
                        disk[TASKS][f"{record.id}.{index}"] = _encode(TaskRecord(State(state), attempt=1))
            nodes = tuple(task.node for _, task in job.tasks) if record.spec.gang is not None else ()
            for index, task in job.tasks:
                disk[TASKS][f"{record.id}.{index}"] = _encode(self._task(task))
                id_ = AllocationId(record.id, index, task.attempt)
                if not self._runs(task):
                    continue
                self._ran[record.id, index] = task.node
                self._attempts[record.id, index] = task.attempt
                if task.node in self._changes.remove:
                    continue
                config = self.hosts[task.node].config
                left_s = ends.get(str(id_))
                remaining[id_] = estimate_s(record.spec, config) if left_s is None else max(1.0, left_s)
                self._hold(home, record.owner, id_, record.spec, task.node, remaining[id_], nodes)
        return remaining

    def _runs(self, task: TaskRecord) -> bool:
        return phase_of(task) in LIVE and task.admitted and task.node in self._nodes

    def _task(self, task: TaskRecord) -> TaskRecord:
        if self._runs(task) or phase_of(task) not in LIVE:
            return msgspec.structs.replace(task, boot_epoch=1, leaving="")
        # Asked for and not yet answered, or on a node of which nothing is known.
        return msgspec.structs.replace(task, state=State.PENDING, node="", admitted=False, leaving="")

    def _hold(
        self, home: str, owner: str, id_: AllocationId, spec: JobSpec, node: str, left_s: float, nodes: tuple[str, ...]
    ) -> None:
        """It runs there; its time limit is what is left of it, so that plans are made of that."""
        host = self.hosts[node]
        limit_s = None if left_s == inf else left_s
        order = Allocation(id_, home, owner, msgspec.structs.replace(spec, time_limit_s=limit_s), nodes)
        host.disk[ALLOCATIONS][str(id_)] = _encode(HeldRecord(order))
        host.running[id_] = None

    # --- the run

    def run(self, watch: Watch | None) -> Future:
        """Let it go on until nothing waits any more, or until the horizon."""
        self.start_all()
        for id_, left_s in self._remaining.items():
            if left_s < inf:
                host = self.hosts[self._ran[id_.job, id_.index]]
                self.kernel.after(left_s, self._end, host, id_, Result(exit_code=0))
        self._tell_removed()
        for name, deadline_s in self._changes.drain.items():
            self.give(self.hosts[name], Drain(deadline_s, self.unix_began_s))
        self._submit()
        complete = True
        self.kernel.run_until(SETTLED_S)
        for loads in self._loads.values():
            loads.settle(self.kernel.now)
        while self.kernel.now < self._horizon_s and not self._quiet():
            self.kernel.run_until(min(self.kernel.now + STEP_S, self._horizon_s))
            if watch is not None and not watch(self.kernel.now, self._horizon_s):
                complete = False
                break
        return self._future(complete)

    def _tell_removed(self) -> None:
        """Nodes ask a home that came back about its tasks at once; a home asks its own node later: say it now."""
        for name in self._changes.remove:
            ran = (key for key, node in self._ran.items() if node == name and self._jobs[key[0]][0] == name)
            ids = tuple(AllocationId(*key, self._attempts[key]) for key in ran)
            for message in encode(
                [Gone(ids[at : at + BATCH_MAX]) for at in range(0, len(ids), BATCH_MAX)], MESSAGE_BYTES
            ):
                self.give(self.hosts[name], Received(name, message))

    def _submit(self) -> None:
        home = next((host for host in self.hosts.values() if host.name not in self._changes.remove), None)
        for spec in self._changes.jobs:
            if home is None:
                raise BadValue("remove", ", ".join(self._changes.remove), "a node has to be left")
            try:
                self.give(home, Submit(self._changes.owner, spec, self.unix_began_s + self.kernel.now))
            except SchedulerError as error:
                self._refused.append(f"{spec.name}: {error}")

    def said(self, answer: object, event: Event) -> None:
        """Note the id of a new job."""
        if isinstance(event, Submit) and isinstance(answer, int):
            self._new.append((answer, event.spec))

    def _quiet(self) -> bool:
        """Whether nothing waits, or nothing will ever come free for what waits."""
        waits = any(host.agent is not None and any(_waits(host)) for host in self.hosts.values())
        if not waits:
            return True
        ends = any(spec_ends for host in self.hosts.values() for spec_ends in self._will_end(host))
        return not ends and self.kernel.now >= 2 * QUIET_S

    def _will_end(self, host: Host) -> Iterable[bool]:
        for id_ in host.running:
            if id_ in self._remaining:
                yield self._remaining[id_] < inf
            else:
                yield self._placed_spec(id_).kind is not JobKind.SERVICE

    def _placed_spec(self, id_: AllocationId) -> JobSpec:
        known = self._jobs.get(id_.job)
        return known[1].record.spec if known is not None else dict(self._new)[id_.job]

    # --- containers

    def begun(self, host: Host, id_: AllocationId, spec: JobSpec) -> float:
        """Note where and when a task starts."""
        self._placed.setdefault((id_.job, id_.index), []).append((self.kernel.now, host.name))
        self._loads[host.name].add(self.kernel.now, spec.request, 1)
        return estimate_s(spec, host.config)

    def over(self, host: Host, id_: AllocationId, result: Result) -> None:
        """Note that a task ended by itself."""
        spec = self._placed_spec(id_)
        self._loads[host.name].add(self.kernel.now, spec.request, -1)
        if result.exit_code == 0:
            self._ended.add((id_.job, id_.index))

    def start(self, host: Host) -> None:
        """Start a host's agent; what runs there counts from now on."""
        super().start(host)
        for id_ in host.running:
            self._loads[host.name].add(self.kernel.now, self._placed_spec(id_).request, 1)

    # --- what came of it

    def _future(self, complete: bool) -> Future:
        known = sorted((job.record for _, job in self._jobs.values()), key=lambda each: each.submitted_unix_s)
        waits = [self._wait(each.id, each.owner, each.spec) for each in known]
        waits = [each for each in waits if each.waiting]
        new = [self._wait(job, self._changes.owner, spec) for job, spec in self._new]
        now_s = self.kernel.now
        loads = [self._loads[name].told(now_s) for name in self.hosts if name not in self._changes.remove]
        return Future(waits, new, self._refused, self._moved(), loads, now_s, complete)

    def _wait(self, job: int, owner: str, spec: JobSpec) -> Wait:
        copy = self._jobs[job][1] if job in self._jobs else None
        waiting = [index for index in spec.indices() if copy is None or self._waited(copy, index)]
        starts = sorted(self._placed[job, index][0] for index in waiting if (job, index) in self._placed)
        last_s = starts[-1][0] if starts and len(starts) == len(waiting) else None
        nodes = tuple(dict.fromkeys(name for _, name in starts))
        first_s = starts[0][0] if starts else None
        return Wait(job, spec.name, owner, len(waiting), len(starts), first_s, last_s, nodes)

    def _waited(self, job: JobCopy, index: int) -> bool:
        if any(first <= index <= last for _, first, last in job.ended):
            return False
        return (job.record.id, index) not in self._ran

    def _moved(self) -> list[Moved]:
        found = []
        for (job, index), was in sorted(self._ran.items()):
            starts = self._placed.get((job, index), [])
            host = self.hosts[was]
            stays = any(id_.job == job and id_.index == index for id_ in host.running)
            if not starts and (stays or (job, index) in self._ended):
                continue
            record = self._jobs[job][1].record
            in_s, now = starts[0] if starts else (None, "")
            lost = not starts and record.spec.on_lost == "fail"
            found.append(Moved(f"{job}.{index}", record.spec.name, record.owner, was, now, in_s, lost))
        return found


class _Loads:
    """What is committed on a node, over time."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._held, self._tasks = Resources(), 0
        self._cpu_area = self._memory_area = self._now_s = 0.0
        self._settled: tuple[Resources, int] = (Resources(), 0)

    def add(self, now_s: float, request: Resources, sign: int) -> None:
        """A task comes or goes."""
        self._pass_to(now_s)
        self._held = self._held + request * sign
        self._tasks += sign

    def settle(self, now_s: float) -> None:
        """This is how it is once the changes have been carried out."""
        self._pass_to(now_s)
        self._settled = self._held, self._tasks

    def told(self, now_s: float) -> Load:
        """Return the figures."""
        self._pass_to(now_s)
        has, (held, tasks) = self._host.capacity, self._settled
        cpu, memory = max(1, has.cpu_milli), max(1, has.memory_bytes)
        span_s = now_s or 1.0
        means = self._cpu_area / span_s / cpu, self._memory_area / span_s / memory
        return Load(self._host.name, held.cpu_milli / cpu, held.memory_bytes / memory, *means, tasks)

    def _pass_to(self, now_s: float) -> None:
        self._cpu_area += (now_s - self._now_s) * self._held.cpu_milli
        self._memory_area += (now_s - self._now_s) * self._held.memory_bytes
        self._now_s = now_s


def _waits(host: Host) -> Iterable[bool]:
    assert host.agent is not None
    return (job.counts[State.PENDING] > 0 for job in host.agent.jobs())


def _without_whole(amount: Resources) -> Resources:
    whole = dict(WHOLE.extra)
    return msgspec.structs.replace(amount, extra=tuple((name, n) for name, n in amount.extra if name not in whole))
