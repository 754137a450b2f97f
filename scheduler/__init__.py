"""Fofoca decides: one node's home, queue leader and executing node as a pure machine (no I/O, no clock).

The names are imported when asked for, so that a planner or an index alone costs nothing of the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scheduler.config import SchedulerConfig
    from scheduler.scheduler import Scheduler

_HOMES = {"Scheduler": "scheduler.scheduler", "SchedulerConfig": "scheduler.config"}

__all__ = ["Scheduler", "SchedulerConfig"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'scheduler' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
