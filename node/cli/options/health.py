"""Options of `fofoca submit`: how a task's health is checked."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

import click

from node.errors import InvalidValue
from node.quantities import parse_duration

OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--health-command", metavar="WORDS", help="Check a task by a command inside it; 0 is well."),
    click.option(
        "--health-tcp", type=click.IntRange(1, 65535), metavar="PORT", help="Check a task by connecting to its port."
    ),
    click.option("--health-http", metavar="PORT[/PATH]", help="Check a task by a GET request."),
    click.option("--health-host", metavar="NAME", help="The Host header of that request."),
    click.option("--health-status", metavar="MIN-MAX", help="The statuses that are well (200-399)."),
    click.option("--health-interval", metavar="TIME", help="From check to check (10s)."),
    click.option("--health-timeout", metavar="TIME", help="A check that takes longer has failed (3s)."),
    click.option("--health-start", metavar="TIME", help="The grace after the start (10s)."),
    click.option("--health-failures", type=int, metavar="N", help="Failures in a row until it is unhealthy (3)."),
    click.option("--health-successes", type=int, metavar="N", help="Successes in a row until it is healthy (1)."),
    click.option(
        "--unhealthy", type=click.Choice(["restart", "report"]), help="What becomes of an unhealthy task (restart)."
    ),
)


def body(options: dict[str, Any]) -> dict[str, Any]:
    """Return the part's JSON; what was not asked for is left out."""
    command = options.get("health_command")
    times = {"interval_s": "health_interval", "timeout_s": "health_timeout", "start_period_s": "health_start"}
    found = {
        "command": _words(command) if command else None,
        "tcp": options.get("health_tcp"),
        "http": _http(options),
        "failures_max": options.get("health_failures"),
        "successes_min": options.get("health_successes"),
        "unhealthy": options.get("unhealthy"),
        **{key: _seconds(options.get(name), name.replace("_", "-")) for key, name in times.items()},
    }
    return {key: value for key, value in found.items() if value is not None}


def _seconds(text: str | None, option: str) -> float | None:
    return parse_duration(text, option) if text else None


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidValue("health-command", text, f"expected words as a shell reads them ({error})") from None


def _http(options: dict[str, Any]) -> dict[str, Any] | None:
    text, host, status = (options.get(f"health_{name}") for name in ("http", "host", "status"))
    if not text:
        if host or status:
            raise InvalidValue(
                "health-host" if host else "health-status", host or status, "expected with --health-http"
            )
        return None
    port, slash, path = text.partition("/")
    if not port.isdigit():
        raise InvalidValue("health-http", text, "expected PORT or PORT/PATH, such as 8080/healthz")
    found: dict[str, Any] = {"port": int(port), "path": f"/{path}" if slash else None, "host": host or None}
    if status:
        low, _, high = status.partition("-")
        if not low.isdigit() or not (high or low).isdigit():
            raise InvalidValue("health-status", status, "expected MIN-MAX, such as 200-299")
        found |= {"status_min": int(low), "status_max": int(high or low)}
    return {key: value for key, value in found.items() if value is not None}
