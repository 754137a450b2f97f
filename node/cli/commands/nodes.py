"""`fofoca nodes` and `members`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import click

from node.caller import Agents
from node.cli import find, show
from scheduler.abilities import is_ability

WATCH_INTERVAL_S = 1.0
MEASURED_LABELS = frozenset({"arch", "cgroup", "kernel", "node", "runtime"})
"""Labels every node has; the table leaves them, and its abilities, to --labels: what the operator gave stands out."""


@click.command(short_help="Show the nodes and how full they are.")
@click.option("--watch", is_flag=True, help="Show anew every second, until interrupted.")
@click.option("--labels", is_flag=True, help="Show every label instead, what each node can do included.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@find.node_api_option
def nodes(watch: bool, labels: bool, as_json: bool, node_api: str | None) -> None:
    """Show the nodes: what is committed to tasks, what is used, what is offered."""
    agents = find.agents(node_api)
    if as_json:
        show.print_json(agents.get("/v1/nodes").json())
        return
    _once_or_again(watch, lambda: print_labels(agents) if labels else print_nodes(agents))


@click.command(short_help="Show the members as one node's gossip sees them.")
@click.option("--watch", is_flag=True, help="Show anew every second, until interrupted.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@find.node_api_option
def members(watch: bool, as_json: bool, node_api: str | None) -> None:
    """Show the members as the asked node's gossip sees them."""
    agents = find.agents(node_api)
    if as_json:
        show.print_json(agents.get("/v1/members").json())
        return
    _once_or_again(watch, lambda: print_members(agents))


def print_nodes(agents: Agents) -> None:
    """The table of `fofoca nodes`."""
    head = ["NODE", "STATE", "CPU", "", "MEMORY", "", "USED CPU", "USED MEM", "TASKS", "NOTE"]
    show.print_table(head, [_node_row(node) for node in agents.get("/v1/nodes").json()])


def print_labels(agents: Agents) -> None:
    """The table of `fofoca nodes --labels`; nodes that say the same share a row."""
    sayers: dict[tuple[str, str], list[str]] = {}
    for node in agents.get("/v1/nodes").json():
        for label, value in (node.get("labels") or {}).items():
            sayers.setdefault((label, value), []).append(node["name"])
    rows = [(label, value, ",".join(names)) for (label, value), names in sorted(sayers.items())]
    show.print_table(["LABEL", "VALUE", "NODES"], rows)


def print_members(agents: Agents) -> None:
    """The table of `fofoca members`."""
    head = ["NODE", "ADDRESS", "STATE", "FOR", "INCARNATION", "BOOT"]
    rows = agents.get("/v1/members").json()
    show.print_table(head, [_member_row(row) for row in sorted(rows, key=lambda row: str(row["name"]))])


def _member_row(member: dict[str, Any]) -> list[Any]:
    address = f"{member['host']}:{member['port']}"
    since = show.duration(member["since_s"])
    return [member["name"], address, member["state"], since, member["incarnation"], member["boot_epoch"]]


def _node_row(node: dict[str, Any]) -> list[Any]:
    committed, allocatable, used = node.get("committed") or {}, node.get("allocatable") or {}, node.get("used") or {}
    notes = []
    if node.get("leader"):
        notes.append("queue leader")
    if node.get("draining"):
        notes.append("draining" if node.get("containers") else "drained")
    elif not node.get("accepting", True):
        notes.append("cordoned")
    labels = node.get("labels") or {}
    given = {name: labels[name] for name in labels if name not in MEASURED_LABELS and not is_ability(name)}
    notes += [f"{name}={value}" if value else name for name, value in given.items()]
    return [
        node["name"],
        node["state"],
        f"{show.cores(committed.get('cpu_milli', 0))}/{show.cores(allocatable.get('cpu_milli', 0))}",
        show.bar(show.fraction(committed, allocatable, "cpu_milli")),
        f"{show.size(committed.get('memory_bytes', 0))}/{show.size(allocatable.get('memory_bytes', 0))}",
        show.bar(show.fraction(committed, allocatable, "memory_bytes")),
        show.cores(used.get("cpu_milli", 0)),
        show.size(used.get("memory_bytes", 0)),
        node.get("containers", 0),
        ", ".join(notes),
    ]


def _once_or_again(watch: bool, print_table: Callable[[], None]) -> None:
    if not watch:
        print_table()
        return
    while True:
        if sys.stdout.isatty():
            sys.stdout.write("\x1b[H\x1b[2J")
        print_table()
        sys.stdout.flush()
        time.sleep(WATCH_INTERVAL_S)
