"""The report is one page that needs nothing else, and takes users' text as text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from sim.replay import replay_jobs
from sim.report import _lay_out, batch_report
from sim.results import outcomes
from sim.workload import lublin


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
    assert kinds == ["table", "plot", "plot", "plot", "plot", "gantt", "gantt"]
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
