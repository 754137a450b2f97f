"""`fofoca sim snapshot`: the live cluster with its jobs, or its nodes alone, as a file that the simulator reads."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from node.cli import find, live
from node.cli.failures import Failure


@click.command(short_help="Write a copy of the live cluster and its jobs.")
@click.option("-o", "--output", metavar="FILE", help="Where to; FILE.toml gets the nodes alone. [default: stdout]")
@find.node_api_option
def snapshot(output: str | None, node_api: str | None) -> None:
    """Write a copy of the live cluster: nodes, settings, and every unfinished job with its tasks, for `fofoca sim
    what-if --snapshot` and `sim run --cluster`. Nothing is changed. It is for operators; commands, environments and
    secrets are not in it.

    With FILE.toml it has the nodes that are alive alone, as a cluster file that people can edit.
    """
    from sim.errors import SimulationError
    from sim.live import encode_live
    from sim.snapshot import format_snapshot

    left_out: list[str] = []
    try:
        if output is not None and output.endswith(".toml"):
            text, left_out = format_snapshot(find.agents(node_api).get("/v1/nodes").json())
        else:
            copy = live.take(node_api)
            text = encode_live(copy).decode()
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
    elif output is not None and not output.endswith(".toml"):
        print(", ".join(f"{count} {name.replace('_', ' ')}" for name, count in copy.counts.items()), file=sys.stderr)
