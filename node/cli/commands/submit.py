"""`fofoca submit`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from node.cli import find, show
from node.cli.failures import Failure
from node.cli.options import files, gang, life, limits, networking, placement, queueing, security
from node.cli.words import in_options
from node.errors import ApiProblem
from node.quantities import parse_cpu, parse_duration, parse_size

NAME_LENGTH_MAX = 64
PARTS = {
    "limits": limits,
    "networking": networking,
    "files": files,
    "security": security,
    "life": life,
    "gang": gang,
    "queueing": queueing,
    "placement": placement,
}


def part_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every part of the spec."""
    for part in reversed(PARTS.values()):
        for option in reversed(part.OPTIONS):
            command = option(command)
    return command


@click.command(context_settings={"allow_interspersed_args": False}, short_help="Submit a job; print its id.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--name", help="The job's name. [default: the command's]")
@click.option("--cpu", metavar="CORES", help="Cores each task needs: 250m, 1.5.  [default: 1]")
@click.option("--memory", metavar="SIZE", help="Memory each task needs: 64M, 2G.  [default: 256M]")
@click.option("--image", metavar="NAME", help="The image the tasks run in, or a stack 'app;runtime;base'.")
@click.option("--array", metavar="RANGE", help="One task for each index: 0-9, 1-9:2 or 0-99%10 (ten at a time).")
@click.option("--time", "time_limit", metavar="TIME", help="Stop tasks that run longer: 60s, 5m, 1h30m.")
@click.option("--env", "environment", multiple=True, metavar="NAME=VALUE", help="Set a variable for the tasks.")
@click.option("--priority", type=int, help="Higher goes first.")
@click.option(
    "--constraint", "constraints", multiple=True, help="Nodes to choose from: disk=ssd, '!gpu', 'rack in (a,b)'."
)
@click.option("--kind", type=click.Choice(["batch", "service"]), help="Run to an end, or keep running.")
@click.option("--attempts", type=click.IntRange(1), help="How often a task that fails is tried.")
@click.option("--on-lost", type=click.Choice(["requeue", "fail", "single"]), help="What a lost node means.")
@click.option("--pids", type=click.IntRange(1), help="How many processes a task may have.")
@click.option("--network", type=click.Choice(["bridge", "none"]), help="The network of a task.  [default: bridge]")
@click.option("--limit-cpu", metavar="CORES", help="Enforce this much CPU instead of what --cpu reserves.")
@click.option("--limit-memory", metavar="SIZE", help="Enforce this much memory instead of what --memory reserves.")
@part_options
@click.option("--extra", "extras", multiple=True, metavar="NAME[:COUNT]", help="Extra resources of a node: gpu:2.")
@click.option("--test-only", is_flag=True, help="Submit nothing; say where and when it would start.")
@click.option("--json", "as_json", is_flag=True, help='Print {"id", "home"} instead of the id alone.')
@find.node_api_option
def submit(command: tuple[str, ...], node_api: str | None, as_json: bool, test_only: bool, **options: Any) -> None:
    """Submit a job to any node, and print its id alone: everything after `--` is the command.

    Without a command the image's own runs.

    \b
    fofoca submit --cpu 250m --memory 64M --image busybox -- echo hello
    """
    if not command and not options["image"]:
        raise click.UsageError(
            "no command to run; write it after --, or name an image that has one", click.get_current_context()
        )
    if test_only:
        forecast = _ask(node_api, "/v1/jobs?test_only=1", body_of(command, options))
        show.print_json(forecast) if as_json else print(forecast_text(forecast))
        return
    accepted = _ask(node_api, "/v1/jobs", body_of(command, options))
    if as_json:
        show.print_json(accepted)
    else:
        print(accepted["id"])


def _ask(node_api: str | None, path: str, body: dict[str, Any]) -> Any:
    """Ask the node; what it finds wrong with a field is told of the option that people typed."""
    try:
        return find.agents(node_api).post(path, body).json()
    except ApiProblem as problem:
        known = {name.removeprefix("--") for each in submit.params for name in each.opts}
        raise Failure(in_options(problem, known)) from None


def body_of(command: tuple[str, ...], options: dict[str, Any]) -> dict[str, Any]:
    """The request's body; what was not asked for is left out, so that the node's defaults hold."""
    name = options["name"] or (os.path.basename(command[0])[:NAME_LENGTH_MAX] if command else None) or None
    limit = {
        "cpu_milli": _cpu(options["limit_cpu"], "limit-cpu"),
        "memory_bytes": _size(options["limit_memory"], "limit-memory"),
    }
    body: dict[str, Any] = {
        "name": name,
        "argv": list(command) or None,
        "cpu_milli": _cpu(options["cpu"], "cpu"),
        "memory_bytes": _size(options["memory"], "memory"),
        "extra": queueing.counts(options["extras"], "extra") or None,
        "image": options["image"],
        "env": _environment(options["environment"]) or None,
        "array": options["array"],
        "time_limit_s": parse_duration(options["time_limit"], "time") if options["time_limit"] else None,
        "priority": options["priority"],
        "constraints": list(options["constraints"]) or None,
        "kind": options["kind"],
        "attempts_max": options["attempts"],
        "on_lost": options["on_lost"],
        "pids_max": options["pids"],
        "network": options["network"],
        **{name: part.body(options) or None for name, part in PARTS.items()},
        "limit": {key: value for key, value in limit.items() if value is not None} or None,
    }
    return {key: value for key, value in body.items() if value is not None}


def forecast_text(forecast: dict[str, Any]) -> str:
    """Where and when a job would start, in a line."""
    if forecast["places"]:
        return "would start now on " + ", ".join(f"{node} ({count})" for node, count in forecast["places"].items())
    in_s = forecast["start_in_s"]
    when = "no estimate tells when it would start" if in_s is None else f"not before {show.duration(in_s)} from now"
    line = f"; {forecast['waiting']} jobs are in line before it" if forecast["waiting"] else ""
    return f"{when}{line}; {forecast['summary']}"


def _cpu(text: str | None, field: str) -> int | None:
    return None if text is None else parse_cpu(text, field)


def _size(text: str | None, field: str) -> int | None:
    return None if text is None else parse_size(text, field)


def _environment(pairs: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise Failure(f"env: {pair!r} is not valid; expected NAME=VALUE")
        found[name] = value
    return found
