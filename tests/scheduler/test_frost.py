"""Preemption that freezes: who stands still for whom, whose the CPU is meanwhile, and when what stands goes on."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from scheduler.abilities import FREEZE, LIMITS
from scheduler.amendments import STANDS
from scheduler.condition import Condition, Stood
from scheduler.config import SchedulerConfig
from scheduler.events import (
    AmendJob,
    Cancel,
    ContainerCondition,
    ContainerFrozen,
    FreezeContainer,
    SetSetting,
    StopContainer,
    ThawContainer,
)
from scheduler.frost import Frost
from scheduler.messages import HoldRoom
from scheduler.model import AllocationId, ArrayRange, JobKind, JobSpec, OnLost, Resources, State
from scheduler.records import ALLOCATIONS, HeldRecord
from scheduler.settings import AnySetting, Partition, Preemption, PreemptMode
from scheduler.spec.gang import Gang
from scheduler.spec.queueing import Queueing
from sim.faults import Features, draw_plan
from sim.world import World, format_world, run_world
from sim.world_host import Host
from tests.scheduler.test_whole_cluster import SPEC, Cluster, plan

MIB = 1 << 20
WHOLE = Resources(1000, 64 * MIB)


class Frosty(Cluster):
    """Nodes that can freeze, tiers, and a policy that has lower ones stand still; all that hosts were asked to do."""

    def __init__(self, nodes: int = 1, labels: tuple[tuple[str, str], ...] = ((LIMITS, FREEZE),), **policy: object):
        self.world = World(replace(plan(nodes, 1e6), labels=(labels,) * nodes))
        self.asked: list[object] = []
        for host in self.world.hosts.values():
            host._carry_out = self._noting(host._carry_out)  # type: ignore[method-assign]
        self.world.begin()
        self.run(5.0)
        put(self, "partition/high", Partition(tier=10))
        put(self, "partition/higher", Partition(tier=20))
        put(self, "preemption/default", Preemption(**{"mode": PreemptMode.FREEZE, "run_min_s": 0.0, **policy}))
        self.run(15)

    def _noting(self, honest):
        def carry_out(action: object) -> None:
            if isinstance(action, FreezeContainer | ThawContainer | StopContainer):
                self.asked.append(action)
            honest(action)

        return carry_out

    @property
    def host(self) -> Host:
        return self.world.hosts["n1"]

    def low(self, **facts: object) -> int:
        job = self.submit("n1", spec(**facts))
        self.run(2)
        return job

    def frozen(self, *jobs: int) -> list[int]:
        containers = [(id_, each) for host in self.world.hosts.values() for id_, each in host.containers.items()]
        return [job for job in jobs if any(id_.job == job and each.frozen for id_, each in containers)]

    def end(self, job: int) -> None:
        container = self.host.containers[AllocationId(job, 0, 1)]
        self.host._end_container(AllocationId(job, 0, 1), container.outcome)  # type: ignore[arg-type]


def put(cluster: Cluster, name: str, value: AnySetting) -> None:
    host = cluster.world.hosts["n1"]
    host.ask(SetSetting(name, value, host.unix()), lambda _: None)
    cluster.run(0.2)


def spec(partition: str = "", **facts: object) -> JobSpec:
    return msgspec.structs.replace(
        SPEC, **{"request": WHOLE, "stop_grace_s": 1.0, "queueing": Queueing(partition=partition), **facts}
    )


def task(cluster: Cluster, job: int, index: int = 0):
    return cluster.agent(f"n{job % 1000}").job(job).tasks[index]


def states(cluster: Cluster, *jobs: int) -> list[str]:
    return [task(cluster, job).state.value for job in jobs]


# --- who stands, and when it goes on


def test_a_lower_tier_stands_still_for_a_higher_one_and_goes_on_in_the_same_try() -> None:
    cluster = Frosty()
    low = cluster.low()
    high = cluster.submit("n1", spec("high"))
    cluster.run(5)
    assert (cluster.frozen(low, high), states(cluster, low, high)) == ([low], ["running", "running"])
    cluster.end(high)
    cluster.run(1)
    assert cluster.frozen(low) == []
    cluster.end(low)
    cluster.run(5)
    assert (task(cluster, low).state, task(cluster, low).attempt) == (State.SUCCEEDED, 1)


def test_its_view_says_for_whom_it_stands_and_since_when_and_stops_saying_so() -> None:
    cluster = Frosty()
    low = cluster.low()
    high = cluster.submit("n1", spec("high"))
    cluster.run(5)
    words = f"frozen for job {high} by preemption since "
    assert task(cluster, low).reason.startswith(words)
    assert task(cluster, low).condition.frozen
    assert words in cluster.agent("n1").explain(low).summary
    assert words in cluster.agent("n1").explain(low).placed[0].reason
    assert [each.frozen for each in cluster.agent("n1").jobs() if each.id == low] == [1]
    cluster.end(high)
    cluster.run(2)
    assert msgspec.structs.replace(task(cluster, low).condition, stood=None) == Condition()
    assert "frozen" not in task(cluster, low).reason


def test_how_often_and_how_long_it_stood_is_remembered_over_restarts_and_its_end() -> None:
    cluster = Frosty()
    low = cluster.low()
    for lasted_s in (20, 40):
        high = cluster.submit("n1", spec("high"))
        cluster.run(5)
        cluster.run(lasted_s - 5)
        cluster.end(high)
        cluster.run(2)
    words = "it stood still for higher tiers 2 times, 6"
    assert words in task(cluster, low).reason
    assert words in cluster.agent("n1").explain(low).placed[0].reason
    third = cluster.submit("n1", spec("high"))
    cluster.run(5)
    assert task(cluster, low).stood.times == 2
    assert task(cluster, low).reason.startswith(f"frozen for job {third} by preemption since ")
    assert f"; before, {words}" in task(cluster, low).reason
    cluster.host.crash()
    cluster.run(1)
    cluster.host.start()
    cluster.run(14)
    cluster.end(third)
    cluster.run(2)
    cluster.end(low)
    cluster.run(5)
    assert "it stood still for higher tiers 3 times, 8" in task(cluster, low).reason
    assert task(cluster, low).stood.times == 3
    assert task(cluster, low).stood.sum_s == pytest.approx(80, abs=6)


def test_one_that_is_ended_where_it_stands_counts_that_and_one_that_never_stood_says_nothing() -> None:
    cluster = Frosty()
    low = cluster.low()
    high = cluster.submit("n1", spec("high"))
    cluster.run(10)
    cluster.end(low)
    cluster.run(5)
    assert (task(cluster, low).stood.times, round(task(cluster, low).stood.sum_s, -1)) == (1, 10)
    assert "it stood still for higher tiers 1 time," in task(cluster, low).reason
    cluster.end(high)
    cluster.run(5)
    assert task(cluster, high).stood == Stood()
    assert "stood" not in task(cluster, high).reason


def test_its_memory_stays_booked_and_its_cpu_does_not() -> None:
    cluster = Frosty()
    cluster.low(request=Resources(1000, 600 * MIB))
    large = cluster.submit("n1", spec("high", request=Resources(1000, 600 * MIB)))
    cluster.run(5)
    assert states(cluster, large) == ["pending"]
    assert not cluster.asked, "freezing makes no memory, so nobody stands for nothing"
    small = cluster.submit("n1", spec("higher", request=Resources(1000, 300 * MIB)))
    cluster.run(5)
    assert states(cluster, small) == ["running"]


@pytest.mark.parametrize(
    "facts",
    [
        {"time_limit_s": 1e5},
        {"gang": Gang(nodes=1)},
        {"kind": JobKind.SERVICE},
        {"on_lost": OnLost.SINGLE},
        {"queueing": Queueing(exclusive=True)},
    ],
)
def test_what_must_not_stand_is_neither_frozen_nor_stopped(facts: dict[str, object]) -> None:
    cluster = Frosty()
    low = cluster.low(**facts)
    high = cluster.submit("n1", spec("high"))
    cluster.run(20)
    assert (states(cluster, low, high), cluster.asked) == (["running", "pending"], [])


def test_a_node_that_can_not_freeze_is_asked_for_nothing() -> None:
    cluster = Frosty(labels=((LIMITS, "rlimits"),))
    low = cluster.low()
    high = cluster.submit("n1", spec("high"))
    cluster.run(20)
    assert (states(cluster, low, high), cluster.asked) == (["running", "pending"], [])


def test_what_its_owner_froze_is_left_alone() -> None:
    cluster = Frosty()
    low = cluster.low()
    cluster.host.post(ContainerCondition(AllocationId(low, 0, 1), Condition(frozen=True)))
    high = cluster.submit("n1", spec("high"))
    cluster.run(20)
    assert (states(cluster, high), cluster.asked) == (["pending"], [])


def test_no_more_stand_than_it_takes_and_the_youngest_first() -> None:
    cluster = Frosty()
    half = Resources(400, 64 * MIB)
    low = [cluster.low(request=half), cluster.low(request=half)]
    high = cluster.submit("n1", spec("high", request=half))
    cluster.run(5)
    assert (cluster.frozen(*low, high), states(cluster, high)) == ([low[1]], ["running"])


def test_what_goes_on_may_run_for_its_shortest_time_before_it_stands_again() -> None:
    cluster = Frosty(run_min_s=30.0)
    low = cluster.low()
    cluster.run(30)
    first = cluster.submit("n1", spec("high"))
    cluster.run(5)
    cluster.end(first)
    cluster.run(1)
    second = cluster.submit("n1", spec("high"))
    cluster.run(20)
    assert (cluster.frozen(low), states(cluster, second)) == ([], ["pending"])
    cluster.run(15)
    assert (cluster.frozen(low), states(cluster, second)) == ([low], ["running"])


# --- whose the CPU is


def test_nobody_of_its_own_tier_slips_into_the_cpu_it_waits_for() -> None:
    """It takes back what is left bit by bit, and nobody is told that there is room."""
    cluster = Frosty()
    low = cluster.low()
    high = [cluster.submit("n1", spec("high", request=Resources(cpu, 64 * MIB))) for cpu in (600, 300)]
    cluster.run(10)
    assert (cluster.frozen(low), states(cluster, *high)) == ([low], ["running", "running"])
    other = cluster.submit("n1", spec(request=Resources(100, 64 * MIB)))
    cluster.run(3)
    cluster.end(high[0])
    cluster.run(10)
    assert (cluster.frozen(low), states(cluster, other)) == ([low], ["pending"])
    cluster.end(high[1])
    cluster.run(5)
    assert (cluster.frozen(low), states(cluster, other)) == ([], ["pending"])


def test_nobody_is_told_a_start_on_cpu_that_what_stands_takes_back() -> None:
    cluster = Frosty()
    low = cluster.low()
    high = cluster.submit("n1", spec("high", time_limit_s=100.0))
    cluster.run(5)
    assert cluster.frozen(low, high) == [low]
    behind = cluster.submit("n1", spec())
    cluster.run(5)
    leader = cluster.agent("n1").parts.leader
    told_s = leader.starts_s()[behind]
    low_runs_s = cluster.agent("n1").parts.config.estimate_s
    assert 90 + 0.99 * low_runs_s < told_s - cluster.world.kernel.now < 100 + low_runs_s


def test_a_higher_tier_may_have_what_was_taken_back_and_freezes_nobody_for_it() -> None:
    cluster = Frosty()
    low = cluster.low()
    first = cluster.submit("n1", spec("high", request=Resources(300, 64 * MIB)))
    cluster.run(5)
    second = cluster.submit("n1", spec("high", request=Resources(700, 64 * MIB)))
    cluster.run(5)
    assert (cluster.frozen(low), states(cluster, first, second)) == ([low], ["running", "running"])
    assert [type(each) for each in cluster.asked] == [FreezeContainer]


def test_of_two_that_stand_the_higher_tier_goes_on_first() -> None:
    cluster = Frosty()
    low = cluster.low()
    middle = cluster.submit("n1", spec("high"))
    cluster.run(5)
    high = cluster.submit("n1", spec("higher"))
    cluster.run(5)
    assert cluster.frozen(low, middle, high) == [low, middle]
    cluster.end(high)
    cluster.run(2)
    assert cluster.frozen(low, middle) == [low]
    cluster.end(middle)
    cluster.run(2)
    assert cluster.frozen(low) == []


def test_it_goes_on_when_the_job_it_stands_for_is_cancelled_before_it_came() -> None:
    cluster = Frosty()
    low = cluster.low()
    admission = cluster.agent("n1").parts.admission
    admission._refusal = lambda *_: ("no", 0, 0)  # type: ignore[method-assign]
    high = cluster.submit("n1", spec("high"))
    cluster.run(1)
    assert cluster.frozen(low) == [low]
    cluster.host.ask(Cancel(high, 0.0), lambda _: None)
    cluster.run(SchedulerConfig().hold_ttl_s)
    assert cluster.frozen(low) == []


def test_it_goes_on_at_the_moment_when_a_hold_for_a_higher_tier_ends_unsaid() -> None:
    cluster = Frosty()
    low = cluster.low()
    high = cluster.submit("n1", spec("high"))
    cluster.run(5)
    now = cluster.host.clock()
    hold = HoldRoom(99, 1, "nobody", 7, 0, (-10.0, 0.0, 0.0, 7.0), 0.0, WHOLE)
    cluster.agent("n1").parts.admission.holds.on_hold(now, hold)
    cluster.end(high)
    ttl_s = SchedulerConfig().hold_ttl_s
    cluster.run(ttl_s - 0.1)
    assert cluster.frozen(low) == [low]
    cluster.run(0.2)
    assert cluster.frozen(low) == []


def test_a_hold_for_its_own_tier_does_not_keep_it_from_going_on() -> None:
    cluster = Frosty()
    low = cluster.low()
    high = cluster.submit("n1", spec("high"))
    cluster.run(5)
    waiting = cluster.submit("n1", spec(priority=1000))
    cluster.run(5)
    assert waiting in cluster.agent("n1").parts.admission.holds._kept
    cluster.end(high)
    cluster.run(1)
    assert (cluster.frozen(low), states(cluster, waiting)) == ([], ["pending"])


# --- what may go wrong


def test_one_that_can_not_be_frozen_is_not_asked_again_and_the_room_is_refused() -> None:
    cluster = Frosty()
    low = cluster.low()
    cluster.host._freeze_container = lambda life, action, fails: cluster.host._deliver(  # type: ignore[method-assign]
        life, ContainerFrozen(action.id, "it does not stop")
    )
    high = cluster.submit("n1", spec("high"))
    cluster.run(30)
    assert states(cluster, low, high) == ["running", "pending"]
    assert task(cluster, low).stood == Stood()
    assert [type(each) for each in cluster.asked] == [FreezeContainer]
    assert cluster.agent("n1").frozen() == {}
    assert _record(cluster, low).frozen_for is None
    assert cluster.agent("n1").explain(high).making_room == 0


def _record(cluster: Frosty, job: int) -> HeldRecord:
    return msgspec.msgpack.decode(cluster.host.disk[ALLOCATIONS][f"{job}.0.1"], type=HeldRecord)


def test_a_restarted_agent_freezes_it_again_before_anything_takes_its_cpu() -> None:
    cluster = Frosty()
    low = cluster.low()
    high = cluster.submit("n1", spec("high"))
    cluster.run(5)
    assert _record(cluster, low).frozen_for is not None
    cluster.host.crash()
    cluster.run(1)
    cluster.host.start()
    cluster.run(10)
    assert (cluster.frozen(low), states(cluster, low, high)) == ([low], ["running", "running"])
    again = [each for each in cluster.asked if isinstance(each, FreezeContainer)]
    assert [each.again for each in again] == [False, True]
    assert task(cluster, low).reason.startswith(f"frozen for job {high} by preemption")
    cluster.end(high)
    cluster.run(2)
    assert cluster.frozen(low) == []
    assert _record(cluster, low).frozen_for is None


def test_a_cancelled_one_has_no_grace_for_that_would_be_somebody_elses_cpu() -> None:
    cluster = Frosty()
    low = cluster.low(stop_grace_s=60.0)
    high = cluster.submit("n1", spec("high"))
    cluster.run(5)
    cluster.host.ask(Cancel(low, 0.0), lambda _: None)
    cluster.run(1)
    assert states(cluster, low, high) == ["cancelled", "running"]
    (stop,) = [each for each in cluster.asked if isinstance(each, StopContainer)]
    assert stop.grace_s == 0


def test_a_node_that_gives_it_a_grace_all_the_same_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Frost, "grace_s", lambda _, held: held.allocation.spec.stop_grace_s)
    cluster = Frosty()
    low = cluster.low()
    cluster.submit("n1", spec("high"))
    cluster.run(5)
    cluster.host.ask(Cancel(low, 0.0), lambda _: None)
    cluster.world.run_until(cluster.world.kernel.now + 0.5)
    assert [each.promise for each in cluster.world.checks.violations] == ["a node is the authority"]


def test_its_limits_can_not_be_changed_while_it_stands() -> None:
    cluster = Frosty()
    low = cluster.low()
    cluster.submit("n1", spec("high"))
    cluster.run(5)
    changed = spec(request=Resources(500, 64 * MIB))
    cluster.host.ask(AmendJob(low, changed, None), lambda _: None)
    cluster.run(5)
    assert cluster.agent("n1").amendment(low).refusals == (f"task 0 on n1: {STANDS}",)


def test_what_is_frozen_stays_so_when_the_policy_changes_until_its_cpu_is_free() -> None:
    cluster = Frosty()
    low = cluster.low()
    high = cluster.submit("n1", spec("high"))
    cluster.run(5)
    put(cluster, "preemption/default", Preemption())
    cluster.run(5)
    assert cluster.frozen(low) == [low]
    cluster.end(high)
    cluster.run(2)
    assert cluster.frozen(low) == []


def test_worlds_that_freeze_break_no_promise_and_stop_nobody_for_a_higher_tier() -> None:
    frozen = 0
    for seed in range(8):
        on = Features(
            preemption=True,
            freezing=True,
            wide_load=True,
            agent_crashes=seed % 2 == 1,
            failing_starts=seed % 4 == 1,
            cancels=seed % 3 == 1,
            loss=seed % 4 == 0,
            arrays=seed % 3 == 0,
            partitions=seed % 4 == 2,
        )
        world = replace(draw_plan(seed, nodes=2, jobs=20, features=on), run_mean_s=4.0)
        result = run_world(seed, plan=world)
        assert result.passed, format_world(result)
        frozen += result.figures["frozen"]
    assert frozen > 10


def test_an_array_of_many_goes_on_one_by_one_as_cpu_comes_free() -> None:
    cluster = Frosty()
    low = cluster.low(request=Resources(250, 64 * MIB), array=ArrayRange(0, 3))
    high = [cluster.submit("n1", spec("high", request=Resources(500, 64 * MIB))) for _ in range(2)]
    cluster.run(10)
    assert states(cluster, *high) == ["running", "running"]
    assert len(cluster.agent("n1").frozen()) == 4
    assert "4 of them can't run now" in cluster.agent("n1").explain(low).summary
    cluster.end(high[0])
    cluster.run(2)
    assert len(cluster.agent("n1").frozen()) == 2
