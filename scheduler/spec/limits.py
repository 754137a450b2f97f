"""What the container's control groups and rlimits enforce beyond memory, CPU and process count."""

from __future__ import annotations

from scheduler.spec.part import Part


class Limits(Part, frozen=True):
    """What the container's control groups and rlimits enforce beyond memory, CPU and process count."""


def check(limits: Limits) -> None:
    """Raise InvalidSpec for the first field that no cluster could take."""
