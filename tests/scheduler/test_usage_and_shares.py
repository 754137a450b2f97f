"""Accounting adds up, ranks are bounded, and who used much of late is served later."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.events import SetSetting, Submit
from scheduler.model import JobSpec, Resources
from scheduler.queue import rank
from scheduler.settings import Account, Ranking, Settings
from scheduler.shares import SLICE, Shares
from scheduler.usage import DAY_S, Used
from sim.faults import draw_plan
from sim.world import World
from tests.scheduler.test_whole_cluster import MIB, SPEC, Cluster

jobs = st.tuples(st.integers(-5, 5), st.floats(0, 1e6), st.floats(0, 1))
weights = st.builds(Ranking, priority_s=st.floats(0, 1e5), share_s=st.floats(0, 1e6))


@given(jobs, jobs, weights)
def test_nobody_is_overtaken_by_who_came_later_than_all_differences_are_worth(
    mine: tuple[int, float, float], other: tuple[int, float, float], by: Ranking
) -> None:
    worth_s = (other[0] - mine[0]) * by.priority_s + (other[2] - mine[2]) * by.share_s
    if other[1] > mine[1] + worth_s + 1:
        assert rank(mine[0], mine[1], 1, mine[2], by) < rank(other[0], other[1], 2, other[2], by)


@given(jobs, jobs, weights, st.floats(-1e6, 1e6))
def test_two_observers_with_different_clocks_sort_alike(
    first: tuple[int, float, float], second: tuple[int, float, float], by: Ranking, offset_s: float
) -> None:
    def order(shift_s: float) -> float:
        one, two = (rank(each[0], each[1] + shift_s, 0, each[2], by) for each in (first, second))
        return one.score - two.score

    assert order(0.0) == pytest.approx(order(offset_s), abs=1e-3)


charges = st.lists(
    st.tuples(st.sampled_from(("", "a", "b")), st.sampled_from(("ana", "ben")), st.floats(0, 1e6)), max_size=8
)


@given(charges)
def test_factors_are_between_0_and_1_and_1_for_who_used_nothing(found: list[tuple[str, str, float]]) -> None:
    shares = Shares(Settings())
    shares.on_spent("n1", tuple(found))
    for account in ("", "a", "b", "c"):
        for user in ("ana", "ben", "eve"):
            assert 0 < shares.factor(account, user) <= 1
    assert shares.factor("c", "ana") == 1


@given(charges, st.integers(0, 7))
def test_it_does_not_matter_at_which_home_something_was_used(found: list[tuple[str, str, float]], cut: int) -> None:
    together, apart = Shares(Settings()), Shares(Settings())
    together.on_spent("n1", tuple(found))
    apart.on_spent("n1", tuple(found[:cut]))
    apart.on_spent("n2", tuple(found[cut:]))
    for account in ("", "a", "b"):
        for user in ("ana", "ben"):
            assert together.factor(account, user) == pytest.approx(apart.factor(account, user))


def test_more_shares_bear_more_use() -> None:
    settings = Settings()
    shares = Shares(settings)
    shares.on_spent("n1", (("a", "ana", 100.0), ("b", "ben", 100.0)))
    assert shares.factor("a", "ana") == shares.factor("b", "ben")
    settings.merge([settings.written("account/a", Account(shares=3), 1, 0.0)], 0.0)
    shares.on_settings()
    assert shares.factor("a", "ana") > shares.factor("b", "ben")


def test_only_jobs_of_whom_the_factor_moved_are_ranked_anew_and_never_all_at_once() -> None:
    shares = Shares(Settings())
    for job in range(1000):
        shares.enter("a", "ana", job)
        shares.enter("b", "ben", 1000 + job)
    shares.on_spent("n1", (("a", "ana", 100.0),))
    found: list[int] = []
    while shares.stale:
        found += (some := shares.take())
        assert 0 < len(some) <= SLICE
    assert sorted(found) == list(range(1000))
    shares.on_spent("n1", (("a", "ana", 100.1),))
    assert not shares.stale
    shares.on_settings()
    for job in range(1999):
        shares.leave(*(("a", "ana") if job < 1000 else ("b", "ben")), job)
    assert shares.take() == [1999]
    assert not shares.stale


def test_a_very_long_line_is_ranked_anew_without_keeping_anybody_waiting() -> None:
    """The leader goes on serving meanwhile, and comes to the end of it."""
    cluster = Cluster(run_mean_s=20.0)
    jobs = [cluster.submit("n2") for _ in range(3 * SLICE)]
    cluster.run(120)
    leader = next(each for each in map(cluster.agent, ("n1", "n2", "n3")) if each.parts.leader.leading).parts.leader
    assert not leader.waitlist.shares.stale
    factor = leader.waitlist.shares.factor("", "user")
    assert factor < 1
    assert leader.waiting > SLICE
    for job, entry in leader.waitlist.in_order():
        assert job in jobs
        assert entry.wish.rank.score == pytest.approx(
            leader.waitlist._rank(entry.wait, entry.wish.rank.since_s).score, abs=40
        )


@pytest.mark.parametrize("seed", range(8))
def test_what_homes_count_by_day_and_by_job_is_the_same_whatever_goes_wrong(seed: int) -> None:
    drawn = draw_plan(seed, nodes=4, homes=2, jobs=12)
    world = World(drawn)
    world.run()
    for host in world.hosts.values():
        if host.agent is None or drawn.features.short_history:
            continue
        by_day = sum((each.used for each in host.agent.usage()), Used())
        by_job = sum((each.used for each in host.agent.usage_of_jobs()), Used())
        assert by_day == by_job, f"seed {seed}, {host.name}"
        assert by_day.succeeded <= by_day.attempts
        done = {job.id: job.counts for job in host.agent.jobs()}
        for each in host.agent.usage_of_jobs():
            succeeded = next(count for state, count in done[each.job].items() if state.value == "succeeded")
            assert each.used.succeeded == succeeded, f"seed {seed}, job {each.job}"


def test_a_run_is_counted_with_what_it_reserved_and_survives_a_restart() -> None:
    cluster = Cluster(run_mean_s=20.0)
    cluster.submit("n2", msgspec.structs.replace(SPEC, request=Resources(500, 64 * MIB)))
    cluster.run(200)
    (row,) = cluster.agent("n2").usage()
    assert (row.user, row.account, row.used.attempts, row.used.succeeded) == ("user", "", 1, 1)
    assert row.used.core_ms == pytest.approx(row.used.run_ms / 2, abs=1)
    assert row.used.run_ms > 1000
    cluster.world.hosts["n2"].crash()
    cluster.world.hosts["n2"].start()
    cluster.run(1)
    assert cluster.agent("n2").usage() == [row]


def test_what_was_used_long_ago_weighs_less() -> None:
    cluster = Cluster(run_mean_s=20.0)
    cluster.submit("n2")
    cluster.run(200)
    usage = cluster.agent("n2").parts.home.usage
    now = cluster.world.hosts["n2"].clock()
    (fresh,) = usage.charges_s(now, 7 * DAY_S).values()
    (old,) = usage.charges_s(now + 14 * DAY_S, 7 * DAY_S).values()
    assert old == pytest.approx(fresh / 4, rel=0.1)


def test_who_used_less_is_served_first_though_they_came_later() -> None:
    cluster = Cluster(nodes=2, run_mean_s=40.0, usage_interval_s=5.0)
    whole = msgspec.structs.replace(SPEC, request=Resources(1000, 64 * MIB))
    submitted: list[tuple[str, int]] = []

    def submit(owner: str, spec: JobSpec) -> None:
        host = cluster.world.hosts["n2"]
        host.ask(Submit(owner, spec, host.unix()), lambda job: submitted.append((owner, int(str(job)))))
        cluster.run(0.2)

    for owner in ("greedy",) * 4:
        submit(owner, whole)
    cluster.run(100)
    assert cluster.agent("n2").usage()
    for owner in ("greedy", "greedy", "greedy", "greedy", "modest"):
        submit(owner, whole)
    cluster.run(10)
    line = [each.job for each in cluster.agent("n1").waiting()]
    modest = submitted[-1][1]
    assert line[0] == modest
    host = cluster.world.hosts["n2"]
    host.ask(SetSetting("ranking/default", Ranking(share_s=0), host.unix()), lambda _: None)
    cluster.run(2)
    assert [each.job for each in cluster.agent("n1").waiting()][-1] == modest
