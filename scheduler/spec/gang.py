"""Tasks that run together on several nodes or not at all."""

from __future__ import annotations

from scheduler.spec.part import Part


class Gang(Part, frozen=True):
    """Tasks that run together on several nodes or not at all."""


def check(gang: Gang) -> None:
    """Raise InvalidSpec for the first field that no cluster could take."""
