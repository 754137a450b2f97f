"""Jobs marked single, cut off from their homes while they run for long: no two attempts of a task ever run at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.endings import Endings
from scheduler.events import StartContainer
from scheduler.index import ClusterView
from scheduler.leases import LeasesTaken
from scheduler.messages import Lease
from scheduler.model import Allocation, AllocationId, JobSpec, OnLost, Resources
from scheduler.score import POLICIES
from sim.faults import Features, Plan, draw_plan
from sim.world import World, format_world, run_world

TROUBLE = Features(
    loss=True, delays=True, partitions=True, one_way_cuts=True, agent_crashes=True, host_crashes=True, singles=True,
    clock_skew=True, cancels=True, requeues=True,
)  # fmt: skip


def plan(seed: int, features: Features = TROUBLE) -> Plan:
    drawn = draw_plan(seed, nodes=4, homes=2, jobs=10, features=features)
    config = replace(drawn.config, lease_s=12.0, lost_grace_s=1.0)
    return replace(drawn, config=config, run_mean_s=15.0, trouble_s=60.0)


@pytest.mark.parametrize("batch", range(4))
def test_no_two_attempts_of_a_single_job_run_at_once(batch: int) -> None:
    for seed in range(batch * 10, batch * 10 + 10):
        result = run_world(seed, plan=plan(seed))
        assert result.passed, format_world(result)


def broken_promises(seeds: range) -> set[str]:
    return {each.promise for seed in seeds for each in run_world(seed, plan=plan(seed)).violations}


def test_without_waiting_for_the_lease_two_would_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Endings, "_must_wait", lambda *_: False)
    assert "a single job never runs twice" in broken_promises(range(12))


def test_single_jobs_are_moved_from_nodes_that_stay_away() -> None:
    """The worlds above are no worlds in which nothing is ever lost."""
    moved = 0
    for seed in range(10):
        world = World(plan(seed))
        world.run()
        moved += sum(id_.attempt > 1 for id_ in world.checks.started_ids())
    assert moved > 10


def test_a_lease_counts_from_the_question_not_from_the_answer() -> None:
    spec = JobSpec("x", ("true",), Resources(1, 1 << 20), on_lost=OnLost.SINGLE)
    allocation = Allocation(AllocationId(1001, 0, 1), "n1", "ana", spec)
    view = ClusterView("n1", 1, POLICIES["best-fit"], 5)
    taken = LeasesTaken(SchedulerConfig(), view, Alarms(), boot_epoch=7)
    taken.take(Effects(100.0), allocation)

    def started(now: float, lease: Lease) -> list[object]:
        fx = Effects(now)
        taken.on_lease(fx, "n1", lease)
        return list(fx.outcome(1 << 20).actions)

    assert started(171.0, Lease((allocation.id,), 7, 100.0, 60.0)) == []
    assert started(120.0, Lease((allocation.id,), 6, 119.0, 60.0)) == [], "of another boot, so of another clock"
    assert started(120.0, Lease((allocation.id,), 7, 100.0, 60.0)) == [StartContainer(allocation, 160.0)]
    assert started(130.0, Lease((allocation.id,), 7, 90.0, 60.0)) == [], "older than the one it has"
