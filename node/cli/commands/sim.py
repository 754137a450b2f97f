"""`fofoca sim`: the same machines as the agents run, in virtual time."""

from __future__ import annotations

import click

from node.cli.sim_run import run


@click.group(short_help="Simulate clusters in virtual time.")
def sim() -> None:
    """Run the agents' own machines in virtual time, from a seed: same seed, same run."""


sim.add_command(run)
