"""Fofoca tries: the machines of `scheduler` and `cluster` in virtual time. These names are for users of the library.

They are imported when asked for, so that one part costs nothing to those who need another.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.cluster import Cluster, NodeType, read_cluster
    from sim.errors import BadTrace, BadValue, SimulationError
    from sim.futures import Addition, Changes, Comparison, Future, what_if
    from sim.grids import grid, sweep
    from sim.live import Live, read_live, to_cluster, write_live
    from sim.nodes import Demand, NodeSpec
    from sim.outages import Outage, by_rate, read_outages
    from sim.overcommitted import Ratios, overcommit
    from sim.placement import Landed, Visit, inflate, place, visit
    from sim.replay import Schedule, replay_jobs
    from sim.report import batch_report, overcommit_report, placement_report
    from sim.resample import resample_jobs, resample_visits
    from sim.results import Summary, outcomes, summarise, timeline, write_csv
    from sim.sizing import size
    from sim.targets import parse_target
    from sim.traces.batch import read_batch
    from sim.traces.history import read_tasks
    from sim.traces.mapped import read_mapping
    from sim.traces.openb import read_nodes, read_pods, read_visits
    from sim.traces.swf import read_swf, write_swf
    from sim.usage import Model, Series, Step, read_series
    from sim.workload import Job, Workload, lublin, services

_HOMES = {
    "sim.cluster": ("Cluster", "NodeType", "read_cluster"),
    "sim.errors": ("BadTrace", "BadValue", "SimulationError"),
    "sim.live": ("Live", "read_live", "to_cluster", "write_live"),
    "sim.nodes": ("Demand", "NodeSpec"),
    "sim.outages": ("Outage", "by_rate", "read_outages"),
    "sim.overcommitted": ("Ratios", "overcommit"),
    "sim.placement": ("Landed", "Visit", "inflate", "place", "visit"),
    "sim.replay": ("Schedule", "replay_jobs"),
    "sim.report": ("batch_report", "overcommit_report", "placement_report"),
    "sim.resample": ("resample_jobs", "resample_visits"),
    "sim.results": ("Summary", "outcomes", "summarise", "timeline", "write_csv"),
    "sim.sizing": ("size",),
    "sim.grids": ("grid", "sweep"),
    "sim.targets": ("parse_target",),
    "sim.traces.batch": ("read_batch",),
    "sim.traces.history": ("read_tasks",),
    "sim.traces.mapped": ("read_mapping",),
    "sim.traces.openb": ("read_nodes", "read_pods", "read_visits"),
    "sim.traces.swf": ("read_swf", "write_swf"),
    "sim.usage": ("Model", "Series", "Step", "read_series"),
    "sim.futures": ("Addition", "Changes", "Comparison", "Future", "what_if"),
    "sim.workload": ("Job", "Workload", "lublin", "services"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Addition", "BadTrace", "BadValue", "Changes", "Cluster", "Comparison", "Demand", "Future", "Job", "Landed",
    "Live", "Model", "NodeSpec", "NodeType", "Outage", "Ratios", "Schedule", "Series", "SimulationError", "Step",
    "Summary", "Visit", "Workload", "batch_report", "by_rate", "grid", "inflate", "lublin", "outcomes",
    "overcommit", "overcommit_report", "parse_target", "place", "placement_report", "read_batch", "read_cluster",
    "read_live", "read_mapping", "read_nodes", "read_outages", "read_pods", "read_series", "read_swf", "read_tasks",
    "read_visits", "replay_jobs", "resample_jobs", "resample_visits", "services", "size", "summarise", "sweep",
    "timeline", "to_cluster", "visit", "what_if", "write_csv", "write_live", "write_swf",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'sim' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
