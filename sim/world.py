"""A fault world: N hosts with real scheduling machines and the real codec, in virtual time, with trouble from one seed.

    result = run_world(seed=7)                    everything drawn from the seed
    result = run_world(seed=7, nodes=20, homes=5, traced=True)
    result = run_world(seed=7, gossip=True)       with the real gossip machines too
    print(format_world(result))

Trouble lasts for a while; then everything heals, crashed agents start again, and the world gets time to settle. The
checkers watch all along. The same arguments give the same run.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import msgspec
from msgspec.structs import replace as replace_fields

from scheduler.events import Accepting, Cancel, Drain, Hold, Release, Requeue, SetSetting, Submit
from scheduler.fit import fits, unmet
from scheduler.messages import AnyItem, decode
from scheduler.model import JobSpec, Resources
from scheduler.settings import AnySetting, Licence, Partition, Preemption, PreemptMode
from scheduler.spec.queueing import After, Dependency, Queueing
from sim.checkers import Checkers, Violation
from sim.faults import LICENCE, LICENCES, PARTITIONS, PREEMPTED_MAX, Fault, Plan, Wish, draw_plan
from sim.kernel import Kernel
from sim.network import Endpoint, Network
from sim.world_gossip import GossipMembers
from sim.world_host import Host
from sim.world_members import Members

TRACE_MAX = 200_000
CLIENT_PATIENCE_S = 2.0
HOLD_S = 4.0
LAST_WORDS_S = 30.0
OUTDATED_MAX_S = 15.0
OUTDATED_GOSSIP_MAX_S = 60.0
EVENTS_MAX = 1_000_000


@dataclass(frozen=True)
class WorldResult:
    """What a world showed: broken promises (none is good), figures, and the trace if one was asked for."""

    plan: Plan
    violations: tuple[Violation, ...]
    figures: dict[str, int]
    trace: tuple[str, ...] = field(default=(), repr=False)

    @property
    def passed(self) -> bool:
        """Whether every promise was kept."""
        return not self.violations

    @property
    def command(self) -> str:
        """The command that shows this world again."""
        plan = self.plan
        jobs = sum(wish.spec is not None for wish in plan.wishes)
        sizes = f"--nodes {len(plan.nodes)} --homes {len(plan.homes)} --jobs {jobs}"
        return f"fofoca sim world {sizes} --seed {plan.seed}{' --gossip' if plan.gossip else ''}"


class World:
    """All hosts, the network between them, and the clients."""

    def __init__(self, plan: Plan, *, traced: bool = False) -> None:
        self.plan = plan
        self.config = plan.config
        self.kernel = Kernel(plan.seed)
        self.network = Network(self.kernel, plan.link)
        self.trace: list[str] | None = [] if traced else None
        self.checks = Checkers(self)
        self._count = 0
        self._jobs: dict[int, tuple[int, str]] = {}
        self._specs: dict[int, JobSpec] = {}
        self._released: dict[int, None] = {}
        self.hosts = {name: self._host(position) for position, name in enumerate(plan.nodes)}
        self.members: Members | GossipMembers = GossipMembers(self) if plan.gossip else Members(self)

    def _host(self, position: int) -> Host:
        plan = self.plan
        name = plan.nodes[position]
        skew_s = self.kernel.random("skew", name).uniform(0, 1e6) if plan.features.clock_skew else 0.0
        return Host(
            self, name, position + 1, plan.capacities[position], plan.labels[position], skew_s, name in plan.slow
        )

    # --- what hosts and checkers ask

    def note(self, who: str, what: str) -> None:
        """Add a line to the trace."""
        if self.trace is not None and len(self.trace) < TRACE_MAX:
            self.trace.append(f"{self.kernel.now:9.3f}  {who:6s} {what}")

    def note_message(self, sender: str, to: str, message: bytes) -> None:
        """Add what a message says to the trace."""
        if self.trace is not None:
            for item in decode(message, len(message)):
                self.note(sender, f"-> {to}: {describe_item(item)}")

    def count(self) -> int:
        """Return a number never returned before."""
        self._count += 1
        return self._count

    def permitted(self, node: str) -> Resources:
        """The most that may run on a node."""
        capacity = self.hosts[node].capacity
        cpu = capacity.cpu_milli * self.config.cpu_ratio_permille // 1000
        memory = capacity.memory_bytes * self.config.memory_ratio_permille // 1000
        return Resources(cpu, memory, capacity.extra)

    def possible(self, spec: JobSpec) -> bool:
        """Whether some node could run a task of this job, were it empty, and the jobs it waits for can end."""
        nodes, tasks = (spec.gang.nodes, spec.gang.tasks_per_node) if spec.gang is not None else (1, 1)
        able = sum(
            fits(spec.request * tasks, self.permitted(host.name)) and unmet(spec.constraints, dict(host.labels)) is None
            for host in self.hosts.values()
            if not host.lost
        )
        if spec.queueing.licences.get(LICENCE, 0) * nodes * tasks > LICENCES:
            return False
        if able < nodes or (spec.queueing.singleton and not self._comes_up(spec)):
            return False
        return all(self._can_end(each.job) for each in spec.queueing.after)

    def _comes_up(self, spec: JobSpec) -> bool:
        """Whether the jobs of the same name, which a singleton waits for, can end."""
        same = [job for job, other in self._specs.items() if other.name == spec.name]
        bare = [Queueing(licences=self._specs[job].queueing.licences) for job in same]
        plain = [replace_fields(self._specs[job], queueing=each) for job, each in zip(same, bare, strict=True)]
        homes = [self.hosts[self.checks.acknowledged[job]] for job in same]
        return not any(home.lost for home in homes) and all(map(self.possible, plain))

    def _can_end(self, job: int) -> bool:
        home = self.checks.acknowledged[job]
        return not self.hosts[home].lost and self.possible(self._specs[job])

    def spec(self, job: int) -> JobSpec | None:
        """Return what was asked of a job, if its client heard of it."""
        return self._specs.get(job)

    # --- the run

    def run(self) -> None:
        """Trouble, then calm, then the reckoning."""
        self.begin()
        self.run_until(self.plan.trouble_s)
        self.heal()
        self.kernel.after(CLIENT_PATIENCE_S, self._end_strays)
        self.run_until(self.kernel.now + (OUTDATED_GOSSIP_MAX_S if self.plan.gossip else OUTDATED_MAX_S))
        self.checks.after_healing(self.plan.trouble_s)
        self._run_calm()
        self.checks.at_end()

    def begin(self) -> None:
        """Schedule everything of the plan."""
        for host in self.hosts.values():
            self.kernel.after(self.kernel.random("start", host.name).uniform(0, 0.3), host.start)
        for fault in self.plan.faults:
            self.kernel.at(fault.at_s, self._strike, fault)
        if self.plan.features.licences:
            self.kernel.after(0.5, self._set, f"licence/{LICENCE}", Licence(count=LICENCES))
        if self.plan.features.preemption:
            self._set_tiers()
        for number, wish in enumerate(self.plan.wishes):
            self.kernel.at(wish.at_s, self._wish, number, wish)

    def run_until(self, end_s: float) -> None:
        """Run on, but not for ever at one instant."""
        stop = self.kernel.events_run + EVENTS_MAX
        self.kernel.run_until(end_s, until=lambda: self.kernel.events_run >= stop)
        if self.kernel.now < end_s:
            raise RuntimeError(f"{EVENTS_MAX} events without an end by {self.kernel.now:.3f} s: a storm")

    def _run_calm(self) -> None:
        """Until everything ended, and a little longer for the last words; but not for ever."""
        end_s = self.plan.trouble_s + self.plan.calm_max_s
        while self.kernel.now < end_s and self.checks.unfinished():
            self.run_until(self.kernel.now + 5.0)
        self.run_until(self.kernel.now + LAST_WORDS_S)
        while self.kernel.now < end_s and self._at_work():
            self.run_until(self.kernel.now + LAST_WORDS_S)

    def _at_work(self) -> bool:
        """Whether anything runs, such as a singleton that came up although another of its name never can."""
        return any(
            container.result is None and not self.hosts[container.allocation.home].lost
            for host in self.hosts.values()
            for container in host.containers.values()
        )

    def _strike(self, fault: Fault) -> None:
        self.note("world", f"{fault.kind} of {', '.join(fault.nodes)} for {fault.lasts_s} s, at step {fault.steps}")
        host = self.hosts[fault.nodes[0]]
        match fault.kind:
            case "partition":
                self._part(fault.nodes)
                self.kernel.after(fault.lasts_s, self.network.heal)
            case "cut":
                for source, target in self._pairs(*fault.nodes):
                    self.network.cut(source, target)
                    self.kernel.after(fault.lasts_s, self.network.mend, source, target)
            case "agent crash":
                host.crash_steps = fault.steps
                self.kernel.after(fault.lasts_s, self._restart, host)
            case "host crash" | "disk loss":
                host.lose_power()
                if fault.kind == "disk loss":
                    host.lose_disk()
                self.kernel.after(fault.lasts_s, host.get_power)
            case "host loss":
                host.lost = True
                host.lose_power()
            case "leave":
                host.left = host.agent is not None
                host.crash()
                self.kernel.after(fault.lasts_s, host.start)
            case "false alarm":
                self.members.accuse(*fault.nodes)
            case "cordon":
                host.post(Accepting(False))
                self.kernel.after(fault.lasts_s, host.post, Accepting(True))
            case "drain":
                host.post(Drain(fault.lasts_s / 2, host.unix()))
                self.kernel.after(fault.lasts_s, host.post, Accepting(True))

    def _part(self, side: tuple[str, ...]) -> None:
        sides: tuple[list[Endpoint], list[Endpoint]] = ([], [])
        for name in self.plan.nodes:
            sides[name in side].extend((name, self.members.endpoint(name)))
        self.network.partition(*sides)

    def _pairs(self, source: str, target: str) -> list[tuple[Endpoint, Endpoint]]:
        """The endpoints of two hosts' agents, and of what tells them of each other."""
        return [(source, target), (self.members.endpoint(source), self.members.endpoint(target))]

    def set_host(self, name: str, *, up: bool) -> None:
        """Switch off or on all that a host has on the network."""
        for endpoint in (name, self.members.endpoint(name)):
            self.network.set_host(endpoint, up=up)

    def _restart(self, host: Host) -> None:
        host.crash()
        host.start()

    def heal(self) -> None:
        """End all trouble: links, cuts, dead hosts, dead agents, cordons."""
        self.note("world", "all is healed")
        self.network.heal()
        self.network.set_default(type(self.plan.link)())
        for host in self.hosts.values():
            host.crash_steps = None
            if not host.up:
                host.get_power()
            host.start()
            host.post(Accepting(True))

    # --- clients

    def _set(self, name: str, value: AnySetting) -> None:
        """An operator sets something for the cluster, and again until somebody has taken it."""
        host = self.hosts[self.plan.homes[0]]
        if host.agent is not None and name in dict(host.agent.settings()):
            return
        host.ask(SetSetting(name, value, host.unix()), lambda _: None)
        self.kernel.after(CLIENT_PATIENCE_S, self._set, name, value)

    def _set_tiers(self) -> None:
        for name, tier in PARTITIONS.items():
            self.kernel.after(0.5, self._set, f"partition/{name}", Partition(tier=tier))
        mode = PreemptMode.FREEZE if self.plan.features.freezing else PreemptMode.REQUEUE
        preemption = Preemption(mode=mode, run_min_s=0.2, patience_s=0.5, times_max=PREEMPTED_MAX)
        self.kernel.after(0.6, self._set, "preemption/default", preemption)

    def _wish(self, number: int, wish: Wish) -> None:
        """Ask until it is acknowledged; a client doesn't know what became of a request without an answer."""
        if wish.spec is not None:
            self._submit(number, wish)
        elif wish.of in self._jobs:
            job, home = self._jobs[wish.of]
            if wish.act == "hold":
                self._hold(job, self.hosts[home])
            elif wish.act == "requeue":
                self.hosts[home].ask(Requeue(job), lambda _: None)
            elif job not in self.checks.cancelled:
                self.hosts[home].ask(Cancel(job, self.hosts[home].unix()), lambda _: self._cancelled(job))
                self.kernel.after(CLIENT_PATIENCE_S, self._wish, number, wish)
        elif self.kernel.now < self.plan.trouble_s + 30:
            self.kernel.after(CLIENT_PATIENCE_S, self._wish, number, wish)

    def _submit(self, number: int, wish: Wish) -> None:
        if number in self._jobs or wish.spec is None:
            return
        host = self.hosts[wish.home]
        spec = self._depending(wish.spec, wish)
        host.ask(Submit("user", spec, host.unix()), lambda job: self._acknowledged(number, wish.home, job, spec))
        self.kernel.after(CLIENT_PATIENCE_S, self._submit, number, wish)

    def _depending(self, spec: JobSpec, wish: Wish) -> JobSpec:
        """A client names the jobs whose ids it knows by now."""
        after = tuple(
            Dependency(kind=After.ANY if spec.gang and kind is After.CORRESPONDING else kind, job=self._jobs[of][0])
            for kind, of in wish.after
            if of in self._jobs
        )
        return replace_fields(spec, queueing=replace_fields(spec.queueing, after=after)) if after else spec

    def _hold(self, job: int, host: Host) -> None:
        """Hold a job that is not known to have ended; what is held once is released until that is acknowledged."""
        if self.kernel.now < self.plan.trouble_s:
            host.ask(Hold(job), lambda _: self.kernel.after(HOLD_S, self._release, job, host))
            # It may be held already, and released; or be held without an answer.
            self._released.pop(job, None)
            self.kernel.after(HOLD_S + CLIENT_PATIENCE_S, self._release_unless_done, job, host)

    def _release(self, job: int, host: Host) -> None:
        self.kernel.after(CLIENT_PATIENCE_S, self._release_unless_done, job, host)
        host.ask(Release(job), lambda _: self._released.__setitem__(job, None))

    def _release_unless_done(self, job: int, host: Host) -> None:
        if job not in self._released:
            self._release(job, host)

    def _acknowledged(self, number: int, home: str, job: object, spec: JobSpec) -> None:
        assert isinstance(job, int)
        self._specs[job] = spec
        if spec.queueing.hold:
            self.kernel.after(HOLD_S, self._release, job, self.hosts[home])
        self.note(home, f"job {job} is acknowledged")
        self._jobs[number] = (job, home)
        self.checks.acknowledged[job] = home

    def _end_strays(self) -> None:
        """Services that were taken, but whose clients never heard of it, would run for ever."""
        for host in self.hosts.values():
            for job in host.agent.jobs() if host.agent is not None else ():
                if job.id not in self.checks.acknowledged:
                    host.ask(Cancel(job.id, host.unix()), lambda _: None)

    def _cancelled(self, job: int) -> None:
        self.note("world", f"the end of job {job} is acknowledged")
        self.checks.cancelled[job] = None

    def figures(self) -> dict[str, int]:
        """Return what happened, in numbers."""
        return {
            "events": self.kernel.events_run,
            "jobs": len(self.checks.acknowledged),
            "containers": self.checks.started,
            "messages": self.network.counters.datagrams_sent,
            "lost": self.network.counters.datagrams_lost + self.network.counters.datagrams_cut,
            "faults": len(self.plan.faults),
            "preempted": self.checks.preempted,
            "frozen": self.checks.frozen_ever,
            "commits lost": sum(host.commits.lost for host in self.hosts.values()),
        }


def describe_item(item: AnyItem) -> str:
    """Write one item of a message in a line: its kind and its facts, without specs and reports."""
    facts = [
        f"{name}={', '.join(map(str, value)) if name == 'ids' else value}"
        for name, value in msgspec.structs.asdict(item).items()
        if name not in ("spec", "report", "request", "constraints", "owner")
    ]
    return f"{type(item).__name__} {' '.join(facts)}"


def run_world(
    seed: int,
    nodes: int | None = None,
    homes: int | None = None,
    jobs: int | None = None,
    *,
    traced: bool = False,
    gossip: bool = False,
    plan: Plan | None = None,
) -> WorldResult:
    """Run one world; what is not given is drawn from the seed. An exception in a machine is a violation too.

    `gossip`: the real gossip machines tell who is alive, rather than a model of them.
    """
    world = World(plan or replace(draw_plan(seed, nodes, homes, jobs), gossip=gossip), traced=traced)
    try:
        world.run()
    except Exception as error:  # noqa: BLE001  whatever a machine raises here is its bug, to be shown with its seed
        where = traceback.format_exc(limit=-6)
        world.checks.broken("illegal events change nothing", f"{type(error).__name__}: {error}\n{where}")
    return WorldResult(world.plan, tuple(world.checks.violations), world.figures(), tuple(world.trace or ()))


def format_world(result: WorldResult) -> str:
    """Describe a world's outcome in a few lines, its trace first if there is one."""
    return "\n".join(_lines(result))


def _lines(result: WorldResult) -> Iterator[str]:
    yield from result.trace
    plan = result.plan
    yield f"seed {plan.seed}: {len(plan.nodes)} nodes, {len(plan.homes)} homes; {', '.join(plan.features.names())}"
    yield ", ".join(f"{value} {name}" for name, value in result.figures.items())
    yield "every promise was kept" if result.passed else f"{len(result.violations)} promises were broken:"
    yield from (f"  {violation}" for violation in result.violations[:20])
    if not result.passed:
        yield f"to see it again: {result.command}"
