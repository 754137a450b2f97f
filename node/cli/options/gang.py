"""Options of `fofoca submit`: tasks that run together on several nodes or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--nodes", type=click.IntRange(1), help="Run on so many nodes at once, or not at all (a gang)."),
    click.option("--tasks-per-node", type=click.IntRange(1), help="Tasks of the gang on each of its nodes."),
)


def body(options: dict[str, Any]) -> dict[str, Any]:
    """Return the part's JSON; what was not asked for is left out. One of the two options makes a gang."""
    found = {"nodes": options["nodes"], "tasks_per_node": options["tasks_per_node"]}
    return {key: value for key, value in found.items() if value is not None}
