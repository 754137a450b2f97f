"""How long is a task taken to run? The one answer for plans, holds and reports."""

from __future__ import annotations

from math import inf

from scheduler.config import SchedulerConfig
from scheduler.model import JobKind, JobSpec


def estimate_s(spec: JobSpec, config: SchedulerConfig) -> float:
    """Return the task's time limit, the configured estimate where it has none, infinity for a service."""
    if spec.kind is JobKind.SERVICE:
        return inf
    return spec.time_limit_s if spec.time_limit_s is not None else config.estimate_s
