"""`fofoca sim what-if`: a copy of the live cluster goes on as it is and as it would be; only the copy is touched."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from node.cli import find, live, show
from node.cli.failures import INTERRUPTED, Failure
from node.cli.sim_progress import watching
from node.errors import InvalidValue

if TYPE_CHECKING:
    from scheduler.model import JobSpec
    from sim.cluster import NodeType
    from sim.futures import Addition, Comparison, Future, Load, Wait
    from sim.live import Live

_ADD = re.compile(r"([1-9][0-9]{0,5})x([A-Za-z0-9][A-Za-z0-9._-]{0,62})")
_TIME = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)?")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
JOB_FILE_BYTES_MAX = 64 << 20
SHOWN_MAX = 50
SOON_S = 10.0


@click.command("what-if", short_help="Say what a change to the live cluster would bring.")
@click.option("--snapshot", "file", metavar="FILE.json", help="Start from this copy. [default: a fresh one]")
@click.option("--drain", "drains", multiple=True, metavar="NODE[:TIME]",
              help="Drain a node: services go now, batch tasks after TIME, or end by themselves.")  # fmt: skip
@click.option("--remove", "removed", multiple=True, metavar="NODE", help="Lose a node with what runs there.")
@click.option("--add", "added", multiple=True, metavar="COUNTxTYPE",
              help="Add nodes: 4xbig of a --node-type or of a --cluster's, or 4xn3 for more like node n3.")  # fmt: skip
@click.option("--node-type", "types", multiple=True, metavar="NAME:cpu=64,memory=256G", help="What --add may name.")
@click.option("--cluster", metavar="CLUSTER.toml", help="A cluster file whose types --add may name.")
@click.option("--ratio", "ratios", multiple=True, metavar="cpu=1.5|memory=2", help="Permit so much overcommit.")
@click.option("--job", "job_files", multiple=True, metavar="FILE", help="Submit these jobs too: as POST /v1/jobs has "
              "them, one or a list, JSON.")  # fmt: skip
@click.option("--owner", default="what-if", show_default=True, metavar="USER", help="Whose the jobs of --job are.")
@click.option("--horizon", default="7d", show_default=True, metavar="TIME", help="Look so far ahead at most.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@find.node_api_option
def what_if(
    file: str | None, drains: tuple[str, ...], removed: tuple[str, ...], added: tuple[str, ...], types: tuple[str, ...],
    cluster: str | None, ratios: tuple[str, ...], job_files: tuple[str, ...], owner: str, horizon: str, as_json: bool,
    node_api: str | None,
) -> None:  # fmt: skip
    """Take a copy of the live cluster and its jobs, let it go on in virtual time with the agents' own code, once as it
    is and once with the changes, and say what differs: which tasks find no place again, when waiting jobs would start,
    how full nodes would be. The cluster itself is not touched.

    \b
    fofoca sim what-if --drain n3
    fofoca sim what-if --remove n2 --add 4xbig --node-type big:cpu=64,memory=256G --job JOBS.json
    fofoca sim snapshot -o live.json; fofoca sim what-if --snapshot live.json --ratio memory=2
    """
    from sim import futures as machine
    from sim.errors import SimulationError
    from sim.live import read_live

    try:
        if types and not added:
            raise Failure("--node-type: is what --add may name; there is no --add")
        named = {each.name: each for each in map(_node_type, types)}
        copy = read_live(file) if file else live.take(node_api)
        by_resource = _ratios(ratios)
        changes = machine.Changes(
            drain={name: _seconds("--drain", after) if after else None for name, after in map(_drain, drains)},
            remove=tuple(dict.fromkeys(removed)),
            add=tuple(_addition(text, copy, cluster, named) for text in added),
            cpu_ratio=by_resource.get("cpu"),
            memory_ratio=by_resource.get("memory"),
            jobs=tuple(spec for path in job_files for spec in _jobs(path)),
            owner=owner,
        )
        horizon_s = _seconds("--horizon", horizon)
        with watching("what if", round(horizon_s)) as watch:
            found = machine.what_if(copy, changes, horizon_s, lambda now_s, _end_s: watch(round(now_s), now_s))
    except SimulationError as error:
        raise Failure(str(error)) from None
    if as_json:
        show.print_json(document(copy, found))
    else:
        _print(copy, found)
    if not (found.now.complete and found.then.complete):
        raise Failure("interrupted; the results are those up to then", INTERRUPTED)


# --- options


def _drain(text: str) -> tuple[str, str]:
    name, _, after = text.partition(":")
    return name, after


def _seconds(option: str, text: str) -> float:
    match = _TIME.fullmatch(text)
    if match is None:
        raise Failure(f"{option}: {text!r} is not valid; a time such as 90s, 10m, 2h or 7d")
    return float(match[1]) * _UNITS[match[2] or "s"]


def _ratios(texts: tuple[str, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in ",".join(texts).split(",") if texts else ():
        name, _, value = text.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = -1.0
        if name not in ("cpu", "memory") or found[name] <= 0:
            raise Failure(f"--ratio: {text!r} is not valid; cpu=NUMBER or memory=NUMBER, such as memory=2")
    return found


def _addition(text: str, copy: Live, cluster: str | None, named: dict[str, NodeType]) -> Addition:
    from sim.cluster import read_cluster
    from sim.futures import Addition

    match = _ADD.fullmatch(text)
    if match is None:
        raise Failure(f"--add: {text!r} is not valid; COUNTxTYPE, such as 4xbig")
    known: dict[str, NodeType] = {each.name: each for each in map(_like, copy.nodes)}
    known |= {each.name: each for each in read_cluster(cluster).types} if cluster else {}
    known |= named
    if match[2] not in known:
        there = f"one of {', '.join(sorted(known)[:20])}, or say" if known else "say"
        raise Failure(f"--add: no type {match[2]}; {there} what it is: --node-type {match[2]}:cpu=64,memory=256G")
    return Addition(int(match[1]), known[match[2]])


def _like(node: Any) -> NodeType:
    from sim.cluster import NodeType

    has, labels = node.report.allocatable, dict(node.report.labels)
    return NodeType(node.node, f"{has.cpu_milli}m", has.memory_bytes, labels=labels)


def _node_type(text: str) -> NodeType:
    from sim.cluster import parse_node_type

    try:
        return parse_node_type(text)
    except ValueError as error:
        raise Failure(f"--node-type: {text!r}: {error}") from None


def _jobs(path: str) -> list[JobSpec]:
    from node.api.schemas import read_submission

    try:
        if Path(path).stat().st_size > JOB_FILE_BYTES_MAX:
            raise Failure(f"--job: {path} is larger than {JOB_FILE_BYTES_MAX >> 20} MiB")
        found = read_submission(Path(path).read_bytes())
    except OSError as error:
        raise Failure(f"--job: {path}: {(error.strerror or str(error)).lower()}") from None
    except InvalidValue as error:
        raise Failure(f"--job: {path}: {error}") from None
    return found if isinstance(found, list) else [found]


# --- what is told


def document(copy: Live, found: Comparison) -> dict[str, Any]:
    """Return everything, `now` and `then` side by side."""
    return {
        "taken_unix_s": copy.taken_unix_s,
        "cluster": dict(copy.counts),
        "missing": list(copy.missing),
        "now": _future(found.now),
        "then": _future(found.then),
    }


def _future(future: Future) -> dict[str, Any]:
    return {
        "jobs": [each._asdict() for each in future.waits],
        "new_jobs": [each._asdict() for each in future.new_jobs],
        "refused": future.refused,
        "moved": [each._asdict() for each in future.moved],
        "nodes": [each._asdict() for each in future.loads],
        "until_s": future.until_s,
        "complete": future.complete,
    }


def _print(copy: Live, found: Comparison) -> None:
    print(", ".join(f"{count} {name.replace('_', ' ')}" for name, count in copy.counts.items()))
    _print_moved(found.then)
    _print_waits(found)
    _print_new(found.then)
    _print_loads(found)


def _print_moved(then: Future) -> None:
    stranded = [each for each in then.moved if not each.now]
    if then.moved:
        print(f"\n{len(then.moved)} running tasks have to go; {len(stranded)} of them find no place again")
        rows = [
            [each.task, each.name, each.owner, each.was, each.now or "-",
             _when(each.in_s) if each.now else "lost" if each.lost else "never" if then.complete else "not yet"]
            for each in sorted(then.moved, key=lambda each: bool(each.now))
        ]  # fmt: skip
        _table(["TASK", "NAME", "OWNER", "WAS ON", "THEN ON", "STARTS ANEW"], rows)


def _print_waits(found: Comparison) -> None:
    before = {each.job: each for each in found.now.waits}
    if found.then.waits:
        print("\nWaiting jobs start (first task - last task):")
        rows = [
            [
                each.job,
                each.name,
                each.owner,
                each.waiting,
                _span(before[each.job]),
                _span(each),
                ",".join(each.nodes[:4]),
            ]
            for each in found.then.waits
        ]
        _table(["JOB", "NAME", "OWNER", "TASKS", "NOW", "THEN", "THEN ON"], rows)


def _print_new(then: Future) -> None:
    if then.new_jobs:
        print("\nThe new jobs would start:")
        rows = [[each.name, each.waiting, each.started, _span(each), _places(each)] for each in then.new_jobs]
        _table(["NAME", "TASKS", "PLACED", "START", "ON"], rows)
    for text in then.refused:
        print(f"refused: {text}")


def _print_loads(found: Comparison) -> None:
    now = {each.node: each for each in found.now.loads}
    then = {each.node: each for each in found.then.loads}
    print("\nCommitted, of what nodes let tasks have (now -> then; settled, and mean):")
    fields = ("cpu", "cpu_mean", "memory", "memory_mean", "tasks")
    rows = [
        [name, *(_change(now.get(name), then.get(name), field) for field in fields)]
        for name in dict.fromkeys([*now, *then])
    ]
    _table(["NODE", "CPU", "CPU MEAN", "MEMORY", "MEMORY MEAN", "TASKS"], rows)


def _table(head: list[str], rows: list[list[Any]]) -> None:
    show.print_table(head, rows[:SHOWN_MAX])
    if len(rows) > SHOWN_MAX:
        print(f"... and {len(rows) - SHOWN_MAX} more (--json shows all)", file=sys.stdout)


def _change(now: Load | None, then: Load | None, field: str) -> str:
    form = "d" if field == "tasks" else ".0%"
    before, after = (f"{getattr(each, field):{form}}" if each is not None else "-" for each in (now, then))
    return before if before == after else f"{before} -> {after}"


def _places(wait: Wait) -> str:
    return ",".join(wait.nodes[:4]) + (" ..." if len(wait.nodes) > 4 else "")


def _span(wait: Wait) -> str:
    if wait.first_s is None:
        return "never"
    first = _when(wait.first_s)
    if wait.last_s is None:
        return f"{first}, {wait.started} of {wait.waiting}"
    last = _when(wait.last_s)
    return first if first == last else f"{first} - {last}"


def _when(in_s: float | None) -> str:
    if in_s is None:
        return "never"
    return "at once" if in_s < SOON_S else f"in {show.duration(in_s)}"
