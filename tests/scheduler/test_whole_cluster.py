"""Several whole nodes without any trouble: what a user sees from submission to end, and why something waits."""

from __future__ import annotations

from dataclasses import replace

from scheduler.config import SchedulerConfig
from scheduler.events import Accepting, Cancel, Submit
from scheduler.model import ArrayRange, Constraint, JobKind, JobSpec, Operator, Resources, State
from scheduler.spec.gang import Gang
from sim.faults import Features, Plan, draw_plan
from sim.network import Link
from sim.world import World

MIB = 1 << 20
SPEC = JobSpec("job", ("true",), Resources(250, 64 * MIB))


def plan(nodes: int, run_mean_s: float, **config: object) -> Plan:
    """A world without trouble and without clients: nodes with 1000m and 1024M each, zone a, b, a, ..."""
    drawn = draw_plan(1, nodes=nodes, homes=nodes, jobs=1, features=Features())
    return replace(
        drawn,
        config=SchedulerConfig(**config),
        link=Link(),
        faults=(),
        wishes=(),
        slow=(),
        run_mean_s=run_mean_s,
        capacities=(Resources(1000, 1024 * MIB),) * nodes,
        labels=tuple((("zone", "ab"[position % 2]),) for position in range(nodes)),
    )


class Cluster:
    """A world that has found itself, with a client's hands on it."""

    def __init__(self, nodes: int = 3, run_mean_s: float = 2.0, **config: object) -> None:
        self.world = World(plan(nodes, run_mean_s, **config))
        self.world.begin()
        self.run(5.0)

    def run(self, seconds: float) -> None:
        self.world.run_until(self.world.kernel.now + seconds)
        assert not self.world.checks.violations

    def submit(self, home: str, spec: JobSpec = SPEC) -> int:
        answers: list[object] = []
        self.world.hosts[home].ask(Submit("user", spec, 0.0), answers.append)
        self.run(0.1)
        (job,) = answers
        assert isinstance(job, int)
        return job

    def agent(self, name: str):
        agent = self.world.hosts[name].agent
        assert agent is not None
        return agent


def test_a_job_submitted_anywhere_runs_and_ends():
    cluster = Cluster()
    job = cluster.submit("n2")
    assert job % 1000 == 2
    cluster.run(30)
    (task,) = cluster.agent("n2").job(job).tasks
    assert (task.state, task.attempt, task.exit_code) == (State.SUCCEEDED, 1, 0)
    assert cluster.agent("n2").explain(job).summary == "the job has ended: succeeded"


def test_a_job_runs_within_milliseconds_of_its_submission_while_nobody_waits():
    cluster = Cluster(run_mean_s=50.0)
    job = cluster.submit("n3")
    cluster.run(0.3)
    assert cluster.agent("n3").job_state(job) is State.RUNNING


def test_best_fit_fills_a_node_before_it_opens_another_and_spread_does_not():
    for policy, nodes in (("best-fit", 1), ("spread", 3)):
        cluster = Cluster(run_mean_s=500.0, policy=policy)
        jobs = [cluster.submit("n1") for _ in range(3)]
        assert len({cluster.agent("n1").job(job).tasks[0].node for job in jobs}) == nodes


def test_more_than_the_cluster_holds_waits_its_turn_and_all_of_it_runs():
    cluster = Cluster()
    jobs = [cluster.submit(f"n{home}", replace_spec(array=ArrayRange(0, 9))) for home in (1, 2, 3)]
    assert any(cluster.agent(f"n{job % 1000}").job(job).counts[State.PENDING] for job in jobs)
    cluster.run(120)
    assert [cluster.agent(f"n{job % 1000}").job_state(job) for job in jobs] == [State.SUCCEEDED] * 3


def test_jobs_of_different_homes_are_served_in_the_order_in_which_they_came():
    cluster = Cluster(nodes=2, run_mean_s=1.0)
    whole = replace_spec(request=Resources(1000, 64 * MIB))
    jobs = [cluster.submit(f"n{1 + number % 2}", whole) for number in range(8)]
    cluster.run(60)
    started = [id_.job for id_ in cluster.world.checks.started_ids()]
    assert started == jobs


def test_what_does_not_fit_names_the_dimension_the_amounts_and_the_number_of_nodes():
    cluster = Cluster(run_mean_s=500.0)
    for _ in range(12):
        cluster.submit("n1")
    job = cluster.submit("n2")
    why = cluster.agent("n2").explain(job)
    assert [(each.dimension, each.need, each.most_free, each.nodes, each.never) for each in why.short] == [
        ("cpu", 250, 0, 3, 0)
    ]
    assert "cpu is short on 3 of 3 nodes (asks 250m, at best 0m free)" in why.summary
    assert why.leader == "n1"
    assert why.position == 0
    assert why.summary in cluster.agent("n2").job(job).tasks[0].reason


def test_more_memory_than_any_node_has_is_accepted_explained_and_holds_up_nobody():
    cluster = Cluster()
    giant = cluster.submit("n2", replace_spec(request=Resources(10, 1 << 45)))
    after = cluster.submit("n2")
    cluster.run(30)
    assert cluster.agent("n2").job_state(after) is State.SUCCEEDED
    why = cluster.agent("n2").explain(giant)
    assert [(each.dimension, each.never) for each in why.short] == [("memory", 3)]
    assert "3 of them could never take it" in why.summary


def test_constraints_that_exclude_nodes_are_named():
    cluster = Cluster()
    nowhere = cluster.submit("n1", replace_spec(constraints=(Constraint("zone", Operator.IN, ("z",)),)))
    assert "3 nodes excluded: the constraint zone in z" in cluster.agent("n1").explain(nowhere).summary
    there = cluster.submit("n1", replace_spec(constraints=(Constraint("zone", Operator.IN, ("b",)),)))
    assert cluster.agent("n1").job(there).tasks[0].node == "n2"


def test_a_cordoned_node_takes_nothing_and_is_named_until_it_is_open_again():
    cluster = Cluster(nodes=1)
    cluster.world.hosts["n1"].post(Accepting(False))
    job = cluster.submit("n1")
    assert "1 node cordoned" in cluster.agent("n1").explain(job).summary
    cluster.world.hosts["n1"].post(Accepting(True))
    cluster.run(20)
    assert cluster.agent("n1").job_state(job) is State.SUCCEEDED


def test_a_running_service_is_stopped_by_its_cancellation():
    cluster = Cluster(run_mean_s=500.0)
    job = cluster.submit("n3", replace_spec(kind=JobKind.SERVICE, stop_grace_s=0.5))
    cluster.run(1)
    cluster.world.hosts["n3"].ask(Cancel(job, 0.0), lambda _: None)
    cluster.run(5)
    assert cluster.agent("n3").job_state(job) is State.CANCELLED
    assert not any(host.containers for host in cluster.world.hosts.values())


def test_every_node_sees_every_other_with_its_report():
    cluster = Cluster()
    for name in ("n1", "n2", "n3"):
        seen = cluster.agent(name).nodes()
        assert [node.name for node in seen] == ["n1", "n2", "n3"]
        assert all(node.report is not None and node.state == "alive" for node in seen)


def test_the_loss_of_the_leader_stops_neither_submission_nor_placement():
    cluster = Cluster(run_mean_s=1.0, lost_grace_s=2.0)
    cluster.world.hosts["n1"].lose_power()
    cluster.run(8)
    jobs = [cluster.submit("n2", replace_spec(array=ArrayRange(0, 19))), cluster.submit("n3")]
    cluster.run(60)
    assert [cluster.agent(f"n{job % 1000}").job_state(job) for job in jobs] == [State.SUCCEEDED] * 2
    assert cluster.agent("n3").leader == "n2"


def replace_spec(**facts: object) -> JobSpec:
    """The usual spec with other facts."""
    return JobSpec(**{"name": "job", "argv": ("true",), "request": SPEC.request, **facts})


def test_a_job_that_the_leader_placed_tells_why_there_too():
    cluster = Cluster(nodes=2, run_mean_s=1e6)
    whole = replace_spec(request=Resources(1000, 64 * MIB), time_limit_s=10.0)
    for _ in range(2):
        cluster.submit("n1", whole)
    waiting = cluster.submit("n2", whole)
    cluster.run(1)
    wide = cluster.submit("n2", replace_spec(request=Resources(1000, 64 * MIB), gang=Gang(nodes=2)))
    cluster.run(15)
    placed = cluster.agent("n2").explain(waiting).placed[0]
    said = f"placed on {placed.node} by the leader, n1: the fullest it fits on (best-fit), "
    assert placed.reason.removeprefix(said) in ("nowhere else is room", "before n1", "before n2")
    short = cluster.submit("n2", replace_spec(request=Resources(1000, 64 * MIB), time_limit_s=1.0))
    cluster.run(0.5)
    (slipped,) = cluster.agent("n2").explain(short).placed
    assert f"by the leader, n1: it slips past job {wide} without delaying it, nowhere else is room" in slipped.reason
    cluster.run(30)
    assert ": the fullest it fits on (best-fit), " in cluster.agent("n2").explain(wide).placed[0].reason


def test_a_single_job_that_runs_tells_why_there_and_which_were_the_next_best():
    cluster = Cluster(run_mean_s=50.0)
    job = cluster.submit("n2")
    cluster.run(1)
    (placed,) = cluster.agent("n2").explain(job).placed
    others = " and ".join(sorted({"n1", "n2", "n3"} - {placed.node}))
    swapped = " and ".join(reversed(others.split(" and ")))
    said = f"placed on {placed.node} by its home: the fullest it fits on (best-fit), before "
    assert placed.reason in (said + others, said + swapped)
