"""`fofoca sim run --nodes --pods`: arrivals placed on a list of nodes, one run for each policy and seed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from node.cli.failures import Failure
from node.cli.sim_inputs import tell_bad
from node.cli.sim_progress import check_writable, open_result, watching

if TYPE_CHECKING:
    from sim.nodes import NodeSpec
    from sim.placement import Outcome
    from sim.traces.text import BadLines

SEEDS_MAX = 1000


def place_on_nodes(
    nodes: str | None, cluster: str | None, pods: str, policies: Sequence[str], arrivals: str, seed: int, seeds: int,
    strict: bool, as_json: bool, report: str | None, csv: str | None, mapping: str | None, **living: str | None,
) -> bool:  # fmt: skip
    """Run, print and write; return whether all runs came to their end."""
    from sim.policies import check_policy

    for policy in policies:
        check_policy(policy)
    if not 1 <= seeds <= SEEDS_MAX:
        raise Failure(f"--seeds: {seeds} is not valid; from 1 to {SEEDS_MAX}")
    check_writable("--report", report)
    check_writable("--csv", csv)
    specs, bad_nodes = _specs(nodes, cluster, strict)
    if any(living.values()):
        if csv:
            raise Failure("--csv: does not go with --overcommit, --usage or --failures")
        return _living(pods, specs, policies, arrivals, seed, strict, as_json, report, mapping, living)
    play, bad_pods = _player(pods, specs, arrivals, strict, mapping, landed=csv is not None or report is not None)
    runs: dict[str, list[Outcome]] = {}
    for policy, each in itertools.product(policies, range(seed, seed + seeds)):
        runs.setdefault(policy, []).append(play(policy, each))
        if not runs[policy][-1].complete:
            break
    tell_bad(bad_nodes, bad_pods)
    if report:
        from sim.report import placement_report

        with open_result(report) as out:
            out.write(placement_report([outcomes[0] for outcomes in runs.values()], title="Placement"))
    if csv:
        from sim.placement import write_csv

        for policy, outcomes in runs.items():
            with open_result(csv, policy if len(runs) > 1 else "") as out:
                write_csv(out, outcomes[0])
    about = {"nodes": len(specs), "bad_lines": bad_nodes.count + bad_pods.count}
    _print([_figures(policy, outcomes, about) for policy, outcomes in runs.items()], as_json)
    return all(outcome.complete for outcomes in runs.values() for outcome in outcomes)


def _living(
    pods: str, specs: list[NodeSpec], policies: Sequence[str], arrivals: str, seed: int, strict: bool, as_json: bool,
    report: str | None, mapping: str | None, living: dict[str, str | None],
) -> bool:  # fmt: skip
    """Tasks that come and go, with what they use and nodes that fail."""
    from node.cli import sim_overcommit
    from sim.traces.history import read_tasks

    if arrivals != "trace":
        raise Failure("--overcommit, --usage, --failures: go with --arrivals trace only")
    visits, bad = read_tasks(pods, mapping, strict)
    tell_bad(bad)
    return sim_overcommit.play(specs, visits, policies, seed=seed, as_json=as_json, report=report, **living)


def _specs(nodes: str | None, cluster: str | None, strict: bool) -> tuple[list[NodeSpec], BadLines]:
    from sim.cluster import read_cluster
    from sim.traces.openb import read_nodes
    from sim.traces.text import BadLines

    if nodes is not None:
        return read_nodes(nodes, strict)
    assert cluster is not None
    return read_cluster(cluster).specs, BadLines(cluster, strict)


def _player(
    pods: str, specs: list[NodeSpec], arrivals: str, strict: bool, mapping: str | None, landed: bool
) -> tuple[Callable[[str, int], Outcome], BadLines]:
    """Read the pods; return what plays them under a policy with a seed."""
    from sim.placement import inflate, place, visit
    from sim.traces.batch import first_line
    from sim.traces.history import looks_like, read_tasks
    from sim.traces.openb import read_pods

    if arrivals == "trace":
        visits, bad = read_tasks(pods, mapping, strict)

        def come_and_go(policy: str, seed: int) -> Outcome:
            with watching(f"{policy} {seed}", len(visits)) as watch:
                return visit(specs, visits, policy, seed, watch, landed)

        return come_and_go, bad
    try:
        percent = float(arrivals)
    except ValueError:
        raise Failure(f"--arrivals: {arrivals!r} is not valid; a number of per cent, or trace") from None
    if mapping is not None or looks_like(first_line(pods)):
        stays, bad = read_tasks(pods, mapping, strict)
        demands = [each.demand for each in stays]
    else:
        demands, bad = read_pods(pods, strict)

    def come_and_stay(policy: str, seed: int) -> Outcome:
        arriving = inflate(demands, specs, percent, seed)
        with watching(f"{policy} {seed}", len(arriving)) as watch:
            return place(specs, arriving, policy, seed, watch, landed)

    return come_and_stay, bad


def _figures(policy: str, outcomes: list[Outcome], about: dict[str, int]) -> dict[str, Any]:
    """The means over the seeds, and the main figure of each seed; an interrupted one counts only where it is alone."""
    complete = outcomes[-1].complete
    if not complete and len(outcomes) > 1:
        outcomes = outcomes[:-1]

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    return {
        "policy": policy,
        **about,
        "allocated_fraction": mean([each.allocated_fraction for each in outcomes]),
        "peak_allocated_fraction": mean([each.peak_fraction for each in outcomes]),
        "gpu_allocated_fraction": mean([each.allocated.gpu for each in outcomes]),
        "cpu_allocated_fraction": mean([each.allocated.cpu for each in outcomes]),
        "memory_allocated_fraction": mean([each.allocated.memory for each in outcomes]),
        "fragmented_fraction": mean([each.fragmented_fraction for each in outcomes]),
        "arrived_fraction": mean([each.arrived_fraction for each in outcomes]),
        "pods": mean([each.pods for each in outcomes]),
        "placed": mean([each.placed for each in outcomes]),
        "refused": mean([each.refused for each in outcomes]),
        "nodes_used": mean([each.nodes_used for each in outcomes]),
        "seeds": {str(each.seed): each.allocated_fraction for each in outcomes},
        "complete": complete,
    }


def _print(runs: list[dict[str, Any]], as_json: bool) -> None:
    from node.cli.show import print_json, print_table

    if as_json:
        print_json(runs[0] if len(runs) == 1 else {"runs": runs})
        return
    names = [name for name in runs[0] if name not in ("policy", "seeds", "complete")]
    rows = [[name, *(_cell(name, run[name]) for run in runs)] for name in names]
    print_table(["", *(run["policy"] for run in runs)], rows)


def _cell(name: str, value: float) -> str:
    return f"{value:.4f}" if name.endswith("fraction") else f"{value:g}"
