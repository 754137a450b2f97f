"""One HTML page about one or several runs: tables, plots that answer to the pointer, and nothing loaded from elsewhere.

Owns what is shown; `report.html` beside it owns how. The page holds its data as JSON and draws with a few functions of
its own, so that it opens offline and can be sent around. Its size is bounded: curves are means over at most 800
intervals or quantiles, heat maps and charts show an excerpt.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sim.overcommitted import NodeUse
from sim.overcommitted import Result as Overcommitted
from sim.placement import Outcome as Placed
from sim.places import Grid, busy_nodes, busy_processors
from sim.replay import Schedule
from sim.results import Outcome, Summary, outcomes, summarise, timeline

QUANTILES = 200
CHART_JOBS = 150
NODES_SHOWN = 5000
PAGE = Path(__file__).with_name("report.html")

Part = dict[str, Any]

# field: (what people read, unit of the page's, which is better)
ROWS: dict[str, tuple[str, str, str]] = {
    "jobs": ("jobs ended", "", ""),
    "jobs_unfinished": ("jobs not ended", "", ""),
    "avg_bounded_slowdown": ("bounded slowdown, mean", "", "min"),
    "p95_bounded_slowdown": ("bounded slowdown, 95 %", "", "min"),
    "mean_wait_s": ("wait, mean", "seconds", "min"),
    "p50_wait_s": ("wait, median", "seconds", "min"),
    "p95_wait_s": ("wait, 95 %", "seconds", "min"),
    "p99_wait_s": ("wait, 99 %", "seconds", "min"),
    "max_wait_s": ("wait, longest", "seconds", "min"),
    "mean_turnaround_s": ("turnaround, mean", "seconds", "min"),
    "utilisation": ("utilisation", "share", "max"),
    "makespan_s": ("makespan", "seconds", "min"),
    "mean_queue": ("jobs waiting, mean", "number", "min"),
    "fairness": ("fairness over users (1: all alike)", "number", "max"),
}


def page(title: str, about: str, parts: Iterable[Part]) -> str:
    """Return the page. Text of users stands in the data only, where the page's script takes it as text."""
    data = json.dumps({"title": title, "about": about, "parts": list(parts)}, separators=(",", ":"))
    return PAGE.read_text(encoding="utf-8").replace("/*DATA*/", data.replace("<", "\\u003c"))


def batch_report(schedules: Sequence[Schedule], title: str) -> str:
    """Return the page about one trace under several policies."""
    names = [_name(each) for each in schedules]
    first = schedules[0]
    about = f"{len(first.workload):,} jobs on {first.processors:,} processors; {', '.join(names)}"
    timelines = [timeline(each) for each in schedules]
    busy = [[(step.time_s, step.busy / first.processors) for step in steps] for steps in timelines]
    queue = [[(step.time_s, step.waiting) for step in steps] for steps in timelines]
    ended = [list(outcomes(each)) for each in schedules]
    waits = [_quantiles([job.wait_s for job in jobs]) for jobs in ended]
    slowdowns = [_quantiles([job.bounded_slowdown for job in jobs]) for jobs in ended]
    return page(
        title,
        about,
        [
            _table(names, [summarise(each) for each in schedules]),
            _plot("Utilisation", "time", "seconds", "share", names, busy, top=1),
            _plot("Jobs waiting", "time", "seconds", "number", names, queue),
            _plot("Waits: the share of jobs that waited no longer", "wait", "seconds", "share", names, waits, 1, 1),
            _plot(
                "Bounded slowdown: the share of jobs with no more", "", "number", "share", names, slowdowns, 1, low=1
            ),
            *_grids(names, schedules, ended),
            *(_chart(name, jobs, first.processors) for name, jobs in zip(names, ended, strict=True) if jobs),
        ],
    )


def placement_report(runs: Sequence[Placed], title: str) -> str:
    """Return the page about the same arrivals under several policies."""
    names = [run.policy for run in runs]
    about = f"{runs[0].pods:,} arrivals on {len(runs[0].fill):,} nodes; {', '.join(names)}; seed {runs[0].seed}"
    figures = {
        "allocated": [run.allocated_fraction for run in runs],
        "GPU allocated": [run.allocated.gpu for run in runs],
        "CPU allocated": [run.allocated.cpu for run in runs],
        "memory allocated": [run.allocated.memory for run in runs],
        "free and fragmented": [run.fragmented_fraction for run in runs],
        "nodes used": [run.nodes_used for run in runs],
        "refused": [run.refused for run in runs],
    }
    counts = ("nodes used", "refused")
    less_is_better = (*counts, "free and fragmented")
    rows = [
        {
            "name": name,
            "values": values,
            "unit": "number" if name in counts else "share",
            "better": "min" if name in less_is_better else "max",
        }
        for name, values in figures.items()
    ]
    curves = [run.curve for run in runs]
    heats = [
        _heat(f"How full each node was, on the mean ({run.policy})", run.mean_fill)
        if run.mean_fill
        else _heat(f"How full each node ended ({run.policy})", run.fill)
        for run in runs
    ]
    table = {"kind": "table", "title": "Results", "columns": ["", *names], "rows": rows}
    what, unit = ("time", "seconds") if runs[0].timed else ("arrived, of what there is", "share")
    plot = _plot("Allocated while more arrives", what, unit, "share", names, curves, top=1)
    return page(title, about, [table, plot, *heats])


# field of an overcommit run: (what people read, unit of the page's, which is better)
OVERCOMMIT_ROWS: dict[str, tuple[str, str, str]] = {
    "refused": ("refused", "number", "min"),
    "oom_kills": ("killed for memory", "number", "min"),
    "cpu_short": ("CPU wanted and not had", "share", "min"),
    "cpu_used": ("CPU used, mean", "share", "max"),
    "cpu_committed": ("CPU promised, mean", "share", ""),
    "memory_used": ("memory used, mean", "share", "max"),
    "memory_committed": ("memory promised, mean", "share", ""),
    "memory_committed_peak": ("memory promised, most", "share", ""),
    "outages": ("node failures", "number", ""),
    "lost": ("tasks lost with their nodes", "number", "min"),
    "restarted": ("tasks started again", "number", ""),
    "nodes_used": ("nodes used", "number", "min"),
}


def overcommit_report(runs: Sequence[Overcommitted], title: str) -> str:
    """Return the page about the same tasks under several policies and ratios."""
    names = [f"{run.policy}, CPU x {run.ratios.cpu:g}, memory x {run.ratios.memory:g}" for run in runs]
    rows = [
        {"name": text, "values": [getattr(each, field) for each in runs], "unit": unit, "better": better}
        for field, (text, unit, better) in OVERCOMMIT_ROWS.items()
    ]
    table = {"kind": "table", "title": "Results", "columns": ["", *names], "rows": rows}
    parts = {
        "cpu_committed": "CPU promised",
        "cpu_used": "CPU used",
        "memory_committed": "Memory promised",
        "memory_used": "Memory used",
    }
    plots = []
    for field, text in parts.items():
        curves = [[(point.time_s, getattr(point, field)) for point in run.curve] for run in runs]
        plots.append(_plot(text, "time", "seconds", "share", names, curves))
    heats = [
        _heat(
            f"Memory used on each node, on the mean ({name})",
            [(_use_text(each), each.memory_used) for each in run.nodes],
        )
        for name, run in zip(names, runs, strict=True)
    ]
    return page(title, f"{runs[0].tasks:,} tasks; shares of what the nodes have", [table, *plots, *heats])


def _use_text(node: NodeUse) -> str:
    killed = f"\n{node.oom_kills} killed for memory" if node.oom_kills else ""
    promised = f"promised: CPU {node.cpu_committed:.0%}, memory {node.memory_committed:.0%}"
    return f"{node.name}\nused: CPU {node.cpu_used:.0%}, memory {node.memory_used:.0%}\n{promised}{killed}"


def _heat(title: str, cells: Sequence[tuple[str, float]]) -> Part:
    """A cell for each node, with what is read when it is pointed at."""
    shown = [
        (text if "\n" in text else f"{text}: {share:.0%}", round(min(1.0, share), 3))
        for text, share in cells[:NODES_SHOWN]
    ]
    left = f" The first {NODES_SHOWN:,} of {len(cells):,} nodes." if len(cells) > NODES_SHOWN else ""
    return {"kind": "heat", "title": title, "text": f"Darker is fuller.{left}", "cells": shown}


def _grids(names: list[str], schedules: Sequence[Schedule], ended: Sequence[list[Outcome]]) -> Iterable[Part]:
    """Which processors, or nodes, were busy when."""
    for name, schedule, jobs in zip(names, schedules, ended, strict=True):
        of_nodes = bool(schedule.ran)
        count = schedule.processors
        found: Grid | None = busy_nodes(schedule.ran, count) if of_nodes else busy_processors(jobs, count)
        if found is not None:
            yield {
                "kind": "grid",
                "title": f"How busy each {'node' if of_nodes else 'processor'} was over time ({name})",
                "text": "" if of_nodes else "As if each job took the lowest processors that are free when it starts.",
                "noun": "node" if of_nodes else "processor",
                "start": found.start_s,
                "end": found.end_s,
                "edges": found.edges,
                "shares": found.shares,
            }


def _name(schedule: Schedule) -> str:
    return f"{schedule.policy}, clairvoyant" if schedule.clairvoyant else schedule.policy


def _table(names: list[str], summaries: list[Summary]) -> Part:
    rows = [
        {"name": text, "values": [getattr(each, field) for each in summaries], "unit": unit, "better": better}
        for field, (text, unit, better) in ROWS.items()
    ]
    return {"kind": "table", "title": "Results", "columns": ["", *names], "rows": rows}


def _plot(
    title: str, label: str, x_unit: str, y_unit: str, names: list[str], series: Sequence[Sequence[tuple[float, float]]],
    top: float = 0, low: float = 0,
) -> Part:  # fmt: skip
    return {
        "kind": "plot",
        "title": title,
        "steps": True,
        "x": {"label": label, "unit": x_unit, "log": low > 0, "low": low},
        "y": {"unit": y_unit, "top": top},
        "series": [{"name": name, "points": points} for name, points in zip(names, series, strict=True)],
    }


def _quantiles(values: list[float]) -> list[tuple[float, float]]:
    """Return (value, share of the jobs that do not exceed it) at QUANTILES places."""
    values.sort()
    count = len(values)
    places = sorted({(count - 1) * step // QUANTILES for step in range(QUANTILES + 1)}) if values else []
    return [(values[place], (place + 1) / count) for place in places]


def _chart(name: str, jobs: list[Outcome], processors: int) -> Part:
    """The hours around the longest wait: who held which processors."""
    worst = max(range(len(jobs)), key=lambda place: jobs[place].wait_s)
    near = jobs[max(0, worst - CHART_JOBS // 2) : worst + CHART_JOBS // 2]
    start, end = min(job.submit_s for job in near), max(job.end_s for job in near)
    shown = sorted(
        (job for job in jobs if job.start_s < end and job.end_s > start), key=lambda job: (job.start_s, job.id)
    )[: 4 * CHART_JOBS]
    end = min(end, max(job.end_s for job in shown))
    bars = [bar for job, pieces in _lay_out(shown, processors) for bar in _bars(job, pieces)]
    text = "Around the job that waited longest."
    return {
        "kind": "gantt", "title": f"Who ran where ({name})", "text": text,
        "start": start, "end": end, "height": processors, "bars": bars,
    }  # fmt: skip


def _bars(job: Outcome, pieces: list[tuple[int, int]]) -> list[tuple[Any, ...]]:
    times = f"{job.run_s} s of {job.estimate_s} s\nwaited {job.wait_s} s"
    text = f"job {job.id}, user {job.user}\n{job.need} processors, {times}"
    return [(job.id, job.start_s, job.end_s, low, high - low, text) for low, high in pieces]


def _lay_out(jobs: list[Outcome], processors: int) -> Iterable[tuple[Outcome, list[tuple[int, int]]]]:
    """Give each job the lowest free processors, as (from, to) pieces; the pool itself has no places."""
    held: list[tuple[float, list[tuple[int, int]]]] = []
    for job in jobs:
        held = [each for each in held if each[0] > job.start_s]
        taken = sorted(piece for _, pieces in held for piece in pieces)
        pieces, need, low = [], job.need, 0
        for begin, stop in [*taken, (processors, processors)]:
            if begin > low and need:
                pieces.append((low, min(begin, low + need)))
                need -= pieces[-1][1] - low
            low = max(low, stop)
        held.append((job.end_s, pieces))
        yield job, pieces
