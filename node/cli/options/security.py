"""Options of `fofoca submit`: seccomp, capabilities and masks of a container."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--seccomp", metavar="NAME", help="A system call filter of the nodes' operators, instead of the usual."
    ),
    click.option(
        "--cap-add", "capabilities_add", multiple=True, metavar="NAME", help="A capability more: net_raw; if allowed."
    ),
    click.option(
        "--cap-drop", "capabilities_drop", multiple=True, metavar="NAME", help="A capability less: chown; or all."
    ),
    click.option("--mask", "masked_paths", multiple=True, metavar="PATH", help="Hide a path below /proc or /sys."),
)


def body(options: dict[str, Any]) -> dict[str, Any]:
    """Return the part's JSON; what was not asked for is left out."""
    found = {
        "seccomp": options["seccomp"],
        "capabilities_add": list(options["capabilities_add"]),
        "capabilities_drop": list(options["capabilities_drop"]),
        "masked_paths": list(options["masked_paths"]),
    }
    return {key: value for key, value in found.items() if value}
