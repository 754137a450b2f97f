"""Gossip in virtual time: the same seed gives the same run, and the targets hold on small clusters."""

import pytest

from sim.gossip import format_report, run_gossip


def test_the_same_arguments_give_the_same_report_byte_for_byte() -> None:
    reports = [run_gossip(12, 5, duration_s=60.0, loss=0.1, starved=2, updates=5) for _ in range(2)]
    assert reports[0].as_dict() == reports[1].as_dict()
    assert format_report(reports[0]) == format_report(reports[1])
    assert run_gossip(12, 6, duration_s=60.0, loss=0.1, starved=2, updates=5).as_dict() != reports[0].as_dict()


def test_updates_failures_and_rest_meet_the_targets_at_sixty_nodes() -> None:
    report = run_gossip(60, 7, duration_s=100.0)
    assert report.update.missed == report.agent_down.missed == report.host_failed.missed == 0, format_report(report)
    assert report.update.each_p99_s <= 0.3
    assert report.agent_down.last_max_s <= 2.5
    assert report.host_failed.last_max_s <= 7
    assert report.rest_bytes_s <= 250
    assert report.false_deaths_healthy == report.false_deaths_starved == 0
    assert report.agreed


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_with_starved_nodes_and_loss_no_more_die_falsely_than_under_memberlists_rules(seed: int) -> None:
    ours, theirs = (
        run_gossip(20, seed, rules=rules, duration_s=90.0, loss=0.2, starved=4, agents_killed=0, hosts_crashed=1)
        for rules in ("fofoca", "memberlist")
    )
    assert ours.false_deaths_healthy == 0, format_report(ours)
    assert ours.false_deaths_starved <= theirs.false_deaths_starved, f"seed {seed}"
    assert ours.host_failed.last_max_s <= theirs.host_failed.last_max_s


def test_a_partition_heals_within_the_run() -> None:
    report = run_gossip(12, 3, duration_s=140.0, partition_s=60.0, updates=3, agents_killed=1, hosts_crashed=0)
    assert 0 <= report.healed_s <= 30
    assert report.agreed


@pytest.mark.parametrize("wrong", [{"nodes": 1}, {"nodes": 9, "rules": "serf"}, {"nodes": 9, "starved": 9}])
def test_arguments_out_of_range_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"nodes|rules|starved"):
        run_gossip(seed=1, **wrong)  # type: ignore[arg-type]
