"""Near, apart, so many on a node, evenly over racks: on views, and on whole clusters whose views are late."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from scheduler.company import RUNS, TAGS_MAX, Company, at_most, joined, met, rules, running, tag, tagged, tags
from scheduler.config import SchedulerConfig
from scheduler.errors import InvalidSpec
from scheduler.events import Cancel, Submit
from scheduler.index import ClusterView, Membership
from scheduler.model import AllocationId, ArrayRange, Constraint, JobSpec, Operator, Report, Resources, State
from scheduler.score import POLICIES
from scheduler.spec.gang import Gang
from scheduler.spec.placement import Placement
from scheduler.validate import validate
from sim.faults import Features, Plan, draw_plan
from sim.network import Link
from sim.world import World

MIB = 1 << 20
SIZE = Resources(1000, 1024 * MIB)
SPEC = JobSpec("web", ("true",), Resources(100, 64 * MIB))


def spec(name: str = "web", tasks: int = 1, **placement: object) -> JobSpec:
    array = ArrayRange(0, tasks - 1) if tasks > 1 else None
    return JobSpec(name, ("true",), SPEC.request, array=array, placement=Placement(**placement))


# --- words and tags


def test_what_a_node_runs_is_counted_and_forgotten():
    company, others = Company(), spec("db", labels=("tier=db",))
    for index in range(3):
        company.add(AllocationId(1001, index, 1), SPEC)
    company.add(AllocationId(2001, 0, 1), others)
    assert running(company.text(), tag("name:web")) == 3
    assert running(company.text(), tag("label:tier=db")) == 1
    company.drop(AllocationId(1001, 0, 1))
    assert running(company.text(), tag("id:1001")) == 2
    for index in (1, 2):
        company.drop(AllocationId(1001, index, 1))
    company.drop(AllocationId(2001, 0, 1))
    assert company.text() == company.told() == ""


def test_a_report_tells_a_bounded_number_of_tags_and_those_that_rules_may_name_first():
    company = Company()
    company.add(AllocationId(1, 0, 1), spec("first", per_node=1))
    for job in range(2, 500):
        company.add(AllocationId(job, 0, 1), JobSpec(f"job{job}", ("true",), SPEC.request))
    assert company.told().count(":") == TAGS_MAX
    assert len(company.told()) < 512
    assert running(company.told(), tag("id:1")) == 1
    assert running(company.told(), tag("name:job499")) == 1


def test_tags_on_the_way_are_added_to_those_told():
    runs = joined(",aaaaaa:2,", {"aaaaaa": 1, "bbbbbb": 4})
    assert (running(runs, "aaaaaa"), running(runs, "bbbbbb"), running(runs, "cccccc")) == (3, 4, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("near", ("db",)),
        ("apart", ("id:0",)),
        ("prefer_near", ("name:",)),
        ("labels", ("a,b",)),
        ("per_node", -1),
        ("spread", "~runs"),
        ("near", tuple(f"id:{each}" for each in range(1, 10))),
    ],
)
def test_a_rule_that_says_nothing_is_refused_by_its_name(field: str, value: object):
    with pytest.raises(InvalidSpec, match=f"placement.{field}"):
        validate(ruled(**{field: value}))


def test_a_gang_has_no_hard_rules():
    job = JobSpec("gang", ("true",), SPEC.request, gang=Gang(nodes=2), placement=Placement(apart=("name:db",)))
    with pytest.raises(InvalidSpec, match="placement"):
        validate(job)


def ruled(**placement: object) -> JobSpec:
    return JobSpec("web", ("true",), SPEC.request, placement=Placement(**placement))


# --- a view


def view_of(
    running_there: dict[str, list[tuple[int, JobSpec]]], sizes: dict[str, Resources] | None = None
) -> ClusterView:
    view = ClusterView("n1", 1, POLICIES["best-fit"], 5)
    for number, (name, jobs) in enumerate(running_there.items(), 1):
        company, size = Company(), (sizes or {}).get(name, SIZE)
        for index, (job, what) in enumerate(jobs):
            company.add(AllocationId(job, index, 1), what)
        view.hear(Report(name, number, 1, 1, size, size, labels=(("rack", "ab"[number % 2]),), runs=company.told()))
        view.heard_of(name, Membership.ALIVE, number)
    return view


def place(view: ClusterView, what: JobSpec, count: int, job: int = 0) -> dict[str, int]:
    return view.place(what.request, rules(what, job), count, job)


def test_near_and_apart_choose_by_what_runs():
    view = view_of({"n1": [], "n2": [(7, spec("db"))], "n3": [(8, spec("db", labels=("hot",)))], "n4": []})
    assert set(place(view, spec(near=("name:db",)), 20)) == {"n2", "n3"}
    assert set(place(view, spec(near=("name:db",), apart=("label:hot",)), 1)) == {"n2"}
    assert set(place(view, spec(apart=("name:db",)), 20)) == {"n1", "n4"}
    assert set(place(view, spec(near=("id:8",)), 1)) == {"n3"}
    assert place(view, spec(near=("name:nothing",)), 1) == {}


def test_a_wish_is_obeyed_while_there_is_room_and_left_then():
    view = view_of({"n1": [], "n2": [(7, spec("db"))], "n3": []})
    assert place(view, spec(prefer_near=("name:db",)), 4) == {"n2": 4}
    places = place(view, spec(prefer_near=("name:db",)), 14)
    assert places["n2"] == 10
    assert sum(places.values()) == 14
    assert set(place(view, spec(prefer_apart=("name:db",)), 20)) == {"n1", "n3"}
    assert sum(place(view, spec(prefer_near=("name:nothing",)), 3).values()) == 3


@pytest.mark.parametrize("seed", range(20))
def test_no_more_of_a_job_on_a_node_than_it_allows_whatever_was_there(seed: int):
    rng = random.Random(seed)
    most, job = rng.randrange(1, 4), 42
    what = spec(per_node=most)
    there = {f"n{number}": [(job, what)] * rng.randrange(0, most + 1) for number in range(1, 8)}
    sizes = {name: Resources(rng.choice((150, 250, 1000)), 1024 * MIB) for name in there}
    view = view_of(there, sizes)
    for _ in range(3):
        places = place(view, what, rng.randrange(1, 30), job)
        for name, count in places.items():
            assert len(there[name]) + count <= most, f"seed {seed}"
            assert count * 100 <= sizes[name].cpu_milli, f"seed {seed}"
    room = sum(min(most - len(jobs), sizes[name].cpu_milli // 100) for name, jobs in there.items())
    assert sum(place(view, what, 100, job).values()) == room, f"seed {seed}"


def test_what_is_on_its_way_counts_until_it_is_released():
    view = view_of({"n1": [], "n2": []})
    what = spec(per_node=1)
    view.claim("a", "n1", what.request, tags=tagged(5, what))
    assert place(view, what, 9, 5) == {"n2": 1}
    view.release("a")
    assert place(view, what, 9, 5) == {"n1": 1, "n2": 1}
    assert running(view.get("n1").labels[RUNS], tags(5, what)[0]) == 0


def test_rules_make_no_roster_each():
    """Rules differ from job to job, and a roster costs a look at every node."""
    view = view_of({f"n{number}": [] for number in range(1, 5)})
    for job in range(1, 50):
        place(view, spec(per_node=1), 1, job)
    assert len(view._finder._rosters) == 1


def test_a_rule_is_no_reason_to_think_that_a_job_can_never_run():
    view = view_of({"n1": [(3, SPEC)]})
    assert view.possible(SPEC.request, rules(spec(near=("name:nothing",), apart=("name:web",))))
    assert view.values("rack", SPEC.request, rules(spec(apart=("name:web",)))) == ("b",)
    assert not met(at_most(0, "name:web", own=False), view.get("n1").labels[RUNS])


def test_a_soft_constraint_on_a_label_is_a_wish():
    view = view_of({"n1": [], "n2": []})
    wish = Constraint("rack", Operator.IN, ("a",), soft=True)
    assert view.place(SPEC.request, (wish,), 3, 1) == {"n2": 3}
    assert sum(view.place(SPEC.request, (wish,), 15, 1).values()) == 15


# --- whole clusters, whose views are late


def plan(nodes: int, link: Link) -> Plan:
    drawn = draw_plan(1, nodes=nodes, homes=nodes, jobs=1, features=Features())
    return replace(
        drawn,
        config=SchedulerConfig(),
        link=link,
        faults=(),
        wishes=(),
        slow=(),
        run_mean_s=1000.0,
        capacities=(SIZE,) * nodes,
        labels=tuple((("rack", "abc"[position % 3]),) for position in range(nodes)),
    )


class Cluster:
    def __init__(self, nodes: int) -> None:
        self.world = World(plan(nodes, Link()))
        self.world.begin()
        self.run(5.0)

    def run(self, seconds: float) -> None:
        self.world.run_until(self.world.kernel.now + seconds)
        assert not self.world.checks.violations

    def submit(self, home: str, what: JobSpec) -> int:
        answers: list[object] = []
        self.world.hosts[home].ask(Submit("user", what, 0.0), answers.append)
        self.run(0.1)
        (job,) = answers
        assert isinstance(job, int)
        return job

    def on(self, home: str, job: int) -> Counter[str]:
        tasks = self.world.hosts[home].agent.job(job).tasks
        return Counter(task.node for task in tasks if task.state is State.RUNNING)

    def explained(self, home: str, job: int) -> str:
        return self.world.hosts[home].agent.explain(job).summary


def test_tasks_apart_from_each_other_fill_the_nodes_and_the_rest_waits_with_a_reason():
    cluster = Cluster(3)
    job = cluster.submit("n2", spec(tasks=5, per_node=1))
    cluster.run(20)
    assert cluster.on("n2", job) == {"n1": 1, "n2": 1, "n3": 1}
    assert "3 nodes excluded: 1 of its own tasks there, the most allowed" in cluster.explained("n2", job)


def test_jobs_of_several_homes_that_are_apart_never_meet_though_nobody_asked_the_others():
    cluster = Cluster(3)
    what = spec("solo", apart=("name:solo",))
    answers: list[object] = []
    for home in ("n1", "n2", "n3"):
        cluster.world.hosts[home].ask(Submit("user", what, 0.0), answers.append)
    cluster.run(20)
    places: Counter[str] = Counter()
    for home, job in zip(("n1", "n2", "n3"), sorted(answers, key=lambda each: each % 1000), strict=True):
        places += cluster.on(home, job)
    assert places == {"n1": 1, "n2": 1, "n3": 1}


def test_a_job_that_is_to_be_near_another_waits_for_it_and_goes_where_it_is():
    cluster = Cluster(3)
    near = cluster.submit("n1", spec("client", near=("label:tier=db",)))
    cluster.run(10)
    assert not cluster.on("n1", near)
    assert "nothing of label:tier=db runs there to be near to" in cluster.explained("n1", near)
    database = cluster.submit("n3", spec("db", labels=("tier=db",)))
    cluster.run(10)
    assert cluster.on("n1", near).keys() == cluster.on("n3", database).keys() != set()


@pytest.mark.parametrize("rule", ["spread", "prefer_spread"])
def test_tasks_are_spread_over_racks(rule: str):
    cluster = Cluster(6)
    job = cluster.submit("n2", spec(tasks=10, **{rule: "rack"}))
    cluster.run(20)
    racks: Counter[str] = Counter()
    for node, count in cluster.on("n2", job).items():
        racks["abc"[(int(node[1:]) - 1) % 3]] += count
    assert sorted(racks.values()) == [3, 3, 4]


def test_an_even_spread_is_kept_by_the_home_whatever_the_leader_orders():
    cluster = Cluster(6)
    filler = cluster.submit("n3", JobSpec("filler", ("true",), Resources(950, 64 * MIB), array=ArrayRange(0, 5)))
    job = cluster.submit("n2", spec(tasks=9, spread="rack"))
    cluster.run(5)
    assert (sum(cluster.on("n3", filler).values()), cluster.on("n2", job)) == (6, {})
    cluster.world.hosts["n3"].ask(Cancel(filler, 0.0), lambda _: None)
    for _ in range(100):
        cluster.run(0.2)
        racks = Counter({"a": 0, "b": 0, "c": 0})
        live = (task.node for task in cluster.world.hosts["n2"].agent.job(job).tasks if not task.state.final)
        racks.update("abc"[(int(node[1:]) - 1) % 3] for node in live if node)
        assert max(racks.values()) - min(racks.values()) <= 1
    assert sorted(racks.values()) == [3, 3, 3]
