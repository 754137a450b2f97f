"""Singletons: one at a time of an owner's jobs of one name, in the order of submission, whichever homes took them."""

from __future__ import annotations

import msgspec

from scheduler.events import Cancel, Submit
from scheduler.model import State
from scheduler.spec.queueing import Queueing
from tests.scheduler.test_whole_cluster import SPEC, Cluster

ALONE = msgspec.structs.replace(SPEC, name="nightly", queueing=Queueing(singleton=True))


def submit(cluster: Cluster, home: str) -> int:
    answers: list[object] = []
    host = cluster.world.hosts[home]
    host.ask(Submit("user", ALONE, host.unix()), answers.append)
    cluster.run(0.1)
    return int(str(answers[0]))


def running(cluster: Cluster, jobs: list[int]) -> list[int]:
    return [job for job in jobs if cluster.agent(f"n{job % 1000}").job_state(job) is State.RUNNING]


def test_one_at_a_time_over_all_homes_in_order() -> None:
    cluster = Cluster(run_mean_s=6.0, follow_interval_s=1.0)
    jobs = [submit(cluster, f"n{1 + number % 3}") for number in range(6)]
    for _ in range(400):
        cluster.run(0.5)
        assert len(running(cluster, jobs)) <= 1
    assert [id_.job for id_ in cluster.world.checks.started_ids()] == jobs


def test_two_that_are_submitted_at_once_do_not_wait_for_each_other_for_ever() -> None:
    cluster = Cluster(run_mean_s=3.0, follow_interval_s=1.0)
    answers: list[object] = []
    for name in ("n1", "n2", "n3"):
        host = cluster.world.hosts[name]
        host.ask(Submit("user", ALONE, host.unix()), answers.append)
    most = 0
    for _ in range(600):
        cluster.run(0.1)
        most = max(most, len(running(cluster, [int(str(each)) for each in answers])))
    assert (len(answers), most) == (3, 1)
    states = [cluster.agent(f"n{int(str(job)) % 1000}").job_state(int(str(job))) for job in answers]
    assert states == [State.SUCCEEDED] * 3


def test_others_of_the_name_are_waited_for_and_the_wait_says_for_whom() -> None:
    cluster = Cluster(run_mean_s=5000.0, follow_interval_s=1.0)
    plain = cluster.submit("n1", msgspec.structs.replace(SPEC, name="nightly"))
    cluster.run(1)
    alone = submit(cluster, "n2")
    cluster.run(3)
    assert f"waits for job {plain} of the same name" in cluster.agent("n2").explain(alone).summary
    cluster.world.hosts["n1"].ask(Cancel(plain, 0.0), lambda _: None)
    cluster.run(3)
    assert running(cluster, [alone]) == [alone]
