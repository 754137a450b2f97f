"""Volumes, temporary and scratch space, secrets and the root file system of a task."""

from __future__ import annotations

from scheduler.spec.part import Part


class Files(Part, frozen=True):
    """Volumes, temporary and scratch space, secrets and the root file system of a task."""


def check(files: Files) -> None:
    """Raise InvalidSpec for the first field that no cluster could take."""
