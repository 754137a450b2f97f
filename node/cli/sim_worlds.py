"""`fofoca sim gossip` and `sim world`: clusters of the agents' own machines, in virtual time, from a seed."""

from __future__ import annotations

import sys
from typing import Any

import click

from node.cli import show
from node.cli.failures import INTERRUPTED, TASK_FAILED, Failure


@click.command(short_help="Try gossip on many nodes.")
@click.option("--nodes", type=int, default=100, show_default=True, help="How many nodes, 2 to 5000.")
@click.option("--seed", type=int, default=1, show_default=True, help="Everything random comes from it.")
@click.option("--duration", "duration_s", type=float, default=120.0, show_default=True, help="Virtual seconds.")
@click.option("--loss", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Share of packets lost.")
@click.option("--delay-ms", type=click.FloatRange(0), default=1.0, show_default=True, help="Largest delay of a packet.")
@click.option("--updates", type=click.IntRange(0), default=20, show_default=True, help="State changes.")
@click.option("--agents-killed", type=click.IntRange(0), default=4, show_default=True, help="Agents that die alone.")
@click.option("--hosts-crashed", type=click.IntRange(0), default=4, show_default=True, help="Hosts that fall silent.")
@click.option("--starved", type=click.IntRange(0), default=0, show_default=True, help="Nodes that get no CPU at times.")
@click.option("--partition", "partition_s", type=click.FloatRange(0), default=0.0, show_default=True,
              help="Cut the cluster in halves for so many seconds first.")  # fmt: skip
@click.option("--rules", type=click.Choice(["fofoca", "memberlist"]), default="fofoca", show_default=True,
              help="Our timing, or memberlist's defaults for a local network.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def gossip(nodes: int, seed: int, delay_ms: float, as_json: bool, **script: Any) -> None:
    """Run gossip on many nodes, and say how fast news and failures are known, who was wrongly declared dead, and what
    it cost. The same options give the same report, byte for byte.
    """
    from sim.gossip import format_report, run_gossip

    try:
        report = run_gossip(nodes, seed, delay_max_s=delay_ms / 1000, **script)
    except ValueError as error:
        raise Failure(str(error)) from None
    if as_json:
        show.print_json(report.as_dict())
    else:
        print(format_report(report))


@click.command(short_help="Try the whole scheduler under faults.")
@click.option("--nodes", type=click.IntRange(1, 1000), help="How many nodes. [default: drawn from the seed]")
@click.option("--homes", type=click.IntRange(1, 1000), help="How many of them take jobs. [default: drawn]")
@click.option("--jobs", type=click.IntRange(1, 100_000), help="How many jobs. [default: drawn]")
@click.option("--seed", type=int, default=1, show_default=True, help="Everything random comes from it.")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Run so many seeds.")
@click.option("--gossip", is_flag=True, help="Let real gossip tell who is alive, not a model of it.")
@click.option("--trace", is_flag=True, help="Print every event.")
@click.option("--shrink", "shrinks", is_flag=True, help="Cut a broken seed down to few steps, and tell them.")
def world(
    nodes: int | None, homes: int | None, jobs: int | None, seed: int, seeds: int, gossip: bool, trace: bool,
    shrinks: bool,
) -> None:  # fmt: skip
    """Run whole nodes under crashes, partitions and lost messages, and check the promises. The exit code is 1 if one
    was broken; its seed shows it again.
    """
    from sim.shrink import format_shrunk, shrink
    from sim.world import format_world, run_world

    if nodes is not None and homes is not None and homes > nodes:
        raise Failure(f"--homes: {homes} is not valid; at most the {nodes} nodes")
    tried = broken = 0
    try:
        for each in range(seed, seed + seeds):
            result = run_world(each, nodes, homes, jobs, gossip=gossip, traced=trace)
            tried += 1
            broken += not result.passed
            if seeds > 1 and sys.stderr.isatty():
                print(f"\r\x1b[K{tried} of {seeds}, {broken} broken", end="", file=sys.stderr, flush=True)
            if seeds == 1 or not result.passed:
                print(format_world(result), flush=True)
                if shrinks and not result.passed:
                    print(format_shrunk(shrink(result)), flush=True)
    except KeyboardInterrupt:
        _tell(tried, seed, broken)
        raise Failure(f"interrupted; {tried} of {seeds} seeds were tried", INTERRUPTED) from None
    if seeds > 1:
        _tell(tried, seed, broken)
    if broken:
        raise click.exceptions.Exit(TASK_FAILED)


def _tell(tried: int, seed: int, broken: int) -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    print(f"{tried} seeds from {seed} on: {broken or 'none'} broke a promise", flush=True)
