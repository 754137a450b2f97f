"""One queue over several homes: a batch trace played through whole agents' scheduling machines, not through a planner.

Every node has a real machine; jobs are submitted to a few of them in turn, gangs and all. Messages take a millisecond
and may be lost; what is gossiped is heard some time later; the leader may be killed again and again. Containers are
virtual, disks never fail, and nothing but the network is modelled. What comes out are the starts, to be compared with
those of one central planner that knows everything at once (`sim.replay`).

Leaner than a fault world (`sim.world`), for a year of a cluster is a million messages: no checkers, no torn commits.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from scheduler import Scheduler, SchedulerConfig
from scheduler.events import (
    Action,
    ContainerEnded,
    ContainerStarted,
    Event,
    Heard,
    Measured,
    MemberDown,
    MemberUp,
    Outcome,
    Publish,
    Put,
    Received,
    RemoveContainer,
    Send,
    StartContainer,
    Submit,
    Timer,
)
from scheduler.messages import decode
from scheduler.model import AllocationId, JobSpec, Resources, Result
from scheduler.records import TABLES
from scheduler.spec.gang import Gang
from sim.kernel import Kernel
from sim.workload import Workload

TASK = Resources(1000, 1 << 20)
QUIET_S = 3600.0


@dataclass(frozen=True, slots=True)
class Setting:
    """What is tried. Times of the trace are divided by `faster`; the machines' own times are not.

    `homes`: how many nodes take jobs, the first one being number `home_first`. `kill_every`: after so many submissions
    the leader's agent dies; its death is known after `notice_s`, and it is started again after `down_s`.
    """

    nodes: int = 100
    homes: int = 5
    home_first: int = 11
    faster: float = 1.0
    latency_s: float = 0.001
    gossip_s: float = 1.0
    loss: float = 0.0
    kill_every: int = 0
    notice_s: float = 1.0
    down_s: float = 6.0
    queue_policy: str = "easy"
    seed: int = 1


@dataclass(slots=True)
class Starts:
    """What came out: when the last task of each job started (None: never), and what it took."""

    starts_s: list[float | None]
    figures: Counter[str]


@dataclass(eq=False)
class _Node:
    """A node: its agent when it runs, its disk if it may have to be restored, its containers."""

    name: str
    number: int
    agent: Scheduler | None = None
    boot_epoch: int = 0
    disk: dict[str, dict[str, bytes]] = field(default_factory=lambda: {table: {} for table in TABLES})
    running: dict[AllocationId, None] = field(default_factory=dict)
    ended: dict[AllocationId, Result] = field(default_factory=dict)
    published: dict[str, bytes] = field(default_factory=dict)
    armed_s: float = float("inf")


class ManyHomes:
    """The cluster, its network and its clients."""

    def __init__(self, workload: Workload, setting: Setting) -> None:
        self.workload = workload
        self.setting = setting
        self.kernel = Kernel(setting.seed)
        self.figures: Counter[str] = Counter()
        self.starts: list[float | None] = [None] * len(workload)
        self._loss = self.kernel.random("loss")
        self._config = _config(setting)
        self._nodes = {f"n{number}": _Node(f"n{number}", number) for number in range(1, setting.nodes + 1)}
        first = setting.home_first
        self._homes = [self._nodes[f"n{number}"] for number in range(first, first + setting.homes)]
        # Those that take jobs or may come to lead hear gossip; the others would only listen.
        listeners = {node.name: node for node in [*self._homes, *list(self._nodes.values())[:3]]}
        self._listeners = list(listeners.values())
        self._waits_for: dict[int, int] = {}
        self._job_of: dict[str, int] = {}

    def run(self) -> Starts:
        """Play the whole workload, and then until everything has started and ended."""
        for node in self._nodes.values():
            self._start(node)
        for node in self._nodes.values():
            for other in self._listeners:
                if other is not node:
                    self._give(node, MemberUp(other.name, other.number, 1))
        for listener in self._listeners:
            for other in self._nodes.values():
                if other not in self._listeners:
                    self._give(listener, MemberUp(other.name, other.number, 1))
        self.kernel.at(10.0, self._submit, 0)
        end_s = 10.0 + self.workload.submit_s[-1] / self.setting.faster
        self.kernel.run_until(end_s)
        left = 0
        while None in self.starts and left < 10_000:
            self.kernel.run_until(self.kernel.now + 3600 / self.setting.faster + 1)
            left += 1
        return Starts([None if at_s is None else at_s - 10.0 for at_s in self.starts], self.figures)

    # --- clients

    def _submit(self, job: int) -> None:
        work, faster = self.workload, self.setting.faster
        while True:
            self._submit_one(job)
            if self.setting.kill_every and (job + 1) % self.setting.kill_every == 0:
                self._kill_leader()
            job += 1
            if job == len(work):
                return
            due_s = 10.0 + work.submit_s[job] / faster
            if due_s > self.kernel.now:
                self.kernel.at(due_s, self._submit, job)
                return

    def _submit_one(self, job: int) -> None:
        work, faster = self.workload, self.setting.faster
        home = next(home for home in self._turn(job) if home.agent is not None)
        need = work.needs[job]
        spec = JobSpec(
            name=f"j{job}",
            argv=("run",),
            request=TASK,
            time_limit_s=work.estimate_s[job] / faster,
            gang=Gang(nodes=need) if need > 1 else None,
        )
        self._waits_for[job] = need
        self._give(home, Submit("user", spec, self.kernel.now))

    def _turn(self, job: int) -> list[_Node]:
        place = job % len(self._homes)
        return self._homes[place:] + self._homes[:place]

    # --- the leader's death

    def _kill_leader(self) -> None:
        leader = next(node for node in self._nodes.values() if node.agent is not None)
        leader.agent = None
        leader.armed_s = float("inf")
        self.figures["killed"] += 1
        self.kernel.after(self.setting.notice_s, self._tell_all, leader, MemberDown(leader.name))
        self.kernel.after(self.setting.down_s, self._restart, leader)

    def _restart(self, node: _Node) -> None:
        self._start(node)
        for other in self._nodes.values():
            if other is not node and other.agent is not None:
                self._give(node, MemberUp(other.name, other.number, other.boot_epoch))
                for key, value in other.published.items():
                    self._give(node, Heard(other.name, key, value))
        self.kernel.after(
            self.setting.notice_s, self._tell_all, node, MemberUp(node.name, node.number, node.boot_epoch)
        )

    def _tell_all(self, about: _Node, event: Event) -> None:
        for other in self._nodes.values():
            if other is not about:
                self._give(other, event)

    # --- agents

    def _start(self, node: _Node) -> None:
        node.boot_epoch += 1
        node.agent = Scheduler(self._config, node.name, node.number, node.boot_epoch, self.setting.seed)
        rows = {table: dict(entries) for table, entries in node.disk.items()}
        self._carry_out(node, node.agent.restore(self.kernel.now, self.kernel.now, rows))
        self._give(node, Measured(TASK, TASK, Resources()))
        for id_, result in list(node.ended.items()):
            self._give(node, ContainerEnded(id_, result))
        for id_ in list(node.running):
            self._give(node, ContainerStarted(id_, self.kernel.now))

    def _give(self, node: _Node, event: Event) -> None:
        if node.agent is not None:
            self.figures["events"] += 1
            self._carry_out(node, node.agent.handle(self.kernel.now, event))

    def _carry_out(self, node: _Node, outcome: Outcome) -> None:
        for change in outcome.changes:
            if isinstance(change, Put):
                node.disk[change.table][change.key] = change.value
            else:
                node.disk[change.table].pop(change.key, None)
        for action in outcome.actions:
            self._act(node, action)
        assert node.agent is not None
        due_s = node.agent.next_timer()
        if due_s is not None and due_s < node.armed_s:
            node.armed_s = due_s
            self.kernel.at(due_s, self._ring, node, due_s, node.boot_epoch)

    def _ring(self, node: _Node, due_s: float, boot_epoch: int) -> None:
        if node.agent is None or node.boot_epoch != boot_epoch or due_s != node.armed_s:
            return
        node.armed_s = float("inf")
        next_s = node.agent.next_timer()
        if next_s is not None and next_s <= self.kernel.now:
            self._give(node, Timer())
        elif next_s is not None:
            node.armed_s = next_s
            self.kernel.at(next_s, self._ring, node, next_s, boot_epoch)

    def _act(self, node: _Node, action: Action) -> None:
        match action:
            case Send(to, message):
                self._send(node, to, message)
            case StartContainer(allocation):
                self._run(node, allocation.id, allocation.spec)
            case RemoveContainer(id_):
                node.ended.pop(id_, None)
            case Publish(key, value):
                node.published[key] = value
                self.kernel.after(self.setting.gossip_s, self._gossip, node, key, value)

    def _send(self, node: _Node, to: str, message: bytes) -> None:
        if to == node.name:
            self.kernel.after(0.0, self._give, node, Received(node.name, message))
            return
        self.figures["messages"] += 1
        if self.setting.loss and self._loss.random() < self.setting.loss:
            self.figures["lost"] += 1
            return
        self.kernel.after(self.setting.latency_s, self._give, self._nodes[to], Received(node.name, message))

    def _gossip(self, node: _Node, key: str, value: bytes) -> None:
        for listener in self._listeners:
            if listener is not node:
                self._give(listener, Heard(node.name, key, value))

    # --- containers

    def _run(self, node: _Node, id_: AllocationId, spec: JobSpec) -> None:
        if id_ in node.running or id_ in node.ended:
            return
        node.running[id_] = None
        job = int(spec.name[1:])
        self.figures["containers"] += 1
        self._waits_for[job] -= 1
        if self._waits_for[job] <= 0:
            self.starts[job] = self.kernel.now
        self.kernel.after(0.0, self._give, node, ContainerStarted(id_, self.kernel.now))
        self.kernel.after(self.workload.run_s[job] / self.setting.faster, self._end, node, id_)

    def _end(self, node: _Node, id_: AllocationId) -> None:
        if id_ in node.running:
            del node.running[id_]
            result = Result(exit_code=0)
            node.ended[id_] = result
            self._give(node, ContainerEnded(id_, result))


def _config(setting: Setting) -> SchedulerConfig:
    """What is told again and again only as a backstop is told seldom: a trace of a year has millions of seconds."""
    quiet_s = QUIET_S if setting.faster < 100 else QUIET_S / 10
    return SchedulerConfig(
        queue_policy=setting.queue_policy,
        report_interval_s=quiet_s,
        holding_interval_s=quiet_s,
        census_interval_s=quiet_s,
        leader_publish_s=60.0,
        hold_ttl_s=10 * quiet_s if setting.faster < 100 else 60.0,
        history_jobs=100,
    )


def count_items(message: bytes) -> Counter[str]:
    """Return what a message says, by kind, for those who look for waste."""
    return Counter(type(item).__name__ for item in decode(message, len(message)))
