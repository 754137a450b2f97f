"""Health checks, restarts and signals of a task."""

from __future__ import annotations

from scheduler.spec.part import Part


class Life(Part, frozen=True):
    """Health checks, restarts and signals of a task."""


def check(life: Life) -> None:
    """Raise InvalidSpec for the first field that no cluster could take."""
