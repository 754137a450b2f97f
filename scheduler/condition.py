"""What a task is doing just now, beside its state: told by its node, kept in no ledger, like where it is reached.

A node tells it when it changes, and again with all that it holds; what gets lost is made good by that.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from scheduler.wall import date

TEXT_MAX = 400

Text = Annotated[str, msgspec.Meta(max_length=TEXT_MAX)]


class HealthState(enum.StrEnum):
    """How a task is, by its checks; NONE where it has none."""

    NONE = ""
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class FrozenFor(msgspec.Struct, frozen=True, array_like=True):
    """The job of a higher tier that has the CPU of a task that stands still, and since when."""

    job: int
    since_unix_s: float = 0.0


class Stood(msgspec.Struct, frozen=True, array_like=True):
    """How often an attempt stood still for higher tiers so far, and for how long in sum; without what goes on now."""

    times: int = 0
    sum_s: float = 0.0


class Condition(msgspec.Struct, frozen=True, array_like=True):
    """`doing`: what its node is doing for it before it runs. `why`: what its last check that failed said.

    `frozen_for`: by preemption, where it was not its owner who froze it; `stood`: what is over of that, None: nothing.
    """

    doing: Text = ""
    health: HealthState = HealthState.NONE
    why: Text = ""
    frozen: bool = False
    frozen_for: FrozenFor | None = None
    stood: Stood | None = None


ORDINARY = Condition()


def said(condition: Condition) -> str:
    """Return what is to be told of it in words; mostly nothing."""
    if condition.frozen_for is not None:
        since = date(condition.frozen_for.since_unix_s)
        now = f"frozen for job {condition.frozen_for.job} by preemption since {since}"
        return "; before, ".join(filter(None, (now, said_of(condition.stood))))
    return condition.doing or said_of(condition.stood)


def said_of(stood: Stood | None) -> str:
    """Return in words how often and how long something stood still; nothing where it never did."""
    if stood is None:
        return ""
    return f"it stood still for higher tiers {stood.times} time{'s' * (stood.times != 1)}, {stood.sum_s:.0f} s in all"


def bounded(text: str) -> str:
    """Return a text as short as a condition takes it, its end kept: errors come last."""
    return text if len(text) <= TEXT_MAX else f"...{text[3 - TEXT_MAX :]}"
