"""Alibaba's cluster-trace-gpu-v2023 ("openb"): nodes and pods as CSV.

Nodes: `sn,cpu_milli,memory_mib,gpu,model`. Pods: `cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec`, where
`gpu_spec` lists accepted models, separated by `|`; `creation_time` and `deletion_time` (seconds) are needed only where
pods come and go. The columns about GPUs may be left out; others are not looked at. Owns the format only.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from itertools import islice
from math import inf, isfinite
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

from sim.errors import BadTrace
from sim.nodes import WHOLE_MILLI, Demand, NodeSpec
from sim.placement import Visit
from sim.traces.text import BadLines, open_text

ROWS_MAX = 10_000_000
AMOUNT_MAX = 1 << 50
NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
POD_COLUMNS = ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec")
TIME_COLUMNS = ("creation_time", "deletion_time")
OPTIONAL_COLUMNS = ("gpu", "model", "num_gpu", "gpu_milli", "gpu_spec")
GPUS_MAX = 64

Row = Sequence[str]
Made = TypeVar("Made")


def read_nodes(path: str | Path, strict: bool = False) -> tuple[list[NodeSpec], BadLines]:
    """Read a node list; raises BadTrace for what is none, and with `strict` for the first bad line."""
    return _read(path, strict, NODE_COLUMNS, _node)


def read_pods(path: str | Path, strict: bool = False) -> tuple[list[Demand], BadLines]:
    """Read a pod list in its order; raises BadTrace for what is none, and with `strict` for the first bad line."""
    return _read(path, strict, POD_COLUMNS, _Pods().demand)


def read_visits(path: str | Path, strict: bool = False) -> tuple[list[Visit], BadLines]:
    """Read a pod list with its times, in order of creation; like `read_pods` otherwise.

    A pod without a deletion time stays.
    """
    visits, bad = _read(path, strict, (*POD_COLUMNS, *TIME_COLUMNS), _Pods().visit)
    visits.sort(key=itemgetter(0))
    return visits, bad


def _read(
    path: str | Path, strict: bool, columns: Sequence[str], make: Callable[[Row], Made]
) -> tuple[list[Made], BadLines]:
    """Read rows of the named columns, in that order."""
    bad = BadLines(str(path), strict)
    made: list[Made] = []
    try:
        with open_text(path) as lines:
            rows = csv.reader(lines)
            pick = _picker(str(path), next(rows, []), columns)
            for row in islice(rows, ROWS_MAX):
                try:
                    made.append(make(pick([*row, ""])))
                except IndexError:
                    bad.add(rows.line_num, f"{len(row)} columns are too few")
                except ValueError as error:
                    bad.add(rows.line_num, str(error))
            if next(rows, None) is not None:
                raise BadTrace(str(path), f"more than {ROWS_MAX} rows")
    except (OSError, EOFError, csv.Error) as error:
        raise BadTrace(str(path), f"cannot be read: {error}") from None
    if not made:
        raise BadTrace(str(path), f"no rows ({bad.count} bad lines)")
    return made, bad


def _picker(path: str, header: list[str], columns: Sequence[str]) -> Callable[[Row], Row]:
    missing = [name for name in columns if name not in header and name not in OPTIONAL_COLUMNS]
    if missing:
        raise BadTrace(path, f"no column {missing[0]!r} in its first line", 1)
    # One more, empty, stands at the end of each row for the columns that are not there.
    return itemgetter(*(header.index(name) if name in header else -1 for name in columns))


def _node(row: Row) -> NodeSpec:
    name, cpu, memory, gpus, model = row
    count = _amount("gpu", gpus or "0")
    if count > GPUS_MAX:
        raise ValueError(f"gpu: {count} is not valid; at most {GPUS_MAX}")
    return NodeSpec(name, _amount("cpu_milli", cpu), _amount("memory_mib", memory), count, model)


class _Pods:
    """Makes demands; equal rows share one, for a million pods have few shapes."""

    def __init__(self) -> None:
        self._known: dict[Row, Demand] = {}

    def demand(self, row: Row) -> Demand:
        known = self._known.get(row)
        if known is None:
            known = self._known[row] = _demand(*row)
        return known

    def visit(self, row: Row) -> Visit:
        demand = self.demand(row[: len(POD_COLUMNS)])
        arrive_s = float(row[-2])
        leave_s = float(row[-1]) if row[-1] else inf
        if not (isfinite(arrive_s) and leave_s >= arrive_s):
            raise ValueError(f"deletion_time: {row[-1]} is not valid; not before the creation_time {row[-2]}")
        return Visit(arrive_s, leave_s, demand)


def _demand(cpu: str, memory: str, gpus: str, share: str, spec: str) -> Demand:
    count, milli = _amount("num_gpu", gpus or "0"), _amount("gpu_milli", share or "0")
    if count and not 1 <= milli <= WHOLE_MILLI:
        raise ValueError(f"gpu_milli: {milli} is not valid; from 1 to {WHOLE_MILLI}")
    models = tuple(filter(None, spec.split("|")))
    return Demand(_amount("cpu_milli", cpu), _amount("memory_mib", memory), count, milli if count else 0, models)


def _amount(name: str, text: str) -> int:
    try:
        amount = int(text)
    except ValueError:
        raise ValueError(f"{name}: {text[:20]!r} is no whole number") from None
    if not 0 <= amount <= AMOUNT_MAX:
        raise ValueError(f"{name}: {amount} is not valid; from 0 to {AMOUNT_MAX}")
    return amount
