"""`fofoca sim size`: the fewest nodes, or the cheapest mix, that meet what is wanted."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from node.cli import failures, show
from node.cli.failures import Failure
from node.cli.sim_inputs import filter_option, strict_option, tell_bad, tell_left_out

if TYPE_CHECKING:
    from sim.cluster import NodeType
    from sim.sizing import Judge, Sizing, Trial

RESAMPLES_MAX = 1000


@click.command(short_help="Find the fewest nodes that meet a target.")
@click.argument("trace", required=False, metavar="[TRACE]")
@click.option("--target", "targets", multiple=True, required=True, metavar="FIGURE<VALUE",
              help="What must hold, such as 'p95_wait<10m' or 'refused<0.1%'; may be repeated.")  # fmt: skip
@click.option("--node-type", "types", multiple=True, metavar="NAME:KEY=VALUE,...",
              help="What can be had: big:cpu=64,memory=256G,price=3.2 (also gpus, model); may be repeated. "
              "[default: nodes of one processor]")  # fmt: skip
@click.option("--policy", default=None, metavar="NAME", help="As for `sim run`.  [default: easy, best-fit]")
@click.option("--pods", metavar="PODS.csv", help="Tasks that come and go, instead of a batch trace.")
@click.option("--mapping", metavar="MAPPING.toml", help="Which columns of a CSV mean what; see docs/simulation.md.")
@click.option("--resamples", type=click.IntRange(0, RESAMPLES_MAX), default=10, show_default=True,
              help="Inputs drawn from the trace, day by day, beside the trace itself.")  # fmt: skip
@click.option("--confidence", type=float, default=0.9, show_default=True, help="The share of inputs that must do.")
@filter_option
@strict_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def size(trace: str | None, targets: tuple[str, ...], types: tuple[str, ...], **options: Any) -> None:
    """Find the fewest nodes that meet the targets, by bisection, on the trace and on resamples of it.

    \b
    fofoca sim size KTH-SP2.swf.gz --target 'p95_wait<10h'
    fofoca sim size --pods PODS.csv --target 'refused<0.5%' \\
        --node-type big:cpu=64,memory=256G,price=3.2 --node-type small:cpu=16,memory=64G,price=0.9

    With several node types and prices it looks for the cheapest mix. Ctrl-C shows what was tried (exit code 130).
    """
    from sim.errors import SimulationError

    try:
        _size(trace, targets, types, **options)
    except SimulationError as error:
        raise Failure(str(error)) from None


def _size(
    trace: str | None, target_texts: Sequence[str], type_texts: Sequence[str], policy: str | None, pods: str | None,
    mapping: str | None, resamples: int, confidence: float, as_json: bool, strong: str, strict: bool,
) -> None:  # fmt: skip
    from sim.sizing import size as search
    from sim.targets import parse_target
    from sim.trials import BATCH_FIGURES, NODE_FIGURES

    if (trace is None) == (pods is None):
        raise Failure("TRACE or --pods: give one of them")
    figures = BATCH_FIGURES if trace is not None else NODE_FIGURES
    targets = [parse_target(text, figures) for text in target_texts]
    types = _types(type_texts, pods is not None)
    inputs = range(resamples + 1)
    if trace is not None:
        judge, start = _batch(trace, mapping, policy or "easy", types, inputs, strong == "strong", strict)
    else:
        assert pods is not None
        if strong == "strong":
            raise Failure("--filter: goes with TRACE only")
        judge, start = _nodes(pods, mapping, policy or "best-fit", types, inputs, strict)
    tried: list[Trial] = []
    try:
        found = search(_told(judge, types, as_json), types, targets, confidence, start, tried.append)
    except KeyboardInterrupt:
        _print_trials(tried, types, as_json, resamples)
        raise Failure("interrupted; these sizes were tried", failures.INTERRUPTED) from None
    _print(found, types, figures, as_json, resamples)


def _types(texts: Sequence[str], needed: bool) -> list[NodeType]:
    from sim.cluster import NodeType, parse_node_type

    if not texts and needed:
        raise Failure("--node-type: is needed with --pods, such as big:cpu=64,memory=256G")
    found = []
    for text in texts:
        try:
            found.append(parse_node_type(text))
        except ValueError as error:
            raise Failure(f"--node-type: {text!r} is not valid; {error}") from None
    return found or [NodeType("processor", 1, "1M")]


def _batch(
    trace: str, mapping: str | None, policy: str, types: Sequence[NodeType], inputs: Sequence[int], strong: bool,
    strict: bool,
) -> tuple[Judge, int]:  # fmt: skip
    from sim.errors import BadValue
    from sim.grids import sweep
    from sim.replay import check_policy
    from sim.traces.batch import read_batch
    from sim.trials import BatchInputs

    check_policy(policy)
    # Whatever the file says of its machine: the machine is what is looked for.
    source = read_batch(trace, 1 << 30, strong, strict, mapping)
    tell_bad(source.bad)
    tell_left_out(source.left_out)
    found = BatchInputs(source.workload)
    cores = [each.cpu_milli // 1000 for each in types]
    if not all(cores):
        raise BadValue("node-type", types[cores.index(0)].name, "a batch job's processor is a whole core")

    def judge(fleet: tuple[int, ...]) -> list[Mapping[str, float]] | None:
        processors = sum(count * each for count, each in zip(fleet, cores, strict=True))
        if processors < found.largest:
            return None
        runs = dict.fromkeys(inputs)
        for run, figures in sweep(
            [{"input": each} for each in inputs], lambda run: found.run(run["input"], processors, policy)
        ):
            runs[run["input"]] = figures
        return [each for each in runs.values() if each is not None]

    return judge, max(found.largest, round(found.mean_load)) // max(cores)


def _nodes(
    pods: str, mapping: str | None, policy: str, types: Sequence[NodeType], inputs: Sequence[int], strict: bool
) -> tuple[Judge, int]:
    from sim.grids import sweep
    from sim.policies import check_policy
    from sim.traces.history import read_tasks
    from sim.trials import NodeInputs

    check_policy(policy)
    visits, bad = read_tasks(pods, mapping, strict)
    tell_bad(bad)
    found = NodeInputs(visits)

    def judge(fleet: tuple[int, ...]) -> list[Mapping[str, float]] | None:
        specs = [spec for each, count in zip(types, fleet, strict=True) for spec in each.specs(count)]
        runs = dict.fromkeys(inputs)
        for run, figures in sweep(
            [{"input": each} for each in inputs], lambda run: found.run(run["input"], specs, policy)
        ):
            runs[run["input"]] = figures
        return [each for each in runs.values() if each is not None]

    return judge, 1


def _told(judge: Judge, types: Sequence[NodeType], quiet: bool) -> Judge:
    """Say on a terminal what is tried: a search can take minutes."""
    if quiet or not sys.stderr.isatty():
        return judge

    def telling(fleet: tuple[int, ...]) -> Sequence[Mapping[str, float]] | None:
        sys.stderr.write(f"\rtrying {_fleet(types, fleet)}\x1b[K")
        sys.stderr.flush()
        try:
            return judge(fleet)
        finally:
            sys.stderr.write("\r\x1b[K")

    return telling


def _fleet(types: Sequence[NodeType], fleet: Sequence[int]) -> str:
    return " + ".join(f"{count} {each.name}" for each, count in zip(types, fleet, strict=True) if count) or "nothing"


def _print(found: Sizing, types: Sequence[NodeType], figures: Sequence[str], as_json: bool, resamples: int) -> None:
    if as_json:
        show.print_json(
            {
                "nodes": {each.name: count for each, count in zip(types, found.best.counts, strict=True)},
                "price": found.price,
                "share": found.best.share,
                "inputs": resamples + 1,
                "figures": dict(found.best.figures),
                "trials": _trials(found.trials),
            }
        )
        return
    priced = any(each.price for each in types)
    _print_trials(found.trials, types, as_json, resamples)
    price = f", {found.price:g} an hour" if priced else ""
    print(f"\n{_fleet(types, found.best.counts)}{price}: enough in {found.best.share:.0%} of the inputs; on the trace:")
    show.print_table(["FIGURE", "VALUE"], [[name, f"{found.best.figures[name]:.6g}"] for name in figures])


def _trials(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    return [{"nodes": list(each.counts), "share": each.share, "figures": dict(each.figures)} for each in trials]


def _print_trials(trials: Sequence[Trial], types: Sequence[NodeType], as_json: bool, resamples: int) -> None:
    if as_json:
        show.print_json({"inputs": resamples + 1, "trials": _trials(trials)})
        return
    rows = [
        [_fleet(types, trial.counts), f"{trial.share:.0%}"] for trial in sorted(trials, key=lambda each: each.counts)
    ]
    show.print_table(["NODES", f"MEET THE TARGETS, OF {resamples + 1} INPUTS"], rows)
