"""`fofoca freeze` and `thaw`."""

from __future__ import annotations

import click

from node.cli import find, task_names


@click.command(short_help="Stop running tasks where they are, memory kept.")
@click.argument("tasks", nargs=-1, required=True, metavar="ID[.INDEX]...")
@find.node_api_option
def freeze(tasks: tuple[str, ...], node_api: str | None) -> None:
    """Stop running tasks where they are, memory kept. Their time limit counts on."""
    _each(tasks, "freeze", node_api)


@click.command(short_help="Let frozen tasks go on.")
@click.argument("tasks", nargs=-1, required=True, metavar="ID[.INDEX]...")
@find.node_api_option
def thaw(tasks: tuple[str, ...], node_api: str | None) -> None:
    """Let frozen tasks go on where they stopped."""
    _each(tasks, "thaw", node_api)


def _each(tasks: tuple[str, ...], what: str, node_api: str | None) -> None:
    agents = find.agents(node_api)
    for job, index in [task_names.parse(text) for text in tasks]:
        agents.post(f"/v1/jobs/{job}/{what}?task={index}", {})
