"""What a figure has to reach, beside the rival's of the same run: printed below a table, and put into its JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class Goal(NamedTuple):
    """`ours` has to be at most, or at least, `bound`; `of` tells what the bound is made of."""

    what: str
    ours: float
    bound: float
    of: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.ours >= self.bound if self.at_least else self.ours <= self.bound

    def __str__(self) -> str:
        """One line."""
        word, relation = "met" if self.met else "MISSED", "at least" if self.at_least else "at most"
        return f"{word:8}{self.what}: {self.ours:,.4g}, to be {relation} {self.bound:,.4g} ({self.of})"


def show(goals: Iterable[Goal]) -> None:
    """Print them."""
    for goal in goals:
        print(goal)


def as_json(goals: Iterable[Goal]) -> list[dict[str, Any]]:
    """Return them as JSON."""
    return [{**goal._asdict(), "met": goal.met} for goal in goals]
