"""Which node is best for a task, and which of its GPUs: pure scorers, higher is better, for a task that fits.

    name            range    prefers, and where it is from
    best-fit        [0, 1]   the least left over: the mean over CPU and GPU, each as a share of the largest node's. Best
                             Fit in vector form (Panigrahy et al. 2011), with the weights of Weng et al. 2023
    spread          [0, 1]   the most left over: worst fit, the mirror of best-fit
    dot-product     [0, 1]   the least product of demand and free, in whole per cents: the vector product of Tetris
                             (Grandl et al., SIGCOMM 2014), in the sense that packs (Weng et al. 2023)
    packing         [0, 1]   devices in use, then nodes with GPUs in use, then idle ones (Weng et al., NSDI 2022)
    clustering      [0, 1]   nodes with tasks of the same kind only, then with others too, then idle ones, then the
                             rest; kinds are shares, or so many whole devices (Xiao et al., OSDI 2018; Weng et al. 2023)
    fragmentation   any      the smallest growth of unusable GPU in whole thousandths of a device, then the best fit:
                             fragmentation gradient descent (Weng et al., ATC 2023)
    first-fit       {0}      the first node of the list (Johnson 1974)
    random          {0}      any node, drawn by the seed

A scorer also names the devices it would take. All but spread and fragmentation take the fullest device that suffices.
Of nodes that score alike the first is taken. Dot-product, packing and clustering score in steps, as published: how
coarse they are decides how much is left to the order of nodes. To the last two, all nodes suit tasks without GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from scheduler.fragmentation import Fragmentation, Kind
from sim.errors import BadValue
from sim.nodes import WHOLE_MILLI, Demand, Node


class Policy(Protocol):
    """A scorer of nodes and a chooser of devices. With `drawn`, equal nodes are drawn by the seed."""

    drawn: bool

    def score(self, node: Node, demand: Demand) -> float:
        """Return how good this node is for a demand that fits; higher is better."""
        ...

    def devices(self, node: Node, demand: Demand) -> list[int]:
        """Return the devices to take, `demand.gpus` of them."""
        ...


class Largest:
    """The largest node of a cluster in each dimension: what left-overs are measured by."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        specs = [node.spec for node in nodes]
        self.cpu_milli = max((spec.cpu_milli for spec in specs), default=0) or 1
        self.gpu_milli = max((spec.gpus for spec in specs), default=0) * WHOLE_MILLI or 1


class FirstFit:
    """Every node is as good as any: the first one, or a drawn one."""

    def __init__(self, drawn: bool = False) -> None:
        self.drawn = drawn

    def score(self, node: Node, demand: Demand) -> float:
        """Return 0."""
        return 0.0

    def devices(self, node: Node, demand: Demand) -> list[int]:
        """Return the fullest devices that suffice."""
        return fullest(node, demand)


class BestFit(FirstFit):
    """Range [0, 1], 1 fills a node exactly."""

    def __init__(self, largest: Largest) -> None:
        super().__init__()
        self.largest = largest

    def score(self, node: Node, demand: Demand) -> float:
        """Return one less the mean share left over."""
        cpu = (node.cpu_milli - demand.cpu_milli) / self.largest.cpu_milli
        gpu = (sum(node.devices) - demand.gpus * demand.gpu_milli) / self.largest.gpu_milli
        return 1.0 - (cpu + gpu) / 2


class Spread(BestFit):
    """Range [0, 1], 1 leaves a largest node empty."""

    def score(self, node: Node, demand: Demand) -> float:
        """Return the mean share left over."""
        return 1.0 - super().score(node, demand)

    def devices(self, node: Node, demand: Demand) -> list[int]:
        """Return the emptiest devices."""
        order = sorted(range(len(node.devices)), key=lambda place: (-node.devices[place], place))
        return order[: demand.gpus]


class DotProduct(BestFit):
    """Range [0, 1], 1 where nothing is free of what is asked for."""

    def score(self, node: Node, demand: Demand) -> float:
        """Return one less the mean product of demand and free, as shares of the largest node, in whole per cents."""
        cpu = demand.cpu_milli / self.largest.cpu_milli * (node.cpu_milli / self.largest.cpu_milli)
        gpu = demand.gpus * demand.gpu_milli / self.largest.gpu_milli * (sum(node.devices) / self.largest.gpu_milli)
        return int(100 * (1.0 - (cpu + gpu) / 2)) / 100


class Packing(BestFit):
    """Range [0, 1]: from 1/2 up only devices in use are taken, from 1/3 up the node has one in use."""

    def score(self, node: Node, demand: Demand) -> float:
        """Return the class of the node: within it by tenths of the device, idle devices to take, or size."""
        if not demand.gpus:
            return 0.0
        idle = node.devices.count(WHOLE_MILLI)
        if idle == len(node.devices):
            return max(0.0, 33 - idle) / 100
        chosen = [node.devices[place] for place in fullest(node, demand)]
        if fresh := chosen.count(WHOLE_MILLI):
            return max(34, 50 - fresh) / 100
        return max(50, 100 - sum(chosen) // 100) / 100


class Clustering(BestFit):
    """Range [0, 1]: quarters say which other kinds are there, and the share of the largest node in use ranks within."""

    def score(self, node: Node, demand: Demand) -> float:
        """Return the quarter, and how full the node is in steps of a 25th."""
        if not demand.gpus:
            return 0.0
        alike = demand.kind in node.kinds
        quarter = 2 + (len(node.kinds) == 1) if alike else int(not node.kinds)
        used = self.largest.gpu_milli - sum(node.devices)
        return (25 * quarter + 25 * used // self.largest.gpu_milli) / 100


class Gradient(BestFit):
    """Minus the growth of fragmentation in thousandths of a device, plus the best fit's [0, 1) to settle equal ones."""

    def __init__(self, largest: Largest, mix: Fragmentation) -> None:
        super().__init__(largest)
        self.mix = mix

    def score(self, node: Node, demand: Demand) -> float:
        """Return how much less is unusable after placing on the best device."""
        growth = self._after(node, demand)[0] - self.mix.measure(node.cpu_milli, node.devices)
        return super().score(node, demand) * 0.999 - round(growth)

    def devices(self, node: Node, demand: Demand) -> list[int]:
        """Return the device whose use leaves the least unusable."""
        return self._after(node, demand)[1]

    def _after(self, node: Node, demand: Demand) -> tuple[float, list[int]]:
        cpu_milli = node.cpu_milli - demand.cpu_milli
        if demand.gpus != 1:
            chosen = fullest(node, demand)
            devices = list(node.devices)
            for place in chosen:
                devices[place] -= demand.gpu_milli
            return self.mix.measure(cpu_milli, devices), chosen
        best: tuple[float, list[int]] | None = None
        tried = set()
        for place, free in enumerate(node.devices):
            if free >= demand.gpu_milli and free not in tried:
                tried.add(free)
                devices = list(node.devices)
                devices[place] -= demand.gpu_milli
                unusable = self.mix.measure(cpu_milli, devices)
                if best is None or unusable < best[0]:
                    best = (unusable, [place])
        assert best is not None, "the demand fits"
        return best


def fullest(node: Node, demand: Demand) -> list[int]:
    """Return the devices with the least left that suffices, `demand.gpus` of them."""
    if not demand.gpus:
        return []
    enough = [(free, place) for place, free in enumerate(node.devices) if free >= demand.gpu_milli]
    if demand.gpus == 1:
        return [min(enough)[1]]
    return [place for _, place in sorted(enough)[: demand.gpus]]


def mix_of(demands: Iterable[Demand]) -> Fragmentation:
    """Return the fragmentation measure for a workload: each kind as common as it is there."""
    counts: dict[tuple[int, int, int], int] = {}
    for each in demands:
        key = (each.cpu_milli, each.gpus, each.gpu_milli)
        counts[key] = counts.get(key, 0) + 1
    return Fragmentation(Kind(count, *key) for key, count in counts.items())


Maker = Callable[[list[Node], list[Demand]], Policy]

POLICIES: dict[str, Maker] = {
    "best-fit": lambda nodes, demands: BestFit(Largest(nodes)),
    "spread": lambda nodes, demands: Spread(Largest(nodes)),
    "dot-product": lambda nodes, demands: DotProduct(Largest(nodes)),
    "packing": lambda nodes, demands: Packing(Largest(nodes)),
    "clustering": lambda nodes, demands: Clustering(Largest(nodes)),
    "fragmentation": lambda nodes, demands: Gradient(Largest(nodes), mix_of(demands)),
    "first-fit": lambda nodes, demands: FirstFit(),
    "random": lambda nodes, demands: FirstFit(drawn=True),
}


def check_policy(name: str) -> None:
    """Raise BadValue unless there is a policy of that name."""
    if name not in POLICIES:
        raise BadValue("policy", name, f"one of {', '.join(POLICIES)}")


def make_policy(name: str, nodes: list[Node], demands: list[Demand]) -> Policy:
    """Return the policy of that name for a cluster and the workload it expects; raises BadValue for an unknown one."""
    check_policy(name)
    return POLICIES[name](nodes, demands)
