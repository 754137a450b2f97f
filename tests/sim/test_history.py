"""Fofoca's own history goes out as CSV or SWF and comes back as a trace."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from scheduler.ended import EndedTask, ended_tasks
from scheduler.jobs import Job
from scheduler.model import ArrayRange, JobRecord, JobSpec, Resources, Result, State, TaskRecord
from sim.errors import BadTrace
from sim.nodes import Demand
from sim.traces.batch import read_batch
from sim.traces.history import read_tasks, to_workload, write_history
from sim.traces.swf import read_swf, write_swf
from sim.workload import Job as BatchJob

BEGAN = 1_700_000_000.0


def task(job: int, **changes: Any) -> EndedTask:
    fields: dict[str, Any] = {
        "job": job, "index": 0, "name": 'a, "name"', "owner": "ann", "account": "", "kind": "batch",
        "state": "succeeded", "node": "n1", "attempt": 1, "exit_code": 0, "submitted_unix_s": BEGAN + job,
        "started_unix_s": BEGAN + job + 5, "ended_unix_s": BEGAN + job + 15, "time_limit_s": 60.0,
        "cpu_milli": 1500, "memory_bytes": 1 << 30, "gang": 0, "cpu_ns": 2_500_000_000, "memory_peak_bytes": 77,
    }  # fmt: skip
    return EndedTask(**(fields | changes))


TASKS = [
    task(3, owner="bob", gang=4),
    *[task(3, owner="bob", gang=4, index=rank) for rank in range(1, 4)],
    task(1),
    task(2, kind="service", cpu_milli=250),
    task(4, state="cancelled", exit_code=None, started_unix_s=0.0, ended_unix_s=0.0),
    task(5, time_limit_s=None),
]


@pytest.fixture
def history(tmp_path: Path) -> Path:
    path = tmp_path / "history.csv"
    with path.open("w") as out:
        write_history(out, TASKS)
    return path


def test_batch_tasks_that_ran_are_jobs_and_a_gang_is_one(history: Path) -> None:
    trace = read_batch(history)
    assert list(trace.workload) == [
        BatchJob(2, 0.0, 10.0, 60.0, 2, 2),
        BatchJob(1, 2.0, 10.0, 60.0, 6, 1),
        BatchJob(3, 4.0, 10.0, 10.0, 2, 2),
    ]
    assert (trace.bad.count, trace.left_out, trace.processors) == (0, {"never ran": 1}, 6)


def test_all_tasks_that_ran_come_and_go_on_nodes(history: Path) -> None:
    visits, bad = read_tasks(history)
    assert bad.count == 0
    assert [each.demand for each in visits] == [Demand(1500, 1024), Demand(250, 1024), *[Demand(1500, 1024)] * 5]
    assert {each.leave_s - each.arrive_s for each in visits} == {10.0}


def test_swf_has_the_real_waits_and_the_same_jobs_as_the_csv(history: Path, tmp_path: Path) -> None:
    work, starts = to_workload(TASKS, "x")
    with (tmp_path / "h.swf").open("w") as out:
        write_swf(out, work, 6, starts)
    again, csv = read_swf(tmp_path / "h.swf").workload, read_batch(history).workload
    for column in ("submit_s", "run_s", "estimate_s", "needs"):
        assert getattr(again, column) == pytest.approx(getattr(csv, column), abs=0.001)
    waits = [float(line.split()[2]) for line in (tmp_path / "h.swf").read_text().splitlines() if line[0] != ";"]
    assert waits == [5.0, 5.0, 5.0]


def test_a_history_without_a_batch_task_makes_no_trace() -> None:
    with pytest.raises(BadTrace, match="no batch task that ran"):
        to_workload([task(2, kind="service")], "x")


def test_other_files_are_told_from_a_history() -> None:
    out = io.StringIO()
    write_history(out, [])
    assert out.getvalue().startswith("job,index,name,owner,")


def test_a_page_ends_within_a_job_and_the_next_goes_on_there() -> None:
    spec = JobSpec("a", ("x",), Resources(1000, 1), array=ArrayRange(0, 9))
    jobs = {number: Job(JobRecord(number, "ann", spec, BEGAN), 0.0) for number in (1001, 2001)}
    for number, job in jobs.items():
        for index in range(10):
            done = index != 3 or number == 2001
            result = Result(exit_code=0, started_unix_s=BEGAN, ended_unix_s=BEGAN + 1)
            job.put(index, TaskRecord(State.SUCCEEDED, 1, "n1", result=result) if done else TaskRecord())
    seen, after = [], (0, 0)
    while after is not None:
        page, after = ended_tasks(jobs, None, after, 7)  # type: ignore[assignment]
        seen += [(each.job, each.index) for each in page]
    assert seen == [*[(1001, i) for i in range(10) if i != 3], *[(2001, i) for i in range(10)]]
    assert ended_tasks(jobs, "bob", (0, 0), 7) == ((), None)
