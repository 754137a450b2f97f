"""The measures, on schedules small enough to be worked out by hand."""

from __future__ import annotations

import io

import pytest

from sim.replay import replay_jobs
from sim.results import bounded_slowdown, jain, outcomes, percentile, summarise, timeline, write_csv
from sim.workload import Job, Workload


def work(*jobs: Job) -> Workload:
    workload = Workload("by hand")
    for job in jobs:
        workload.append(job)
    return workload


TWO = work(Job(1, 0, 100, 100, 4, 7), Job(2, 10, 50, 60, 4, 8))


def test_figures_of_two_jobs_one_after_the_other() -> None:
    result = summarise(replay_jobs(TWO, 4, "fcfs"))
    assert (result.jobs, result.max_wait_s, result.mean_wait_s, result.makespan_s) == (2, 90, 45, 150)
    assert result.avg_bounded_slowdown == pytest.approx((1 + 140 / 50) / 2)
    assert result.utilisation == 1
    assert result.mean_turnaround_s == (100 + 140) / 2
    assert result.users == 2


def test_short_jobs_are_bounded() -> None:
    assert bounded_slowdown(0, 1) == 1
    assert bounded_slowdown(20, 1) == 2.1
    assert bounded_slowdown(20, 20) == 2


def test_percentiles_are_values_that_occurred() -> None:
    values = list(range(1, 101))
    assert [percentile(values, p) for p in (1, 50, 95, 99, 100)] == [1, 50, 95, 99, 100]
    assert percentile([5], 50) == 5
    assert percentile([], 50) == 0


def test_fairness_is_one_when_all_fare_alike() -> None:
    assert jain([3, 3, 3]) == pytest.approx(1)
    assert jain([1, 0, 0, 0]) == pytest.approx(0.25)


def test_the_timeline_holds_all_the_work_and_all_the_waiting() -> None:
    steps = timeline(replay_jobs(TWO, 4, "fcfs"), steps_max=15)
    assert [each.time_s for each in steps] == [10.0 * place for place in range(15)]
    assert [each.busy for each in steps] == [4] * 15
    assert [each.waiting for each in steps] == [0] + [1] * 9 + [0] * 5


def test_csv_has_a_line_for_each_job() -> None:
    out = io.StringIO()
    write_csv(out, replay_jobs(TWO, 4, "fcfs"))
    assert out.getvalue().splitlines() == [
        "job,user,processors,submit_s,start_s,end_s,wait_s,run_s,estimate_s,bounded_slowdown",
        "1,7,4,0,0,100,0,100,100,1.000000",
        "2,8,4,10,100,150,90,50,60,2.800000",
    ]
    assert len(list(outcomes(replay_jobs(TWO, 4, "fcfs")))) == 2
