"""`fofoca sim snapshot`: the nodes of the live cluster, as a file that `sim run --cluster` reads."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from node.cli import find
from node.cli.failures import Failure


@click.command(short_help="Write the live cluster's nodes as a cluster file.")
@click.option("-o", "--output", metavar="FILE.toml", help="Where to. [default: standard output]")
@find.node_api_option
def snapshot(output: str | None, node_api: str | None) -> None:
    """Write the live cluster's nodes as a cluster file, for `fofoca sim run --cluster`. Nothing is changed.

    Jobs and GPUs are not in it, nor nodes that are not alive.
    """
    from sim.errors import SimulationError
    from sim.snapshot import format_snapshot

    try:
        text, left_out = format_snapshot(find.agents(node_api).get("/v1/nodes").json())
        if output is None:
            print(text, end="")
        else:
            Path(output).write_text(text, encoding="utf-8")
    except SimulationError as error:
        raise Failure(str(error)) from None
    except OSError as error:
        raise Failure(f"--output: {output}: {error.strerror}") from None
    if left_out:
        print(f"left out, not alive: {', '.join(left_out)}", file=sys.stderr)
