"""Fofoca decides: one node's home, queue leader and executing node as a pure machine (no I/O, no clock)."""

from scheduler.config import SchedulerConfig
from scheduler.scheduler import Scheduler

__all__ = ["Scheduler", "SchedulerConfig"]
