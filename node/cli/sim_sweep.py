"""`fofoca sim sweep`: a grid of replays on all cores, kept in a file, gone on with after an interruption."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from node.cli import failures, show
from node.cli.failures import Failure
from node.cli.sim_inputs import filter_option, fingerprint, strict_option, tell_bad, tell_left_out
from node.cli.sim_overcommit import parse_ratios, read_usage
from node.cli.sim_progress import check_writable

if TYPE_CHECKING:
    from sim.grids import Parameters, Work

SHOWN = {
    "batch": ("avg_bounded_slowdown", "mean_wait_s", "p95_wait_s", "utilisation", "fairness"),
    "nodes": ("refused", "allocated", "peak_allocated", "nodes_used"),
    "living": ("refused", "cpu_allocated", "memory_allocated", "oom_kills", "cpu_short", "cpu_used", "memory_used"),
}


@click.command(short_help="Replay a grid of settings on all cores.")
@click.argument("trace", required=False, metavar="[TRACE]")
@click.option("--out", required=True, metavar="OUT.jsonl", help="Results, one JSON object a line; gone on with.")
@click.option("--policy", "policies", default=None, metavar="NAME,...", help="As for `sim run`.")
@click.option("--processors", default=None, metavar="N,...", help="Machine sizes, for a batch trace.")
@click.option("--clairvoyant", type=click.Choice(["no", "yes", "both"]), default="no", show_default=True,
              help="Plan with the true run times.")  # fmt: skip
@click.option("--cluster", metavar="CLUSTER.toml", help="The nodes, for --pods; see docs/simulation.md.")
@click.option("--pods", metavar="PODS.csv", help="Tasks that come and go on the cluster's nodes.")
@click.option("--nodes", default="100%", show_default=True, metavar="PERCENT,...", help="How much of the cluster.")
@click.option("--overcommit", default="1", show_default=True, metavar="RATIO,...",
              help="Promise this many times what nodes have: 1.5, or CPU:MEMORY.")  # fmt: skip
@click.option("--usage", metavar="FILE.csv|mean=0.4,...", help="What tasks use of what they asked for.")
@click.option("--mapping", metavar="MAPPING.toml", help="Which columns of a CSV mean what; see docs/simulation.md.")
@click.option("--resamples", type=click.IntRange(0, 1000), default=0, show_default=True,
              help="Inputs drawn from the trace, day by day, beside the trace itself.")  # fmt: skip
@filter_option
@strict_option
@click.option("--processes", type=click.IntRange(0, 1024), default=0, help="At once.  [default: all cores]")
@click.option("--json", "as_json", is_flag=True, help="Print all results as one JSON document.")
def sweep(out: str, as_json: bool, processes: int, **options: Any) -> None:
    """Replay every combination of the given settings; a run that is in OUT already, of files with the same contents, is
    not repeated.

    \b
    fofoca sim sweep KTH-SP2.swf.gz --policy easy,sjbf --processors 100,110,120 --out sweep.jsonl
    fofoca sim sweep --cluster CLUSTER.toml --pods PODS.csv --policy best-fit,spread \\
        --overcommit 1,1.5,2 --nodes 50%,75%,100% --out overcommit.jsonl

    Ctrl-C keeps what has ended; the same command goes on from there.
    """
    from sim.errors import SimulationError

    check_writable("--out", out)
    try:
        kind, runs, work = _plan(**options)
        complete = _sweep(out, runs, work, processes)
        results = _results(out, runs)
    except SimulationError as error:
        raise Failure(str(error)) from None
    if as_json:
        show.print_json([{"run": run, "figures": figures} for run, figures in results])
    else:
        _print(kind, results)
    if not complete:
        raise Failure(f"interrupted; {len(results)} of {len(runs)} are in {out}", failures.INTERRUPTED)


def _plan(
    trace: str | None, policies: str | None, processors: str | None, clairvoyant: str, cluster: str | None,
    pods: str | None, nodes: str, overcommit: str, usage: str | None, mapping: str | None, resamples: int,
    strong: str, strict: bool,
) -> tuple[str, list[Parameters], Work]:  # fmt: skip
    if (trace is None) == (pods is None):
        raise Failure("TRACE or --pods: give one of them")
    inputs = list(range(resamples + 1))
    if trace is not None:
        truths = {"no": [False], "yes": [True], "both": [False, True]}[clairvoyant]
        return _batch(trace, mapping, _words(policies or "easy"), processors, truths, inputs, strong, strict)
    if strong == "strong":
        raise Failure("--filter: goes with TRACE only")
    if cluster is None:
        raise Failure("--cluster: is needed with --pods")
    assert pods is not None
    shares = [_number("--nodes", text.removesuffix("%")) / 100 for text in _words(nodes)]
    return _node_wise(pods, cluster, mapping, _words(policies or "best-fit"), shares, overcommit, usage, inputs, strict)


def _batch(
    trace: str, mapping: str | None, policies: list[str], processors: str | None, truths: list[bool],
    inputs: list[int], strong: str, strict: bool,
) -> tuple[str, list[Parameters], Work]:  # fmt: skip
    from sim.grids import grid
    from sim.replay import check_policy
    from sim.traces.batch import read_batch
    from sim.trials import BatchInputs

    for policy in policies:
        check_policy(policy)
    sizes = [_whole("--processors", text) for text in _words(processors)] if processors else []
    source = read_batch(trace, max(sizes, default=0), strong == "strong", strict, mapping)
    tell_bad(source.bad)
    tell_left_out(source.left_out)
    found = BatchInputs(source.workload)
    sizes = sizes or [source.processors]
    if min(sizes) < found.largest:
        raise Failure(f"--processors: {min(sizes)} is not valid; the largest job asks for {found.largest}")

    def work(run: Parameters) -> Mapping[str, Any]:
        return found.run(run["input"], run["processors"], run["policy"], run["clairvoyant"])

    axes: dict[str, Sequence[Any]] = {"policy": policies, "processors": sizes, "clairvoyant": truths, "input": inputs}
    fixed = {"trace": [Path(trace).name], "contents": [fingerprint(trace, mapping)], "filter": [strong]}
    return "batch", grid({**fixed, **axes}), work


def _node_wise(
    pods: str, cluster: str, mapping: str | None, policies: list[str], shares: list[float], overcommit: str,
    usage: str | None, inputs: list[int], strict: bool,
) -> tuple[str, list[Parameters], Work]:  # fmt: skip
    from sim.cluster import read_cluster
    from sim.grids import grid
    from sim.policies import check_policy
    from sim.traces.history import read_tasks
    from sim.trials import NodeInputs

    for policy in policies:
        check_policy(policy)
    visits, bad = read_tasks(pods, mapping, strict)
    tell_bad(bad)
    found, types = NodeInputs(visits), read_cluster(cluster).types
    ratios = {f"{each.cpu:g}:{each.memory:g}": each for each in parse_ratios(overcommit)}
    use = read_usage(usage, 0)

    def work(run: Parameters) -> Mapping[str, Any]:
        specs = [spec for each in types for spec in each.specs(round(each.count * run["nodes"]))]
        return found.run(run["input"], specs, run["policy"], ratios[run["overcommit"]], use)

    fixed: dict[str, Sequence[Any]] = {
        "pods": [Path(pods).name],
        "cluster": [Path(cluster).name],
        "usage": [usage],
        "contents": [fingerprint(pods, cluster, mapping, usage)],
    }
    axes: dict[str, Sequence[Any]] = {"policy": policies, "nodes": shares, "overcommit": list(ratios), "input": inputs}
    return "living" if use or len(ratios) > 1 else "nodes", grid({**fixed, **axes}), work


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _number(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1e9:
        raise Failure(f"{option}: {text!r} is not valid; numbers above 0, with commas between")
    return value


def _whole(option: str, text: str) -> int:
    value = _number(option, text)
    if value != int(value):
        raise Failure(f"{option}: {text!r} is not valid; whole numbers above 0, with commas between")
    return int(value)


def _sweep(out: str, runs: list[Parameters], work: Work, processes: int) -> bool:
    """Run what is not in the file yet; return whether all of it is there now."""
    from sim.grids import cut_broken_line, key, read_results, sweep, write_result

    known = read_results(out)
    cut_broken_line(out)
    todo = [run for run in runs if key(run) not in known]
    told = _progress(len(runs), len(runs) - len(todo))
    try:
        with open(out, "a", encoding="utf-8") as file:
            for run, figures in sweep(todo, work, processes):
                write_result(file, run, figures)
                told()
    except OSError as error:
        raise Failure(f"--out: {out}: cannot be written: {error.strerror}") from None
    except KeyboardInterrupt:
        return False
    return True


def _results(out: str, runs: Sequence[Parameters]) -> list[tuple[Parameters, Mapping[str, Any]]]:
    from sim.grids import key, read_results

    known = read_results(out)
    return [(run, known[key(run)]) for run in runs if key(run) in known]


def _progress(total: int, done: int) -> Callable[[], None]:
    began, first = time.monotonic(), done

    def told() -> None:
        nonlocal done
        done += 1
        if sys.stderr.isatty():
            left_s = (time.monotonic() - began) / (done - first) * (total - done)
            bar = show.bar(done / total, 20)
            sys.stderr.write(f"\r{bar} {done} of {total}  ETA {left_s:.0f}s\x1b[K" + ("\n" if done == total else ""))
            sys.stderr.flush()

    return told


def _print(kind: str, results: Sequence[tuple[Parameters, Mapping[str, Any]]]) -> None:
    """The settings that vary, and the main figures."""
    if not results:
        return
    axes = [name for name in results[0][0] if len({str(run[name]) for run, _ in results}) > 1]
    rows = [
        [*(str(run[name]) for name in axes), *(f"{figures.get(name, 0):.4f}" for name in SHOWN[kind])]
        for run, figures in results
    ]
    show.print_table([*(name.upper() for name in axes), *SHOWN[kind]], rows)
