"""Alibaba's cluster-trace-gpu-v2023 ("openb"): nodes and pods as CSV.

Nodes: `sn,cpu_milli,memory_mib,gpu,model`. Pods: `name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,...`, where
`gpu_spec` lists accepted models, separated by `|`. Other columns are not needed. Owns the format only.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from sim.errors import BadTrace
from sim.nodes import WHOLE_MILLI, Demand, NodeSpec
from sim.traces.text import BadLines, open_text

ROWS_MAX = 10_000_000
AMOUNT_MAX = 1 << 50
NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
POD_COLUMNS = ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli")

Made = TypeVar("Made", NodeSpec, Demand)


def read_nodes(path: str | Path, strict: bool = False) -> tuple[list[NodeSpec], BadLines]:
    """Read a node list; raises BadTrace for what is none, and with `strict` for the first bad line."""
    return _read(path, strict, NODE_COLUMNS, _node)


def read_pods(path: str | Path, strict: bool = False) -> tuple[list[Demand], BadLines]:
    """Read a pod list in its order; raises BadTrace for what is none, and with `strict` for the first bad line."""
    return _read(path, strict, POD_COLUMNS, _pod)


def _read(
    path: str | Path, strict: bool, columns: Iterable[str], make: Callable[[dict[str, str]], Made]
) -> tuple[list[Made], BadLines]:
    bad = BadLines(str(path), strict)
    made: list[Made] = []
    try:
        with open_text(path) as lines:
            rows = csv.DictReader(lines)
            missing = [name for name in columns if name not in (rows.fieldnames or ())]
            if missing:
                raise BadTrace(str(path), f"no column {missing[0]!r} in its first line", 1)
            for row in rows:
                try:
                    made.append(make(row))
                except ValueError as error:
                    bad.add(rows.line_num, str(error))
                if len(made) > ROWS_MAX:
                    raise BadTrace(str(path), f"more than {ROWS_MAX} rows")
    except (OSError, EOFError, csv.Error) as error:
        raise BadTrace(str(path), f"cannot be read: {error}") from None
    if not made:
        raise BadTrace(str(path), f"no rows ({bad.count} bad lines)")
    return made, bad


def _node(row: dict[str, str]) -> NodeSpec:
    gpus = _amount(row, "gpu", 0)
    if gpus > 64:
        raise ValueError(f"gpu: {gpus} is not valid; at most 64")
    return NodeSpec(row["sn"], _amount(row, "cpu_milli"), _amount(row, "memory_mib"), gpus, row["model"] or "")


def _pod(row: dict[str, str]) -> Demand:
    gpus, share = _amount(row, "num_gpu", 0), _amount(row, "gpu_milli", 0)
    if gpus and not 1 <= share <= WHOLE_MILLI:
        raise ValueError(f"gpu_milli: {share} is not valid; from 1 to {WHOLE_MILLI}")
    models = tuple(filter(None, (row.get("gpu_spec") or "").split("|")))
    return Demand(_amount(row, "cpu_milli"), _amount(row, "memory_mib"), gpus, share if gpus else 0, models)


def _amount(row: dict[str, str], name: str, missing: int | None = None) -> int:
    text = row.get(name)
    if not text and missing is not None:
        return missing
    try:
        amount = int(text or "")
    except ValueError:
        raise ValueError(f"{name}: {(text or '')[:20]!r} is no whole number") from None
    if not 0 <= amount <= AMOUNT_MAX:
        raise ValueError(f"{name}: {amount} is not valid; from 0 to {AMOUNT_MAX}")
    return amount
