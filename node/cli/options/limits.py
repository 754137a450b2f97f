"""Options of `fofoca submit` and `fofoca update`: limits beyond memory, CPU and process count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from node.cli.failures import Failure
from node.quantities import parse_size

_RATES = {"read": "read_bytes", "write": "write_bytes", "read-ops": "read_ops", "write-ops": "write_ops"}
_RLIMIT_BYTES = ("as", "core", "data", "fsize", "memlock", "msgqueue", "rss", "stack")

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
    click.option("--net-class", metavar="MAJOR:MINOR", help="Traffic class of what it sends: 1:10."),
    click.option("--net-priority", type=click.IntRange(0, 15), help="Priority of what it sends."),
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
        "net_priority": options["net_priority"],
        "rlimits": [_rlimit(text) for text in options["rlimits"]] or None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _size(text: str | None, field: str) -> int | None:
    if text is None:
        return None
    return 0 if text == "0" else parse_size(text, field)


def _disk(text: str) -> dict[str, Any]:
    name, colon, rates = text.rpartition(":")
    found: dict[str, Any] = {"disk": name} if colon else {}
    for rate in rates.split(","):
        key, equals, value = rate.partition("=")
        if not equals or key not in _RATES:
            raise Failure(f"disk-limit: {text!r} is not valid; expected rates such as read=10M,write-ops=100")
        found[_RATES[key]] = parse_size(value, f"disk-limit {key}")
    return found


def _huge_pages(text: str) -> dict[str, Any]:
    page, equals, size = text.partition("=")
    if not equals:
        raise Failure(f"huge-pages: {text!r} is not valid; expected a page size and an amount, such as 2MB=64M")
    return {"page": page, "bytes": _size(size, "huge-pages")}


def _rlimit(text: str) -> dict[str, Any]:
    name, equals, values = text.partition("=")
    if not equals:
        raise Failure(f"rlimit: {text!r} is not valid; expected NAME=SOFT or NAME=SOFT:HARD, such as nofile=1024:4096")
    soft, _, hard = values.partition(":")
    found = {"name": name, "soft": _amount(name, soft)}
    return {**found, "hard": _amount(name, hard)} if hard else found


def _amount(name: str, text: str) -> int:
    if text == "unlimited":
        return -1
    if name in _RLIMIT_BYTES and text != "0":
        return parse_size(text, f"rlimit {name}")
    if not (text.isascii() and text.isdigit()):
        raise Failure(f"rlimit {name}: {text!r} is not valid; expected a number, or unlimited")
    return int(text)
