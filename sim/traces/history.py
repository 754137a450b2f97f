"""Fofoca's own history, as `fofoca history` writes it: CSV with a line for each task that ended, or SWF.

Owns both forms and the way back: the CSV's columns are read through a mapping like any other CSV's. Batch jobs are the
rows with `batch` 1: a task of an array is a job of its own, a gang is one job with the processors of all its ranks.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from math import ceil
from pathlib import Path
from typing import IO

from scheduler.ended import EndedTask
from sim.errors import BadTrace
from sim.placement import Visit
from sim.traces import openb
from sim.traces.batch import first_line
from sim.traces.mapped import Column, Keep, Mapping, read_mapping
from sim.traces.mapped import read_visits as read_mapped_visits
from sim.traces.text import BadLines
from sim.workload import Job, Workload

COLUMNS = (
    "job", "index", "name", "owner", "account", "kind", "batch", "state", "node", "attempt", "exit_code",
    "submit_unix_s", "start_unix_s", "end_unix_s", "run_s", "limit_s", "processors", "cpu_milli", "memory_bytes",
    "gang", "cpu_used_s", "memory_peak_bytes", "ran",
)  # fmt: skip
BATCH = Mapping(
    submit=Column("submit_unix_s", unit="s"),
    run=Column("run_s", unit="s"),
    estimate=Column("limit_s", unit="s"),
    processors=Column("processors"),
    user=Column("owner"),
    keep=Keep("batch", ["1"]),
)
TASKS = Mapping(
    arrive=Column("start_unix_s", unit="s"),
    leave=Column("end_unix_s", unit="s"),
    cpu=Column("cpu_milli", unit="millicores"),
    memory=Column("memory_bytes", unit="bytes"),
    keep=Keep("ran", ["1"]),
)


def looks_like(line: str) -> bool:
    """Whether a file that begins with this line is such a CSV."""
    return line.rstrip("\r\n").split(",") == list(COLUMNS)


def write_history(out: IO[str], tasks: Iterable[EndedTask]) -> None:
    """Write the CSV."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(map(_row, tasks))


def to_workload(tasks: Iterable[EndedTask], name: str) -> tuple[Workload, list[float | None]]:
    """Return the batch jobs that ran, in order of submission, and their real starts, from the first submission on.

    Raises BadTrace if there is none.
    """
    ran = [each for each in tasks if _is_batch(each) and _run_s(each) > 0]
    ran.sort(key=lambda each: (each.submitted_unix_s, each.job, each.index))
    if not ran:
        raise BadTrace(name, "no batch task that ran")
    first_s = ran[0].submitted_unix_s
    users: dict[str, int] = {}
    work, starts = Workload(name), []
    for number, task in enumerate(ran, 1):
        run_s = _run_s(task)
        estimate_s = max(task.time_limit_s or 0.0, run_s)
        submit_s = round(task.submitted_unix_s - first_s, 3)
        user = users.setdefault(task.owner, len(users) + 1)
        work.append(Job(number, submit_s, run_s, estimate_s, _processors(task), user))
        starts.append(max(submit_s, round(task.started_unix_s - first_s, 3)))
    return work, list(starts)


def read_tasks(path: str | Path, mapping: str | None = None, strict: bool = False) -> tuple[list[Visit], BadLines]:
    """Read tasks that come and go: with a mapping any CSV, else Fofoca's history or pods as Alibaba has them."""
    if mapping is not None:
        return read_mapped_visits(path, read_mapping(mapping), strict)
    if looks_like(first_line(path)):
        return read_mapped_visits(path, TASKS, strict)
    return openb.read_visits(path, strict)


def _row(task: EndedTask) -> Iterator[object]:
    run_s = _run_s(task)
    yield from (task.job, task.index, task.name, task.owner, task.account, task.kind, int(_is_batch(task)))
    yield from (task.state, task.node, task.attempt, "" if task.exit_code is None else task.exit_code)
    yield from (_time(task.submitted_unix_s), _time(task.started_unix_s), _time(task.ended_unix_s))
    yield from (run_s if run_s else "", "" if task.time_limit_s is None else task.time_limit_s)
    yield from (_processors(task), task.cpu_milli, task.memory_bytes, task.gang)
    yield from (round(task.cpu_ns / 1e9, 3), task.memory_peak_bytes, int(run_s > 0))


def _time(unix_s: float) -> object:
    return round(unix_s, 3) if unix_s else ""


def _run_s(task: EndedTask) -> float:
    return round(max(0.0, task.ended_unix_s - task.started_unix_s), 3) if task.started_unix_s else 0.0


def _is_batch(task: EndedTask) -> bool:
    return task.kind == "batch" and (task.gang == 0 or task.index == 0)


def _processors(task: EndedTask) -> int:
    return max(1, ceil(task.cpu_milli * max(1, task.gang) / 1000))
