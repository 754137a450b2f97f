"""`fofoca queue`, `top` and `usage`."""

from __future__ import annotations

import csv
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import click

from node.caller import Agents
from node.cli import find, show
from node.cli.commands.nodes import print_nodes

LOOK_INTERVAL_S = 1.0
SHOWN_IN_TOP = 15
KEYS = {"day": "day", "user": "user", "account": "account", "job": "job"}
COUNTERS = ("attempts", "succeeded", "run_ms", "core_ms", "memory_mib_s", "charged_ms", "cpu_ms")


@click.command(short_help="Show the line of waiting jobs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@find.node_api_option
def queue(as_json: bool, node_api: str | None) -> None:
    """Show the jobs that wait, best rank first, as the queue leader keeps them.

    STARTS is when a job's reservation begins, by the time limits of what runs; only the first in line have one.
    """
    answer = find.agents(node_api).get("/v1/queue").json()
    if as_json:
        show.print_json(answer)
    else:
        print_queue(answer, len(answer["jobs"]))


def print_queue(answer: dict[str, Any], count: int) -> None:
    """The table of `fofoca queue`."""
    head = ["PLACE", "JOB", "OWNER", "ACCOUNT", "PRIORITY", "WAITING", "TASKS", "STARTS", "NOTE"]
    show.print_table(head, [_waiting(row) for row in answer["jobs"][:count]])
    left = answer["waiting"] - min(count, len(answer["jobs"]))
    if left > 0:
        print(f"... and {left} more in the line kept by {answer['leader']}")


def _waiting(row: dict[str, Any]) -> list[Any]:
    place = row["position"] if row["position"] is not None else "-"
    age = show.duration(row["waiting_s"])
    when = [age, row["wanted"], starts_in(row.get("start_in_s"))]
    return [place, row["job"], row["owner"], row["account"], row["priority"], *when, _note(row)]


def starts_in(start_in_s: float | None) -> str:
    """When a job is expected to start; "-": nobody can tell."""
    return "-" if start_in_s is None else f"in {show.duration(start_in_s)}"


def _note(row: dict[str, Any]) -> str:
    if row["quota"]:
        return f"no room in the limit of {row['quota'].replace('/', ' ')}"
    nodes = row.get("making_room", 0)
    return f"lower tiers give way on {nodes} node{'s' * (nodes != 1)}" if nodes else ""


@click.command(short_help="Watch nodes, queue and jobs.")
@click.option("--once", is_flag=True, help="Show once and end.")
@find.node_api_option
def top(once: bool, node_api: str | None) -> None:
    """Watch the cluster: its nodes, the line of waiting jobs, and the newest jobs; until interrupted."""
    agents = find.agents(node_api)
    if once or not sys.stdout.isatty():
        _print_top(agents)
        return
    _live(lambda: _print_top(agents))


def _print_top(agents: Agents) -> None:
    print_nodes(agents)
    print()
    print_queue(agents.get("/v1/queue").json(), SHOWN_IN_TOP)
    print()
    jobs = [each for each in agents.get("/v1/jobs").json() if each["state"] in ("running", "pending")]
    rows = [
        [each["id"], each["name"], each["owner"], each["state"], _counts(each["tasks"])]
        for each in jobs[-SHOWN_IN_TOP:][::-1]
    ]
    show.print_table(["JOB", "NAME", "OWNER", "STATE", "TASKS"], rows)


def _counts(tasks: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in tasks.items() if count)


def _live(print_once: Callable[[], None]) -> None:
    """Show it on the terminal's other screen, so that nothing is left of it afterwards; without flicker."""
    import io
    from contextlib import redirect_stdout

    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(), screen=True, auto_refresh=False) as live:
        while True:
            text = io.StringIO()
            with redirect_stdout(text):
                print_once()
            live.update(Text(text.getvalue()), refresh=True)
            time.sleep(LOOK_INTERVAL_S)


@click.command(short_help="Say who used what.")
@click.option("--by", "keys", default="day,user", metavar="KEYS", help="day, user, account or job; several by commas.")
@click.option("--first", metavar="DAY", help="From this day on: 2027-01-31. [default: 30 days ago]")
@click.option("--last", metavar="DAY", help="Up to this day. [default: today, UTC]")
@click.option("--user", metavar="NAME", help="This user's alone.")
@click.option("--account", metavar="NAME", help="This account's alone.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, with whole milliseconds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with whole milliseconds.")
@find.node_api_option
def usage(keys: str, as_csv: bool, as_json: bool, node_api: str | None, **wanted: str | None) -> None:
    """Say who used what: attempts that ended, what they reserved and what they used, added up by day, user ..."""
    chosen = keys.split(",")
    unknown = next((key for key in chosen if key not in KEYS), None)
    if unknown is not None:
        raise click.UsageError(f"--by: {unknown!r} is not one of {', '.join(KEYS)}", click.get_current_context())
    by = "job" if "job" in chosen else "day"
    answer = find.agents(node_api).get("/v1/usage", by=by, first=wanted["first"], last=wanted["last"])
    rows = [row for row in answer.json() if all(wanted[key] in (None, row[key]) for key in ("user", "account"))]
    sums = add_up(rows, chosen)
    if as_json:
        show.print_json(sums)
    elif as_csv:
        _print_csv(chosen, sums)
    else:
        _print_usage(chosen, sums)
    if missing := answer.headers.get("x-fofoca-missing", ""):
        print(f"fofoca: no answer from {missing}; what their jobs used is not in this list", file=sys.stderr)


def add_up(rows: list[dict[str, Any]], keys: list[str]) -> list[dict[str, Any]]:
    """Add rows of the same keys; nothing is rounded, so any two groupings have the same sum."""
    sums: defaultdict[tuple[Any, ...], dict[str, int]] = defaultdict(lambda: dict.fromkeys(COUNTERS, 0))
    for row in rows:
        of_group = sums[tuple(row[key] for key in keys)]
        for counter in COUNTERS:
            of_group[counter] += row[counter]
    ordered = sorted(sums, key=lambda group: [str(each) for each in group])
    return [dict(zip(keys, group, strict=True)) | sums[group] for group in ordered]


def _print_csv(keys: list[str], sums: list[dict[str, Any]]) -> None:
    writer = csv.DictWriter(sys.stdout, [*keys, *COUNTERS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(sums)


def _print_usage(keys: list[str], sums: list[dict[str, Any]]) -> None:
    head = [*(key.upper() for key in keys), "TASKS", "OK", "RUN", "CORE HOURS", "GIB HOURS", "CHARGED", "CPU USED"]
    show.print_table(head, [[row[key] for key in keys] + _figures(row) for row in sums])


def _figures(row: dict[str, Any]) -> list[Any]:
    hours = [row[name] / 3_600_000 for name in ("core_ms", "charged_ms", "cpu_ms")]
    gib_hours = row["memory_mib_s"] / 1024 / 3600
    run = show.duration(row["run_ms"] / 1000)
    core, charged, used = (f"{each:.2f}" for each in hours)
    return [row["attempts"], row["succeeded"], run, core, f"{gib_hours:.2f}", charged, used]
