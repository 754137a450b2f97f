"""`fofoca agent`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Run this host's agent.")
@click.option(
    "--config", "path", metavar="FILE", required=True, type=click.Path(dir_okay=False, path_type=Path),
    help="Its configuration; docs/config.md documents every field.",
)  # fmt: skip
@click.option("--check", is_flag=True, help="Only check the configuration.")
def agent(path: Path, check: bool) -> None:
    """Run this host's agent until SIGTERM; containers go on without it."""
    from node import config

    settings = config.load(path)
    settings.cluster_keys()
    if check:
        print(f"{path} is sound: node {settings.node_name} of cluster {settings.cluster.name}")
        return
    from node import agent as node_agent

    node_agent.run(settings)
