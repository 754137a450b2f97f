"""Services that leave a drained node: without a gap where another node has room, and never two of a single one."""

from __future__ import annotations

import msgspec
import pytest

from scheduler.condition import Condition, HealthState
from scheduler.events import Cancel, Drain, Requeue, SetSetting
from scheduler.model import AllocationId, JobKind, JobSpec, OnLost, Resources, State
from scheduler.settings import Licence
from scheduler.spec.health import Health
from scheduler.spec.life import Life
from scheduler.spec.queueing import Queueing
from tests.scheduler.test_conditions import Conditions
from tests.scheduler.test_whole_cluster import SPEC

STEP_S = 0.05
SERVICE = msgspec.structs.replace(SPEC, kind=JobKind.SERVICE, stop_grace_s=1.0)
CHECKED = msgspec.structs.replace(SERVICE, life=Life(health=Health(command=("true",))))
LICENSED = msgspec.structs.replace(SERVICE, queueing=Queueing(licences={"tool": 1}))
SINGLE = msgspec.structs.replace(SERVICE, on_lost=OnLost.SINGLE)


class Served(Conditions):
    """A cluster whose second home runs a service on some other node, which is drained."""

    def __init__(self, spec: JobSpec = SERVICE, **config: object) -> None:
        super().__init__(**config)
        host = self.world.hosts["n1"]
        host.ask(SetSetting("licence/tool", Licence(count=1), host.unix()), lambda _: None)
        self.run(5.0)
        self.service = self.submit("n2", spec)
        self.run(2.0)
        while self.task(self.service).node == "n2":
            home = self.world.hosts["n2"]
            home.ask(Cancel(self.service, home.unix()), lambda _: None)
            self.run(4.0)
            self.service = self.submit("n2", spec)
            self.run(2.0)
        self.drained = self.task(self.service).node

    def drain(self, deadline_s: float | None = None) -> None:
        host = self.world.hosts[self.drained]
        host.post(Drain(deadline_s, host.unix()))

    def up(self) -> list[AllocationId]:
        """The attempts that run now, oldest first."""
        return sorted(
            id_
            for host in self.world.hosts.values()
            for id_, container in host.containers.items()
            if id_.job == self.service and container.running and container.result is None
        )

    def numbers_up(self, seconds: float) -> set[int]:
        """How many attempts ran at once within the next seconds."""
        found = set()
        for _ in range(round(seconds / STEP_S)):
            self.run(STEP_S)
            found.add(len(self.up()))
        return found


def test_a_service_runs_elsewhere_before_it_is_stopped_and_then_is_one_again() -> None:
    cluster = Served()
    cluster.drain()
    assert cluster.numbers_up(10.0) == {1, 2}
    task = cluster.task(cluster.service)
    assert task.node != cluster.drained
    assert (task.state, task.attempt, cluster.up()) == (State.RUNNING, 2, [AllocationId(cluster.service, 0, 2)])
    record = cluster.agent("n2").parts.home.job(cluster.service).tasks[0]
    assert (record.tries, record.leaving) == (0, "")


def test_a_service_with_a_check_is_stopped_only_when_the_next_one_is_well() -> None:
    cluster = Served(CHECKED)
    cluster.tell(cluster.service, Condition(health=HealthState.HEALTHY))
    cluster.drain()
    cluster.run(30.0)
    assert [id_.attempt for id_ in cluster.up()] == [1, 2]
    cluster.tell(cluster.service, Condition(health=HealthState.HEALTHY))
    cluster.run(3.0)
    assert [id_.attempt for id_ in cluster.up()] == [2]


@pytest.mark.parametrize("deadline_s", [8.0, None])
def test_the_old_attempt_runs_no_longer_than_the_deadline_and_the_setting_allow(deadline_s: float | None) -> None:
    cluster = Served(CHECKED, handover_s=20.0)
    cluster.drain(deadline_s)
    cluster.run(6.0)
    assert [id_.attempt for id_ in cluster.up()] == [1, 2]
    cluster.run(6.0)
    assert [id_.attempt for id_ in cluster.up()] == ([2] if deadline_s else [1, 2])
    cluster.run(12.0)
    assert [id_.attempt for id_ in cluster.up()] == [2]


@pytest.mark.parametrize("facts", [{"spec": SINGLE}, {"spec": LICENSED}, {"handover_s": 0.0}])
def test_a_service_that_is_single_or_licensed_or_without_leave_is_stopped_first(facts: dict[str, object]) -> None:
    cluster = Served(**facts)  # type: ignore[arg-type]
    cluster.drain()
    assert cluster.numbers_up(20.0) == {0, 1}
    assert cluster.task(cluster.service).node != cluster.drained
    assert cluster.task(cluster.service).state is State.RUNNING


def test_where_no_other_node_has_room_it_is_stopped_first() -> None:
    cluster = Served()
    for home in ("n1", "n2", "n3"):
        for _ in range(4):
            cluster.submit(home, msgspec.structs.replace(SERVICE, request=Resources(250, 1 << 20)))
    cluster.run(2.0)
    cluster.drain()
    cluster.run(5.0)
    assert cluster.up() == []
    assert cluster.task(cluster.service).state is State.PENDING


def test_a_home_that_restarts_meanwhile_leaves_no_old_attempt_behind() -> None:
    cluster = Served(CHECKED)
    cluster.drain()
    cluster.run(3.0)
    assert [id_.attempt for id_ in cluster.up()] == [1, 2]
    cluster.world.hosts["n2"].crash()
    cluster.world.hosts["n2"].start()
    cluster.run(30.0)
    assert [id_.attempt for id_ in cluster.up()] == [2]


@pytest.mark.parametrize("wish", ["cancel", "requeue"])
def test_what_its_owner_stops_is_stopped_on_both_nodes(wish: str) -> None:
    cluster = Served(CHECKED)
    cluster.drain()
    cluster.run(3.0)
    assert [id_.attempt for id_ in cluster.up()] == [1, 2]
    host = cluster.world.hosts["n2"]
    host.ask(Cancel(cluster.service, host.unix()) if wish == "cancel" else Requeue(cluster.service), lambda _: None)
    cluster.run(10.0)
    assert [id_.attempt for id_ in cluster.up()] == ([] if wish == "cancel" else [3])
