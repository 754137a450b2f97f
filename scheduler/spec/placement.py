"""Beside what a job's tasks run: near to other jobs, apart from them or from each other, spread over racks.

What Kubernetes calls affinity, anti-affinity and topology spread, in the words of a job: `id:1001`, `name:db` and
`label:tier=db` stand for every running job of that id, name or label. A rule is judged when a task starts, and only
for the job that has it.
"""

from __future__ import annotations

import re

from scheduler.spec.part import Part, require

RULES_MAX = 8
PER_NODE_MAX = 1000
_TARGET = re.compile(
    r"id:[1-9][0-9]{0,18}|name:[A-Za-z0-9][A-Za-z0-9._-]{0,62}|label:[A-Za-z0-9][A-Za-z0-9._/=-]{0,62}"
)
_JOB_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/=-]{0,62}")
_NODE_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")


class Placement(Part, frozen=True):
    """Rules on what runs where; those that begin with `prefer` are left when no node obeys them."""

    labels: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    prefer_near: tuple[str, ...] = ()
    prefer_apart: tuple[str, ...] = ()
    per_node: int = 0
    spread: str = ""
    prefer_spread: str = ""

    @property
    def one_by_one(self) -> bool:
        """Whether where a task may go depends on where the job's others are."""
        return bool(self.per_node or self.spread or self.prefer_spread)

    @property
    def hard(self) -> bool:
        """Whether any rule has to be obeyed."""
        return bool(self.near or self.apart or self.per_node or self.spread)


def check(placement: Placement) -> None:
    """Raise InvalidSpec for the first field that no cluster could take."""
    for field in ("near", "apart", "prefer_near", "prefer_apart"):
        _check_each(f"placement.{field}", getattr(placement, field), _TARGET, "id:JOB, name:NAME or label:LABEL")
    _check_each("placement.labels", placement.labels, _JOB_LABEL, "letters, digits and . _ - / =")
    most = placement.per_node
    require(0 <= most <= PER_NODE_MAX, "placement.per_node", most, f"a number up to {PER_NODE_MAX}; 0 is any")
    for field in ("spread", "prefer_spread"):
        label = getattr(placement, field)
        require(not label or _NODE_LABEL.fullmatch(label), f"placement.{field}", label, "the name of a node's label")
    require(
        not (placement.spread and placement.prefer_spread),
        "placement.prefer_spread",
        placement.prefer_spread,
        "either spread or prefer_spread",
    )


def _check_each(field: str, words: tuple[str, ...], form: re.Pattern[str], expected: str) -> None:
    require(len(words) <= RULES_MAX, field, len(words), f"{RULES_MAX} at most")
    for word in words:
        require(form.fullmatch(word), field, word, expected)
