"""A waiting job's place in the cluster-wide order.

Higher priority first, then first come, first served. `since_s` is on the clock of whoever sorts; homes send ages, so
wall clocks play no part. The job's id settles what is left, so every observer sorts alike.
"""

from __future__ import annotations

from typing import NamedTuple


class Rank(NamedTuple):
    """Sorts ascending: the smallest rank is served first."""

    minus_priority: int
    since_s: float
    job: int


def rank(priority: int, since_s: float, job: int) -> Rank:
    """Return the rank of a job that has been waiting since `since_s`."""
    return Rank(-priority, since_s, job)
