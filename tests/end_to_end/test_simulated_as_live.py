"""What is simulated is what runs: one workload on real agents and on virtual hosts ends up on the same nodes."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest

from scheduler import SchedulerConfig
from scheduler.events import Event, Submit
from scheduler.model import AllocationId, JobSpec, Resources
from sim.machines import Host, Links, Machines
from tests.end_to_end.agents import Agents
from tests.end_to_end.command_line import eventually

pytestmark = [pytest.mark.xdist_group("promises"), pytest.mark.slow]

MIB = 1 << 20
# cpu_milli, MiB: sizes that fill the nodes unevenly, so that each choice depends on those before it.
WORKLOAD = [(300, 64), (500, 200), (200, 300), (600, 100), (100, 300), (400, 50), (250, 150), (150, 64), (100, 128)]


class Simulated(Machines):
    """The same cluster in virtual time; tasks stay where they start."""

    def __init__(self, nodes: list[dict[str, Any]]) -> None:
        config = SchedulerConfig(lost_grace_s=1.0)
        hosts = [
            Host(
                node["name"],
                node["number"],
                Resources(node["allocatable"]["cpu_milli"], node["allocatable"]["memory_bytes"]),
                tuple(sorted(node["labels"].items())),
                config,
            )
            for node in nodes
        ]
        super().__init__(hosts, [host.name for host in hosts], Links())
        self.where: list[str] = []

    def begun(self, host: Host, id_: AllocationId, spec: JobSpec) -> float:
        """Note where it is."""
        self.where.append(host.name)
        return inf

    def said(self, answer: object, event: Event) -> None:
        """The job's id is of no interest here."""

    def play(self, home: str) -> list[str]:
        """Submit the workload, one job after the other, each when the former one runs."""
        self.start_all()
        self.kernel.run_until(20.0)
        for number, (cpu_milli, mib) in enumerate(WORKLOAD, 1):
            spec = JobSpec("x", ("sleep", "600"), Resources(cpu_milli, mib * MIB))
            self.give(self.hosts[home], Submit("tests", spec, self.kernel.now))
            self.kernel.run_until(20.0 + 5.0 * number)
        return self.where


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Agents]:
    agents = Agents(tmp_path, 3)
    try:
        agents.start()
        yield agents
    finally:
        agents.end()


def test_a_workload_is_placed_on_the_same_nodes_by_agents_and_by_the_simulator(cluster: Agents) -> None:
    home = cluster["n1"]
    live = []
    for cpu_milli, mib in WORKLOAD:
        job = home.submit(argv=["sleep", "600"], cpu_milli=cpu_milli, memory_bytes=mib * MIB)
        eventually(f"job {job} runs", lambda job=job: home.task(job)["state"] == "running")
        live.append(home.task(job)["node"])
    simulated = Simulated(home.get("/v1/nodes")).play("n1")
    assert simulated == live
    assert len(set(live)) > 1
