"""Dependencies: what each kind means, and that they hold across homes, restarts and forgetting."""

from __future__ import annotations

import itertools
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.dependencies import Standing, Verdict, together, verdict
from scheduler.errors import InvalidSpec, NotPossible
from scheduler.events import Cancel, Hold, Release, Requeue, Submit
from scheduler.jobs import ranges
from scheduler.model import ArrayRange, JobSpec, OnLost, State
from scheduler.spec.queueing import After, Dependency, Queueing, Unmet, check
from sim.faults import Features
from tests.scheduler.test_whole_cluster import SPEC, Cluster

BEGUN, OK, BAD = Standing(begun_s=0.0), Standing(True, 0.0, True, True), Standing(True, 0.0, True)
UNKNOWN = Standing(False)
MEANINGS = {
    After.AFTER: {None: "waits", "new": "waits", "begun": "met", "ok": "met", "bad": "met", "unknown": "met"},
    After.ANY: {None: "waits", "new": "waits", "begun": "waits", "ok": "met", "bad": "met", "unknown": "met"},
    After.OK: {None: "waits", "new": "waits", "begun": "waits", "ok": "met", "bad": "never", "unknown": "never"},
    After.NOT_OK: {None: "waits", "new": "waits", "begun": "waits", "ok": "never", "bad": "met", "unknown": "never"},
    After.CORRESPONDING: {None: "waits", "new": "met", "begun": "met", "ok": "met", "bad": "met", "unknown": "never"},
}
STANDINGS = {None: None, "new": Standing(), "begun": BEGUN, "ok": OK, "bad": BAD, "unknown": UNKNOWN}


@pytest.mark.parametrize("kind", list(After))
def test_every_kind_means_what_the_documentation_says(kind: After) -> None:
    found = {name: verdict(Dependency(kind=kind, job=1), each, 10.0).value for name, each in STANDINGS.items()}
    assert found == MEANINGS[kind]


@given(st.lists(st.sampled_from(list(Verdict))), st.booleans())
def test_verdicts_go_together_as_and_and_or_do(verdicts: list[Verdict], alternatives: bool) -> None:
    found = together(verdicts, alternatives)
    if alternatives and verdicts:
        assert (found is Verdict.MET) == (Verdict.MET in verdicts)
        assert (found is Verdict.NEVER) == (set(verdicts) == {Verdict.NEVER})
    else:
        assert (found is Verdict.MET) == (set(verdicts) <= {Verdict.MET})
        assert (found is Verdict.NEVER) == (Verdict.NEVER in verdicts)


@given(st.sampled_from(list(After)), st.lists(st.sampled_from([BEGUN, OK, BAD, Standing()]), min_size=1))
def test_news_in_any_order_never_takes_back_what_is_met(kind: After, news: list[Standing]) -> None:
    if OK in news and BAD in news:
        return
    known, met = Standing(), False
    for each in news:
        known.learn(each)
        now_met = verdict(Dependency(kind=kind, job=1), known, 10.0) is Verdict.MET
        assert now_met or not met
        met = now_met


@given(st.sets(st.integers(0, 50)))
def test_ranges_hold_exactly_the_indices(indices: set[int]) -> None:
    found = list(ranges(sorted(indices)))
    assert {index for first, last in found for index in range(first, last + 1)} == indices
    assert all(later[0] > earlier[1] + 1 for earlier, later in itertools.pairwise(found))


def depending(kind: After, *jobs: int, spec: JobSpec = SPEC, **queueing: object) -> JobSpec:
    after = tuple(Dependency(kind=kind, job=job) for job in jobs)
    return msgspec.structs.replace(spec, queueing=Queueing(after=after, **queueing))


def state(cluster: Cluster, job: int) -> State:
    return cluster.agent(f"n{job % 1000}").job_state(job)


def summary(cluster: Cluster, job: int) -> str:
    return cluster.agent(f"n{job % 1000}").explain(job).summary


@pytest.mark.parametrize("home", ["n1", "n2"])
def test_a_job_waits_for_one_of_its_own_or_of_another_home(home: str) -> None:
    cluster = Cluster(run_mean_s=8.0)
    first = cluster.submit("n1")
    second = cluster.submit(home, depending(After.OK, first))
    assert state(cluster, second) is State.PENDING
    assert f"waits for afterok:{first}" in summary(cluster, second)
    cluster.run(100)
    assert state(cluster, second) is State.SUCCEEDED
    started = [id_.job for id_ in cluster.world.checks.started_ids()]
    assert started == [first, second]


def test_it_starts_within_a_moment_of_the_others_end() -> None:
    cluster = Cluster(run_mean_s=500.0)
    first = cluster.submit("n1")
    second = cluster.submit("n3", depending(After.ANY, first))
    cluster.world.hosts["n1"].ask(Cancel(first, 0.0), lambda _: None)
    cluster.run(0.3)
    assert state(cluster, second) is State.RUNNING


def test_what_can_never_be_met_stays_with_a_reason_or_is_cancelled_as_the_job_says() -> None:
    cluster = Cluster(run_mean_s=500.0)
    first = cluster.submit("n1")
    kept = cluster.submit("n2", depending(After.OK, first))
    given_up = cluster.submit("n2", depending(After.OK, first, unmet=Unmet.CANCEL))
    cluster.world.hosts["n1"].ask(Cancel(first, 0.0), lambda _: None)
    cluster.run(1)
    assert state(cluster, kept) is State.PENDING
    assert "can never be met" in summary(cluster, kept)
    assert state(cluster, given_up) is State.CANCELLED
    (task,) = cluster.agent("n2").job(given_up).tasks
    assert "can never be met" in task.reason


def test_one_of_several_is_enough_where_the_job_says_so() -> None:
    cluster = Cluster(run_mean_s=500.0)
    jobs = [cluster.submit("n1"), cluster.submit("n2")]
    both = cluster.submit("n3", depending(After.ANY, *jobs))
    one = cluster.submit("n3", depending(After.ANY, *jobs, after_any=True))
    cluster.world.hosts["n2"].ask(Cancel(jobs[1], 0.0), lambda _: None)
    cluster.run(0.3)
    assert (state(cluster, both), state(cluster, one)) == (State.PENDING, State.RUNNING)


def test_tasks_follow_their_corresponding_tasks_one_by_one() -> None:
    cluster = Cluster(run_mean_s=6.0)
    array = msgspec.structs.replace(SPEC, array=ArrayRange(0, 19))
    first = cluster.submit("n1", array)
    second = cluster.submit("n2", depending(After.CORRESPONDING, first, spec=array))
    overlapped = False
    for _ in range(60):
        cluster.run(2)
        done = [task.state is State.SUCCEEDED for task in cluster.agent("n1").job(first).tasks]
        begun = [task.attempt > 0 for task in cluster.agent("n2").job(second).tasks]
        assert all(before for before, after in zip(done, begun, strict=True) if after)
        overlapped |= any(begun) and not all(done)
    assert overlapped
    assert state(cluster, second) is State.SUCCEEDED


def test_an_index_without_a_counterpart_waits_for_ever_and_says_so() -> None:
    cluster = Cluster(run_mean_s=1.0)
    first = cluster.submit("n1", msgspec.structs.replace(SPEC, array=ArrayRange(0, 3)))
    longer = msgspec.structs.replace(SPEC, array=ArrayRange(0, 5))
    second = cluster.submit("n2", depending(After.CORRESPONDING, first, spec=longer))
    cut = cluster.submit("n2", depending(After.CORRESPONDING, first, spec=longer, unmet=Unmet.CANCEL))
    cluster.run(60)
    assert cluster.agent("n2").job(second).counts[State.SUCCEEDED] == 4
    assert f"each for the task of the same index of job {first}" in summary(cluster, second)
    assert cluster.agent("n2").job(cut).counts[State.CANCELLED] == 2


def test_what_was_met_is_met_though_both_homes_restart_and_the_other_job_is_forgotten() -> None:
    cluster = Cluster(run_mean_s=1.0, history_jobs=1)
    cluster.world.plan = replace(cluster.world.plan, features=Features(short_history=True))
    first = cluster.submit("n1")
    second = cluster.submit("n2", depending(After.OK, first, hold=True))
    cluster.run(20)
    for _ in range(3):
        cluster.submit("n1")
        cluster.run(10)
    for name in ("n1", "n2"):
        cluster.world.hosts[name].crash()
        cluster.world.hosts[name].start()
    cluster.world.hosts["n2"].ask(Release(second), lambda _: None)
    cluster.run(20)
    assert state(cluster, second) is State.SUCCEEDED


def test_a_foreign_job_looks_like_none() -> None:
    cluster = Cluster(run_mean_s=500.0)
    first = cluster.submit("n1")
    host = cluster.world.hosts["n1"]
    assert host.agent is not None
    with pytest.raises(InvalidSpec, match=f"queueing.after.job: {first}"):
        host.agent.handle(host.clock(), Submit("eve", depending(After.ANY, first), 0.0))
    answers: list[object] = []
    cluster.world.hosts["n2"].ask(Submit("eve", depending(After.OK, first), 0.0), answers.append)
    cluster.run(1)
    assert "there is no such job" in summary(cluster, int(str(answers[0])))


def test_a_held_job_waits_until_it_is_released_by_whoever_may() -> None:
    cluster = Cluster(run_mean_s=500.0)
    host = cluster.world.hosts["n1"]
    job = cluster.submit("n1", msgspec.structs.replace(SPEC, queueing=Queueing(hold=True)))
    cluster.run(5)
    assert (state(cluster, job), "held by its owner" in summary(cluster, job)) == (State.PENDING, True)
    host.ask(Hold(job, operator=True), lambda _: None)
    assert host.agent is not None
    with pytest.raises(NotPossible, match="only an operator"):
        host.agent.handle(host.clock(), Release(job))
    host.ask(Release(job, operator=True), lambda _: None)
    cluster.run(1)
    assert state(cluster, job) is State.RUNNING


def test_a_job_begins_at_its_time() -> None:
    cluster = Cluster(run_mean_s=500.0)
    begin = cluster.world.hosts["n1"].unix() + 30
    queueing = Queueing(begin_unix_s=begin)
    answers: list[object] = []
    spec = msgspec.structs.replace(SPEC, queueing=queueing)
    cluster.world.hosts["n1"].ask(Submit("user", spec, cluster.world.hosts["n1"].unix()), answers.append)
    cluster.run(29)
    job = int(str(answers[0]))
    assert "not to begin before 2023-" in summary(cluster, job)
    cluster.run(1.5)
    assert state(cluster, job) is State.RUNNING


def test_requeueing_runs_it_again_after_it_has_stopped_and_costs_no_try() -> None:
    cluster = Cluster(run_mean_s=500.0)
    spec = msgspec.structs.replace(SPEC, on_lost=OnLost.FAIL, attempts_max=1, stop_grace_s=3.0)
    job = cluster.submit("n2", spec)
    cluster.run(1)
    cluster.world.hosts["n2"].ask(Requeue(job), lambda _: None)
    cluster.run(1)
    (task,) = cluster.agent("n2").job(job).tasks
    assert (task.attempt, task.state, task.reason) == (1, State.RUNNING, "requeued by its owner")
    cluster.run(4)
    (task,) = cluster.agent("n2").job(job).tasks
    assert (task.attempt, task.state) == (2, State.RUNNING)
    host = cluster.world.hosts["n2"]
    host.ask(Cancel(job, 0.0), lambda _: None)
    cluster.run(1)
    assert host.agent is not None
    with pytest.raises(NotPossible, match="has ended"):
        host.agent.handle(host.clock(), Requeue(job))


@pytest.mark.parametrize(
    ("queueing", "field"),
    [
        (Queueing(begin_unix_s=-1.0), "queueing.begin_unix_s"),
        (Queueing(begin_unix_s=float("nan")), "queueing.begin_unix_s"),
        (Queueing(after=(Dependency(kind=After.ANY, job=0),)), "queueing.after.job"),
        (Queueing(after=(Dependency(kind=After.ANY, job=1, delay_s=1),)), "queueing.after.delay_s"),
        (Queueing(after=(Dependency(kind=After.AFTER, job=1, delay_s=-1),)), "queueing.after.delay_s"),
        (Queueing(after=(Dependency(kind=After.ANY, job=1),) * 2), "queueing.after"),
        (Queueing(after=tuple(Dependency(kind=After.ANY, job=job) for job in range(1, 102))), "queueing.after"),
        (
            Queueing(after=tuple(Dependency(kind=After.CORRESPONDING, job=job) for job in (1, 2))),
            "queueing.after",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(queueing: Queueing, field: str) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        check(queueing)
    assert refusal.value.field == field
