"""Whole nodes' machines under faults: hundreds of worlds, each from its own seed, none of which may break a promise."""

from __future__ import annotations

import pytest

from sim.faults import Features, Plan, draw_plan
from sim.world import format_world, run_world

SEEDS_EACH = 10


@pytest.mark.parametrize("batch", range(30))
def test_no_world_breaks_a_promise(batch: int) -> None:
    for seed in range(batch * SEEDS_EACH, (batch + 1) * SEEDS_EACH):
        result = run_world(seed)
        assert result.passed, format_world(result)


def test_a_world_with_many_nodes_and_homes_breaks_no_promise() -> None:
    result = run_world(5, nodes=20, homes=5)
    assert result.passed, format_world(result)


@pytest.mark.parametrize("batch", range(4))
def test_no_world_breaks_a_promise_when_real_gossip_tells_who_is_alive(batch: int) -> None:
    for seed in range(batch * 5, (batch + 1) * 5):
        result = run_world(seed, gossip=True)
        assert result.passed, format_world(result)


@pytest.mark.parametrize(("seed", "nodes"), [(5341, 3), (5083, 2)])
def test_a_home_that_is_lost_for_good_gives_its_licences_back(seed: int, nodes: int) -> None:
    result = run_world(seed, nodes, nodes, 25)
    assert result.passed, format_world(result)


def test_the_same_seed_gives_the_same_world_to_the_last_message() -> None:
    first, second = run_world(3, traced=True), run_world(3, traced=True)
    assert first.trace == second.trace
    assert first.figures == second.figures


def test_naming_what_would_be_drawn_gives_the_same_world() -> None:
    drawn = run_world(11)
    named = run_world(11, nodes=len(drawn.plan.nodes), homes=len(drawn.plan.homes))
    assert named.figures == drawn.figures
    assert f"--nodes {len(drawn.plan.nodes)} --homes {len(drawn.plan.homes)} --jobs " in drawn.command
    assert drawn.command.endswith(" --seed 11")


def test_worlds_are_full_of_trouble() -> None:
    results = [run_world(seed) for seed in range(12)]
    assert sum(result.figures["containers"] for result in results) > 200
    assert sum(result.figures["lost"] for result in results) > 50
    assert len({name for result in results for name in result.plan.features.names()}) > 20


def test_power_losses_take_commits_that_were_not_synced_and_no_promise_is_broken() -> None:
    results = [run_world(seed, plan=_with_power_losses(seed)) for seed in range(12)]
    for result in results:
        assert result.passed, format_world(result)
    assert sum(result.figures["commits lost"] for result in results) > 20


def _with_power_losses(seed: int) -> Plan:
    return draw_plan(seed, nodes=4, jobs=20, features=Features(host_crashes=True, arrays=True, singles=True))
