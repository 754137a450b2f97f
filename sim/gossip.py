"""Gossip tried in virtual time: convergence, detection, false deaths and bytes of a cluster of N real machines.

Owns the script of a run and what is measured; sim.gossip_world holds the nodes. A run depends on its arguments alone,
so the same ones give the same report, byte for byte.

    report = run_gossip(nodes=1000, seed=7, loss=0.01, starved=50)
    print(format_report(report))

The script: rest, then state changes and failures side by side, each thing at times drawn from the seed; starved nodes
are stopped for `starve_on_s` and run for `starve_off_s` in turn, from the end of the rest to the end. With
`partition_s` the cluster is first cut in two halves for so long.
"""

from __future__ import annotations

import gc
from dataclasses import asdict, dataclass, field
from typing import Final

from cluster import GossipConfig, MemberChanged, StateChanged, Status
from sim.gossip_world import GossipWorld, SimNode
from sim.kernel import Kernel
from sim.network import Link, Network

RULES: Final = ("fofoca", "memberlist")
STATE_KEY: Final = "load"


@dataclass(slots=True)
class Spread:
    """Times in seconds from an event until nodes knew it; `last` is one value an event, `each` one a node and event."""

    events: int = 0
    missed: int = 0
    each_p50_s: float = 0.0
    each_p99_s: float = 0.0
    last_p50_s: float = 0.0
    last_p99_s: float = 0.0
    last_max_s: float = 0.0


@dataclass(slots=True)
class GossipReport:
    """What one run measured. False deaths count (observer, victim) pairs: a running agent called `down` or `failed`."""

    nodes: int
    seed: int
    rules: str
    duration_s: float
    loss: float
    delay_max_s: float
    starved: int
    partition_s: float
    rest_bytes_s: float = 0.0
    rest_packets_s: float = 0.0
    run_bytes_s: float = 0.0
    healed_s: float = -1.0
    update: Spread = field(default_factory=Spread)
    agent_down: Spread = field(default_factory=Spread)
    host_failed: Spread = field(default_factory=Spread)
    false_deaths_healthy: int = 0
    false_deaths_starved: int = 0
    false_victims_healthy: int = 0
    false_victims_starved: int = 0
    suspicions: int = 0
    refutations: int = 0
    agreed: bool = False
    events_run: int = 0

    def as_dict(self) -> dict[str, object]:
        """Return plain values, for JSON."""
        return asdict(self)


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, round(share * (len(values) - 1)))] if values else 0.0


class _Watch:
    """One event, and who has come to know it."""

    def __init__(self, kind: str, started_s: float, witnesses: set[str]) -> None:
        self.kind = kind
        self.started_s = started_s
        self.waiting = witnesses
        self.times_s: list[float] = []

    def seen(self, by: str, now_s: float) -> None:
        if by in self.waiting:
            self.waiting.discard(by)
            self.times_s.append(now_s - self.started_s)


class _Run:
    """One run: the script and the observer."""

    def __init__(self, report: GossipReport, world: GossipWorld, starve_on_s: float, starve_off_s: float) -> None:
        self.report = report
        self.world = world
        self.kernel = world.kernel
        self.starve_on_s = starve_on_s
        self.starve_off_s = starve_off_s
        self.rng = world.kernel.random("script")
        self.watches: list[_Watch] = []
        self.updates: dict[tuple[str, bytes], _Watch] = {}
        self.ends: dict[str, _Watch] = {}
        self.sick: set[str] = set()
        self.parted = False
        self.false_healthy: set[str] = set()
        self.false_starved: set[str] = set()
        world.observer = self.observe

    # -- what happens

    def observe(self, node: SimNode, notification: object) -> None:
        """Take down what a node came to know."""
        now_s = self.kernel.now
        if isinstance(notification, StateChanged):
            watch = self.updates.get((notification.name, notification.value or b""))
            if watch is not None:
                watch.seen(node.name, now_s)
        elif isinstance(notification, MemberChanged) and notification.new in (Status.DOWN, Status.FAILED):
            name = notification.member.name
            watch = self.ends.get(name)
            if watch is not None:
                if watch.kind == "down" or notification.new == Status.FAILED:
                    watch.seen(node.name, now_s)
            elif not self.parted:
                self._count_false_death(name)

    def _count_false_death(self, name: str) -> None:
        if name in self.sick:
            self.report.false_deaths_starved += 1
            self.false_starved.add(name)
        else:
            self.report.false_deaths_healthy += 1
            self.false_healthy.add(name)

    # -- the script

    def update(self, number: int) -> None:
        """Change the state of some healthy node."""
        node = self._pick()
        if node is None:
            return
        value = b"%06d" % number
        self.updates[node.name, value] = self._watch("update", node)
        node.set_state(STATE_KEY, value)

    def kill_agent(self) -> None:
        """End an agent; its host goes on refusing."""
        node = self._pick()
        if node is not None:
            self.ends[node.name] = self._watch("down", node)
            node.kill()

    def crash_host(self) -> None:
        """Switch a host off."""
        node = self._pick()
        if node is not None:
            self.ends[node.name] = self._watch("failed", node)
            self.world.network.set_host(node.address, up=False)
            node.kill()

    def starve(self, node: SimNode) -> None:
        """Stop a node for a while, again and again."""
        if node.running:
            node.starve(self.starve_on_s)
            self.kernel.after(self.starve_on_s + self.starve_off_s, self.starve, node)

    def _watch(self, kind: str, node: SimNode) -> _Watch:
        watch = _Watch(kind, self.kernel.now, {other.name for other in self._well() if other is not node})
        self.watches.append(watch)
        return watch

    def _pick(self) -> SimNode | None:
        well = self._well()
        return self.rng.choice(well) if len(well) > 2 else None

    def _well(self) -> list[SimNode]:
        return [node for node in self.world.nodes.values() if node.running and node.name not in self.sick]

    # -- measuring

    def spread(self, kind: str) -> Spread:
        """Sum up all events of a kind; nodes that ended themselves meanwhile don't count as having missed one."""
        watches = [watch for watch in self.watches if watch.kind == kind]
        for watch in watches:
            watch.waiting -= self.ends.keys()
        each = [time_s for watch in watches for time_s in watch.times_s]
        last = [max(watch.times_s) for watch in watches if watch.times_s and not watch.waiting]
        return Spread(
            events=len(watches),
            missed=sum(len(watch.waiting) for watch in watches),
            each_p50_s=_percentile(each, 0.5),
            each_p99_s=_percentile(each, 0.99),
            last_p50_s=_percentile(last, 0.5),
            last_p99_s=_percentile(last, 0.99),
            last_max_s=max(last, default=0.0),
        )

    def sent(self) -> tuple[int, int]:
        """Return bytes and datagrams sent by all nodes so far."""
        nodes = self.world.nodes.values()
        return sum(node.bytes_sent for node in nodes), sum(node.packets_sent for node in nodes)


def run_gossip(
    nodes: int,
    seed: int,
    *,
    rules: str = "fofoca",
    duration_s: float = 120.0,
    rest_s: float = 30.0,
    loss: float = 0.0,
    delay_max_s: float = 0.001,
    updates: int = 20,
    agents_killed: int = 4,
    hosts_crashed: int = 4,
    starved: int = 0,
    starve_on_s: float = 8.0,
    starve_off_s: float = 0.5,
    partition_s: float = 0.0,
    config: GossipConfig | None = None,
) -> GossipReport:
    """Run one cluster and return what was measured. `rules`: "fofoca", or "memberlist" for its LAN defaults.

    Errors: ValueError naming the argument; InvalidConfig.
    """
    if not 2 <= nodes <= 5000:
        raise ValueError(f"nodes: {nodes!r} is not valid; give 2 to 5000")
    if rules not in RULES:
        raise ValueError(f"rules: {rules!r} is not known; give one of {', '.join(RULES)}")
    if not 0 <= starved < nodes:
        raise ValueError(f"starved: {starved!r} is not valid; give 0 to {nodes - 1}")
    kernel = Kernel(seed)
    network = Network(kernel, Link(delay_min_s=min(0.0002, delay_max_s), delay_max_s=delay_max_s, loss=loss))
    chosen = config or (GossipConfig() if rules == "fofoca" else GossipConfig.memberlist_like())
    world = GossipWorld(kernel, network, chosen)
    report = GossipReport(nodes, seed, rules, duration_s, loss, delay_max_s, starved, partition_s)
    run = _Run(report, world, starve_on_s, starve_off_s)
    # A million table rows make every full collection a pause of its own, and nothing here leaves garbage in cycles.
    collecting = gc.isenabled()
    gc.disable()
    try:
        world.start_formed(nodes)
        _rest(run, rest_s)
        if partition_s:
            _partition(run, partition_s)
        _script(run, duration_s, updates, agents_killed, hosts_crashed)
        _sum_up(run)
    finally:
        if collecting:
            gc.enable()
    return report


def _rest(run: _Run, rest_s: float) -> None:
    settle_s = rest_s / 3
    run.kernel.run_until(settle_s)
    bytes_before, packets_before = run.sent()
    run.kernel.run_until(rest_s)
    bytes_after, packets_after = run.sent()
    per_node_s = run.report.nodes * (rest_s - settle_s)
    run.report.rest_bytes_s = (bytes_after - bytes_before) / per_node_s
    run.report.rest_packets_s = (packets_after - packets_before) / per_node_s


def _partition(run: _Run, partition_s: float) -> None:
    kernel, world = run.kernel, run.world
    addresses = [node.address for node in world.nodes.values()]
    half = len(addresses) // 2
    run.parted = True
    world.network.partition(addresses[:half], addresses[half:])
    kernel.run_until(kernel.now + partition_s)
    world.network.heal()
    healed_s = kernel.now

    def whole() -> bool:
        return world.agreed() and all(
            member.state == Status.ALIVE for node in world.nodes.values() for member in node.machine.members()
        )

    deadline_s = healed_s + 300
    while not whole() and kernel.now < deadline_s:
        kernel.run_until(kernel.now + 0.25)
    run.report.healed_s = kernel.now - healed_s if whole() else -1.0
    run.parted = False


def _script(run: _Run, duration_s: float, updates: int, agents_killed: int, hosts_crashed: int) -> None:
    kernel = run.kernel
    started_s = kernel.now
    names = sorted(run.world.nodes)
    for name in run.rng.sample(names, run.report.starved):
        run.sick.add(name)
        node = run.world.nodes[name]
        kernel.after(run.rng.random() * run.starve_on_s, run.starve, node)
    # Failures end early enough to be noticed within the run.
    window_s = max(1.0, duration_s - started_s - 30)
    for number in range(updates):
        kernel.at(started_s + window_s * (number + run.rng.random()) / updates, run.update, number)
    for count, action in ((agents_killed, run.kill_agent), (hosts_crashed, run.crash_host)):
        for number in range(count):
            kernel.at(started_s + window_s * (number + run.rng.random()) / count, action)
    kernel.run_until(duration_s)


def _sum_up(run: _Run) -> None:
    report = run.report
    nodes = run.world.nodes.values()
    report.update = run.spread("update")
    report.agent_down = run.spread("down")
    report.host_failed = run.spread("failed")
    report.run_bytes_s = run.sent()[0] / report.nodes / run.kernel.now
    report.false_victims_healthy = len(run.false_healthy)
    report.false_victims_starved = len(run.false_starved)
    report.suspicions = sum(node.machine.counters.suspicions for node in nodes)
    report.refutations = sum(node.machine.counters.refutations for node in nodes)
    report.agreed = run.world.agreed()
    report.events_run = run.kernel.events_run


def format_report(report: GossipReport) -> str:
    """Return a report as a few lines of text."""
    lines = [
        f"{report.nodes} nodes, seed {report.seed}, rules {report.rules}, {report.duration_s:g} virtual seconds, "
        f"loss {report.loss:.0%}, delay up to {report.delay_max_s * 1000:g} ms, {report.starved} starved",
        f"rest          {report.rest_bytes_s:7.0f} B/s and {report.rest_packets_s:.2f} packets/s a node "
        f"(headers included); whole run {report.run_bytes_s:.0f} B/s",
    ]
    spreads = (("update", report.update), ("agent down", report.agent_down), ("host failed", report.host_failed))
    for label, spread in spreads:
        lines.append(
            f"{label:13s} {spread.events:3d} events; a node knew after {spread.each_p50_s:.3f} s (p50), "
            f"{spread.each_p99_s:.3f} s (p99); the last one after {spread.last_p50_s:.3f} s (p50), "
            f"{spread.last_p99_s:.3f} s (p99); missed {spread.missed}"
        )
    lines.append(
        f"false deaths  healthy nodes: {report.false_deaths_healthy} reports about {report.false_victims_healthy}; "
        f"starved nodes: {report.false_deaths_starved} about {report.false_victims_starved}; "
        f"{report.suspicions} suspicions, {report.refutations} refutations"
    )
    if report.partition_s:
        healed = f"whole again after {report.healed_s:.2f} s" if report.healed_s >= 0 else "did not heal in 300 s"
        lines.append(f"partition     in halves for {report.partition_s:g} s: {healed}")
    lines.append(f"tables        {'all equal' if report.agreed else 'differ'} at the end; {report.events_run} events")
    return "\n".join(lines)
