"""Interfaces, rates, published ports and names of a task beyond its network mode."""

from __future__ import annotations

from scheduler.spec.part import Part


class Networking(Part, frozen=True):
    """Interfaces, rates, published ports and names of a task beyond its network mode."""


def check(networking: Networking) -> None:
    """Raise InvalidSpec for the first field that no cluster could take."""
