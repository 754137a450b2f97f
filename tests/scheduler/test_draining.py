"""Draining a node: services move at once, batch tasks at the deadline or never, and it is not forgotten."""

from __future__ import annotations

import msgspec

from scheduler.events import Accepting, Drain
from scheduler.model import JobKind, OnLost, State
from tests.scheduler.test_whole_cluster import SPEC, Cluster


def place(cluster: Cluster, job: int) -> tuple[str, int, State]:
    (task,) = cluster.agent(f"n{job % 1000}").job(job).tasks
    return task.node, task.attempt, task.state


def drain(cluster: Cluster, node: str, deadline_s: float | None) -> None:
    host = cluster.world.hosts[node]
    host.post(Drain(deadline_s, host.unix()))


def test_services_move_at_once_and_batch_tasks_at_the_deadline() -> None:
    cluster = Cluster(nodes=3, run_mean_s=5000.0)
    for name in ("n2", "n3"):
        cluster.world.hosts[name].post(Accepting(False))
    cluster.run(1)
    service = cluster.submit("n2", msgspec.structs.replace(SPEC, kind=JobKind.SERVICE))
    batch = cluster.submit("n3")
    fixed = cluster.submit("n3", msgspec.structs.replace(SPEC, on_lost=OnLost.FAIL))
    cluster.run(1)
    assert {place(cluster, job)[0] for job in (service, batch, fixed)} == {"n1"}
    for name in ("n2", "n3"):
        cluster.world.hosts[name].post(Accepting(True))
    drain(cluster, "n1", 30.0)
    cluster.run(15)
    assert place(cluster, service)[0] != "n1"
    assert place(cluster, service)[1:] == (2, State.RUNNING)
    assert place(cluster, batch) == ("n1", 1, State.RUNNING)
    cluster.run(30)
    assert place(cluster, batch)[0] != "n1"
    assert place(cluster, batch)[1:] == (2, State.RUNNING)
    assert place(cluster, fixed)[1:] == (1, State.LOST)
    (report,) = [each.report for each in cluster.agent("n2").nodes() if each.name == "n1"]
    assert report is not None
    assert (report.draining, report.accepting, report.containers) == (True, False, 0)


def test_without_a_deadline_batch_tasks_may_end() -> None:
    cluster = Cluster(run_mean_s=20.0)
    batch = cluster.submit("n3")
    cluster.run(1)
    node = place(cluster, batch)[0]
    drain(cluster, node, None)
    cluster.run(200)
    assert place(cluster, batch) == (node, 1, State.SUCCEEDED)


def test_a_restarted_agent_is_still_draining_and_keeps_the_deadline() -> None:
    cluster = Cluster(run_mean_s=5000.0)
    batch = cluster.submit("n3")
    cluster.run(1)
    node = place(cluster, batch)[0]
    drain(cluster, node, 30.0)
    cluster.run(5)
    cluster.world.hosts[node].crash()
    cluster.world.hosts[node].start()
    cluster.run(10)
    assert place(cluster, batch) == (node, 1, State.RUNNING)
    cluster.run(30)
    assert place(cluster, batch)[0] != node
    cluster.world.hosts[node].post(Accepting(True))
    cluster.run(1)
    (report,) = [each.report for each in cluster.agent("n1").nodes() if each.name == node]
    assert report is not None
    assert (report.draining, report.accepting) == (False, True)


def test_a_home_out_of_reach_is_asked_again_until_it_answers() -> None:
    cluster = Cluster(run_mean_s=5000.0)
    service = cluster.submit("n3", msgspec.structs.replace(SPEC, kind=JobKind.SERVICE))
    cluster.run(1)
    node = place(cluster, service)[0]
    assert node != "n3"
    cluster.world.hosts["n3"].crash()
    drain(cluster, node, None)
    cluster.run(20)
    cluster.world.hosts["n3"].start()
    cluster.run(20)
    assert place(cluster, service)[0] != node
