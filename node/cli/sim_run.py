"""`fofoca sim run`: replay a trace under one or several policies, and say how it went.

Only what the command line adds is here: options, progress, interruption, files. The rest is the package `sim`, which is
imported when the command runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from node.cli import failures
from node.cli.failures import Failure
from node.cli.sim_inputs import filter_option, strict_option, tell_bad, tell_left_out
from node.cli.sim_progress import check_writable, open_result, watching

if TYPE_CHECKING:
    from sim.replay import Schedule
    from sim.traces.batch import BatchTrace


# What belongs to one of the two kinds of trace only.
BATCH_OPTIONS = ("processors", "clairvoyant", "strong", "schedule", "homes", "gossip", "loss", "faster")
HOMES_OPTIONS = ("gossip", "loss", "faster")
NODE_OPTIONS = ("arrivals", "seed", "seeds", "overcommit", "usage", "failures")
GOSSIP_S_MAX = 3600.0
HOMES_TOO = ("seed", "failures")


@click.command(short_help="Replay a trace under a policy.")
@click.argument("trace", required=False, metavar="[TRACE]")
@click.option("--processors", type=int, metavar="N", help="Size of the machine; else as the trace's header says.")
@click.option("--policy", "policies", multiple=True, metavar="NAME",
              help="May be repeated to compare. TRACE: easy (default), fcfs, sjbf, conservative. --nodes: best-fit "
              "(default), spread, dot-product, packing, clustering, fragmentation, first-fit, random.")  # fmt: skip
@click.option("--clairvoyant", is_flag=True, help="Plan with the true run times instead of the users' estimates.")
@filter_option
@click.option("--homes", type=click.IntRange(1, 999), metavar="N", help="Play the trace through the agents' own "
              "machines, submitted to N homes in turn, instead of one planner that knows everything.")  # fmt: skip
@click.option("--gossip", default="1", show_default=True, metavar="SECONDS|real",
              help="With --homes: how old what is gossiped is when it is heard; `real`: the agents' own gossip runs on "
              "every node, which is for hours of a trace, not for years.")  # fmt: skip
@click.option("--loss", default=0.0, show_default=True, type=click.FloatRange(0.0, 0.9), metavar="SHARE",
              help="With --homes: how many messages are lost.")  # fmt: skip
@click.option("--faster", default=1.0, show_default=True, type=float, metavar="N",
              help="With --homes: the agents see the trace with its times divided by N.")  # fmt: skip
@click.option("--nodes", metavar="NODES.csv", help="Replay on a list of nodes: sn,cpu_milli,memory_mib,gpu,model.")
@click.option("--pods", metavar="PODS.csv", help="What arrives there: cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec.")
@click.option("--cluster", metavar="CLUSTER.toml", help="The nodes as node types with counts, instead of --nodes.")
@click.option("--mapping", metavar="MAPPING.toml", help="Which columns of a CSV (TRACE or --pods) mean what.")
@click.option("--arrivals", default="130", show_default=True, metavar="PERCENT|trace",
              help="How much arrives and stays, in per cent of the nodes' GPUs (of their CPU where they have none); "
              "`trace`: pods come and go at the trace's times.")  # fmt: skip
@click.option("--overcommit", metavar="RATIO,...", help="With --arrivals trace: promise this many times what nodes "
              "have, as 1.5 or CPU:MEMORY; several are compared.")  # fmt: skip
@click.option("--usage", metavar="FILE.csv|mean=0.4,swing=0.5", help="With --arrivals trace: what tasks use of what "
              "they asked for, from series or a model.  [default: all of it]")  # fmt: skip
@click.option("--failures", metavar="FILE.csv|every=30d,repair=2h", help="With --arrivals trace or --homes: "
              "nodes fail.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Orders the arrivals; draws losses and failures.")
@click.option("--seeds", type=int, default=1, show_default=True, metavar="N", help="Runs N seeds; shows the means.")
@strict_option
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON document.")
@click.option("--schedule", metavar="OUT.swf", help="Write every job with its wait, as SWF.")
@click.option("--csv", metavar="OUT.csv", help="Write every job with its start, end, wait and slowdown, as CSV; "
              "with --pods every task with its node (of the first seed).")  # fmt: skip
@click.option("--report", metavar="OUT.html", help="Write one HTML page with tables and plots; it needs nothing else.")
@click.pass_context
def run(context: click.Context, /, trace: str | None, policies: tuple[str, ...], **options: Any) -> None:
    """Replay a batch trace (SWF, what sacct prints, or a CSV with a mapping; plain or gzip) on a machine of equal
    processors, or arrivals on a list of nodes.

    \b
    fofoca sim run KTH-SP2.swf.gz --processors 100 --policy easy --filter strong
    fofoca sim run KTH-SP2.swf.gz --policy easy --policy sjbf --report compare.html
    fofoca sim run --nodes NODES.csv --pods PODS.csv --policy best-fit --policy fragmentation --seeds 10

    Ctrl-C ends the replay and gives the results so far (exit code 130).
    """
    from sim.errors import SimulationError

    try:
        complete = _run(context, trace, policies, options)
    except SimulationError as error:
        raise Failure(str(error)) from None
    if not complete:
        raise Failure("interrupted; the results are those up to then", failures.INTERRUPTED)


def _run(context: click.Context, trace: str | None, policies: tuple[str, ...], options: dict[str, Any]) -> bool:
    nodes, pods, cluster = options.pop("nodes"), options.pop("pods"), options.pop("cluster")
    node_wise = any(each is not None for each in (nodes, pods, cluster))
    foreign: tuple[str, ...] = BATCH_OPTIONS if node_wise else NODE_OPTIONS
    if options["homes"] is not None and not node_wise:
        foreign = tuple(name for name in foreign if name not in HOMES_TOO)
    for name in foreign:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = "filter" if name == "strong" else name
            place = "--nodes and --pods, or with --homes," if name in HOMES_TOO else "--nodes and --pods"
            raise Failure(f"--{option}: goes with {'TRACE' if node_wise else place} only")
        options.pop(name)
    for name in HOMES_OPTIONS if not node_wise and options["homes"] is None else ():
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise Failure(f"--{name}: goes with --homes only")
    policies = tuple(dict.fromkeys(policies))
    if not node_wise:
        return _batch(trace, policies or ("easy",), **options)
    if trace is not None or pods is None or (nodes is None) == (cluster is None):
        raise Failure("--pods: goes with one of --nodes and --cluster, and no TRACE")
    from node.cli.sim_nodes import place_on_nodes

    return place_on_nodes(nodes, cluster, pods, policies or ("best-fit",), **options)


def _batch(
    trace: str | None, policies: Sequence[str], processors: int | None, clairvoyant: bool, strong: str, strict: bool,
    as_json: bool, mapping: str | None, homes: int | None, gossip: str, loss: float, faster: float, seed: int = 0,
    failures: str | None = None, **files: str | None,
) -> bool:  # fmt: skip
    from sim.replay import check_policy, replay_jobs
    from sim.traces.batch import read_batch

    if trace is None:
        raise Failure("TRACE: nothing to replay; name an SWF file")
    for policy in policies:
        check_policy(policy)
    if homes is not None and clairvoyant:
        raise Failure("--clairvoyant: agents know estimates only, so it does not go with --homes")
    if processors is not None and processors < 1:
        raise Failure(f"--processors: {processors} is not valid; at least 1")
    for name, path in files.items():
        check_writable(f"--{name}", path)
    source = read_batch(trace, processors or 0, strong == "strong", strict, mapping)
    play: Callable[..., Schedule] = partial(replay_jobs, source.workload, source.processors, clairvoyant=clairvoyant)
    if homes is not None:
        heard = {"real_gossip": True} if gossip == "real" else {"gossip_s": _gossip_s(gossip)}
        play = _through_agents(source, failures, homes=homes, loss=loss, seed=seed, faster=faster, **heard)
    schedules: list[Schedule] = []
    for policy in policies:
        with watching(policy, len(source.workload)) as watch:
            schedules.append(play(policy=policy, watch=watch))
        if not schedules[-1].complete:
            break
    _write_files(schedules, source, files)
    _print(schedules, source, as_json, strong)
    return schedules[-1].complete


def _gossip_s(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= GOSSIP_S_MAX:
        raise Failure(f"--gossip: {text!r} is not valid; seconds from 0 to {GOSSIP_S_MAX:g}, or real")
    return seconds


def _through_agents(source: BatchTrace, failures: str | None, seed: int, **setting: Any) -> Callable[..., Schedule]:
    """Return what plays the trace under a policy on nodes n1, n2, ..., one for each processor."""
    from node.cli.sim_overcommit import read_failures
    from sim.homes_replay import replay_homes
    from sim.many_homes import Setting

    names = [f"n{number}" for number in range(1, source.processors + 1)]
    submit_s = source.workload.submit_s
    outages = read_failures(failures, names, submit_s[0], submit_s[-1], seed)
    played = Setting(outages=tuple(outages), seed=seed, **setting)

    def play(policy: str, watch: Callable[[int, float], bool]) -> Schedule:
        return replay_homes(source.workload, source.processors, replace(played, queue_policy=policy), watch)

    return play


def _write_files(schedules: list[Schedule], source: BatchTrace, files: dict[str, str | None]) -> None:
    from sim.results import write_csv
    from sim.traces.swf import write_swf

    for each in schedules:
        several = each.policy if len(schedules) > 1 else ""
        if files["schedule"]:
            with open_result(files["schedule"], several) as out:
                write_swf(out, each.workload, each.processors, each.starts_s)
        if files["csv"]:
            with open_result(files["csv"], several) as out:
                write_csv(out, each)
    if files["report"]:
        from sim.report import batch_report

        with open_result(files["report"]) as out:
            out.write(batch_report(schedules, title=source.workload.name))


def _print(schedules: list[Schedule], source: BatchTrace, as_json: bool, strong: str) -> None:
    from node.cli.show import print_json, print_table
    from sim.results import Summary, summarise

    summaries = [summarise(each) for each in schedules]
    if as_json:
        about = {
            "trace": source.workload.name,
            "filter": strong,
            "complete": schedules[-1].complete,
            "bad_lines": source.bad.count,
            "first_bad_lines": [{"line": line, "why": why} for line, why in source.bad.first[:10]],
            "left_out": source.left_out,
        }
        runs = [each._asdict() for each in summaries]
        print_json({**runs[0], **about} if len(runs) == 1 else {**about, "runs": runs})
        return
    rows = [[name, *(_cell(name, getattr(each, name)) for each in summaries)] for name in Summary._fields[1:]]
    print_table(["", *(each.policy for each in summaries)], rows)
    tell_bad(source.bad)
    tell_left_out(source.left_out)


def _cell(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    return f"{value:.4f}"
