"""What views a second old cost: refusals for each placement, with ten homes and with one.

    python benchmarks/queue/stale_views.py [--json] [--jobs N]

A hundred real scheduling machines of 64 cores and 256 GiB, a millisecond apart; jobs arrive at 200 a second and keep
85 % of the cores busy; sizes are those of the openb pods up to half a node (FOFOCA_TRACES or ../shared/traces).
Gossip is heard a second late. A refusal is a task that a node did not take; late is a job that did not start within
50 ms. The rivals: the same queue with one home, whose view is never old for lack of others' placements, and ten homes
that each take the best fit of what they heard last, tell nobody, and try the next one where they are refused, modelled
without any messages at all.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import json
import os
import platform
import random
import sys
import time
from pathlib import Path
from typing import Any

from goals import Goal, as_json, show

from scheduler import SchedulerConfig
from scheduler.events import Submit
from scheduler.messages import Refused, decode
from scheduler.model import AllocationId, JobSpec, Resources
from sim.machines import Host, Links, Machines

ROOT = Path(__file__).parents[2]
TRACES = Path(os.environ.get("FOFOCA_TRACES") or ROOT.parent / "shared" / "traces")
PODS = TRACES / "openb" / "openb_pod_list_default.csv"
NODE = Resources(64_000, 256 << 30)
NODES, PER_SECOND, LOAD, LATE_S = 100, 200.0, 0.85, 0.05
REFUSALS = "refusals_per_placement"

Row = dict[str, Any]


def sizes() -> list[Resources]:
    """The requests of all pods that fit into half a node."""
    with PODS.open() as lines:
        found = [(int(row["cpu_milli"]), int(row["memory_mib"]) << 20) for row in csv.DictReader(lines)]
    return [
        Resources(max(1, cpu), max(1 << 20, memory)) for cpu, memory in found if cpu <= 32_000 and memory <= 128 << 30
    ]


class Arrivals(Machines):
    """A stream of single jobs, each to a home drawn at random."""

    def __init__(self, homes: int, jobs: int, requests: list[Resources], seed: int = 1) -> None:
        self.rng = random.Random(f"stale views {seed}")
        self.requests = [self.rng.choice(requests) for _ in range(jobs)]
        mean_cpu_milli = sum(each.cpu_milli for each in requests) / len(requests)
        self.run_s = LOAD * NODES * NODE.cpu_milli / (PER_SECOND * mean_cpu_milli)
        self.submitted_s: list[float] = []
        self.waited_s: dict[int, float] = {}
        self.refusals = 0
        names = [f"n{number}" for number in range(1, homes + 1)]
        config = SchedulerConfig(history_jobs=100)
        hosts = [Host(f"n{number}", number, NODE, config=config) for number in range(1, NODES + 1)]
        super().__init__(hosts, names, Links(seed=seed))
        self.homes = [self.hosts[name] for name in names]

    def play(self) -> None:
        """Submit everything, and let it start."""
        self.start_all()
        at_s = 5.0
        for job in range(len(self.requests)):
            at_s += self.rng.expovariate(PER_SECOND)
            self.submitted_s.append(at_s)
            self.kernel.at(at_s, self._submit, job, self.rng.choice(self.homes))
        self.kernel.run_until(at_s + 10.0)

    def _submit(self, job: int, home: Host) -> None:
        spec = JobSpec(f"j{job}", ("run",), self.requests[job], time_limit_s=10 * self.run_s)
        self.give(home, Submit("user", spec, self.kernel.now))

    def begun(self, host: Host, id_: AllocationId, spec: JobSpec) -> float:
        """Note the wait; run for an exponential time."""
        job = int(spec.name[1:])
        self.waited_s.setdefault(job, self.kernel.now - self.submitted_s[job])
        return self.rng.expovariate(1 / self.run_s)

    def _send(self, host: Host, to: str, message: bytes) -> None:
        if b"refused" in message:
            items = decode(message, len(message))
            self.refusals += sum(len(item.tasks) for item in items if isinstance(item, Refused))
        super()._send(host, to, message)


def played(homes: int, jobs: int, requests: list[Resources]) -> Row:
    """Play with so many homes."""
    began = time.process_time()
    run = Arrivals(homes, jobs, requests)
    run.play()
    waits = sorted(run.waited_s.values())
    return {
        "homes": homes,
        "jobs": jobs,
        "refusals_per_placement": round(run.refusals / max(1, len(waits)), 4),
        "unplaced": jobs - len(waits),
        "late_percent": round(100 * sum(wait_s > LATE_S for wait_s in waits) / max(1, len(waits)), 2),
        "p50_ms": round(1000 * waits[len(waits) // 2], 1),
        "p99_ms": round(1000 * waits[len(waits) * 99 // 100], 1),
        "messages_per_job": round(run.figures["messages"] / jobs, 1),
        "cpu_s": round(time.process_time() - began, 1),
    }


def argmax(homes: int, jobs: int, requests: list[Resources], seed: int = 1) -> Row:
    """Play the rival: each home has a copy of all free amounts, a second old at most, and asks its tightest fit."""
    began, rng = time.process_time(), random.Random(f"stale views {seed}")
    mean_cpu_milli = sum(each.cpu_milli for each in requests) / len(requests)
    run_s = LOAD * NODES * NODE.cpu_milli / (PER_SECOND * mean_cpu_milli)
    free = [(NODE.cpu_milli, NODE.memory_bytes)] * NODES
    views, heard_s = [list(free) for _ in range(homes)], [home / homes for home in range(homes)]
    running: list[tuple[float, int, int, int]] = []
    now, refusals, unplaced = 0.0, 0, 0
    for _ in range(jobs):
        now += rng.expovariate(PER_SECOND)
        while running and running[0][0] <= now:
            _, node, cpu, memory = heapq.heappop(running)
            free[node] = free[node][0] + cpu, free[node][1] + memory
        home, need = rng.randrange(homes), rng.choice(requests)
        if now >= heard_s[home] + 1:
            views[home], heard_s[home] = list(free), now - (now - heard_s[home]) % 1
        cpu, memory = need.cpu_milli, need.memory_bytes
        fitting = [(c / NODE.cpu_milli + m / NODE.memory_bytes, at) for at, (c, m) in enumerate(views[home])
                   if c >= cpu and m >= memory]  # fmt: skip
        for _, node in sorted(fitting):
            if free[node][0] >= cpu and free[node][1] >= memory:
                free[node] = free[node][0] - cpu, free[node][1] - memory
                heapq.heappush(running, (now + rng.expovariate(1 / run_s), node, cpu, memory))
                break
            refusals += 1
        else:
            unplaced += 1
    row: Row = {"homes": f"{homes}, argmax", "jobs": jobs}
    row[REFUSALS] = round(refusals / max(1, jobs - unplaced), 4)
    return {**row, "unplaced": unplaced, "cpu_s": round(time.process_time() - began, 1)}


def main() -> None:
    """Print a table, or one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--jobs", type=int, default=8000)
    options = parser.parse_args()
    if not PODS.exists():
        sys.exit(f"no pods at {PODS}; set FOFOCA_TRACES")
    requests = sizes()
    rows = [played(homes, options.jobs, requests) for homes in (1, 10)] + [argmax(10, options.jobs, requests)]
    goals = [
        Goal("refusals per placement", rows[1][REFUSALS], 0.1, f"argmax {rows[2][REFUSALS]}"),
        Goal("unplaced", rows[1]["unplaced"], rows[0]["unplaced"], "one home"),
    ]
    if options.json:
        print(json.dumps({"python": platform.python_version(), "rows": rows, "goals": as_json(goals)}))
        return
    print(
        f"{NODES} nodes, {PER_SECOND:.0f} jobs/s, load {LOAD:.0%}, gossip 1 s old, Python {platform.python_version()}"
    )
    print("".join(f"{key:>24}" for key in rows[0]))
    for row in rows:
        print("".join(f"{row.get(key, ''):>24}" for key in rows[0]))
    show(goals)


if __name__ == "__main__":
    main()
