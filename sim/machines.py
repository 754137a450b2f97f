"""Whole agents' scheduling machines on virtual hosts: only the network and the containers are modelled.

Owns the hosts, their agents, disks that never fail, the virtual network (a latency, a loss, gossip heard some time
later) and containers that run for as long as they are said to. What is submitted when, and what is made of the starts,
is a subclass's business. Leaner than a fault world (`sim.world`), for a year of a cluster is a million messages: no
checkers, no torn commits. The same seed gives the same run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from scheduler import Scheduler, SchedulerConfig
from scheduler.events import (
    Action,
    ContainerEnded,
    ContainerFrozen,
    ContainerStarted,
    ContainerThawed,
    Event,
    FreezeContainer,
    Heard,
    Measured,
    MemberUp,
    Outcome,
    Publish,
    Put,
    Received,
    RemoveContainer,
    Send,
    StartContainer,
    StopContainer,
    ThawContainer,
    Timer,
)
from scheduler.model import Allocation, AllocationId, JobSpec, Resources, Result
from scheduler.records import TABLES
from sim.kernel import Kernel

STOPPED = Result(exit_code=143, signal=15)
LOST = Result(error="the host was restarted")


@dataclass(frozen=True, slots=True)
class Links:
    """The virtual network: a message takes `latency_s` and may be lost; gossip is heard `gossip_s` later."""

    latency_s: float = 0.001
    gossip_s: float = 1.0
    loss: float = 0.0
    seed: int = 1


@dataclass(eq=False)
class Host:
    """A host: its agent while that runs, its disk, its containers."""

    name: str
    number: int
    capacity: Resources
    labels: tuple[tuple[str, str], ...] = ()
    config: SchedulerConfig = field(default_factory=SchedulerConfig)
    agent: Scheduler | None = None
    boot_epoch: int = 0
    disk: dict[str, dict[str, bytes]] = field(default_factory=lambda: {table: {} for table in TABLES})
    running: dict[AllocationId, None] = field(default_factory=dict)
    due_s: dict[AllocationId, float] = field(default_factory=dict)
    frozen_left_s: dict[AllocationId, float] = field(default_factory=dict)
    ended: dict[AllocationId, Result] = field(default_factory=dict)
    published: dict[str, bytes] = field(default_factory=dict)
    armed_s: float = inf


class Machines:
    """The hosts, their network and their containers. `listeners` hear gossip; the others would only listen."""

    unix_began_s = 0.0
    """The wall clock's time when virtual time begins."""

    def __init__(self, hosts: Iterable[Host], listeners: Sequence[str], links: Links) -> None:
        self.links = links
        self.kernel = Kernel(links.seed)
        self.figures: Counter[str] = Counter()
        self.hosts = {host.name: host for host in hosts}
        self.listeners = [self.hosts[name] for name in listeners]
        self._chance = self.kernel.random("loss")

    @property
    def unix_s(self) -> float:
        """The wall clock's time now, the same on all hosts."""
        return self.unix_began_s + self.kernel.now

    # --- what subclasses say

    def begun(self, host: Host, id_: AllocationId, spec: JobSpec) -> float:
        """A container begins on a host: return how long it will run, infinity for ever."""
        raise AssertionError("a subclass's business")

    def over(self, host: Host, id_: AllocationId, result: Result) -> None:
        """A container ended."""

    def said(self, answer: object, event: Event) -> None:
        """A machine answered what was submitted."""

    # --- agents

    def start_all(self) -> None:
        """Start every agent and let them know each other."""
        for host in self.hosts.values():
            self.start(host)
        self.meet_all()

    def meet_all(self) -> None:
        """Let the agents know each other."""
        for listener in self.listeners:
            for other in self.hosts.values():
                if other is not listener:
                    self.give(listener, MemberUp(other.name, other.number, 1))
        for host in self.hosts.values():
            if host not in self.listeners:
                for listener in self.listeners:
                    self.give(host, MemberUp(listener.name, listener.number, 1))

    def start(self, host: Host) -> None:
        """Start a host's agent, with the disk and the containers that are there."""
        host.boot_epoch += 1
        host.agent = Scheduler(host.config, host.name, host.number, host.boot_epoch, self.links.seed)
        rows = {table: dict(entries) for table, entries in host.disk.items()}
        self._carry_out(host, host.agent.restore(self.kernel.now, self.unix_s, rows))
        self.give(host, Measured(host.capacity, host.capacity, Resources(), host.labels))
        for id_, result in list(host.ended.items()):
            self.give(host, ContainerEnded(id_, result))
        for id_ in list(host.running):
            self.give(host, ContainerStarted(id_, self.unix_s))

    def stop_agent(self, host: Host) -> None:
        """End a host's agent; its containers run on."""
        host.agent = None
        host.armed_s = inf

    def lose(self, host: Host) -> None:
        """Lose a host with all that runs there; its disk is as it was when it is started again."""
        self.stop_agent(host)
        host.ended.update(dict.fromkeys(host.running, LOST))
        for each in (host.running, host.due_s, host.frozen_left_s):
            each.clear()

    def tell(self, host: Host) -> None:
        """Tell a host that is back who is there, and what they published."""
        for other in self.hosts.values():
            if other is not host and other.agent is not None:
                self.give(host, MemberUp(other.name, other.number, other.boot_epoch))
                for key, value in other.published.items():
                    self.give(host, Heard(other.name, key, value))

    def tell_all(self, about: Host, event: Event) -> None:
        """Let all others hear of a host's coming or going."""
        for other in self.hosts.values():
            if other is not about:
                self.give(other, event)

    def give(self, host: Host, event: Event) -> None:
        """Give an event to a host's machine, if its agent runs."""
        if host.agent is not None:
            self.figures["events"] += 1
            outcome = host.agent.handle(self.kernel.now, event)
            if outcome.answer is not None:
                self.said(outcome.answer, event)
            self._carry_out(host, outcome)

    def _carry_out(self, host: Host, outcome: Outcome) -> None:
        for change in outcome.changes:
            if isinstance(change, Put):
                host.disk[change.table][change.key] = change.value
            else:
                host.disk[change.table].pop(change.key, None)
        for action in outcome.actions:
            self._act(host, action)
        assert host.agent is not None
        due_s = host.agent.next_timer()
        if due_s is not None and due_s < host.armed_s:
            host.armed_s = due_s
            self.kernel.at(due_s, self._ring, host, due_s, host.boot_epoch)

    def _ring(self, host: Host, due_s: float, boot_epoch: int) -> None:
        if host.agent is None or host.boot_epoch != boot_epoch or due_s != host.armed_s:
            return
        host.armed_s = inf
        next_s = host.agent.next_timer()
        if next_s is not None and next_s <= self.kernel.now:
            self.give(host, Timer())
        elif next_s is not None:
            host.armed_s = next_s
            self.kernel.at(next_s, self._ring, host, next_s, boot_epoch)

    def _act(self, host: Host, action: Action) -> None:
        match action:
            case Send(to, message):
                self._send(host, to, message)
            case StartContainer(allocation):
                self._run(host, allocation)
            case FreezeContainer(id_):
                self._freeze(host, id_)
            case ThawContainer(id_):
                self._thaw(host, id_)
            case StopContainer(id_):
                self._end(host, id_, STOPPED)
            case RemoveContainer(id_):
                host.ended.pop(id_, None)
            case Publish(key, value):
                host.published[key] = value
                self.publish(host, key, value)

    def _send(self, host: Host, to: str, message: bytes) -> None:
        if to == host.name:
            self.kernel.after(0.0, self.give, host, Received(host.name, message))
            return
        self.figures["messages"] += 1
        if self.links.loss and self._chance.random() < self.links.loss:
            self.figures["lost"] += 1
            return
        self.kernel.after(self.links.latency_s, self.give, self.hosts[to], Received(host.name, message))

    def publish(self, host: Host, key: str, value: bytes) -> None:
        """Let the listeners hear some time later what a host says of itself."""
        self.kernel.after(self.links.gossip_s, self._gossip, host, key, value)

    def _gossip(self, host: Host, key: str, value: bytes) -> None:
        for listener in self.listeners:
            if listener is not host:
                self.give(listener, Heard(host.name, key, value))

    # --- containers

    def _run(self, host: Host, allocation: Allocation) -> None:
        id_ = allocation.id
        if id_ in host.running or id_ in host.ended:
            return
        host.running[id_] = None
        self.figures["containers"] += 1
        run_s = self.begun(host, id_, allocation.spec)
        self.kernel.after(0.0, self.give, host, ContainerStarted(id_, self.unix_s))
        if run_s < inf:
            self._run_on(host, id_, run_s)

    def _run_on(self, host: Host, id_: AllocationId, left_s: float) -> None:
        host.due_s[id_] = self.kernel.now + left_s
        self.kernel.after(left_s, self._run_out, host, id_)

    def _run_out(self, host: Host, id_: AllocationId) -> None:
        """It has run for as long as it was to, unless it stood still meanwhile."""
        if host.due_s.get(id_, inf) <= self.kernel.now:
            self._end(host, id_, Result(exit_code=0))

    def _freeze(self, host: Host, id_: AllocationId) -> None:
        """What has no end of its own has infinitely much left."""
        if id_ in host.running:
            host.frozen_left_s.setdefault(id_, host.due_s.pop(id_, inf) - self.kernel.now)
        why = "" if id_ in host.running else "it does not run"
        self.kernel.after(0.0, self.give, host, ContainerFrozen(id_, why))

    def _thaw(self, host: Host, id_: AllocationId) -> None:
        left_s = host.frozen_left_s.pop(id_, inf)
        if id_ in host.running and left_s < inf:
            self._run_on(host, id_, left_s)
        self.kernel.after(0.0, self.give, host, ContainerThawed(id_))

    def _end(self, host: Host, id_: AllocationId, result: Result) -> None:
        if id_ in host.running:
            del host.running[id_]
            host.due_s.pop(id_, None)
            host.frozen_left_s.pop(id_, None)
            host.ended[id_] = result
            self.over(host, id_, result)
            self.give(host, ContainerEnded(id_, result))
