"""A waiting job's place in the cluster-wide order: priority, fair share and age, as one number of seconds.

    score = waiting since - priority x priority_s - factor x share_s          the smallest is served first

So a point of priority is worth `priority_s` of waiting, and having used nothing of late (factor 1) instead of far too
much (towards 0) is worth `share_s`. All grow old at the same pace: between two changes of the factors the order of two
waiting jobs never changes, and nobody starves, for whoever came earlier by more than the priorities and shares between
them are worth is served first, whatever comes later. `since_s` is on the clock of whoever sorts; homes send ages, so
wall clocks play no part. The job's id settles what is left, so every observer sorts alike.
"""

from __future__ import annotations

from typing import NamedTuple

from scheduler.settings import Ranking

DEFAULT = Ranking()


class Rank(NamedTuple):
    """Sorts ascending: the smallest rank is served first. `order` is the tier, negated: a higher one is before all."""

    order: int
    score: float
    since_s: float
    job: int


def rank(
    priority: int, since_s: float, job: int, factor: float = 1.0, weights: Ranking = DEFAULT, tier: int = 0
) -> Rank:
    """Return the rank of a job that has been waiting since `since_s`, of an owner with this share factor (0 to 1)."""
    return Rank(-tier, since_s - priority * weights.priority_s - factor * weights.share_s, since_s, job)
