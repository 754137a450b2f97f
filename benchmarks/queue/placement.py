"""How fast the placement engine decides, and how tightly it packs, beside a vectorised scan of all nodes with NumPy.

    python benchmarks/queue/placement.py [--json] [--seeds 3] [--numpy PYTHON]

Nodes and pods of the Alibaba trace openb (found through FOFOCA_TRACES or ../shared/traces), CPU and memory only. The
rivals run in a process of their own, with the Python given by --numpy (one that can import numpy; without, this one is
tried, and they are left out when it can't). All figures are of one core, in one run.

Speed: decisions a second of CPU time, on 1,523 nodes and on 10,000 of the same kinds with a label asked for by a fifth
of the tasks, up to nine tenths of each node being taken before. A decision is one `place` for one task and one claim.
`view` is the whole cluster view as agents use it, `engine` the index below it; `array` asks for 20 equal tasks at once,
as an array's home and the queue's leader do.
Growth: the cost of one decision and of one end from 1,000 nodes to 50,000, every task leaving after a few hundred
others came, so that all sizes stay as full as they were.

Packing: nodes needed for the whole trace, over its lower bound of 884 (a node is added when a pod fits nowhere), and
the CPU allocated at the first reject on the 1,523 nodes. Both sides' decisions a second are over that same sequence:
from empty nodes to far beyond the first reject, rejects included.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from math import log2
from pathlib import Path
from typing import Any

from goals import Goal, as_json, show

from scheduler.finder import Finder
from scheduler.index import ClusterView, Membership, Node
from scheduler.model import Constraint, Operator, Report, Resources
from scheduler.score import POLICIES

ROOT = Path(__file__).parents[2]
OPENB = Path(os.environ.get("FOFOCA_TRACES") or ROOT.parent / "shared" / "traces") / "openb"
LOWER_BOUND = 884
GROWN = Resources(96_000, 360_448)
EXACT = 1_000_000
LABELS = 8
DECISIONS = 5000
RUNNING = 300

Row = dict[str, Any]


def read(name: str) -> list[Resources]:
    """Return CPU and memory (MiB) of a list's rows."""
    with (OPENB / name).open() as file:
        return [Resources(int(row["cpu_milli"]), int(row["memory_mib"])) for row in csv.DictReader(file)]


def node_of(number: int, size: Resources) -> Node:
    """Return an empty node; its zone is one of a few."""
    labels = (("zone", str(number % LABELS)),)
    node = Node(f"n{number}", number, Membership.ALIVE)
    node.take(Report(node.name, number, 1, 1, size, size, labels=labels))
    return node


class Cluster:
    """An engine and its nodes, without the view above it."""

    def __init__(self, policy: str, steps: int, sizes: list[Resources]) -> None:
        self.finder = Finder(POLICIES[policy], steps, drawn=steps != EXACT)
        self.nodes: dict[str, Node] = {}
        for size in sizes:
            self.add(size)

    def add(self, size: Resources) -> None:
        node = node_of(len(self.nodes) + 1, size)
        self.nodes[node.name] = node
        self.finder.see(node)

    def place(self, request: Resources, constraints: tuple[Constraint, ...] = (), seed: int = 0) -> bool:
        """Place one task to stay; return whether there was room."""
        for name in self.finder.place(request, constraints, 1, seed):
            node = self.nodes[name]
            node.free = node.free - request
            self.finder.changed(node)
            return True
        return False


# --- packing


def over_bound_percent(policy: str, pods: list[Resources]) -> float:
    """Return by how much more nodes than the lower bound are needed."""
    cluster = Cluster(policy, EXACT, [])
    for pod in pods:
        if not cluster.place(pod):
            cluster.add(GROWN)
            assert cluster.place(pod)
    return 100 * (len(cluster.nodes) / LOWER_BOUND - 1)


def first_reject_percent(policy: str, nodes: list[Resources], pods: list[Resources]) -> float:
    """Return the share of CPU that is allocated when the first pod fits nowhere."""
    cluster = Cluster(policy, EXACT, nodes)
    placed = 0
    for pod in pods:
        if not cluster.place(pod):
            break
        placed += pod.cpu_milli
    return 100 * placed / sum(node.cpu_milli for node in nodes)


def fill_per_s(policy: str, nodes: list[Resources], pods: list[Resources]) -> float:
    """Return decisions a second while the nodes fill from empty and long after: the rivals' own sequence."""
    cluster = Cluster(policy, EXACT, nodes)
    began = time.process_time()
    for pod in pods:
        cluster.place(pod)
    return len(pods) / (time.process_time() - began)


def orders(pods: list[Resources], seed: int) -> list[list[Resources]]:
    """Return three random orders: one to grow with, two to reject with."""
    rng = random.Random(seed)
    return [rng.sample(pods, len(pods)) for _ in range(3)]


def packing(seeds: int) -> Iterator[Row]:
    """Yield a row for each policy."""
    nodes, pods = read("openb_node_list_all_node.csv"), read("openb_pod_list_default.csv")
    for policy in POLICIES:
        grown, rejected, speeds = [], [], []
        for seed in range(seeds):
            one, two, three = orders(pods, seed)
            small = [pod for pod in one if pod.cpu_milli <= GROWN.cpu_milli and pod.memory_bytes <= GROWN.memory_bytes]
            grown.append(over_bound_percent(policy, small))
            rejected.append(first_reject_percent(policy, nodes, two + three))
            speeds.append(fill_per_s(policy, nodes, two + three))
        row = packing_row(policy, sum(grown) / seeds, sum(rejected) / seeds)
        yield {**row, "per_s_1523_nodes": round(sum(speeds) / seeds)}


def packing_row(policy: str, over_percent: float, reject_percent: float) -> Row:
    return {
        "policy": policy,
        "over_bound_pct": round(over_percent, 2),
        "first_reject_cpu_pct": round(reject_percent, 2),
    }


# --- speed


def workload(count: int, some_constrained: bool, seed: int) -> list[tuple[Resources, tuple[Constraint, ...]]]:
    """Return requests drawn from the trace; a fifth with a constraint, if so."""
    rng, pods = random.Random(seed), read("openb_pod_list_default.csv")
    where = [(Constraint("zone", Operator.IN, (str(zone),)),) for zone in range(LABELS)]
    return [
        (rng.choice(pods), rng.choice(where) if some_constrained and rng.random() < 0.2 else ()) for _ in range(count)
    ]


def sizes(count: int) -> list[Resources]:
    """Return so many nodes of the trace's kinds."""
    found = read("openb_node_list_all_node.csv")
    return random.Random(1).choices(found, k=count) if count > len(found) else found[:count]


def taken_shares() -> Iterator[tuple[float, float]]:
    """Yield how much of a node's CPU and memory is taken before: up to nine tenths, each drawn on its own."""
    rng = random.Random(3)
    while True:
        yield rng.uniform(0.0, 0.9), rng.uniform(0.0, 0.9)


def part(size: Resources, share: tuple[float, float]) -> Resources:
    """Return so much of a node."""
    return Resources(int(size.cpu_milli * share[0]), int(size.memory_bytes * share[1]))


def partly_taken(policy: str, nodes: int, steps: int = 200) -> Cluster:
    """Return a cluster of so many nodes, each with something taken before."""
    cluster = Cluster(policy, steps, sizes(nodes))
    for node, share in zip(cluster.nodes.values(), taken_shares(), strict=False):
        node.free = node.free - part(node.free, share)
        cluster.finder.changed(node)
    return cluster


def engine_per_s(policy: str, nodes: int, some_constrained: bool) -> float:
    """Return decisions a second of the engine."""
    cluster, work = partly_taken(policy, nodes), workload(DECISIONS, some_constrained, 2)
    for constraints in dict.fromkeys(constraints for _, constraints in work):
        cluster.finder.place(Resources(1, 1), constraints, 1, 0)
    began = time.process_time()
    for seed, (request, constraints) in enumerate(work):
        cluster.place(request, constraints, seed)
    return len(work) / (time.process_time() - began)


def array_per_s(policy: str, nodes: int, some_constrained: bool, batch: int) -> float:
    """Return decisions a second of the engine where so many equal tasks are asked for at once, and all are taken."""
    cluster, work = partly_taken(policy, nodes), workload(DECISIONS // batch, some_constrained, 2)
    for constraints in dict.fromkeys(constraints for _, constraints in work):
        cluster.finder.place(Resources(1, 1), constraints, 1, 0)
    began = time.process_time()
    for seed, (request, constraints) in enumerate(work):
        for name, times in cluster.finder.place(request, constraints, batch, seed).items():
            node = cluster.nodes[name]
            node.free = node.free - (request if times == 1 else request * times)
            cluster.finder.changed(node)
    return len(work) * batch / (time.process_time() - began)


def steady_us(nodes: int) -> float:
    """Return what one decision and one end cost where all tasks end again."""
    cluster, work = partly_taken("best-fit", nodes), workload(DECISIONS, True, 2)
    for constraints in dict.fromkeys(constraints for _, constraints in work):
        cluster.finder.place(Resources(1, 1), constraints, 1, 0)
    running: deque[tuple[Node, Resources]] = deque()
    began = time.process_time()
    for seed, (request, constraints) in enumerate(work):
        for name in cluster.finder.place(request, constraints, 1, seed):
            node = cluster.nodes[name]
            running.append((node, request))
            node.free = node.free - request
            cluster.finder.changed(node)
        if len(running) > RUNNING:
            node, amount = running.popleft()
            node.free = node.free + amount
            cluster.finder.changed(node)
    return 1e6 * (time.process_time() - began) / len(work)


def view_per_s(policy: str, nodes: int, some_constrained: bool, batch: int) -> float:
    """Return decisions a second of a whole view: place, then claim."""
    view = ClusterView("n1", 1, POLICIES[policy], 5)
    for number, (size, share) in enumerate(zip(sizes(nodes), taken_shares(), strict=False), 1):
        labels = (("zone", str(number % LABELS)),)
        view.heard_of(f"n{number}", Membership.ALIVE, number)
        view.hear(Report(f"n{number}", number, 1, 1, size, size, part(size, share), labels=labels))
    work = workload(DECISIONS // batch, some_constrained, 2)
    for constraints in dict.fromkeys(constraints for _, constraints in work):
        view.place(Resources(1, 1), constraints, 1, 0)
    began = time.process_time()
    for seed, (request, constraints) in enumerate(work):
        for name, times in view.place(request, constraints, batch, seed).items():
            view.claim((seed, name), name, request if times == 1 else request * times)
    return len(work) * batch / (time.process_time() - began)


def speed() -> Iterator[Row]:
    """Yield decisions a second."""
    for policy in ("best-fit", "spread", "residue"):
        for nodes, constrained in ((1523, False), (10_000, True)):
            row: Row = {"policy": policy, "nodes": nodes, "constraints": "on a fifth" if constrained else "none"}
            row["engine_per_s"] = round(engine_per_s(policy, nodes, constrained))
            row["engine_array_per_s"] = round(array_per_s(policy, nodes, constrained, 20))
            row["view_per_s"] = round(view_per_s(policy, nodes, constrained, 1))
            row["view_array_per_s"] = round(view_per_s(policy, nodes, constrained, 20))
            yield row


def growth() -> Iterator[Row]:
    """Yield the cost of one decision as nodes grow, beside the growth of their logarithm."""
    first: float | None = None
    for nodes in (1000, 10_000, 50_000):
        cost_us = min(steady_us(nodes) for _ in range(3))
        first = first or cost_us
        yield {
            "nodes": nodes,
            "decision_and_end_us": round(cost_us, 1),
            "growth": round(cost_us / first, 2),
            "log_growth": round(log2(nodes) / log2(1000), 2),
        }


# --- the rivals

RIVALS = """
import json, sys, time
import numpy as np
data = json.load(sys.stdin)
nodes, grown, bound = np.array(data["nodes"], float), np.array(data["grown"], float), data["bound"]
scores = {
    "numpy spread": lambda left, cap, need, free: (left / cap).sum(1),
    "numpy best fit": lambda left, cap, need, free: -(left / cap).sum(1),
    "numpy 10**free": lambda left, cap, need, free: -(10.0 ** (left / cap)).sum(1),
    "numpy dot product": lambda left, cap, need, free: ((free / cap) * (need / cap)).sum(1),
    "numpy norm": lambda left, cap, need, free: -((left / cap) ** 2).sum(1),
    "numpy best fit + balance": lambda left, cap, need, free:
        -(left / cap).sum(1) - np.abs((left / cap)[:, 0] - (left / cap)[:, 1]),
    "numpy first fit": None,
}
def choose(score, free, cap, need):
    fits = np.flatnonzero((free[:, 0] >= need[0]) & (free[:, 1] >= need[1]))
    if not fits.size: return -1
    if score is None: return fits[0]
    have = free[fits]
    return fits[int(np.argmax(score(have - need, cap[fits], need, have)))]
def grow(score, order):
    free, cap, used = np.zeros((len(order), 2)), np.tile(grown, (len(order), 1)), 0
    for need in order:
        at = choose(score, free[:used], cap[:used], need)
        if at < 0: at = used; free[at] = grown; used += 1
        free[at] -= need
    return 100 * (used / bound - 1)
def fill(score, order):
    free, placed, first = nodes.copy(), 0.0, None
    began = time.process_time()
    for need in order:
        at = choose(score, free, nodes, need)
        if at < 0:
            first = placed if first is None else first
            continue
        free[at] -= need; placed += need[0]
    return 100 * (placed if first is None else first) / nodes[:, 0].sum(), len(order) / (time.process_time() - began)
for name, score in scores.items():
    filled = [fill(score, np.array(order, float)) for order in data["fill"]]
    print(json.dumps([name, np.mean([grow(score, np.array(order, float)) for order in data["grow"]]),
                      np.mean([each[0] for each in filled]), np.mean([each[1] for each in filled])]), flush=True)
"""


def rivals(python: str, seeds: int) -> Iterator[Row]:
    """Yield the rivals' packing on the same orders, and their decisions a second on 1,523 nodes."""
    if subprocess.run([python, "-c", "import numpy"], capture_output=True, check=False).returncode:
        return
    pods = read("openb_pod_list_default.csv")
    drawn = [orders(pods, seed) for seed in range(seeds)]
    pairs = [[[(pod.cpu_milli, pod.memory_bytes) for pod in order] for order in each] for each in drawn]
    data = {
        "nodes": [(node.cpu_milli, node.memory_bytes) for node in read("openb_node_list_all_node.csv")],
        "grown": (GROWN.cpu_milli, GROWN.memory_bytes),
        "bound": LOWER_BOUND,
        "grow": [
            [pod for pod in one if pod[0] <= GROWN.cpu_milli and pod[1] <= GROWN.memory_bytes] for one, _, _ in pairs
        ],
        "fill": [two + three for _, two, three in pairs],
    }
    done = subprocess.run([python, "-c", RIVALS], input=json.dumps(data), capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        name, over_percent, reject_percent, per_s = json.loads(line)
        yield {**packing_row(name, over_percent, reject_percent), "per_s_1523_nodes": round(per_s)}


def goals(parts: dict[str, list[Row]]) -> list[Goal]:
    """A hundred thousand decisions a second, more than NumPy, growing slower than a logarithm; the tightest packing."""
    large = next(row for row in parts["speed"] if row["policy"] == "best-fit" and row["nodes"] == 10_000)
    best, found = {row["policy"]: row for row in parts["packing"]}, []
    for what in ("engine_per_s", "engine_array_per_s", "view_per_s", "view_array_per_s"):
        found.append(Goal(f"10,000 nodes, {what}", large[what], 100_000, "the target", True))
    for row in parts["growth"][1:]:
        found.append(Goal(f"growth to {row['nodes']:,} nodes", row["growth"], row["log_growth"], "of the logarithm"))
    others = {row["policy"]: row for row in parts["rivals"]}
    if others:
        per_s = 1.1 * others["numpy best fit"]["per_s_1523_nodes"]
        ours = best["best-fit"]["per_s_1523_nodes"]
        found.append(Goal("1,523 nodes, decisions/s", ours, per_s, "1.1 x numpy best fit", True))
        least = min(row["over_bound_pct"] for row in others.values())
        most = max(row["first_reject_cpu_pct"] for row in others.values())
        found.append(Goal("residue, nodes over the bound, %", best["residue"]["over_bound_pct"], least, "rivals' best"))
        ours = best["residue"]["first_reject_cpu_pct"]
        found.append(Goal("residue, CPU at the first reject, %", ours, most, "rivals' best", True))
    return found


def table(title: str, rows: list[Row]) -> None:
    """Print rows in columns."""
    print(f"\n{title}")
    names = list(rows[0]) if rows else []
    lines = [names, *([str(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def main() -> None:
    """Measure, and print tables or one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--seeds", type=int, default=3, help="random orders of arrival to average over")
    parser.add_argument("--numpy", default=sys.executable, help="a Python that can import numpy, for the rivals")
    options = parser.parse_args()
    parts = {
        "speed": list(speed()),
        "growth": list(growth()),
        "rivals": list(rivals(options.numpy, options.seeds)),
        "packing": list(packing(options.seeds)),
    }
    if options.json:
        told = {"benchmark": "placement", "seeds": options.seeds, **parts}
        print(json.dumps({**told, "goals": as_json(goals(parts))}))
    else:
        for title, rows in parts.items():
            table(title, rows)
        print()
        show(goals(parts))


if __name__ == "__main__":
    main()
