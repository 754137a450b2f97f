"""Node-wise replay: tasks arrive one after the other and stay; each goes where the policy says, or is refused.

The experiment of Weng et al. (ATC 2023): the pods of a trace arrive in random order, and pods drawn from it again are
added until the arrivals ask for a given share of the cluster (of its GPUs, or of its CPU where it has none); what is
allocated then tells how well a policy keeps room usable. Owns the arrivals and the choice among scored nodes; policies
and nodes are given. The same seed gives the same run.

For every distinct demand the scores of all nodes are kept, and only those of nodes that changed since are worked out
anew: a decision costs one look over a list of numbers and as many scores as placements happened since the last alike.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import NamedTuple

from sim.errors import BadValue
from sim.nodes import WHOLE_MILLI, Demand, Node, NodeSpec
from sim.policies import Policy, make_policy

WATCH_EVERY = 64
ARRIVALS_PERCENT_MAX = 10_000

Watch = Callable[[int, float], bool]


class Allocated(NamedTuple):
    """The share of the cluster that is allocated, by resource; 0 where it has none."""

    cpu: float
    memory: float
    gpu: float


class Outcome(NamedTuple):
    """How a run ended, and how it went: after each hundredth of the arrivals, (share arrived, share allocated)."""

    policy: str
    seed: int
    pods: int
    placed: int
    refused: int
    allocated: Allocated
    allocated_fraction: float
    arrived_fraction: float
    nodes_used: int
    complete: bool
    curve: list[tuple[float, float]]
    fill: list[tuple[str, float]]


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
    specs: Sequence[NodeSpec], arrivals: Sequence[Demand], policy: str, seed: int = 0, watch: Watch | None = None
) -> Outcome:
    """Place the arrivals in their order; raises BadValue for an unknown policy.

    `watch(arrived, 0)` is called now and then; when it returns False the replay stops there.
    """
    nodes = [Node(spec) for spec in specs]
    cluster = _Cluster(nodes, make_policy(policy, nodes, list(arrivals)), random.Random(f"ties {seed}"))
    has_gpus = any(spec.gpus for spec in specs)
    capacity = _main_capacity(specs) or 1
    arrived = held = placed = count = 0
    curve = []
    for count, demand in enumerate(arrivals, 1):
        size = _main(demand, has_gpus)
        arrived += size
        if cluster.place(demand):
            placed += 1
            held += size
        if count % max(1, len(arrivals) // 100) == 0:
            curve.append((arrived / capacity, held / capacity))
        if watch is not None and count % WATCH_EVERY == 0 and not watch(count, 0.0):
            break
    allocated = _allocated(nodes)
    return Outcome(
        policy=policy,
        seed=seed,
        pods=count,
        placed=placed,
        refused=count - placed,
        allocated=allocated,
        allocated_fraction=allocated.gpu if has_gpus else allocated.cpu,
        arrived_fraction=arrived / capacity,
        nodes_used=sum(node.cpu_milli < node.spec.cpu_milli or _used_gpu(node) > 0 for node in nodes),
        complete=count == len(arrivals),
        curve=curve,
        fill=[(node.spec.name, _fill(node, has_gpus)) for node in nodes],
    )


class _Cluster:
    """Nodes, and for every distinct demand their scores as of some number of changes."""

    def __init__(self, nodes: list[Node], policy: Policy, ties: random.Random) -> None:
        self.nodes = nodes
        self.policy = policy
        self.ties = ties
        self.changed: list[int] = []
        self.scores: dict[Demand, tuple[list[float], list[int]]] = {}

    def place(self, demand: Demand) -> bool:
        """Place a demand, if it fits anywhere."""
        scores = self._scores_of(demand)
        best = max(scores, default=-inf)
        if best == -inf:
            return False
        if self.policy.drawn:
            place = self.ties.choice([place for place, score in enumerate(scores) if score == best])
        else:
            place = scores.index(best)
        node = self.nodes[place]
        node.take(demand, self.policy.devices(node, demand))
        self.changed.append(place)
        return True

    def _scores_of(self, demand: Demand) -> list[float]:
        known = self.scores.get(demand)
        if known is None:
            scores = [self._score(node, demand) for node in self.nodes]
            self.scores[demand] = (scores, [len(self.changed)])
            return scores
        scores, seen = known
        for place in set(self.changed[seen[0] :]):
            if scores[place] != -inf:
                # Nobody leaves: what did not fit will not fit again.
                scores[place] = self._score(self.nodes[place], demand)
        seen[0] = len(self.changed)
        return scores

    def _score(self, node: Node, demand: Demand) -> float:
        return self.policy.score(node, demand) if node.fits(demand) else -inf


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
