"""`fofoca hold`, `release` and `requeue`; `cordon`, `uncordon` and `drain`."""

from __future__ import annotations

import sys
import time

import click

from node.caller import Agents
from node.cli import find
from node.cli.failures import TASK_FAILED
from node.cli.words import JOB_ID
from node.errors import ApiProblem
from node.quantities import parse_duration

IDS = click.argument("ids", nargs=-1, required=True, type=JOB_ID, metavar="ID...")
NODES = click.argument("names", nargs=-1, required=True, metavar="NODE...")
LOOK_INTERVAL_S = 1.0
CONFLICT = 409


@click.command(short_help="Keep jobs from starting.")
@IDS
@find.node_api_option
def hold(ids: tuple[int, ...], node_api: str | None) -> None:
    """Keep jobs from starting anything more; what runs goes on. What an operator holds, only operators release."""
    _steer("hold", ids, node_api)


@click.command(short_help="Let held jobs start.")
@IDS
@find.node_api_option
def release(ids: tuple[int, ...], node_api: str | None) -> None:
    """Let held jobs start."""
    _steer("release", ids, node_api)


@click.command(short_help="Stop what runs of jobs, and line it up again.")
@IDS
@find.node_api_option
def requeue(ids: tuple[int, ...], node_api: str | None) -> None:
    """Stop what runs of jobs, and line it up again, whatever their --on-lost says. What has ended is not run again."""
    _steer("requeue", ids, node_api)


@click.command(short_help="Have nodes take nothing new.")
@NODES
@find.node_api_option
def cordon(names: tuple[str, ...], node_api: str | None) -> None:
    """Have nodes take nothing new; what they run goes on. It lasts until `uncordon`, across restarts too."""
    for name in names:
        find.agents(node_api).post(f"/v1/nodes/{name}/cordon", {})


@click.command(short_help="Have nodes take tasks again.")
@NODES
@find.node_api_option
def uncordon(names: tuple[str, ...], node_api: str | None) -> None:
    """Have cordoned or drained nodes take tasks again."""
    for name in names:
        find.agents(node_api).post(f"/v1/nodes/{name}/uncordon", {})


@click.command(short_help="Empty nodes.")
@NODES
@click.option("--deadline", metavar="TIME", help="Requeue batch tasks that still run after this: 30m. [default: never]")
@click.option("--wait", is_flag=True, help="Wait until nothing runs there.")
@find.node_api_option
def drain(names: tuple[str, ...], deadline: str | None, wait: bool, node_api: str | None) -> None:
    """Empty nodes: they take nothing new, services move elsewhere now, batch tasks end or are requeued at the deadline.

    A service is stopped when it runs elsewhere, if another node has room. Tasks of jobs with --on-lost fail end as lost
    at the deadline. `uncordon` ends it.
    """
    agents = find.agents(node_api)
    query = "" if deadline is None else f"?deadline_s={parse_duration(deadline, 'deadline')}"
    for name in names:
        agents.post(f"/v1/nodes/{name}/drain{query}", {})
    while wait and _still_run(agents, names):
        time.sleep(LOOK_INTERVAL_S)


def _still_run(agents: Agents, names: tuple[str, ...]) -> int:
    return sum(node["containers"] for node in agents.get("/v1/nodes").json() if node["name"] in names)


def _steer(verb: str, ids: tuple[int, ...], node_api: str | None) -> None:
    """Ask for each job; what its state does not allow is told, and the others are asked for all the same."""
    agents = find.agents(node_api)
    refused = False
    for job_id in ids:
        try:
            agents.post(f"/v1/jobs/{job_id}/{verb}", {})
        except ApiProblem as problem:
            if problem.status != CONFLICT:
                raise
            print(f"fofoca: {problem}", file=sys.stderr)
            refused = True
    if refused:
        raise click.exceptions.Exit(TASK_FAILED)
