"""A grid of replays on all cores, kept line by line, so that an interrupted sweep goes on where it stopped.

Owns the grid, the pool of processes and the file: one JSON object a line, the parameters under `run`, the figures under
`figures`. A run whose parameters are in the file already is not run again; a line cut short by a crash is passed over
and its run repeated.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import IO, Any

from sim.errors import BadTrace, BadValue

RUNS_MAX = 100_000

Parameters = dict[str, Any]
Work = Callable[[Parameters], Mapping[str, Any]]

_work: Work | None = None


def grid(axes: Mapping[str, Sequence[Any]]) -> list[Parameters]:
    """Return every combination of the axes' values, the last axis fastest; raises BadValue above RUNS_MAX."""
    count = 1
    for values in axes.values():
        count *= len(values)
    if not 1 <= count <= RUNS_MAX:
        raise BadValue("grid", f"{count} runs", f"from 1 to {RUNS_MAX}")
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def read_results(path: str | Path) -> dict[str, Mapping[str, Any]]:
    """Return what a sweep's file has: figures by their run's key; nothing for a file that is not there.

    Raises BadTrace for a file that is no sweep's, so that nothing of somebody's is written over.
    """
    found: dict[str, Mapping[str, Any]] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return found
    except (OSError, UnicodeDecodeError) as error:
        raise BadTrace(str(path), f"cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            found[key(entry["run"])] = entry["figures"]
        except (json.JSONDecodeError, TypeError, KeyError):
            if number < len(lines) or len(lines) == 1:
                raise BadTrace(str(path), "is no line of a sweep; name another file", number) from None
    return found


def cut_broken_line(path: str | Path) -> None:
    """Take off a last line that a crash left without its end; call it after `read_results`."""
    file = Path(path)
    if file.exists() and (content := file.read_bytes()) and not content.endswith(b"\n"):
        os.truncate(file, content.rfind(b"\n") + 1)


def key(run: Parameters) -> str:
    """Return a run's parameters as one text, the same for the same run."""
    return json.dumps(run, sort_keys=True, separators=(",", ":"))


def sweep(runs: Iterable[Parameters], work: Work, processes: int = 0) -> Iterator[tuple[Parameters, Mapping[str, Any]]]:
    """Yield (parameters, figures) as runs end. Closing the iterator ends the processes."""
    global _work
    _work = work
    todo = list(runs)
    count = min(processes or len(os.sched_getaffinity(0)), len(todo)) or 1
    if count == 1:
        yield from ((run, work(run)) for run in todo)
        return
    context = multiprocessing.get_context("fork")
    with context.Pool(count, initializer=_obey_the_pool) as pool:
        yield from pool.imap_unordered(_run, todo)


def _obey_the_pool() -> None:
    """Ctrl-C is for the one who reads the results; SIGTERM, which ends a pool's processes, for nobody else to catch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(run: Parameters) -> tuple[Parameters, Mapping[str, Any]]:
    assert _work is not None
    return run, _work(run)


def write_result(out: IO[str], run: Parameters, figures: Mapping[str, Any]) -> None:
    """Append one result, at once on disk's side of the process."""
    out.write(json.dumps({"run": run, "figures": figures}, separators=(",", ":")) + "\n")
    out.flush()
