"""What every job is told of on the command line: command, room, image, and the parts of its spec."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from node.cli import find
from node.cli.failures import Failure
from node.cli.options import files, gang, life, limits, networking, placement, queueing, security
from node.cli.words import in_options
from node.errors import ApiProblem
from node.quantities import parse_cpu, parse_duration, parse_size

NAME_LENGTH_MAX = 64
NETWORK_HELP = "A network of its own, one for a gang's tasks on the same node, or loopback alone.  [default: bridge]"
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
# fmt: off
_FIRST = (
    click.argument("command", nargs=-1, type=click.UNPROCESSED),
    click.option("--name", help="The job's name. [default: the command's]"),
    click.option("--cpu", metavar="CORES", help="Cores each task needs: 250m, 1.5.  [default: 1]"),
    click.option("--memory", metavar="SIZE", help="Memory each task needs: 64M, 2G.  [default: 256M]"),
    click.option("--image", metavar="NAME", help="The image the tasks run in, or a stack 'app;runtime;base'."),
    click.option("--array", metavar="RANGE", help="One task for each index: 0-9, 1-9:2 or 0-99%10 (ten at a time)."),
    click.option("--time", "time_limit", metavar="TIME", help="Stop tasks that run longer: 60s, 5m, 1h30m."),
    click.option("--env", "environment", multiple=True, metavar="NAME=VALUE", help="Set a variable for the tasks."),
    click.option("--priority", type=int, help="Higher goes first."),
    click.option(
        "--constraint", "constraints", multiple=True, help="Nodes to choose from: disk=ssd, '!gpu', 'rack in (a,b)'."
    ),
    click.option("--kind", type=click.Choice(["batch", "service"]), help="Run to an end, or keep running."),
    click.option("--attempts", type=click.IntRange(1), help="Tries of a task that can't be set up or is lost."),
    click.option("--on-lost", type=click.Choice(["requeue", "fail", "single"]), help="What a lost node means."),
    click.option("--pids", type=click.IntRange(1), help="How many processes a task may have."),
    click.option("--network", type=click.Choice(["bridge", "shared", "none"]), help=NETWORK_HELP),
    click.option("--limit-cpu", metavar="CORES", help="Enforce this much CPU instead of what --cpu reserves."),
    click.option("--limit-memory", metavar="SIZE", help="Enforce this much memory instead of what --memory reserves."),
)
_LAST = (
    click.option("--extra", "extras", multiple=True, metavar="NAME[:COUNT]", help="Extra resources of a node: gpu:2."),
)
# fmt: on


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add everything that may be said of a job."""
    parts = (option for part in PARTS.values() for option in part.OPTIONS)
    for option in reversed((*_FIRST, *parts, *_LAST)):
        command = option(command)
    return command


def ask(node_api: str | None, path: str, command: tuple[str, ...], given: dict[str, Any]) -> Any:
    """Send a job to a node; what it finds wrong with a field is told of the option that people typed."""
    context = click.get_current_context()
    if not command and not given["image"]:
        raise click.UsageError("no command to run; write it after --, or name an image that has one", context)
    try:
        return find.agents(node_api).post(path, _body_of(command, given)).json()
    except ApiProblem as problem:
        known = {name.removeprefix("--") for each in context.command.params for name in each.opts}
        raise Failure(in_options(problem, known)) from None


def _body_of(command: tuple[str, ...], given: dict[str, Any]) -> dict[str, Any]:
    """The request's body; what was not asked for is left out, so that the node's defaults hold."""
    name = given["name"] or (os.path.basename(command[0])[:NAME_LENGTH_MAX] if command else None) or None
    limit = {
        "cpu_milli": cpu(given["limit_cpu"], "limit-cpu"),
        "memory_bytes": size(given["limit_memory"], "limit-memory"),
    }
    body: dict[str, Any] = {
        "name": name,
        "argv": list(command) or None,
        "cpu_milli": cpu(given["cpu"], "cpu"),
        "memory_bytes": size(given["memory"], "memory"),
        "extra": queueing.counts(given["extras"], "extra") or None,
        "image": given["image"],
        "env": _environment(given["environment"]) or None,
        "array": given["array"],
        "time_limit_s": parse_duration(given["time_limit"], "time") if given["time_limit"] else None,
        "stop_grace_s": parse_duration(given["stop_grace"], "stop-grace") if given["stop_grace"] else None,
        "priority": given["priority"],
        "constraints": list(given["constraints"]) or None,
        "kind": given["kind"],
        "attempts_max": given["attempts"],
        "on_lost": given["on_lost"],
        "pids_max": given["pids"],
        "network": given["network"],
        **{name: part.body(given) or None for name, part in PARTS.items()},
        "limit": {key: value for key, value in limit.items() if value is not None} or None,
    }
    return {key: value for key, value in body.items() if value is not None}


def cpu(text: str | None, field: str) -> int | None:
    """Thousandths of a core."""
    return None if text is None else parse_cpu(text, field)


def size(text: str | None, field: str) -> int | None:
    """Bytes."""
    return None if text is None else parse_size(text, field)


def _environment(pairs: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise Failure(f"env: {pair!r} is not valid; expected NAME=VALUE")
        found[name] = value
    return found
