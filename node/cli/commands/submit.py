"""`fofoca submit`."""

from __future__ import annotations

from typing import Any

import click

from node.cli import find, show
from node.cli.options import job


@click.command(context_settings={"allow_interspersed_args": False}, short_help="Submit a job; print its id.")
@job.options
@click.option("--test-only", is_flag=True, help="Submit nothing; say where and when it would start.")
@click.option("--json", "as_json", is_flag=True, help='Print {"id", "home"} instead of the id alone.')
@find.node_api_option
def submit(command: tuple[str, ...], node_api: str | None, as_json: bool, test_only: bool, **given: Any) -> None:
    """Submit a job to any node, and print its id alone: everything after `--` is the command.

    Without a command the image's own runs.

    \b
    fofoca submit --cpu 250m --memory 64M --image busybox -- echo hello
    """
    if test_only:
        forecast = job.ask(node_api, "/v1/jobs?test_only=1", command, given)
        show.print_json(forecast) if as_json else print(forecast_text(forecast))
        return
    accepted = job.ask(node_api, "/v1/jobs", command, given)
    if as_json:
        show.print_json(accepted)
    else:
        print(accepted["id"])


def forecast_text(forecast: dict[str, Any]) -> str:
    """Where and when a job would start, in a line."""
    if forecast["places"]:
        return "would start now on " + ", ".join(f"{node} ({count})" for node, count in forecast["places"].items())
    in_s = forecast["start_in_s"]
    when = "no estimate tells when it would start" if in_s is None else f"not before {show.duration(in_s)} from now"
    line = f"; {forecast['waiting']} jobs are in line before it" if forecast["waiting"] else ""
    return f"{when}{line}; {forecast['summary']}"
