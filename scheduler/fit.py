"""Does it fit? The one answer for home, leader, node, simulator and dry runs.

Owns the comparison of a request with what is free, and of constraints with labels. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from scheduler.company import met
from scheduler.model import Constraint, Operator, Resources


class Shortage(msgspec.Struct, frozen=True, array_like=True):
    """One dimension that is short: how much is needed and how much is free (millicores, bytes, or a count)."""

    dimension: str
    need: int
    free: int


def shortages(request: Resources, free: Resources) -> Iterator[Shortage]:
    """Yield every dimension in which `request` passes `free`; nothing means it fits."""
    for dimension, need in request.items():
        if need > (available := free.get(dimension)) and need > 0:
            yield Shortage(dimension, need, available)


def shortage(request: Resources, free: Resources) -> Shortage | None:
    """Return the first short dimension, or None when the request fits."""
    return next(shortages(request, free), None)


def fits(request: Resources, free: Resources) -> bool:
    """Whether `request` fits into `free` in every dimension."""
    return (
        (request.cpu_milli <= free.cpu_milli or request.cpu_milli <= 0)
        and (request.memory_bytes <= free.memory_bytes or request.memory_bytes <= 0)
        and (not request.extra or all(need <= free.get(name) or need <= 0 for name, need in request.extra))
    )


def unmet(constraints: tuple[Constraint, ...], labels: Mapping[str, str]) -> Constraint | None:
    """Return the first constraint these labels don't meet, or None."""
    return next((each for each in constraints if not each.soft and not _meets(each, labels)), None)


def _meets(constraint: Constraint, labels: Mapping[str, str]) -> bool:
    value = labels.get(constraint.label)
    match constraint.operator:
        case Operator.EXISTS:
            return value is not None
        case Operator.ABSENT:
            return value is None
        case Operator.IN | Operator.EVEN:
            return value in constraint.values
        case Operator.NOT_IN:
            return value not in constraint.values
        case Operator.HAS:
            return value is not None and set(constraint.values) <= set(value.split(","))
        case Operator.WITHIN:
            return value is None or (value.isdecimal() and all(int(each) <= int(value) for each in constraint.values))
        case Operator.NEAR | Operator.AT_MOST:
            return met(constraint, value or "")
