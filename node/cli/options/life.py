"""Options of `fofoca submit`: restarts of a service, and how a task is checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from node.cli.options import health
from node.quantities import parse_duration

OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--restart", type=click.Choice(["always", "on-failure", "never"]), help="When a service is started again."
    ),
    click.option("--restart-backoff", metavar="TIME", help="The first pause before a restart; it doubles."),
    click.option("--restart-backoff-max", metavar="TIME", help="The longest pause before a restart."),
    *health.OPTIONS,
)


def body(options: dict[str, Any]) -> dict[str, Any]:
    """Return the part's JSON; what was not asked for is left out."""
    first, longest = options.get("restart_backoff"), options.get("restart_backoff_max")
    found = {
        "restart": options.get("restart"),
        "backoff_s": parse_duration(first, "restart-backoff") if first else None,
        "backoff_max_s": parse_duration(longest, "restart-backoff-max") if longest else None,
        "health": health.body(options) or None,
    }
    return {key: value for key, value in found.items() if value is not None}
