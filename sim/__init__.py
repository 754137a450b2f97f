"""Fofoca tries: the machines of `scheduler` and `cluster` in virtual time. These names are for users of the library.

They are imported when asked for, so that one part costs nothing to those who need another.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.errors import BadTrace, BadValue, SimulationError
    from sim.nodes import Demand, NodeSpec
    from sim.placement import Visit, inflate, place, visit
    from sim.replay import Schedule, replay_jobs
    from sim.report import batch_report, placement_report
    from sim.results import Summary, outcomes, summarise, timeline, write_csv
    from sim.traces.openb import read_nodes, read_pods, read_visits
    from sim.traces.swf import read_swf, write_swf
    from sim.workload import Job, Workload, lublin, services

_HOMES = {
    "sim.errors": ("BadTrace", "BadValue", "SimulationError"),
    "sim.nodes": ("Demand", "NodeSpec"),
    "sim.placement": ("Visit", "inflate", "place", "visit"),
    "sim.replay": ("Schedule", "replay_jobs"),
    "sim.report": ("batch_report", "placement_report"),
    "sim.results": ("Summary", "outcomes", "summarise", "timeline", "write_csv"),
    "sim.traces.openb": ("read_nodes", "read_pods", "read_visits"),
    "sim.traces.swf": ("read_swf", "write_swf"),
    "sim.workload": ("Job", "Workload", "lublin", "services"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "BadTrace", "BadValue", "Demand", "Job", "NodeSpec", "Schedule", "SimulationError", "Summary", "Visit", "Workload",
    "batch_report", "inflate", "lublin", "outcomes", "place", "placement_report", "read_nodes", "read_pods", "read_swf",
    "read_visits", "replay_jobs", "services", "summarise", "timeline", "visit", "write_csv", "write_swf",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'sim' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
