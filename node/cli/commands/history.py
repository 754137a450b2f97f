"""`fofoca history`: the tasks that have ended, as CSV or as a trace for the simulator."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from node.caller import Agents
from node.cli import find
from node.cli.failures import Failure
from node.cli.sim_progress import check_writable, open_result
from node.errors import ApiProblem, ClientError

if TYPE_CHECKING:
    from scheduler.ended import EndedTask


@click.command(short_help="Write what has ended, as CSV or SWF.")
@click.option("-o", "--output", metavar="FILE", help="Where to; FILE.swf gets SWF. [default: CSV on stdout]")
@click.option("--owner", metavar="NAME", help="Only this user's tasks.")
@click.option("--first", metavar="DAY", help="Ended on this day or later: 2027-01-31 (UTC).")
@click.option("--last", metavar="DAY", help="Ended on this day or before it.")
@find.node_api_option
def history(output: str | None, owner: str | None, first: str | None, last: str | None, node_api: str | None) -> None:
    """Write a line for each task that has ended and that its home still remembers, with what it asked for, when it
    was submitted, started and ended, and where. Users get their own, operators everybody's.

    `fofoca sim run` replays the file: what would the wait have been with another policy, or on fewer nodes?
    """
    check_writable("--output", output)
    days = _day("--first", first, 0.0), _day("--last", last, 1e12) + 86_400.0
    missing: list[str] = []
    tasks = [each for each in _all(find.agents(node_api), owner, missing) if days[0] <= each.ended_unix_s < days[1]]
    _write(tasks, output)
    if missing:
        print(f"fofoca: no answer from {', '.join(missing)}; their tasks are not in it", file=sys.stderr)


def _day(option: str, text: str | None, default: float) -> float:
    if text is None:
        return default
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise Failure(f"{option}: {text!r} is not valid; a day such as 2027-01-31") from None


def _all(agents: Agents, owner: str | None, missing: list[str]) -> Iterator[EndedTask]:
    import msgspec

    from scheduler.ended import EndedPage

    decode = msgspec.json.Decoder(EndedPage).decode
    for node in agents.get("/v1/nodes").json():
        path = f"/v1/nodes/{quote(node['name'], safe='')}/history"
        after: str | None = "0.0"
        try:
            while after is not None:
                page = decode(agents.get(path, after=after, owner=owner).body)
                yield from page.tasks
                after = f"{page.next[0]}.{page.next[1]}" if page.next else None
        except ApiProblem as error:
            if error.status < 500 and error.status != 404:
                raise Failure(str(error)) from None
            missing.append(node["name"])
        except ClientError:
            missing.append(node["name"])


def _write(tasks: list[EndedTask], output: str | None) -> None:
    from sim.errors import SimulationError
    from sim.traces.history import to_workload, write_history
    from sim.traces.swf import write_swf

    try:
        if output is None:
            write_history(sys.stdout, tasks)
            return
        if not output.endswith(".swf"):
            with open_result(output) as out:
                write_history(out, tasks)
            return
        work, starts = to_workload(tasks, "fofoca")
        with open_result(output) as out:
            write_swf(out, work, max(work.needs), starts)
    except SimulationError as error:
        raise Failure(str(error)) from None
