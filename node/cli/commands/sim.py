"""`fofoca sim`: the same machines as the agents run, in virtual time."""

from __future__ import annotations

import click

from node.cli.sim_model import model
from node.cli.sim_run import run
from node.cli.sim_size import size
from node.cli.sim_snapshot import snapshot
from node.cli.sim_sweep import sweep
from node.cli.sim_what_if import what_if
from node.cli.sim_worlds import gossip, world


@click.group(short_help="Simulate clusters in virtual time.")
def sim() -> None:
    """Run the agents' own machines in virtual time, from a seed: same seed, same run."""


for command in (run, size, sweep, snapshot, what_if, model, gossip, world):
    sim.add_command(command)
