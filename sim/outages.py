"""When which node is down: by a rate, or by a list.

By a rate: each node fails after an exponential time and is repaired after an exponential time, drawn from its own
stream, so that one node more does not change the others' failures. A list is CSV: `node,down_s,up_s`.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple

from sim.errors import BadTrace, BadValue
from sim.traces.text import open_text

OUTAGES_MAX = 1_000_000
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Outage(NamedTuple):
    """A node, by its number in the list of nodes, is down from one moment to another."""

    node: int
    down_s: float
    up_s: float


def by_rate(
    nodes: int, until_s: float, mean_up_s: float, mean_down_s: float, seed: int, from_s: float = 0.0
) -> list[Outage]:
    """Return all outages that begin before `until_s`, in order; raises BadValue."""
    if mean_up_s <= 0 or mean_down_s <= 0:
        raise BadValue("failures", f"{mean_up_s:g},{mean_down_s:g}", "mean times above 0")
    if nodes * (until_s - from_s) / (mean_up_s + mean_down_s) > OUTAGES_MAX:
        raise BadValue("failures", f"{mean_up_s:g} s", f"so seldom that there are at most {OUTAGES_MAX} failures")
    outages = []
    for node in range(nodes):
        rng = random.Random(f"outages {seed} {node}")
        now_s = from_s + rng.expovariate(1 / mean_up_s)
        while now_s < until_s:
            up_s = now_s + rng.expovariate(1 / mean_down_s)
            outages.append(Outage(node, now_s, up_s))
            now_s = up_s + rng.expovariate(1 / mean_up_s)
    return sorted(outages, key=lambda outage: (outage.down_s, outage.node))


def parse_rate(text: str) -> tuple[float, float]:
    """Read `every=30d,repair=2h` as (mean time up, mean time down) in seconds; raises BadValue."""
    found = {"every": 0.0, "repair": 3600.0}
    for pair in text.split(","):
        name, _, value = pair.strip().partition("=")
        unit = _UNITS.get(value[-1:], 0.0)
        try:
            found[name] = float(value[:-1] if unit else value) * (unit or 1.0)
        except ValueError:
            raise BadValue("failures", repr(text), "every=TIME,repair=TIME, such as every=30d,repair=2h") from None
    if len(found) != 2 or min(found.values()) <= 0:
        raise BadValue("failures", repr(text), "every=TIME,repair=TIME, such as every=30d,repair=2h")
    return found["every"], found["repair"]


def read_outages(path: str | Path, names: Sequence[str]) -> list[Outage]:
    """Read a list for nodes of these names; raises BadTrace at the first line that makes no sense."""
    places = {name: number for number, name in enumerate(names)}
    outages = []
    try:
        with open_text(path) as lines:
            rows = csv.DictReader(lines)
            if not {"node", "down_s", "up_s"} <= set(rows.fieldnames or ()):
                raise BadTrace(str(path), "expected the columns node,down_s,up_s", 1)
            for row in rows:
                outages.append(_outage(str(path), rows.line_num, row, places))
                if len(outages) > OUTAGES_MAX:
                    raise BadTrace(str(path), f"more than {OUTAGES_MAX} lines")
    except (OSError, EOFError, csv.Error) as error:
        raise BadTrace(str(path), f"cannot be read: {error}") from None
    return sorted(outages, key=lambda outage: (outage.down_s, outage.node))


def _outage(path: str, line: int, row: dict[str, str], places: dict[str, int]) -> Outage:
    if row["node"] not in places:
        raise BadTrace(path, f"no node {row['node']!r} in the cluster", line)
    try:
        down_s = float(row["down_s"])
        up_s = float(row["up_s"]) if row["up_s"] else inf
    except (TypeError, ValueError):
        raise BadTrace(path, f"{row['down_s']!r} or {row['up_s']!r} is no number", line) from None
    if not up_s > down_s:
        raise BadTrace(path, f"it would be up at {up_s:g} s, before it is down at {down_s:g} s", line)
    return Outage(places[row["node"]], down_s, up_s)


def downtime_s(outages: Iterable[Outage], until_s: float) -> float:
    """Return the node seconds lost before a moment."""
    return sum(max(0.0, min(each.up_s, until_s) - each.down_s) for each in outages)
