"""What a task is doing reaches its home, and one that is unhealthy is ended and started again as its job says."""

from __future__ import annotations

import msgspec
import pytest

from scheduler.condition import Condition, HealthState
from scheduler.events import ContainerCondition, Measured
from scheduler.model import AllocationId, JobKind, JobSpec, Resources, State
from scheduler.spec.health import Health, OnUnhealthy
from scheduler.spec.life import Life, Restart
from scheduler.views import TaskView
from tests.scheduler.test_whole_cluster import SPEC, Cluster

UNWELL = Condition(health=HealthState.UNHEALTHY, why="connection refused")
CHECK = Health(command=("true",))


class Conditions(Cluster):
    """Nodes that can check, and their word on a task."""

    def __init__(self, **config: object) -> None:
        super().__init__(nodes=3, run_mean_s=100_000.0, **config)
        for host in self.world.hosts.values():
            host.labels = (*host.labels, ("checks", "command,tcp"))
            host.post(Measured(host.capacity, host.capacity, Resources(), host.labels))
        self.run(30.0)

    def task(self, job: int) -> TaskView:
        return self.agent(f"n{job % 1000}").job(job).tasks[0]

    def tell(self, job: int, condition: Condition) -> None:
        task = self.task(job)
        id_ = AllocationId(job, 0, task.attempt)
        self.world.hosts[task.node].post(ContainerCondition(id_, condition))
        self.run(1.0)


def asked(kind: JobKind, **life: object) -> JobSpec:
    return msgspec.structs.replace(SPEC, kind=kind, life=Life(**{"health": CHECK, **life}))


def test_a_condition_reaches_the_home_and_is_gone_with_its_attempt() -> None:
    cluster = Conditions()
    job = cluster.submit("n2", asked(JobKind.SERVICE))
    cluster.run(1.0)
    cluster.tell(job, Condition(health=HealthState.HEALTHY, frozen=True))
    assert cluster.task(job).condition == Condition(health=HealthState.HEALTHY, frozen=True)
    (line,) = [each for each in cluster.agent("n2").jobs(None) if each.id == job]
    assert (line.frozen, line.unhealthy, line.counts[State.RUNNING]) == (1, 0, 1)
    cluster.tell(job, UNWELL)
    cluster.run(60.0)
    assert cluster.task(job).attempt == 2
    assert cluster.task(job).condition == Condition()


def test_a_home_that_restarted_hears_it_again() -> None:
    cluster = Conditions()
    job = cluster.submit("n2", asked(JobKind.SERVICE))
    cluster.run(1.0)
    while cluster.task(job).node == "n2":
        job = cluster.submit("n2", asked(JobKind.SERVICE))
        cluster.run(1.0)
    cluster.tell(job, Condition(health=HealthState.HEALTHY))
    cluster.world.hosts["n2"].crash()
    cluster.run(5.0)
    cluster.world.hosts["n2"].start()
    cluster.run(120.0)
    assert cluster.task(job).condition.health is HealthState.HEALTHY


@pytest.mark.parametrize("restart", [Restart.ALWAYS, Restart.ON_FAILURE])
def test_an_unhealthy_service_is_restarted_and_counted(restart: Restart) -> None:
    cluster = Conditions()
    job = cluster.submit("n2", asked(JobKind.SERVICE, restart=restart))
    cluster.run(1.0)
    cluster.tell(job, UNWELL)
    cluster.run(30.0)
    assert (cluster.task(job).state, cluster.task(job).attempt) == (State.RUNNING, 2)


def test_an_unhealthy_service_that_is_never_restarted_has_failed_and_says_why() -> None:
    cluster = Conditions()
    job = cluster.submit("n2", asked(JobKind.SERVICE, restart=Restart.NEVER))
    cluster.run(1.0)
    cluster.tell(job, UNWELL)
    cluster.run(30.0)
    task = cluster.task(job)
    assert (task.state, task.attempt, task.reason) == (State.FAILED, 1, "unhealthy: connection refused")
    assert task.result is not None
    assert task.result.unhealthy == "connection refused"


def test_restarts_of_the_unhealthy_back_off() -> None:
    cluster = Conditions()
    job = cluster.submit("n2", asked(JobKind.SERVICE, backoff_s=100.0, backoff_max_s=1000.0))
    cluster.run(1.0)
    cluster.tell(job, UNWELL)
    cluster.run(60.0)
    assert (cluster.task(job).state, cluster.task(job).attempt) == (State.PENDING, 1)
    assert cluster.task(job).reason.startswith("unhealthy: connection refused; ")
    cluster.run(60.0)
    assert (cluster.task(job).state, cluster.task(job).attempt) == (State.RUNNING, 2)


def test_an_unhealthy_batch_task_is_tried_again_while_it_has_attempts() -> None:
    cluster = Conditions()
    job = cluster.submit("n2", msgspec.structs.replace(asked(JobKind.BATCH), attempts_max=2))
    for attempt in (1, 2):
        cluster.run(30.0)
        assert (cluster.task(job).state, cluster.task(job).attempt) == (State.RUNNING, attempt)
        cluster.tell(job, UNWELL)
    cluster.run(30.0)
    assert (cluster.task(job).state, cluster.task(job).reason) == (State.FAILED, "unhealthy: connection refused")


def test_an_unhealthy_task_that_is_only_reported_runs_on() -> None:
    cluster = Conditions()
    report = Health(command=("true",), unhealthy=OnUnhealthy.REPORT)
    job = cluster.submit("n2", asked(JobKind.SERVICE, health=report))
    cluster.run(1.0)
    cluster.tell(job, UNWELL)
    cluster.run(60.0)
    task = cluster.task(job)
    assert (task.state, task.attempt, task.condition) == (State.RUNNING, 1, UNWELL)
    (line,) = [each for each in cluster.agent("n2").jobs(None) if each.id == job]
    assert line.unhealthy == 1


def test_what_is_being_done_for_a_task_is_its_reason_until_it_runs() -> None:
    cluster = Conditions()
    job = cluster.submit("n2")
    cluster.run(1.0)
    doing = "fetching image debian:12 from n3: 41 %"
    cluster.tell(job, Condition(doing=doing))
    assert cluster.task(job).reason == doing
    assert cluster.agent("n2").explain(job).placed[0].reason.endswith(f"; {doing}")
    cluster.tell(job, Condition())
    assert cluster.task(job).reason != doing


def test_a_node_that_cannot_check_is_not_asked_to() -> None:
    cluster = Cluster()
    job = cluster.submit("n2", asked(JobKind.SERVICE))
    cluster.run(10.0)
    assert "it can't check a task's health by command" in cluster.agent("n2").explain(job).summary
