"""What a task is doing just now, beside its state: told by its node, kept in no ledger, like where it is reached.

A node tells it when it changes, and again with all that it holds; what gets lost is made good by that.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

TEXT_MAX = 400

Text = Annotated[str, msgspec.Meta(max_length=TEXT_MAX)]


class HealthState(enum.StrEnum):
    """How a task is, by its checks; NONE where it has none."""

    NONE = ""
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Condition(msgspec.Struct, frozen=True, array_like=True):
    """`doing`: what its node is doing for it before it runs. `why`: what its last check that failed said."""

    doing: Text = ""
    health: HealthState = HealthState.NONE
    why: Text = ""
    frozen: bool = False


ORDINARY = Condition()


def bounded(text: str) -> str:
    """Return a text as short as a condition takes it, its end kept: errors come last."""
    return text if len(text) <= TEXT_MAX else f"...{text[3 - TEXT_MAX :]}"
