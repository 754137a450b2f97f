"""Limits of live jobs are changed on all nodes or on none, and no node commits itself to more than it permits."""

from __future__ import annotations

import random

import msgspec
import pytest

from scheduler.events import AmendJob
from scheduler.model import ArrayRange, JobSpec, Resources
from scheduler.spec.limits import Limits
from tests.scheduler.test_whole_cluster import MIB, SPEC, Cluster

LONG = 10_000.0


def amend(cluster: Cluster, home: str, job: int, index: int | None = None, **changes: object) -> object:
    """Ask for a change and let it go its way; return how it went, or the refusal to begin with."""
    answers: list[object] = []
    spec: JobSpec = msgspec.structs.replace(cluster.agent(home).job(job).spec, **changes)
    cluster.world.hosts[home].ask(AmendJob(job, spec, index), answers.append)
    cluster.run(1.0)
    return cluster.agent(home).amendment(job) if answers else None


def committed(cluster: Cluster) -> int:
    return sum(node.report.committed.memory_bytes for node in cluster.agent("n1").nodes() if node.report)


def specs(cluster: Cluster, job: int) -> set[int]:
    """The memory that the live containers of a job really have."""
    return {
        container.allocation.spec.request.memory_bytes // MIB
        for host in cluster.world.hosts.values()
        for id_, container in host.containers.items()
        if id_.job == job and container.result is None
    }


def test_a_running_job_gets_its_new_limits_and_the_node_books_them() -> None:
    cluster = Cluster(run_mean_s=LONG)
    job = cluster.submit("n1")
    cluster.run(2.0)
    outcome = amend(cluster, "n1", job, request=Resources(500, 128 * MIB), pids_max=9)
    assert (outcome.done, outcome.tasks, outcome.refusals) == (True, 1, ())
    assert specs(cluster, job) == {128}
    assert committed(cluster) == 128 * MIB
    assert cluster.agent("n1").job(job).spec.pids_max == 9
    amend(cluster, "n1", job, request=Resources(250, 64 * MIB))
    assert committed(cluster) == 64 * MIB


def test_what_does_not_fit_is_refused_by_its_dimension_and_nothing_changes() -> None:
    cluster = Cluster(run_mean_s=LONG)
    job = cluster.submit("n1")
    cluster.run(2.0)
    outcome = amend(cluster, "n1", job, request=Resources(250, 4096 * MIB))
    assert outcome.done
    (refusal,) = outcome.refusals
    assert "memory" in refusal
    assert "needs" in refusal
    assert specs(cluster, job) == {64}
    assert cluster.agent("n1").job(job).spec.request == SPEC.request
    assert committed(cluster) == 64 * MIB


def test_what_the_runtime_refuses_is_told_and_the_booking_goes_back() -> None:
    cluster = Cluster(run_mean_s=LONG)
    job = cluster.submit("n1")
    cluster.run(2.0)
    outcome = amend(cluster, "n1", job, request=Resources(900, 8 * MIB))
    assert outcome.refusals[0].endswith("its memory is in use")
    assert committed(cluster) == 64 * MIB
    assert cluster.agent("n1").job(job).spec.request == SPEC.request


def test_what_a_node_can_not_do_is_refused_in_words() -> None:
    cluster = Cluster(run_mean_s=LONG)
    job = cluster.submit("n1")
    cluster.run(2.0)
    outcome = amend(cluster, "n1", job, limits=Limits(swappiness=5))
    assert "no swappiness" in outcome.refusals[0]


def test_when_one_task_refuses_the_others_go_back() -> None:
    cluster = Cluster(nodes=2, run_mean_s=LONG)
    job = cluster.submit("n1", msgspec.structs.replace(SPEC, array=ArrayRange(0, 3), request=Resources(400, 64 * MIB)))
    cluster.run(3.0)
    filler = cluster.submit("n1", msgspec.structs.replace(SPEC, request=Resources(100, 800 * MIB)))
    cluster.run(3.0)
    assert specs(cluster, filler) == {800}
    before = committed(cluster)
    outcome = amend(cluster, "n1", job, request=Resources(400, 200 * MIB))
    assert outcome.done
    assert outcome.refusals
    assert specs(cluster, job) == {64}
    assert committed(cluster) == before
    assert cluster.agent("n1").job(job).spec.request.memory_bytes == 64 * MIB


def test_one_task_can_be_changed_alone_and_the_job_stays_as_it_is() -> None:
    cluster = Cluster(run_mean_s=LONG)
    job = cluster.submit("n1", msgspec.structs.replace(SPEC, array=ArrayRange(0, 1)))
    cluster.run(2.0)
    outcome = amend(cluster, "n1", job, index=1, request=Resources(250, 128 * MIB))
    assert (outcome.done, outcome.tasks) == (True, 1)
    assert specs(cluster, job) == {64, 128}
    assert cluster.agent("n1").job(job).spec.request == SPEC.request


def test_a_job_that_waits_is_changed_at_once_and_placed_by_its_new_request() -> None:
    cluster = Cluster(run_mean_s=LONG)
    job = cluster.submit("n1", msgspec.structs.replace(SPEC, request=Resources(250, 9999 * MIB)))
    cluster.run(2.0)
    assert specs(cluster, job) == set()
    outcome = amend(cluster, "n1", job, request=SPEC.request)
    assert (outcome.done, outcome.tasks) == (True, 0)
    cluster.run(5.0)
    assert specs(cluster, job) == {64}


def test_a_node_that_does_not_answer_counts_as_a_refusal() -> None:
    cluster = Cluster(run_mean_s=LONG)
    job = cluster.submit("n1")
    cluster.run(2.0)
    (node,) = {task.node for task in cluster.agent("n1").job(job).tasks}
    home = next(name for name in cluster.world.hosts if name != node)
    if node == "n1":
        job = next(
            each for each in (cluster.submit(home) for _ in range(20))
            if (cluster.run(1.0) or cluster.agent(home).job(each).tasks[0].node) != home
        )  # fmt: skip
        node = cluster.agent(home).job(job).tasks[0].node
    else:
        home = "n1"
    cluster.world.hosts[node].crash()
    cluster.run(0.5)
    amend(cluster, home, job, request=Resources(250, 128 * MIB))
    cluster.run(20.0)
    outcome = cluster.agent(home).amendment(job)
    assert outcome.done
    assert "no answer" in outcome.refusals[0]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_changed_no_node_passes_what_it_permits(seed: int) -> None:
    chance = random.Random(seed)
    cluster = Cluster(nodes=3, run_mean_s=8.0)
    jobs: list[tuple[str, int]] = []
    for _ in range(40):
        home = f"n{chance.randint(1, 3)}"
        if chance.random() < 0.4 or not jobs:
            array = ArrayRange(0, chance.randint(0, 3)) if chance.random() < 0.5 else None
            jobs.append((home, cluster.submit(home, msgspec.structs.replace(SPEC, array=array))))
        else:
            owner, job = chance.choice(jobs)
            request = Resources(chance.randint(50, 600), chance.randint(16, 500) * MIB)
            spec = msgspec.structs.replace(cluster.agent(owner).job(job).spec, request=request)
            cluster.world.hosts[owner].ask(AmendJob(job, spec), lambda _: None)
        cluster.run(chance.uniform(0.0, 1.0))  # its checkers look at every container
    cluster.run(300.0)
    assert committed(cluster) == 0, f"seed {seed}"
