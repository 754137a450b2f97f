"""The cluster's settings: merged alike wherever nodes meet, and what they mean for jobs, limits and licences."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import InvalidSpec
from scheduler.events import SetSetting
from scheduler.model import ArrayRange, Constraint, JobSpec, Operator, State
from scheduler.settings import (
    Account,
    AnySetting,
    Entry,
    Licence,
    Partition,
    Preemption,
    Ranking,
    Reservation,
    Settings,
    User,
)
from scheduler.spec.queueing import Queueing
from tests.scheduler.test_whole_cluster import SPEC, Cluster

NOW = 1_700_000_000.0
NAMES = ("licence/a", "licence/b", "user/ana")
values = st.one_of(st.none(), st.integers(0, 5))


def entry(name: str, version: int, author: int, number: int | None) -> Entry:
    # One author never writes one version twice: so the value is a function of both.
    value: AnySetting | None = None
    if number is not None:
        value = Licence(count=number) if name.startswith("licence") else User(tasks_max=number)
    return Entry(name, version, author, value, NOW + 100 if value is None else 0.0)


entries = st.builds(
    lambda name, version, author: entry(name, version, author, (version * 7 + author) % 5 or None),
    st.sampled_from(NAMES),
    st.integers(1, 5),
    st.integers(1, 3),
)


@given(st.lists(entries, max_size=30), st.integers(0, 1000))
def test_nodes_that_heard_the_same_in_any_order_hold_the_same(heard: list[Entry], seed: int) -> None:
    first, second = Settings(), Settings()
    first.merge(heard, NOW)
    shuffled = heard * 2
    random.Random(seed).shuffle(shuffled)
    for each in shuffled:
        second.merge([each], NOW)
    assert {each.name: each for each in first.entries()} == {each.name: each for each in second.entries()}
    assert first.digest == second.digest


@given(st.lists(entries, max_size=10), st.lists(entries, max_size=10))
def test_maps_with_the_same_digest_are_the_same(left: list[Entry], right: list[Entry]) -> None:
    first, second = Settings(), Settings()
    first.merge(left, NOW)
    second.merge(right, NOW)
    same = {each.name: each for each in first.entries()} == {each.name: each for each in second.entries()}
    assert same == (first.digest == second.digest)


def test_what_was_removed_does_not_come_back_with_an_older_copy() -> None:
    old, settings = Settings(), Settings()
    written = settings.written("licence/a", Licence(count=3), 1, NOW)
    old.merge([written], NOW)
    settings.merge([written], NOW)
    settings.merge([settings.written("licence/a", None, 2, NOW)], NOW)
    settings.merge(old.entries(), NOW)
    assert settings.get(Licence, "a") is None
    assert settings.forget(NOW + 40 * 86_400) == ["licence/a"]


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("thing/a", Licence(count=1), "kind"),
        ("user/a", Licence(count=1), "kind"),
        ("licence/", Licence(count=1), "name"),
        ("licence/*", Licence(count=1), "name"),
        ("licence/a", Licence(count=-1), "count"),
        ("account/a", Account(shares=0), "shares"),
        ("user/a", User(tasks_max=-1), "tasks_max"),
        ("partition/a", Partition(time_limit_max_s=5, time_limit_default_s=9), "time_limit_default_s"),
        ("reservation/a", Reservation(nodes=("n1",), start_unix_s=5, end_unix_s=4, users=("a",)), "end_unix_s"),
        ("reservation/a", Reservation(nodes=("n1",), start_unix_s=5, end_unix_s=9), "users"),
        ("ranking/mine", Ranking(), "name"),
        ("partition/a", Partition(tier=-1), "tier"),
        ("preemption/mine", Preemption(), "name"),
        ("preemption/default", Preemption(run_min_s=-1), "run_min_s"),
        ("preemption/default", Preemption(times_max=-1), "times_max"),
        ("ranking/default", Ranking(half_life_s=1), "half_life_s"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(name: str, value: AnySetting, field: str) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        Settings().written(name, value, 1, NOW)
    assert refusal.value.field == field


# --- in a cluster


def put(cluster: Cluster, node: str, name: str, value: AnySetting | None) -> None:
    host = cluster.world.hosts[node]
    host.ask(SetSetting(name, value, host.unix()), lambda _: None)
    cluster.run(2)


def queued(array: int = 1, **queueing: object) -> JobSpec:
    return msgspec.structs.replace(SPEC, array=ArrayRange(0, array - 1), queueing=Queueing(**queueing))


def running(cluster: Cluster, *jobs: int) -> int:
    return sum(cluster.agent(f"n{job % 1000}").job(job).counts[State.RUNNING] for job in jobs)


def test_a_change_reaches_everybody_and_who_was_away_and_lasts() -> None:
    cluster = Cluster()
    cluster.world.hosts["n3"].crash()
    cluster.run(5)
    put(cluster, "n1", "licence/matlab", Licence(count=2))
    put(cluster, "n2", "user/ana", User(tasks_max=3))
    cluster.world.hosts["n3"].start()
    cluster.run(10)
    for _ in range(2):
        for name in ("n1", "n2", "n3"):
            assert [each for each, _ in cluster.agent(name).settings()] == ["licence/matlab", "user/ana"]
            cluster.world.hosts[name].crash()
            cluster.world.hosts[name].start()
        cluster.run(5)


def test_licences_are_counted_over_all_homes_and_hold_nobody_else_up() -> None:
    cluster = Cluster(run_mean_s=20.0)
    put(cluster, "n1", "licence/matlab", Licence(count=3))
    jobs = [cluster.submit(f"n{home}", queued(4, licences={"matlab": 1})) for home in (1, 2, 3)]
    most = 0
    for _ in range(100):
        cluster.run(0.5)
        most = max(most, running(cluster, *jobs))
        assert running(cluster, *jobs) <= 3
    assert most == 3
    waiting = next(job for job in jobs if cluster.agent(f"n{job % 1000}").job(job).counts[State.PENDING])
    assert "licence matlab" in cluster.agent(f"n{waiting % 1000}").explain(waiting).summary
    other = cluster.submit("n2")
    cluster.run(1)
    assert running(cluster, other) == 1


def test_a_licence_that_is_not_set_is_refused_and_more_of_it_lets_more_run() -> None:
    cluster = Cluster(run_mean_s=5000.0)
    host = cluster.world.hosts["n1"]
    assert host.agent is not None
    with pytest.raises(InvalidSpec, match="a licence of these: none are set"):
        cluster.agent("n1").validate_for("user", queued(licences={"matlab": 1}), host.unix())
    put(cluster, "n1", "licence/matlab", Licence(count=1))
    job = cluster.submit("n3", queued(4, licences={"matlab": 1}))
    cluster.run(5)
    assert running(cluster, job) == 1
    put(cluster, "n2", "licence/matlab", Licence(count=3))
    cluster.run(5)
    assert running(cluster, job) == 3


@pytest.mark.parametrize("name", ["user/user", "user/*"])
def test_a_users_tasks_are_limited_over_all_homes(name: str) -> None:
    cluster = Cluster(run_mean_s=20.0)
    put(cluster, "n2", name, User(tasks_max=2))
    jobs = [cluster.submit(f"n{home}", queued(3)) for home in (1, 2, 3)]
    for _ in range(60):
        cluster.run(0.5)
        assert running(cluster, *jobs) <= 2
    assert running(cluster, *jobs) == 2


def test_a_limit_holds_when_the_leader_is_lost() -> None:
    cluster = Cluster(nodes=4, run_mean_s=5000.0)
    put(cluster, "n2", "user/user", User(cpu_milli_max=750))
    job = cluster.submit("n3", queued(9))
    cluster.run(5)
    assert running(cluster, job) == 3
    cluster.world.hosts["n1"].crash()
    cluster.run(20)
    assert cluster.agent("n3").job(job).counts[State.RUNNING] == 3


def test_a_partition_gives_nodes_limits_and_defaults() -> None:
    cluster = Cluster(run_mean_s=5000.0)
    zone_b = (Constraint("zone", Operator.IN, ("b",)),)
    put(cluster, "n1", "partition/b", Partition(constraints=zone_b, time_limit_max_s=600, users=("user",)))
    job = cluster.submit("n3", queued(partition="b"))
    cluster.run(1)
    view = cluster.agent("n3").job(job)
    assert (view.tasks[0].node, view.spec.time_limit_s) == ("n2", 600)
    now = cluster.world.hosts["n1"].unix()
    for owner, spec, field in (
        ("user", msgspec.structs.replace(queued(partition="b"), time_limit_s=601), "time_limit_s"),
        ("eve", queued(partition="b"), "queueing.partition"),
        ("user", queued(partition="c"), "queueing.partition"),
        ("user", queued(account="physics"), "queueing.account"),
    ):
        with pytest.raises(InvalidSpec) as refusal:
            cluster.agent("n1").validate_for(owner, spec, now)
        assert refusal.value.field == field


def test_a_closed_partition_keeps_its_jobs_until_it_is_opened() -> None:
    cluster = Cluster(run_mean_s=5000.0)
    put(cluster, "n1", "partition/p", Partition(open=False, default=True))
    job = cluster.submit("n2")
    cluster.run(1)
    assert "partition p is closed" in cluster.agent("n2").explain(job).summary
    put(cluster, "n3", "partition/p", Partition())
    assert running(cluster, job) == 1


def test_reserved_nodes_are_left_alone_before_and_during_and_taken_by_whom_they_are_for() -> None:
    cluster = Cluster(run_mean_s=30.0)
    now = cluster.world.hosts["n1"].unix()
    value = Reservation(nodes=("n1", "n2"), start_unix_s=now + 60, end_unix_s=now + 160, users=("user",))
    put(cluster, "n1", "reservation/night", value)
    endless = cluster.submit("n1", queued(4))
    short = cluster.submit("n2", msgspec.structs.replace(queued(4), time_limit_s=20.0))
    mine = cluster.submit("n3", queued(4, reservation="night"))
    cluster.run(1)
    assert {task.node for task in cluster.agent("n1").job(endless).tasks} == {"n3"}
    assert {task.node for task in cluster.agent("n2").job(short).tasks} <= {"n1", "n2"}
    assert "reservation night begins" in cluster.agent("n3").explain(mine).summary
    cluster.run(70)
    assert {task.node for task in cluster.agent("n3").job(mine).tasks} <= {"n1", "n2"}
    assert running(cluster, mine) > 0


def test_an_exclusive_task_has_its_node_for_itself_and_is_not_starved_by_small_ones() -> None:
    cluster = Cluster(nodes=2, run_mean_s=4.0)
    small = [cluster.submit("n1", msgspec.structs.replace(queued(40), time_limit_s=30.0)) for _ in range(2)]
    alone = cluster.submit("n2", msgspec.structs.replace(queued(2, exclusive=True), time_limit_s=30.0))
    seen = False
    for _ in range(400):
        cluster.run(0.5)
        for host in cluster.world.hosts.values():
            live = [each.allocation.id.job for each in host.containers.values() if each.result is None]
            if alone in live:
                seen = True
                assert live == [alone]
    assert seen
    assert all(cluster.agent(f"n{job % 1000}").job_state(job) is State.SUCCEEDED for job in (*small, alone))
    request = msgspec.structs.replace(SPEC.request, extra=(("whole-node", 1),))
    with pytest.raises(InvalidSpec, match=r"queueing\.exclusive instead"):
        cluster.agent("n1").validate_for("user", msgspec.structs.replace(SPEC, request=request), 0.0)
