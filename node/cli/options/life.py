"""Options of `fofoca submit`: restarts of a service, signals, and how a task is checked."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import click

from node.cli.options import health
from node.errors import InvalidValue
from node.quantities import parse_duration
from scheduler.spec.life import SIGNALS

WARN_DEFAULT = "60s"

RESTARTS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--restart", type=click.Choice(["always", "on-failure", "never"]), help="When a service is started again."
    ),
    click.option("--restart-backoff", metavar="TIME", help="The first pause before a restart; it doubles."),
    click.option("--restart-backoff-max", metavar="TIME", help="The longest pause before a restart."),
)
OPTIONS = (
    *RESTARTS,
    click.option("--stop-signal", metavar="NAME", help="What asks a task to end, before it is killed (TERM)."),
    click.option("--stop-grace", metavar="TIME", help="So long after that it is killed (5s)."),
    click.option(
        "--signal",
        "warn_signal",
        metavar="[B:]NAME[@TIME]",
        help="Warn a task so long before its time limit (60s); B: its command alone.",
    ),
    *health.OPTIONS,
)


def body(options: dict[str, Any]) -> dict[str, Any]:
    """Return the part's JSON; what was not asked for is left out."""
    first, longest = options.get("restart_backoff"), options.get("restart_backoff_max")
    found = {
        "restart": options.get("restart"),
        "backoff_s": parse_duration(first, "restart-backoff") if first else None,
        "backoff_max_s": parse_duration(longest, "restart-backoff-max") if longest else None,
        "stop_signal": _name(options["stop_signal"], "stop-signal") if options.get("stop_signal") else None,
        **_warning(options.get("warn_signal")),
        "health": health.body(options) or None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _warning(text: str | None) -> dict[str, Any]:
    """Read `B:USR1@60`, as sbatch has it; seconds where no unit is given."""
    if not text:
        return {}
    where, colon, rest = text.rpartition(":")
    if colon and where != "B":
        raise InvalidValue("signal", text, "expected NAME@TIME or B:NAME@TIME, such as USR1@60")
    name, _, time = rest.partition("@")
    warning = {"warn_signal": _name(name, "signal"), "warn_s": parse_duration(time or WARN_DEFAULT, "signal")}
    return {**warning, "warn_alone": True} if colon else warning


def _name(text: str, option: str) -> str:
    """A signal's name, with or without SIG, or its number."""
    try:
        word = signal.Signals(int(text)).name if text.isdigit() else text.upper()
    except ValueError:
        raise InvalidValue(option, text, f"expected one of {', '.join(SIGNALS)}") from None
    return word.removeprefix("SIG")
