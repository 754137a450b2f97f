"""Node numbers: the part of a job id that names its home.

A node claims the smallest number that nobody holds when it first joins, gossips the claim and keeps it for good.
Two nodes that claimed the same one at once settle it by boot epoch, before either takes jobs: the earlier keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.errors import SchedulerError
from scheduler.model import JOB_ID_STRIDE, NODE_NUMBER_MAX


class NumbersExhausted(SchedulerError):
    """The operator's fault: the cluster has as many nodes as there are numbers."""


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """A node's claim to a number; of two for the same number the smaller (earlier boot, then name) holds.

    `settled` claims were held before this boot and are never given up.
    """

    unsettled: bool
    boot_epoch: int
    node: str
    number: int


def choose(mine: Claim, others: Mapping[str, Claim]) -> int:
    """Return the number this node may hold, given the claims it has heard: its own if it holds, else the smallest free.

    Raises NumbersExhausted when all 999 are taken.
    """
    rivals = [claim for name, claim in others.items() if name != mine.node]
    if mine.number and all(mine < claim for claim in rivals if claim.number == mine.number):
        return mine.number
    taken = {claim.number for claim in rivals}
    for number in range(1, NODE_NUMBER_MAX + 1):
        if number not in taken:
            return number
    raise NumbersExhausted(f"all {NODE_NUMBER_MAX} node numbers are taken")


def home_number(job_id: int) -> int:
    """Return the number of the node that is home to this job."""
    return job_id % JOB_ID_STRIDE
