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
        return f"{word:8}{self.what}: {_text(self.ours)}, to be {relation} {_text(self.bound)} ({self.of})"


def _text(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def show(goals: Iterable[Goal]) -> None:
    """Print them."""
    for goal in goals:
        print(goal)


def as_json(goals: Iterable[Goal]) -> list[dict[str, Any]]:
    """Return them as JSON."""
    return [{**goal._asdict(), "met": goal.met} for goal in goals]
