"""The Standard Workload Format of the Parallel Workloads Archive: reader and writer.

Eighteen numbers a line, -1 for unknown, comments after `;` (Chapin et al., "Benchmarks and standards for the evaluation
of parallel job schedulers", JSSPP 1999). Owns the format and which jobs can be replayed; knows no policy.

Without a filter, the trace is taken at its word: a job asks for its requested processors (the allocated ones where they
are missing), runs as long as recorded, and its estimate is the requested time, raised to the run time where that is
longer or missing. Left out, and counted by reason, is what cannot run: no processors, no run time, no submit time, more
processors than the machine has.

The strong filter keeps a job if its requested and allocated processors are within the machine, its run time and
requested time are positive and its submit time is not negative; then its run time is cut at the requested time. (As the
SC'15 experiments of Gaussier et al. have it.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import IO

from sim.errors import BadTrace
from sim.traces.text import BadLines, open_text
from sim.workload import Job, Workload

FIELDS = 18
LINES_MAX = 10_000_000
LINES_A_WRITE = 10_000
COMPLETED, CANCELLED = 1, 5


class SwfTrace:
    """What a file holds: its jobs, the machine its header names (0: unknown), and what was not taken."""

    def __init__(self, workload: Workload, processors: int, bad: BadLines, left_out: dict[str, int]) -> None:
        self.workload = workload
        self.processors = processors
        self.bad = bad
        self.left_out = left_out


def read_swf(path: str | Path, processors: int = 0, strong: bool = False, strict: bool = False) -> SwfTrace:
    """Read a trace, plain or gzip, for a machine of that size (0: as its header says).

    Raises BadTrace for a file that cannot be read, holds no job that can run, or does not say the machine's size; with
    `strict` also for the first line that is no job.
    """
    reader = _Reader(str(path), processors, strong, strict)
    try:
        with open_text(path) as lines:
            reader.read(lines)
    except (OSError, EOFError) as error:
        raise BadTrace(str(path), f"cannot be unpacked: {error}") from None
    return reader.result()


class _Reader:
    def __init__(self, path: str, processors: int, strong: bool, strict: bool) -> None:
        self.path = path
        self.processors = processors
        self.nodes = 0
        self.take = self._strong if strong else self._at_its_word
        self.workload = Workload(Path(path).name)
        self.bad = BadLines(path, strict)
        self.left_out: dict[str, int] = {}

    def read(self, lines: Iterable[str]) -> None:
        """The loop every line of every trace passes: as little as possible happens in it."""
        take, append = self.take, self.workload.append
        number = 0
        for number, line in enumerate(islice(lines, LINES_MAX + 1), 1):
            fields = line.split()
            try:
                job = take(
                    int(fields[0]), int(fields[1]), int(fields[3]), int(fields[4]),
                    int(fields[7]), int(fields[8]), int(fields[11]), len(fields),
                )  # fmt: skip
            except (ValueError, IndexError):
                job = self._slowly(number, line, fields)
            if job is not None:
                append(job)
        if number > LINES_MAX:
            raise BadTrace(self.path, f"more than {LINES_MAX} lines")

    def result(self) -> SwfTrace:
        if not self.workload:
            left = f", {sum(self.left_out.values())} left out" if self.left_out else ""
            raise BadTrace(self.path, f"no job that can run ({self.bad.count} bad lines{left}); is it SWF?")
        self.workload.sort()
        return SwfTrace(self.workload, self.processors, self.bad, self.left_out)

    def _slowly(self, number: int, line: str, fields: list[str]) -> Job | None:
        """What is no line of integers: a comment, nothing, times with fractions, or a bad line."""
        if not fields:
            return None
        if fields[0].startswith(";"):
            self._header(line)
            return None
        try:
            self._machine(len(fields))
            submit_s, run_s, requested_s = [_number(fields[place]) for place in (1, 3, 8)]
            job, allocated, requested, user = [int(_number(fields[place])) for place in (0, 4, 7, 11)]
        except ValueError as error:
            self.bad.add(number, str(error))
            return None
        return self.take(job, submit_s, run_s, allocated, requested, requested_s, user, FIELDS)

    def _header(self, line: str) -> None:
        found = re.match(r";\s*Max(Procs|Nodes):\s*(\d+)", line)
        if found and found[1] == "Procs":
            self.processors = self.processors or int(found[2])
        elif found:
            self.nodes = int(found[2])

    def _strong(
        self, job: int, submit_s: float, run_s: float, allocated: int, requested: int, limit_s: float, user: int, n: int
    ) -> Job | None:
        machine = self._machine(n)
        if allocated > machine or requested > machine:
            self._leave("more processors than the machine has")
            return None
        need = requested if requested > 0 else allocated
        if need <= 0 or run_s <= 0 or limit_s <= 0 or submit_s < 0:
            self._leave("strong filter")
            return None
        return Job(job, submit_s, run_s if run_s < limit_s else limit_s, limit_s, need, user)

    def _at_its_word(
        self, job: int, submit_s: float, run_s: float, allocated: int, requested: int, limit_s: float, user: int, n: int
    ) -> Job | None:
        machine = self._machine(n)
        need = requested if requested > 0 else allocated
        if need <= 0:
            self._leave("no processors")
            return None
        if run_s < 0:
            self._leave("no run time")
            return None
        if submit_s < 0:
            self._leave("no submit time")
            return None
        if need > machine:
            self._leave("more processors than the machine has")
            return None
        return Job(job, submit_s, run_s, limit_s if limit_s > run_s else run_s, need, user)

    def _machine(self, fields: int) -> int:
        if fields != FIELDS:
            raise ValueError(f"{fields} fields; a job has {FIELDS}")
        # Old logs of machines whose nodes have one processor say their nodes only.
        self.processors = self.processors or self.nodes
        if not self.processors:
            raise BadTrace(self.path, "its header does not say how many processors there are; give --processors")
        return self.processors

    def _leave(self, why: str) -> None:
        self.left_out[why] = self.left_out.get(why, 0) + 1


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"{text[:20]!r} is no number") from None
        if not isfinite(value):
            raise ValueError(f"{text[:20]!r} is no number of seconds") from None
        return value


def write_swf(out: IO[str], workload: Workload, processors: int, starts: Iterable[float | None]) -> None:
    """Write a workload as SWF with the given starts; jobs that never started have a wait of -1 and status 5."""
    out.write(f"; Version: 2.2\n; Computer: {workload.name}\n; MaxJobs: {len(workload)}\n; MaxProcs: {processors}\n")
    lines = []
    for (job, submit_s, run_s, estimate_s, need, user), start_s in zip(workload, starts, strict=True):
        wait_s, status = (-1, CANCELLED) if start_s is None else (start_s - submit_s, COMPLETED)
        lines.append(
            f"{job} {submit_s} {wait_s} {run_s} {need} -1 -1 {need} {estimate_s} -1 {status} {user} -1 -1 -1 -1 -1 -1\n"
        )
        if len(lines) >= LINES_A_WRITE:
            out.writelines(lines)
            lines.clear()
    out.writelines(lines)
