"""Options of `fofoca submit` and `fofoca update`: limits beyond memory, CPU and process count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from node.cli.failures import Failure
from node.limit_words import parse_bounds, parse_rates
from node.quantities import parse_size

OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--swap", metavar="SIZE", help="Swap a task may use beyond its memory.  [default: none]"),
    click.option("--memory-soft", metavar="SIZE", help="Under pressure, memory above this goes first."),
    click.option("--memory-high", metavar="SIZE", help="Above this a task is slowed down and reclaimed (cgroup v2)."),
    click.option("--swappiness", type=click.IntRange(0, 100), help="How readily it is swapped (cgroup v1)."),
    click.option("--oom-group", is_flag=True, default=None, help="Out of memory, kill all of a task (cgroup v2)."),
    click.option("--cpu-weight", type=click.IntRange(1, 10_000), help="Share of busy cores; a whole core's is 100."),
    click.option("--cpu-period", type=click.IntRange(1_000, 1_000_000), metavar="US", help="Period of the CPU quota."),
    click.option("--cores", metavar="LIST", help="Run on these cores: 0-3,8."),
    click.option("--exclusive-cores", type=click.IntRange(0), help="Own so many cores; nobody else runs on them."),
    click.option("--memory-nodes", metavar="LIST", help="Take memory from these NUMA nodes: 0,1."),
    click.option("--disk-weight", type=click.IntRange(1, 1_000), help="Share of a busy disk; the usual one is 100."),
    click.option(
        "--disk-limit",
        "disk_limits",
        multiple=True,
        metavar="[DISK:]RATES",
        help="Per second, of the node's disk or a named one: read=10M,write=5M,read-ops=100,write-ops=100.",
    ),
    click.option("--device", "devices", multiple=True, metavar="NAME", help="A device by its name in nodes' tables."),
    click.option(
        "--huge-pages", "huge_pages", multiple=True, metavar="PAGE=SIZE", help="Huge pages it may use: 2MB=64M."
    ),
    click.option("--net-class", metavar="MAJOR:MINOR", help="Traffic class of what it sends: 1:10 (cgroup v1)."),
    click.option(
        "--rlimit",
        "rlimits",
        multiple=True,
        metavar="NAME=SOFT[:HARD]",
        help="A limit of each process: nofile=1024:4096, core=0, memlock=64M, stack=unlimited.",
    ),
)


def body(options: dict[str, Any]) -> dict[str, Any]:
    """Return the part's JSON; what was not asked for is left out."""
    found = {
        "swap_bytes": _size(options["swap"], "swap"),
        "memory_soft_bytes": _size(options["memory_soft"], "memory-soft"),
        "memory_high_bytes": _size(options["memory_high"], "memory-high"),
        "swappiness": options["swappiness"],
        "oom_group": options["oom_group"],
        "cpu_weight": options["cpu_weight"],
        "cpu_period_us": options["cpu_period"],
        "cores": options["cores"],
        "exclusive_cores": options["exclusive_cores"],
        "memory_nodes": options["memory_nodes"],
        "disk_weight": options["disk_weight"],
        "disks": [_disk(text) for text in options["disk_limits"]] or None,
        "devices": list(options["devices"]) or None,
        "huge_pages": [_huge_pages(text) for text in options["huge_pages"]] or None,
        "net_class": options["net_class"],
        "rlimits": [_rlimit(text) for text in options["rlimits"]] or None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _size(text: str | None, field: str) -> int | None:
    if text is None:
        return None
    return 0 if text == "0" else parse_size(text, field)


def _disk(text: str) -> dict[str, Any]:
    name, colon, rates = text.rpartition(":")
    return ({"disk": name} if colon else {}) | parse_rates(rates, "disk-limit")


def _huge_pages(text: str) -> dict[str, Any]:
    page, equals, size = text.partition("=")
    if not equals:
        raise Failure(f"huge-pages: {text!r} is not valid; expected a page size and an amount, such as 2MB=64M")
    return {"page": page, "bytes": _size(size, "huge-pages")}


def _rlimit(text: str) -> dict[str, Any]:
    name, equals, values = text.partition("=")
    if not equals:
        raise Failure(f"rlimit: {text!r} is not valid; expected NAME=SOFT or NAME=SOFT:HARD, such as nofile=1024:4096")
    soft, hard = parse_bounds(name, values, f"rlimit {name}")
    return {"name": name, "soft": soft, "hard": hard}
