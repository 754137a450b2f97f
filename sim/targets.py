"""What a planner wants of a cluster, as text: `p95_wait<10m`, `utilisation>60%`, `refused<0.1%`.

Owns the little language: a figure's name (its unit `_s` may be left out), one of < <= > >=, a number with a unit of
time or a percent sign. Which figures there are depends on the replay.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from sim.errors import BadValue

_TARGET = re.compile(r"\s*([a-z0-9_]+)\s*(<=|>=|<|>)\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|%)?\s*")
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "%": 0.01}
EXPECTED = "FIGURE, one of < <= > >=, and a number, such as p95_wait<10m or utilisation>60%"


class Target(NamedTuple):
    """One condition on one figure."""

    figure: str
    relation: str
    bound: float
    text: str

    def met(self, figures: Mapping[str, float]) -> bool:
        """Whether a run's figures meet it."""
        return _OPERATORS[self.relation](figures[self.figure], self.bound)


def parse_target(text: str, figures: Collection[str]) -> Target:
    """Read one target on one of these figures; raises BadValue."""
    match = _TARGET.fullmatch(text)
    if match is None:
        raise BadValue("target", repr(text), EXPECTED)
    name, relation, number, unit = match.groups()
    figure = name if name in figures else f"{name}_s"
    if figure not in figures:
        known = ", ".join(sorted(each.removesuffix("_s") for each in figures))
        raise BadValue("target", repr(text), f"no figure {name}; there are {known}")
    if unit and unit != "%" and not figure.endswith("_s"):
        raise BadValue("target", repr(text), f"{name} is no time")
    return Target(figure, relation, float(number) * _UNITS.get(unit or "", 1.0), text.replace(" ", ""))
