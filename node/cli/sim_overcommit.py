"""`fofoca sim run --arrivals trace` with overcommit, use and failures: what promising more than there is would cost."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from node.cli import show
from node.cli.failures import Failure
from node.cli.sim_inputs import tell_bad
from node.cli.sim_progress import check_writable, open_result, watching

if TYPE_CHECKING:
    from sim.nodes import NodeSpec
    from sim.outages import Outage
    from sim.overcommitted import Ratios, Result
    from sim.placement import Visit
    from sim.usage import Usage

WORDS = ("overcommit", "usage", "failures")


def play(
    specs: Sequence[NodeSpec], visits: Sequence[Visit], policies: Sequence[str], overcommit: str | None,
    usage: str | None, failures: str | None, seed: int, as_json: bool, report: str | None,
) -> bool:  # fmt: skip
    """Run every policy at every ratio, print and write; return whether all runs came to their end."""
    from sim.overcommitted import overcommit as run

    check_writable("--report", report)
    used, names = read_usage(usage, seed), [spec.name for spec in specs]
    outages = read_failures(failures, names, visits[0].arrive_s, visits[-1].arrive_s, seed)
    results: list[Result] = []
    for policy in policies:
        for ratios in parse_ratios(overcommit or "1"):
            with watching(f"{policy} {ratios.cpu:g}:{ratios.memory:g}", len(visits)) as watch:
                results.append(run(specs, visits, policy, ratios, used, outages, seed=seed, watch=watch))
            if not results[-1].complete:
                break
    if report:
        from sim.report import overcommit_report

        with open_result(report) as out:
            out.write(overcommit_report(results, title="Overcommit"))
    _print(results, as_json)
    return all(each.complete for each in results)


def parse_ratios(text: str) -> list[Ratios]:
    """Read `1,1.5,2:1.2`: CPU and memory alike, or CPU:MEMORY."""
    from sim.overcommitted import Ratios

    found = []
    for part in text.split(","):
        cpu, colon, memory = part.strip().partition(":")
        try:
            found.append(Ratios(float(cpu), float(memory if colon else cpu)))
        except ValueError:
            raise Failure(f"--overcommit: {part!r} is not valid; a ratio, or CPU:MEMORY such as 2:1.2") from None
    return found


def read_usage(text: str | None, seed: int) -> Usage | None:
    """Return the use of a file or a model."""
    from sim.usage import parse_model, read_series

    if text is None:
        return None
    if "=" in text and not os.path.exists(text):
        return parse_model(text, seed)
    series, bad = read_series(text, seed=seed)
    tell_bad(bad)
    return series


def read_failures(text: str | None, names: Sequence[str], from_s: float, until_s: float, seed: int) -> list[Outage]:
    """Return the outages of a file, or those that a rate brings between two moments."""
    from sim.outages import by_rate, parse_rate, read_outages

    if text is None:
        return []
    if "=" in text and not os.path.exists(text):
        mean_up_s, mean_down_s = parse_rate(text)
        return by_rate(len(names), until_s, mean_up_s, mean_down_s, seed, from_s)
    return read_outages(text, names)


def _print(results: Sequence[Result], as_json: bool) -> None:
    runs = [
        {
            **each._asdict(),
            "ratios": each.ratios._asdict(),
            "curve": [point._asdict() for point in each.curve],
            "nodes": [node._asdict() for node in each.nodes],
        }
        for each in results
    ]
    if as_json:
        show.print_json(runs[0] if len(runs) == 1 else {"runs": runs})
        return
    names = [name for name in runs[0] if name not in ("policy", "ratios", "complete", "curve", "nodes")]
    titles = [f"{each.policy} {each.ratios.cpu:g}:{each.ratios.memory:g}" for each in results]
    show.print_table(["", *titles], [[name, *(_cell(run[name]) for run in runs)] for name in names])


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
