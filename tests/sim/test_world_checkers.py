"""A checker that never fires proves nothing: each promise is broken on purpose here, and a checker has to see it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from scheduler import admission, attempts, dispatch, frost, jobs, leader, lineup, repeat
from scheduler.index import ClusterView
from scheduler.lifecycle import LIVE, phase_of
from scheduler.messages import EndedTaken
from scheduler.model import TaskRecord
from scheduler.records import ALLOCATIONS, JOBS, TASKS
from sim import world_disk
from sim.faults import Features, draw_plan
from sim.world import WorldResult, run_world

SEEDS_MAX = 25
CRASHES = Features(agent_crashes=True, host_crashes=True, loss=True, arrays=True)
PARTITIONS = Features(partitions=True, false_alarms=True, arrays=True)


def nothing(*_: Any, **__: Any) -> None:
    """Do nothing: the sabotage of a function."""


def broken_promises(promise: str, features: Features = CRASHES) -> bool:
    """Run worlds with these kinds of trouble until one shows a break of this promise."""
    return any(
        violation.promise == promise for seed in range(SEEDS_MAX) for violation in _world(seed, features).violations
    )


def _world(seed: int, features: Features) -> WorldResult:
    plan = draw_plan(seed, nodes=3, homes=2, jobs=10, features=features)
    return run_world(seed, plan=replace(plan, run_mean_s=8.0, calm_max_s=60.0))


def test_a_node_that_does_not_look_whether_it_fits_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "shortage", nothing)
    assert broken_promises("a node is the authority")


def test_a_home_that_takes_results_of_outdated_attempts_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def any_attempt(self: jobs.Job, id_: Any, node: str) -> bool:
        return id_.index in self.tasks and phase_of(self.tasks[id_.index]) in LIVE

    monkeypatch.setattr(jobs.Job, "current", any_attempt)
    assert broken_promises("one attempt counts", PARTITIONS)


def test_a_home_that_does_not_stop_outdated_attempts_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch.Home, "_outdated", nothing)
    assert broken_promises("one attempt counts", PARTITIONS)


def test_a_node_that_starts_an_ended_attempt_again_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission.Admission, "_raise_fence", nothing)
    assert broken_promises(
        "one attempt counts", Features(loss=True, duplicates=True, delays=True, arrays=True, agent_crashes=True)
    )


def test_a_home_that_writes_a_foreign_job_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = dispatch.Home.on_ended

    def meddling(self: dispatch.Home, fx: Any, node: str, ended: Any) -> None:
        dispatch.put_task(fx, ended.id.job + 1, ended.id.index, TaskRecord())
        honest(self, fx, node, ended)

    monkeypatch.setattr(dispatch.Home, "on_ended", meddling)
    assert broken_promises("a home is the only writer of its jobs")


def test_a_home_that_asks_before_it_wrote_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "put_task", nothing)
    assert broken_promises("one attempt counts")


def test_a_home_that_acknowledges_what_it_did_not_take_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(self: dispatch.Home, fx: Any, node: str, ended: Any) -> None:
        fx.say(node, EndedTaken((ended.id,)))

    monkeypatch.setattr(dispatch.Home, "on_ended", careless)
    assert broken_promises("acknowledged is durable")


def test_a_job_that_is_not_written_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "put_job", nothing)
    assert broken_promises("acknowledged is durable")


def test_a_message_that_is_never_repeated_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeat.Repeat, "ring", nothing)
    assert broken_promises("everything ends")


def test_a_lost_node_that_nobody_gives_up_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch.Home, "ring_grace", nothing)
    assert broken_promises("everything ends", Features(host_losses=True, arrays=True))


def test_a_home_that_never_asks_what_a_node_holds_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts.Attempts, "ring_census", nothing)
    assert broken_promises("everything ends", Features(disk_losses=True, arrays=True))


def test_a_home_that_never_tells_what_waits_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineup.Lineup, "_retell", nothing)
    assert broken_promises("everything ends")


def test_a_claim_that_is_never_given_back_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClusterView, "release", nothing)
    assert broken_promises("nothing leaks")


def test_a_container_that_is_never_removed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "RemoveContainer", lambda id_: None)
    assert broken_promises("nothing leaks")


def test_an_attempt_that_is_never_over_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts.Attempts, "answered", nothing)
    assert broken_promises("nothing leaks")


def test_two_leaders_of_one_epoch_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = leader.Leader._reign

    def reign(self: leader.Leader, fx: Any) -> None:
        if self.epoch == 0:
            self.epoch_seen = 0
        honest(self, fx)

    monkeypatch.setattr(leader.Leader, "_reign", reign)
    assert broken_promises("no epoch twice")


def test_tasks_that_are_not_synced_are_seen_at_a_power_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_disk, "LOST_WITH_THE_HOST", frozenset({ALLOCATIONS, JOBS, TASKS}))
    assert broken_promises("acknowledged is durable", Features(host_crashes=True, arrays=True))


FREEZING = Features(preemption=True, freezing=True, wide_load=True, agent_crashes=True, cancels=True)


def test_a_node_that_lends_cpu_before_its_task_stands_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = frost.Frost.freeze

    def hasty(self: frost.Frost, fx: Any, ids: Any, leader: str, item: Any) -> None:
        honest(self, fx, ids, leader, item)
        for id_ in ids:
            self._book(self._frozen[id_], 0)

    monkeypatch.setattr(frost.Frost, "freeze", hasty)
    assert broken_promises("a node is the authority", FREEZING)


def test_a_node_that_thaws_before_the_cpu_is_there_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def eager(self: frost.Frost, fx: Any) -> None:
        for each in list(self._frozen.values()):
            if each.stage is frost.Stage.STANDING:
                self._thaw(fx, each)

    monkeypatch.setattr(frost.Frost, "look", eager)
    assert broken_promises("a node is the authority", FREEZING)


def test_a_node_that_never_thaws_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frost.Frost, "look", nothing)
    assert broken_promises("everything ends", FREEZING)


def test_a_node_that_freezes_what_it_did_not_write_down_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = frost.Frost.__init__

    def forgetful(self: frost.Frost, *arguments: Any) -> None:
        honest(self, *arguments[:-1], nothing)

    monkeypatch.setattr(frost.Frost, "__init__", forgetful)
    assert broken_promises("nobody stands for nobody", FREEZING)


def test_a_node_that_freezes_what_must_not_stand_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frost, "_may_stand", lambda _: True)
    assert broken_promises("what is frozen loses nothing", replace(FREEZING, time_limits=True, gangs=True))
