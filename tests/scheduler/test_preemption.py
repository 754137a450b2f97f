"""Preemption: who gives way to whom, what is kept for whom, and what becomes of those that gave way."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import msgspec
import pytest

from scheduler.events import SetSetting
from scheduler.model import AllocationId, JobSpec, OnLost, Resources, Result, State
from scheduler.settings import AnySetting, Partition, Preemption, PreemptMode
from scheduler.spec.gang import Gang
from scheduler.spec.queueing import Queueing
from sim.faults import Features, draw_plan
from sim.world import format_world, run_world
from tests.scheduler.test_whole_cluster import SPEC, Cluster

MIB = 1 << 20
WHOLE = Resources(1000, 64 * MIB)


def put(cluster: Cluster, name: str, value: AnySetting) -> None:
    host = cluster.world.hosts["n1"]
    host.ask(SetSetting(name, value, host.unix()), lambda _: None)
    cluster.run(0.2)


def tiered(nodes: int = 2, **policy: object) -> Cluster:
    cluster = Cluster(nodes=nodes, run_mean_s=1e6)
    put(cluster, "partition/high", Partition(tier=10))
    put(cluster, "partition/higher", Partition(tier=20))
    put(cluster, "preemption/default", Preemption(**{"mode": PreemptMode.REQUEUE, "run_min_s": 0.0, **policy}))
    cluster.run(15)
    return cluster


def spec(partition: str = "", **facts: object) -> JobSpec:
    return msgspec.structs.replace(
        SPEC, **{"request": WHOLE, "stop_grace_s": 1.0, "queueing": Queueing(partition=partition), **facts}
    )


def task(cluster: Cluster, job: int, index: int = 0):
    return cluster.agent(f"n{job % 1000}").job(job).tasks[index]


def running(cluster: Cluster, jobs: list[int]) -> list[int]:
    return [job for job in jobs if task(cluster, job).state is State.RUNNING]


def test_a_higher_tier_takes_the_youngest_task_and_no_more_than_it_needs() -> None:
    cluster = tiered(nodes=1)
    half = Resources(400, 64 * MIB)
    low = []
    for _ in range(2):
        low.append(cluster.submit("n1", spec(request=half, attempts_max=1)))
        cluster.run(5)
    high = cluster.submit("n1", spec("high", request=half))
    cluster.run(10)
    assert running(cluster, [*low, high]) == [low[0], high]
    assert task(cluster, low[1]).reason.startswith(f"preempted on n1 for job {high} (tier 10)")


def test_what_gave_way_runs_again_when_there_is_room_and_has_lost_no_try() -> None:
    cluster = tiered(nodes=1)
    low = cluster.submit("n1", spec(attempts_max=1, on_lost=OnLost.FAIL))
    cluster.run(2)
    high = cluster.submit("n1", spec("high", time_limit_s=20.0))
    cluster.run(10)
    assert running(cluster, [low, high]) == [high]
    cluster.run(30)
    assert (task(cluster, low).state, task(cluster, low).attempt) == (State.RUNNING, 2)


@pytest.mark.parametrize("gang", [None, Gang(nodes=1)])
def test_what_ends_in_order_when_it_is_stopped_has_not_succeeded(gang: Gang | None) -> None:
    cluster = tiered(nodes=1)
    low = cluster.submit("n1", spec(stop_grace_s=5.0, gang=gang))
    cluster.run(2)
    high = cluster.submit("n1", spec("high", time_limit_s=20.0))
    cluster.run(3)
    cluster.world.hosts["n1"]._end_container(AllocationId(low, 0, 1), Result(exit_code=0))
    cluster.run(5)
    assert running(cluster, [low, high]) == [high]
    cluster.run(30)
    assert (task(cluster, low).state, task(cluster, low).attempt) == (State.RUNNING, 2)


@pytest.mark.parametrize("partition", ["", "high"])
def test_nobody_takes_from_the_same_tier_or_a_higher_one(partition: str) -> None:
    cluster = tiered(nodes=1)
    first = cluster.submit("n1", spec("high"))
    cluster.run(2)
    second = cluster.submit("n1", spec(partition, priority=1000))
    cluster.run(30)
    assert running(cluster, [first, second]) == [first]


def test_nothing_is_taken_while_it_is_off() -> None:
    cluster = tiered(nodes=1, mode=PreemptMode.OFF)
    low = cluster.submit("n1", spec())
    cluster.run(2)
    high = cluster.submit("n1", spec("high"))
    cluster.run(30)
    assert running(cluster, [low, high]) == [low]


def test_a_task_may_run_for_its_shortest_time_before_it_is_taken() -> None:
    cluster = tiered(nodes=1, run_min_s=30.0)
    low = cluster.submit("n1", spec())
    cluster.run(2)
    high = cluster.submit("n1", spec("high"))
    cluster.run(20)
    assert running(cluster, [low, high]) == [low]
    cluster.run(20)
    assert running(cluster, [low, high]) == [high]


def test_a_task_that_gave_way_as_often_as_is_allowed_stays() -> None:
    cluster = tiered(nodes=1, times_max=1)
    low = cluster.submit("n1", spec())
    cluster.run(2)
    cluster.submit("n1", spec("high", time_limit_s=12.0))
    cluster.run(25)
    assert (task(cluster, low).state, task(cluster, low).attempt) == (State.RUNNING, 2)
    again = cluster.submit("n1", spec("high"))
    cluster.run(1)
    assert cluster.agent("n1").explain(again).making_room == 0
    cluster.run(100)
    assert running(cluster, [low, again]) == [low]
    assert list(cluster.agent("n1").parts.admission.yielding._kept.values()) == [inf]


def test_a_gang_gives_way_as_a_whole_and_another_takes_nodes_as_one() -> None:
    cluster = tiered(nodes=2)
    low = cluster.submit("n1", spec(gang=Gang(nodes=2)))
    cluster.run(3)
    assert {each.state for each in cluster.agent("n1").job(low).tasks} == {State.RUNNING}
    one = cluster.submit("n2", spec("high", time_limit_s=20.0))
    cluster.run(10)
    assert running(cluster, [one]) == [one]
    assert {each.state for each in cluster.agent("n1").job(low).tasks} == {State.PENDING}
    cluster.run(30)
    assert {each.state for each in cluster.agent("n1").job(low).tasks} == {State.RUNNING}
    wide = cluster.submit("n2", spec("higher", gang=Gang(nodes=2)))
    cluster.run(15)
    assert {each.state for each in cluster.agent("n2").job(wide).tasks} == {State.RUNNING}
    assert AllocationId(low, 0, 3) not in cluster.world.hosts["n1"].containers


def test_freed_room_goes_to_the_one_it_was_freed_for() -> None:
    cluster = tiered(nodes=1)
    low = cluster.submit("n1", spec(stop_grace_s=5.0))
    cluster.run(2)
    high = cluster.submit("n1", spec("high"))
    cluster.run(1)
    others = [cluster.submit("n1", spec(priority=1000, time_limit_s=0.5)) for _ in range(3)]
    cluster.run(15)
    assert running(cluster, [low, high, *others]) == [high]
    assert all(task(cluster, job).attempt == 0 for job in others)


def test_a_waiting_job_is_told_that_room_is_being_made_for_it() -> None:
    cluster = tiered(nodes=2)
    for _ in range(2):
        cluster.submit("n2", spec(stop_grace_s=5.0))
    cluster.run(2)
    high = cluster.submit("n2", spec("high"))
    cluster.run(1)
    assert "room is being made for it on 1 node, by preempting lower tiers" in cluster.agent("n2").explain(high).summary


def test_a_waiting_job_is_told_when_its_reservation_begins() -> None:
    cluster = tiered(nodes=1)
    cluster.submit("n1", spec("high", time_limit_s=50.0))
    cluster.run(2)
    waiting = cluster.submit("n1", spec("high"))
    cluster.run(3)
    now = cluster.world.kernel.now
    told_s = cluster.agent("n1").explain(waiting, now).start_in_s
    (row,) = cluster.agent("n1").waiting(now)
    assert told_s is not None
    assert row.start_in_s is not None
    assert 40 < told_s < 50
    assert abs(told_s - row.start_in_s) < 3


def test_the_leader_killed_in_the_middle_takes_no_second_victim() -> None:
    cluster = tiered(nodes=3)
    low = [cluster.submit("n3", spec(stop_grace_s=5.0)) for _ in range(3)]
    cluster.run(3)
    high = cluster.submit("n3", spec("high"))
    cluster.run(1)
    cluster.world.hosts["n1"].crash()
    cluster.run(20)
    assert running(cluster, [high]) == [high]
    assert len(running(cluster, low)) == 2


def test_worlds_with_tiers_break_no_promise_and_do_preempt() -> None:
    preempted = 0
    for seed in range(6):
        on = Features(preemption=True, wide_load=True, gangs=seed % 2 == 0, arrays=seed % 3 == 0, loss=seed % 4 == 0)
        plan = replace(draw_plan(seed, nodes=2, jobs=25, features=on), run_mean_s=4.0)
        result = run_world(seed, plan=plan)
        assert result.passed, format_world(result)
        preempted += result.figures["preempted"]
    assert preempted > 2
