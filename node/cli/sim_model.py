"""`fofoca sim model`: workloads drawn from models, as traces that the other commands read."""

from __future__ import annotations

from math import inf
from typing import Any

import click

from node.cli.failures import Failure
from node.cli.sim_progress import check_writable, open_result


@click.group(short_help="Draw a workload from a model.")
def model() -> None:
    """Draw batch jobs or containers from a model, as a trace. The same seed gives the same file."""


@model.command(short_help="Batch jobs, as Lublin and Feitelson model them.")
@click.option("-o", "--output", required=True, metavar="OUT.swf", help="Where to.")
@click.option("--jobs", type=int, default=10_000, show_default=True, help="How many.")
@click.option("--processors", type=int, default=256, show_default=True, help="Of the machine they are for.")
@click.option("--load", type=float, default=0.8, show_default=True, help="Of that machine: gaps are stretched to it.")
@click.option("--users", type=int, default=100, show_default=True, help="At most so many, few of them with many jobs.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed draws the same.")
def lublin(output: str, processors: int, **options: Any) -> None:
    """Draw batch jobs: many sizes that are powers of two, run times that depend on them, a daily cycle (Lublin and
    Feitelson, JPDC 2003); users' estimates are added. Play them with `fofoca sim run OUT.swf`.
    """
    from sim.errors import SimulationError
    from sim.traces.swf import write_swf
    from sim.workload import lublin as draw

    check_writable("--output", output)
    try:
        work = draw(processors=processors, **options)
    except SimulationError as error:
        raise Failure(str(error)) from None
    with open_result(output) as out:
        write_swf(out, work, processors, [None] * len(work))


@model.command(short_help="Containers that come and go over the day.")
@click.option("-o", "--output", required=True, metavar="OUT.csv", help="Where to.")
@click.option("--count", type=int, default=10_000, show_default=True, help="How many.")
@click.option("--per-second", type=float, default=1.0, show_default=True, help="How many come, on the mean.")
@click.option("--mean-stay", "mean_stay_s", type=float, default=3600.0, show_default=True, metavar="SECONDS",
              help="How long they stay, on the mean; exponential times.")  # fmt: skip
@click.option("--swing", "day_swing", type=float, default=0.5, show_default=True, help="How far the rate swings over "
              "the day: 0 not at all, 1 from nothing to twice the mean.")  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed draws the same.")
def services(output: str, **options: Any) -> None:
    """Draw containers that come as a Poisson process with a daily cycle. Play them with `fofoca sim run --cluster
    CLUSTER.toml --pods OUT.csv --arrivals trace`.
    """
    from sim.errors import SimulationError
    from sim.workload import services as draw

    check_writable("--output", output)
    try:
        containers = draw(**options)
        with open_result(output) as out:
            out.write("cpu_milli,memory_mib,creation_time,deletion_time\n")
            for each in containers:
                gone_s = "" if each.stay_s == inf else f"{each.arrive_s + each.stay_s:.3f}"
                out.write(f"{each.cpu_milli},{each.memory_mib},{each.arrive_s:.3f},{gone_s}\n")
    except SimulationError as error:
        raise Failure(str(error)) from None
