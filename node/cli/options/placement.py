"""Options of `fofoca submit`: beside what a job's tasks run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from node.errors import InvalidValue

SELF = "self"
_MANY = {"job_labels": "labels", "near": "near", "prefer_near": "prefer_near", "prefer_apart": "prefer_apart"}

OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--job-label", "job_labels", multiple=True, metavar="LABEL", help="Others may name the job so."),
    click.option("--near", multiple=True, metavar="JOB", help="On nodes that run it: id:1001, name:db, label:tier=db."),
    click.option("--apart", multiple=True, metavar="JOB", help="On nodes that don't; 'self': its own other tasks."),
    click.option("--prefer-near", multiple=True, metavar="JOB", help="As --near, while there is room."),
    click.option("--prefer-apart", multiple=True, metavar="JOB", help="As --apart, while there is room."),
    click.option("--per-node", type=click.IntRange(1), help="At most so many of the job's tasks on one node."),
    click.option("--spread", metavar="LABEL", help="As many tasks under each value of a node's label, such as rack."),
    click.option("--prefer-spread", metavar="LABEL", help="As --spread, while there is room."),
)


def body(options: dict[str, Any]) -> dict[str, Any]:
    """Return the part's JSON; what was not asked for is left out."""
    found: dict[str, Any] = {field: list(options[name]) for name, field in _MANY.items() if options[name]}
    found |= {name: options[name] for name in ("per_node", "spread", "prefer_spread") if options[name] is not None}
    others = [each for each in options["apart"] if each != SELF]
    if others:
        found["apart"] = others
    if len(others) < len(options["apart"]):
        if found.get("per_node", 1) != 1:
            raise InvalidValue("apart", SELF, "expected --per-node or --apart self, not both")
        found["per_node"] = 1
    return found
