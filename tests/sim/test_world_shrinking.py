"""A world that breaks a promise is cut down to a few steps that break it too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from node.cli.sim_worlds import world
from scheduler import admission, dispatch
from sim.faults import Features, draw_plan
from sim.shrink import format_shrunk, shrink
from sim.world import WorldResult, run_world

TROUBLE = Features(agent_crashes=True, host_crashes=True, loss=True, arrays=True, cancels=True, requeues=True)


def nothing(*_: Any, **__: Any) -> None:
    """Do nothing: the sabotage of a function."""


def first_broken(promise: str) -> WorldResult:
    for seed in range(25):
        plan = draw_plan(seed, nodes=3, homes=2, jobs=10, features=TROUBLE)
        result = run_world(seed, plan=replace(plan, run_mean_s=8.0, calm_max_s=60.0))
        if result.violations and result.violations[0].promise == promise:
            return result
    raise AssertionError(f"no seed broke '{promise}'")


def test_a_node_that_does_not_look_whether_it_fits_shrinks_to_a_handful_of_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "shortage", nothing)
    broken = first_broken("a node is the authority")
    shrunk = shrink(broken)
    assert shrunk.steps <= 6 < shrunk.steps_before, format_shrunk(shrunk)
    assert any(each.promise == shrunk.promise for each in shrunk.result.violations)


def test_a_job_that_is_not_written_shrinks_to_a_handful_of_steps_always_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "put_job", nothing)
    broken = first_broken("acknowledged is durable")
    shrunk = shrink(broken)
    text = format_shrunk(shrunk)
    assert shrunk.steps <= 5, text
    assert "submit job" in text
    assert "acknowledged is durable: " in text.splitlines()[-1]
    assert len(text.splitlines()) < 200
    assert format_shrunk(shrink(broken)) == text


def test_shrinking_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "put_job", nothing)
    assert shrink(first_broken("acknowledged is durable"), runs_max=3).runs == 3


def test_a_world_that_keeps_its_promises_cannot_be_shrunk() -> None:
    with pytest.raises(ValueError, match="seed 1 broke no promise"):
        shrink(run_world(1, nodes=2, jobs=2))


def test_a_world_has_no_more_homes_than_nodes() -> None:
    result = CliRunner().invoke(world, ["--nodes", "3", "--homes", "9"])
    assert str(result.exception) == "--homes: 9 is not valid; at most the 3 nodes"


def test_the_command_tells_the_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "put_job", nothing)
    result = CliRunner().invoke(world, ["--nodes", "3", "--jobs", "5", "--seed", "0", "--shrink"])
    assert result.exit_code == 1
    assert "steps still break 'acknowledged is durable'" in result.output
