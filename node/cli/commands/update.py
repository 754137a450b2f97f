"""`fofoca update`: other limits and checks for a live job, or for one of its tasks."""

from __future__ import annotations

import re
from typing import Any

import click

from node.cli import find
from node.cli.failures import Failure
from node.cli.options import health, job, life, limits
from node.errors import InvalidValue

JOB_AND_TASK = re.compile(r"([1-9]\d{0,18})(?:\.(\d{1,9}))?", re.ASCII)
FIXED = ("--device", "--exclusive-cores")


def _limit_options(command: Any) -> Any:
    for option in reversed((*limits.OPTIONS, *life.RESTARTS, *health.OPTIONS)):
        command = option(command)
    kept = [each for each in command.__click_params__ if not set(each.opts) & set(FIXED)]
    command.__click_params__ = kept
    return command


@click.command(short_help="Change the limits of what runs.")
@click.argument("task", metavar="ID[.INDEX]")
@click.option("--cpu", metavar="CORES", help="Cores each task reserves from now on: 250m, 1.5.")
@click.option("--memory", metavar="SIZE", help="Memory each task reserves from now on: 64M, 2G.")
@click.option("--limit-cpu", metavar="CORES", help="Enforce this much CPU instead of what --cpu reserves.")
@click.option("--limit-memory", metavar="SIZE", help="Enforce this much memory instead of what --memory reserves.")
@click.option("--pids", type=click.IntRange(1), help="How many processes a task may have.")
@_limit_options
@click.option("--no-health", is_flag=True, help="Check it no more.")
@find.node_api_option
def update(task: str, node_api: str | None, **options: Any) -> None:
    """Change limits of a live job without disturbing it: of all its tasks and of those to come, or of one that runs.

    Restarts and health checks are changed, too; a check takes the place of the former one, with all its figures.

    Each node decides whether it has the room. When one refuses, it is named with the reason, and nothing changes.

    \b
    fofoca update 12001 --memory 512M --limit-cpu 2
    """
    match = JOB_AND_TASK.fullmatch(task)
    if match is None:
        raise Failure(f"{task!r} is no job; expected ID or ID.INDEX, such as 12001 or 12001.3")
    body = body_of(options)
    if not body:
        raise click.UsageError("nothing to change; name a limit, such as --memory 512M", click.get_current_context())
    answer = find.agents(node_api).patch(f"/v1/jobs/{match[1]}", body, task=match[2]).json()
    count = answer["tasks"]
    print(f"{answer['id']}: changed, {count} running task{'s' * (count != 1)}")


def body_of(options: dict[str, Any]) -> dict[str, Any]:
    """The request's body: only what is to change."""
    limit = {
        "cpu_milli": job.cpu(options["limit_cpu"], "limit-cpu"),
        "memory_bytes": job.size(options["limit_memory"], "limit-memory"),
    }
    body: dict[str, Any] = {
        "cpu_milli": job.cpu(options["cpu"], "cpu"),
        "memory_bytes": job.size(options["memory"], "memory"),
        "pids_max": options["pids"],
        "limit": {key: value for key, value in limit.items() if value is not None} or None,
        "limits": limits.body({"devices": (), "exclusive_cores": None, **options}) or None,
        "life": _life(options) or None,
    }
    return {key: value for key, value in body.items() if value is not None}


def _life(options: dict[str, Any]) -> dict[str, Any]:
    found = life.body(options)
    if not options.get("no_health"):
        return found
    if "health" in found:
        raise InvalidValue("no-health", "a check", "expected a check or none, not both")
    return {**found, "health": None}
