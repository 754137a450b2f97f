"""The nodes of a live cluster as a cluster file (`sim.cluster`), so that a replay can run on what is there.

Knows what `GET /v1/nodes` answers, not how it is asked. Nodes that are alike, labels and all, are one entry.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from sim.errors import BadValue

TYPES_MAX = 1000
"""As many kinds of nodes as a cluster file may have."""

Kind = tuple[int, int, tuple[tuple[str, str], ...]]


def format_snapshot(nodes: Iterable[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """Return the cluster file of the nodes that are alive, as TOML, and the names of the others.

    A node's CPU and memory are what it lets tasks have, `allocatable`. Raises BadValue if none is alive or if there are
    more kinds than a cluster file may have.
    """
    counts: Counter[Kind] = Counter()
    firsts: dict[Kind, str] = {}
    left_out: list[str] = []
    for node in nodes:
        if node["state"] != "alive":
            left_out.append(node["name"])
            continue
        has = node["allocatable"]
        kind = (has["cpu_milli"], has["memory_bytes"], tuple(sorted(node["labels"].items())))
        firsts.setdefault(kind, node["name"])
        counts[kind] += 1
    if not 1 <= len(counts) <= TYPES_MAX:
        raise BadValue("nodes", f"{len(counts)} kinds of nodes that are alive", f"from 1 to {TYPES_MAX}")
    return "\n".join(_entry(firsts[kind], kind, count) for kind, count in counts.items()), left_out


def _entry(name: str, kind: Kind, count: int) -> str:
    cpu_milli, memory_bytes, labels = kind
    pairs = ", ".join(f"{_text(key)} = {_text(value)}" for key, value in labels)
    lines = ["[[node]]", f"name = {_text(name)}", f"count = {count}", f'cpu = "{cpu_milli}m"']
    return "\n".join([*lines, f"memory = {memory_bytes}", f"labels = {{{pairs}}}", ""])


def _text(value: str) -> str:
    """A TOML basic string; JSON's escapes are TOML's too."""
    return json.dumps(value, ensure_ascii=False)
