"""When a job may start, in whose name it is queued, and where it may run."""

from __future__ import annotations

from scheduler.spec.part import Part


class Queueing(Part, frozen=True):
    """When a job may start, in whose name it is queued, and where it may run."""


def check(queueing: Queueing) -> None:
    """Raise InvalidSpec for the first field that no cluster could take."""
