"""Seccomp, capabilities, mandatory access control and masks of a container."""

from __future__ import annotations

from scheduler.spec.part import Part


class Security(Part, frozen=True):
    """Seccomp, capabilities, mandatory access control and masks of a container."""


def check(security: Security) -> None:
    """Raise InvalidSpec for the first field that no cluster could take."""
