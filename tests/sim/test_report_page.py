"""The report is one page that needs nothing else, and takes users' text as text."""

from __future__ import annotations

import itertools
import json
import re
from html.parser import HTMLParser

import pytest

from sim.homes_replay import replay_homes
from sim.many_homes import Setting
from sim.nodes import Demand, NodeSpec
from sim.outages import Outage
from sim.overcommitted import overcommit
from sim.placement import Visit, visit
from sim.places import busy_nodes, busy_processors
from sim.replay import replay_jobs
from sim.report import _lay_out, batch_report, overcommit_report, placement_report
from sim.results import outcomes
from sim.usage import Series, Step
from sim.workload import Job, Workload, lublin


def data_of(page: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = batch_report([replay_jobs(lublin(100, 16, 1), 16, "easy")], "a trace")
    without_namespace = page.replace("http://www.w3.org/2000/svg", "")
    assert "://" not in without_namespace
    assert not re.search(r"\b(src|href|@import|fetch|XMLHttpRequest)\b\s*[=(]", without_namespace)


def test_the_page_shows_several_runs_side_by_side() -> None:
    work = lublin(200, 16, 1)
    runs = [replay_jobs(work, 16, policy) for policy in ("easy", "sjbf")]
    data = data_of(batch_report(runs, "a trace"))
    kinds = [part["kind"] for part in data["parts"]]
    assert kinds == ["table", "plot", "plot", "plot", "plot", "grid", "grid", "gantt", "gantt"]
    assert data["parts"][0]["columns"] == ["", "easy", "sjbf"]
    assert all(len(part["series"]) == 2 for part in data["parts"] if part["kind"] == "plot")


def test_a_name_cannot_break_out_of_the_data() -> None:
    class Scripts(HTMLParser):
        count = 0

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.count += tag == "script"

    title = "</script><script>alert(1)</script>"
    page = batch_report([replay_jobs(lublin(10, 4, 1), 4, "fcfs")], title)
    parser = Scripts()
    parser.feed(page)
    assert parser.count == 2
    assert data_of(page)["title"] == title


def test_the_page_of_a_long_trace_stays_small() -> None:
    work = lublin(20_000, 64, 1)
    assert len(batch_report([replay_jobs(work, 64, "easy")], "long")) < 400_000


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_jobs_in_the_chart_never_share_a_processor(seed: int) -> None:
    schedule = replay_jobs(lublin(150, 32, seed), 32, "easy")
    jobs = sorted(outcomes(schedule), key=lambda job: job.start_s)
    laid = list(_lay_out(jobs, 32))
    for place, (job, pieces) in enumerate(laid):
        assert sum(high - low for low, high in pieces) == job.need, f"seed {seed}"
        for other, others in laid[:place]:
            if other.end_s > job.start_s:
                assert all(high <= a or low >= b for low, high in pieces for a, b in others), f"seed {seed}"


@pytest.mark.parametrize(("seed", "processors"), [(1, 32), (2, 200)])
def test_the_heat_map_of_processors_has_all_that_ran_and_no_more(seed: int, processors: int) -> None:
    schedule = replay_jobs(lublin(300, processors, seed, load=0.9), processors, "easy")
    jobs = list(outcomes(schedule))
    found = busy_processors(jobs, processors)
    assert found is not None
    columns_s = (found.end_s - found.start_s) / len(found.shares[0])
    widths = [high - low for low, high in zip(found.edges, found.edges[1:], strict=False)]
    shown = sum(sum(line) * width for line, width in zip(found.shares, widths, strict=True)) * columns_s
    assert shown == pytest.approx(sum(job.need * job.run_s for job in jobs), rel=0.01), f"seed {seed}"
    assert max(map(max, found.shares)) <= 1, f"seed {seed}"
    assert sum(found.shares[0]) > sum(found.shares[-1]), f"seed {seed}: the lowest are taken first"


def test_a_replay_through_agents_shows_which_nodes_ran_the_jobs() -> None:
    work = Workload("four")
    for number in range(4):
        work.append(Job(number + 1, 10 * number, 500, 600, 2, 1))
    setting = Setting(homes=2, home_first=1, outages=(Outage(3, 100.0, 400.0),))
    run = replay_homes(work, 4, setting)
    assert {each.node for each in run.ran} == {0, 1, 2, 3}
    for node in range(4):
        times = sorted((each.start_s, each.end_s) for each in run.ran if each.node == node)
        assert all(end_s <= start_s for (_, end_s), (start_s, _) in itertools.pairwise(times)), node
    lost = [each for each in run.ran if each.node == 3 and each.end_s == 100]
    assert len(lost) == 1, "what a lost host ran is shown up to its loss"
    assert sum(each.end_s - each.start_s for each in run.ran) >= 4 * 2 * 500
    assert busy_nodes(run.ran, 4) is not None
    parts = data_of(batch_report([run], "four"))["parts"]
    assert [part["noun"] for part in parts if part["kind"] == "grid"] == ["node"]


def test_tasks_that_come_and_go_show_how_full_each_node_was_on_the_mean() -> None:
    nodes = [NodeSpec(name, 8000, 8192) for name in ("a", "b")]
    visits = [Visit(0, 50, Demand(8000, 1024)), Visit(0, 1000, Demand(4000, 1024)), Visit(100, 200, Demand(1, 1))]
    run = visit(nodes, visits, "first-fit", landed=True)
    assert run.mean_fill == [("a", pytest.approx(0.5)), ("b", pytest.approx(0.5))]
    (heat,) = (part for part in data_of(placement_report([run], "x"))["parts"] if part["kind"] == "heat")
    assert heat["cells"] == [["a: 50%", 0.5], ["b: 50%", 0.5]]


def test_overcommit_shows_what_each_node_promised_and_used() -> None:
    nodes = [NodeSpec(name, 8000, 8192) for name in ("a", "b")]
    visits = [Visit(0, 50, Demand(8000, 8192)), Visit(0, 100, Demand(8000, 8192)), Visit(100, 101, Demand(1, 1))]
    run = overcommit(nodes, visits, "best-fit", usage=Series([[Step(0.0, 0.5, 0.25)]]))
    assert [(each.name, each.memory_committed, each.cpu_used, each.memory_used) for each in run.nodes] == [
        ("a", pytest.approx(0.5), pytest.approx(0.25), pytest.approx(0.125)),
        ("b", pytest.approx(1.0), pytest.approx(0.5), pytest.approx(0.25)),
    ]
    (heat,) = (part for part in data_of(overcommit_report([run], "x"))["parts"] if part["kind"] == "heat")
    assert [share for _, share in heat["cells"]] == [0.125, 0.25]
    assert heat["cells"][1][0] == "b\nused: CPU 50%, memory 25%\npromised: CPU 100%, memory 100%"
