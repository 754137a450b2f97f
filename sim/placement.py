"""Node-wise replay: tasks arrive one after the other; each goes where the policy says, or is refused.

Two ways. `place`: tasks arrive and stay, the experiment of Weng et al. (ATC 2023): the pods of a trace arrive in random
order, and pods drawn from it again are added until the arrivals ask for a given share of the cluster (of its GPUs, or
of its CPU where it has none); what is allocated then tells how well a policy keeps room usable. `visit`: tasks arrive
and leave at the trace's times; at one instant, who leaves goes first; nobody waits.

Owns the arrivals and the measures; which node, the fleet decides. The same seed gives the same run.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from math import inf
from typing import IO, NamedTuple

from scheduler.fragmentation import Fragmentation, Kind
from sim.errors import BadValue
from sim.fleet import Fleet, Place, make_fleet
from sim.nodes import WHOLE_MILLI, Demand, Node, NodeSpec

WATCH_EVERY = 64
SHAPES_MAX = 1000
ARRIVALS_PERCENT_MAX = 10_000

Watch = Callable[[int, float], bool]


class Visit(NamedTuple):
    """A task that comes and goes (`leave_s` infinity: stays)."""

    arrive_s: float
    leave_s: float
    demand: Demand


class Allocated(NamedTuple):
    """The share of the cluster that is allocated, by resource; 0 where it has none."""

    cpu: float
    memory: float
    gpu: float


class Landed(NamedTuple):
    """Where an arrival went: a node's name, or "" where it was refused; `leave_s` infinity: it stays."""

    arrive_s: float
    leave_s: float
    demand: Demand
    node: str


class Outcome(NamedTuple):
    """How a run ended and how it went.

    The main resource is GPUs, or CPU where the nodes have none. `allocated_fraction` is its allocated share: at the end
    where tasks stay, the mean over time from first to last arrival where they leave. `curve` has a point for each
    hundredth of the arrivals: (share arrived, or time, and share allocated). `fragmented_fraction`: of what is free of
    the main resource at the end, the share that a random one of the arrivals could not use (for GPUs the F of
    scheduler.fragmentation; for CPU, what is free on nodes where it does not fit). `fill` is each node's allocated
    share at the end. `tasks`, and where they leave `mean_fill`, each node's mean over time, are there when asked for.
    """

    policy: str
    seed: int
    timed: bool
    pods: int
    placed: int
    refused: int
    allocated: Allocated
    allocated_fraction: float
    peak_fraction: float
    arrived_fraction: float
    nodes_used: int
    complete: bool
    curve: list[tuple[float, float]]
    fill: list[tuple[str, float]]
    fragmented_fraction: float = 0.0
    tasks: Sequence[Landed] = ()
    mean_fill: Sequence[tuple[str, float]] = ()


def inflate(pods: Sequence[Demand], specs: Sequence[NodeSpec], percent: float, seed: int) -> list[Demand]:
    """Return the arrivals: the pods in random order, some left out or drawn again until they ask for that share."""
    if not 0 < percent <= ARRIVALS_PERCENT_MAX:
        raise BadValue("arrivals", percent, f"above 0, at most {ARRIVALS_PERCENT_MAX} per cent")
    has_gpus = any(spec.gpus for spec in specs)
    wanted = _main_capacity(specs) * percent / 100
    sizes = [_main(pod, has_gpus) for pod in pods]
    if not any(sizes):
        raise BadValue("pods", "no demand", f"pods that ask for {'GPUs' if has_gpus else 'CPU'}, which the nodes have")
    rng = random.Random(f"arrivals {seed}")
    order = list(range(len(pods)))
    rng.shuffle(order)
    total, count = 0, 0
    while count < len(order) and total < wanted:
        total += sizes[order[count]]
        count += 1
    del order[count:]
    while total < wanted:
        order.append(rng.randrange(len(pods)))
        total += sizes[order[-1]]
    rng.shuffle(order)
    return [pods[place] for place in order]


def place(
    specs: Sequence[NodeSpec], arrivals: Sequence[Demand], policy: str, seed: int = 0, watch: Watch | None = None,
    landed: bool = False,
) -> Outcome:  # fmt: skip
    """Place the arrivals in their order, to stay; raises BadValue for an unknown policy.

    `watch(arrived, time)` is called now and then; when it returns False the replay stops there. `landed`: keep where
    each arrival went.
    """
    run = _Run(specs, arrivals, policy, seed)
    for demand in arrivals:
        found = run.arrive(demand)
        if landed:
            run.tasks.append(Landed(0.0, inf, demand, specs[found[0]].name if found else ""))
        if run.due(len(arrivals)):
            run.curve.append((run.arrived / run.capacity, run.held / run.capacity))
        if watch is not None and run.count % WATCH_EVERY == 0 and not watch(run.count, 0.0):
            break
    return run.outcome(len(arrivals))


def visit(
    specs: Sequence[NodeSpec], visits: Sequence[Visit], policy: str, seed: int = 0, watch: Watch | None = None,
    landed: bool = False,
) -> Outcome:  # fmt: skip
    """Play visits, in order of arrival; otherwise like `place`."""
    run = _Run(specs, [each.demand for each in visits], policy, seed, timed=True)
    leaving: list[tuple[float, int, Demand, Place]] = []
    for arrive_s, leave_s, demand in visits:
        while leaving and leaving[0][0] <= arrive_s:
            when_s, _, gone, where = heappop(leaving)
            run.pass_to(when_s)
            run.leave(gone, where)
        run.pass_to(arrive_s)
        found = run.arrive(demand)
        if landed:
            run.tasks.append(Landed(arrive_s, leave_s, demand, specs[found[0]].name if found else ""))
        if found is not None and leave_s < inf:
            heappush(leaving, (max(leave_s, arrive_s), run.count, demand, found))
        if run.due(len(visits)):
            run.curve.append((arrive_s, run.held / run.capacity))
        if watch is not None and run.count % WATCH_EVERY == 0 and not watch(run.count, arrive_s):
            break
    return run.outcome(len(visits))


class _Run:
    """The fleet and the counts of one replay."""

    def __init__(
        self, specs: Sequence[NodeSpec], demands: Sequence[Demand], policy: str, seed: int, timed: bool = False
    ) -> None:
        self.fleet: Fleet = make_fleet(specs, list(demands), policy, seed)
        self.policy, self.seed, self.timed = policy, seed, timed
        self.tasks: list[Landed] = []
        self._demands = demands
        self.has_gpus = any(spec.gpus for spec in specs)
        self.capacity = _main_capacity(specs) or 1
        self.count = self.placed = self.arrived = self.held = self.peak = 0
        self.curve: list[tuple[float, float]] = []
        self._began_s: float | None = None
        self._now_s = self._area = 0.0

    def arrive(self, demand: Demand) -> Place | None:
        self.count += 1
        size = _main(demand, self.has_gpus)
        self.arrived += size
        found = self.fleet.place(demand)
        if found is not None:
            self.placed += 1
            self.held += size
            if self.held > self.peak:
                self.peak = self.held
        return found

    def leave(self, demand: Demand, where: Place) -> None:
        self.fleet.leave(demand, where)
        self.held -= _main(demand, self.has_gpus)

    def pass_to(self, now_s: float) -> None:
        """Time goes on with what is held."""
        if self._began_s is None:
            self._began_s = now_s
        else:
            self._area += (now_s - self._now_s) * self.held
        self._now_s = now_s

    def due(self, total: int) -> bool:
        """Whether the curve wants a point."""
        return self.count % max(1, total // 100) == 0

    def outcome(self, total: int) -> Outcome:
        nodes = self.fleet.nodes()
        allocated = _allocated(nodes)
        at_the_end = allocated.gpu if self.has_gpus else allocated.cpu
        passed_s = self._now_s - (self._began_s or 0.0)
        return Outcome(
            policy=self.policy,
            seed=self.seed,
            timed=self.timed,
            pods=self.count,
            placed=self.placed,
            refused=self.count - self.placed,
            allocated=allocated,
            allocated_fraction=self._area / passed_s / self.capacity if self.timed and passed_s else at_the_end,
            peak_fraction=self.peak / self.capacity,
            arrived_fraction=self.arrived / self.capacity,
            nodes_used=sum(node.cpu_milli < node.spec.cpu_milli or _used_gpu(node) > 0 for node in nodes),
            complete=self.count == total,
            curve=self.curve,
            fill=[(node.spec.name, _fill(node, self.has_gpus)) for node in nodes],
            fragmented_fraction=fragmented(nodes, self._demands[: self.count]),
            tasks=self.tasks,
            mean_fill=self._mean_fill(nodes) if self.timed and self.tasks and passed_s else (),
        )

    def _mean_fill(self, nodes: Sequence[Node]) -> list[tuple[str, float]]:
        """Each node's share of the main resource (of CPU, where it has no GPU) that was allocated, mean over time."""
        areas: dict[str, float] = dict.fromkeys((node.spec.name for node in nodes), 0.0)
        by_gpu = {node.spec.name: self.has_gpus and node.spec.gpus > 0 for node in nodes}
        for arrive_s, leave_s, demand, node in self.tasks:
            if node:
                areas[node] += _main(demand, by_gpu[node]) * (min(leave_s, self._now_s) - arrive_s)
        passed_s = self._now_s - (self._began_s or 0.0)
        whole = {
            node.spec.name: node.spec.gpus * WHOLE_MILLI if by_gpu[node.spec.name] else node.spec.cpu_milli
            for node in nodes
        }
        return [(name, areas[name] / passed_s / size if size else 0.0) for name, size in whole.items()]


def fragmented(nodes: Sequence[Node], demands: Sequence[Demand]) -> float:
    """Return the share of what is free of the main resource that a random one of these demands could not use."""
    shapes = Counter(demands).most_common(SHAPES_MAX)
    total = sum(weight for _, weight in shapes) or 1
    if any(node.spec.gpus for node in nodes):
        kinds = [Kind(weight, shape.cpu_milli, shape.gpus, shape.gpu_milli) for shape, weight in shapes]
        measure = Fragmentation(kinds).measure
        free = sum(sum(node.devices) for node in nodes)
        lost = sum(measure(node.cpu_milli, node.devices) for node in nodes)
    else:
        free = sum(node.cpu_milli for node in nodes)
        lost = 0.0
        for (cpu_milli, memory_mib), count in Counter((node.cpu_milli, node.memory_mib) for node in nodes).items():
            misfits = sum(w for each, w in shapes if each.cpu_milli > cpu_milli or each.memory_mib > memory_mib)
            lost += count * cpu_milli * misfits / total
    return lost / free if free else 0.0


def write_csv(out: IO[str], outcome: Outcome) -> None:
    """Write a line for each arrival: when, what it asked for, and its node (empty where it was refused)."""
    out.write("task,arrive_s,leave_s,node,cpu_milli,memory_mib,gpus,gpu_milli\n")
    for number, (arrive_s, leave_s, demand, node) in enumerate(outcome.tasks, 1):
        leaves = "" if leave_s == inf else leave_s
        out.write(
            f"{number},{arrive_s},{leaves},{node},{demand.cpu_milli},{demand.memory_mib},{demand.gpus},"
            f"{demand.gpu_milli}\n"
        )


def _main(demand: Demand, has_gpus: bool) -> int:
    return demand.gpus * demand.gpu_milli if has_gpus else demand.cpu_milli


def _main_capacity(specs: Iterable[NodeSpec]) -> int:
    specs = list(specs)
    return sum(spec.gpus for spec in specs) * WHOLE_MILLI or sum(spec.cpu_milli for spec in specs)


def _used_gpu(node: Node) -> int:
    return node.spec.gpus * WHOLE_MILLI - sum(node.devices)


def _fill(node: Node, has_gpus: bool) -> float:
    if has_gpus and node.spec.gpus:
        return _used_gpu(node) / (node.spec.gpus * WHOLE_MILLI)
    return 1 - node.cpu_milli / node.spec.cpu_milli if node.spec.cpu_milli else 0.0


def _allocated(nodes: list[Node]) -> Allocated:
    def share(free: Iterable[int], whole: Iterable[int]) -> float:
        total = sum(whole)
        return 1 - sum(free) / total if total else 0.0

    return Allocated(
        cpu=share((node.cpu_milli for node in nodes), (node.spec.cpu_milli for node in nodes)),
        memory=share((node.memory_mib for node in nodes), (node.spec.memory_mib for node in nodes)),
        gpu=share((sum(node.devices) for node in nodes), (node.spec.gpus * WHOLE_MILLI for node in nodes)),
    )
