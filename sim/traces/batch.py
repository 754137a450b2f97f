"""A batch trace of any format the simulator reads: what it holds, and which reader takes it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from sim.errors import BadTrace, BadValue
from sim.traces.text import BadLines, open_text
from sim.workload import Workload


class BatchTrace(NamedTuple):
    """The jobs that can run, the machine's size, what was wrong, and what was not taken, counted by reason."""

    workload: Workload
    processors: int
    bad: BadLines
    left_out: dict[str, int]


def read_batch(
    path: str | Path, processors: int = 0, strong: bool = False, strict: bool = False, mapping: str | None = None
) -> BatchTrace:
    """Read SWF, what sacct prints or Fofoca's own history, told apart by the first line; with a `mapping`, any CSV.

    Raises BadTrace for what cannot be read, BadValue for a filter the format does not have.
    """
    from sim.traces import history, mapped, sacct, swf

    begins = "" if mapping is not None else first_line(path)
    own = mapping is None and history.looks_like(begins)
    if mapping is None and not own and not sacct.looks_like(begins):
        found = swf.read_swf(path, processors, strong, strict)
        return BatchTrace(found.workload, found.processors, found.bad, found.left_out)
    if strong:
        raise BadValue("filter", "strong", "only SWF has both requested and allocated processors")
    if own:
        return mapped.read_jobs(path, history.BATCH, processors, strict)
    if mapping is not None:
        return mapped.read_jobs(path, mapped.read_mapping(mapping), processors, strict)
    return sacct.read_sacct(path, processors, strict)


def first_line(path: str | Path) -> str:
    """Return how a file begins; raises BadTrace, also for a pipe: what is read of it here, nobody reads again."""
    if Path(path).is_fifo():
        raise BadTrace(str(path), "is a pipe; its format is told from its first line, so write it to a file")
    try:
        with open_text(path) as lines:
            return lines.readline(65_536)
    except (OSError, EOFError) as error:
        raise BadTrace(str(path), f"cannot be unpacked: {error}") from None
