"""What Slurm's accounting prints (`sacct --parsable2`, with its first line), as a batch workload.

Owns the format: columns are found by name, steps (`123.batch`) are passed over, times are dates or seconds, limits
`[days-]hours:minutes:seconds`, processors a number of CPUs or what a list of resources (ReqTRES) says of `cpu`. At
least a job id, Submit, an elapsed time and processors are needed, such as of

    sacct --allusers --parsable2 --duplicates \\
          --format=JobIDRaw,User,Submit,ElapsedRaw,TimelimitRaw,ReqCPUS,AllocCPUS

Jobs that never ran are left out and counted by reason, as are those larger than the machine. A job's estimate is its
time limit, raised to the run time where that is longer or missing. Elements of arrays, components of heterogeneous jobs
and each run of a requeued job (`--duplicates`) are jobs of their own; one that still ran counts with what it had run.
Times count from the first submission.
(The columns: sacct(1), "Job Accounting Fields".)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from sim.errors import BadTrace
from sim.traces.batch import BatchTrace
from sim.traces.text import BadLines, open_text
from sim.workload import Job, Workload

LINES_MAX = 10_000_000
UNLIMITED = ("", "unlimited", "partition_limit", "unknown", "none", "invalid")
# The first of each list that the file has is taken.
COLUMNS = {
    "job": ("jobidraw", "jobid"),
    "submit": ("submit", "eligible"),
    "run": ("elapsedraw", "elapsed"),
    "limit": ("timelimitraw", "timelimit"),
    "need": ("reqcpus", "alloccpus", "ncpus", "reqtres", "alloctres"),
    "given": ("alloccpus", "ncpus", "reqcpus", "alloctres", "reqtres"),
    "user": ("user", "uid", "account"),
}
OPTIONAL = ("limit", "user")
_DURATION = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)(?:\.\d+)?")
DIGITS_MAX = 15
_NUMBER = re.compile(rf"\d{{1,{DIGITS_MAX}}}")
_CPUS = re.compile(rf"(?:^|,)cpu=(\d{{1,{DIGITS_MAX}}})(?:,|$)")


def looks_like(first_line: str) -> bool:
    """Whether a file that begins with this line is of sacct, if only of one that printed it for people."""
    names = re.split(r"[|,;\s]+", first_line.strip().lower())
    return not first_line.startswith(";") and bool(set(names) & set(COLUMNS["job"]))


def read_sacct(path: str | Path, processors: int = 0, strict: bool = False) -> BatchTrace:
    """Read a dump for a machine of that many CPUs (0: as large as its largest job).

    Raises BadTrace for a file that cannot be read or holds no job that ran; with `strict` for the first bad line too.
    """
    reader = _Reader(str(path), processors, strict)
    try:
        with open_text(path) as lines:
            reader.read(lines)
    except (OSError, EOFError) as error:
        raise BadTrace(str(path), f"cannot be unpacked: {error}") from None
    return reader.result()


def _names(line: str) -> list[str]:
    return [name.strip().lower() for name in line.rstrip("\n").split("|")]


class _Reader:
    def __init__(self, path: str, processors: int, strict: bool) -> None:
        self.path = path
        self.processors = processors
        self.bad = BadLines(path, strict)
        self.left_out: dict[str, int] = {}
        self.jobs: list[Job] = []
        self.users: dict[str, int] = {}

    def read(self, lines: Iterable[str]) -> None:
        rows = iter(lines)
        first = next(rows, "")
        if "|" not in first:
            raise BadTrace(self.path, "its columns are not separated by |; let sacct print with --parsable2", 1)
        names = _names(first)
        places = {field: self._place(field, names) for field in COLUMNS}
        for number, line in enumerate(islice(rows, LINES_MAX), 2):
            fields = line.rstrip("\n").split("|")
            if len(fields) != len(names):
                why = " (a | in a name? then leave JobName out)" if len(fields) > len(names) else ""
                self.bad.add(number, f"{len(fields)} columns; the first line has {len(names)}{why}")
                continue
            texts = {field: fields[place].strip() if place >= 0 else "" for field, place in places.items()}
            try:
                self._take(texts)
            except ValueError as error:
                self.bad.add(number, str(error))
        if next(rows, None) is not None:
            raise BadTrace(self.path, f"more than {LINES_MAX} lines")

    def result(self) -> BatchTrace:
        largest = max((job.need for job in self.jobs), default=0)
        processors = self.processors or largest
        kept = [job for job in self.jobs if job.need <= processors]
        if len(kept) < len(self.jobs):
            self.left_out["more processors than the machine has"] = len(self.jobs) - len(kept)
        if not kept:
            raise BadTrace(self.path, f"no job that ran ({self.bad.count} bad lines)")
        workload = Workload(Path(self.path).name)
        for job in _from_zero(kept):
            workload.append(job)
        workload.sort()
        return BatchTrace(workload, processors, self.bad, self.left_out)

    def _place(self, field: str, names: list[str]) -> int:
        for name in COLUMNS[field]:
            if name in names:
                return names.index(name)
        if field in OPTIONAL:
            return -1
        raise BadTrace(self.path, f"no column {' or '.join(COLUMNS[field])} in its first line", 1)

    def _take(self, texts: dict[str, str]) -> None:
        if "." in texts["job"]:
            return
        run_s = _seconds(texts["run"])
        need = _count(texts["need"]) or _count(texts["given"])
        if not run_s:
            self._leave("never ran")
        elif need <= 0:
            self._leave("no processors")
        else:
            limit_s = _limit_s(texts["limit"])
            user = self.users.setdefault(texts["user"], len(self.users) + 1)
            job = _NUMBER.match(texts["job"])
            number = int(job[0]) if job else len(self.jobs) + 1
            self.jobs.append(Job(number, _time_s(texts["submit"]), run_s, max(limit_s, run_s), need, user))

    def _leave(self, why: str) -> None:
        self.left_out[why] = self.left_out.get(why, 0) + 1


def _from_zero(jobs: list[Job]) -> Iterator[Job]:
    first_s = min(job.submit_s for job in jobs)
    return (job._replace(submit_s=job.submit_s - first_s) for job in jobs)


def _is_whole(text: str) -> bool:
    return len(text) <= DIGITS_MAX and text.isascii() and text.isdigit()


def _count(text: str) -> int:
    """A number of CPUs, or `billing=8,cpu=8,mem=16G,node=1`; a list without them, or none, is no CPUs."""
    if _is_whole(text):
        return int(text)
    if text and "=" not in text:
        raise ValueError(f"{text[:20]!r} is no number of CPUs")
    found = _CPUS.search(text)
    return int(found[1]) if found else 0


def _seconds(text: str) -> int:
    """`ElapsedRaw` (seconds) or `Elapsed` ([days-]hours:minutes:seconds)."""
    if _is_whole(text):
        return int(text)
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:20]!r} is no time such as 1-02:03:04")
    days, hours, minutes, seconds = (int(each or 0) for each in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _limit_s(text: str) -> int:
    """`TimelimitRaw` (minutes) or `Timelimit`; 0 where there is none."""
    if text.lower() in UNLIMITED:
        return 0
    return int(text) * 60 if _is_whole(text) else _seconds(text)


def _time_s(text: str) -> int:
    """A date, or seconds (as SLURM_TIME_FORMAT=%s prints)."""
    if _is_whole(text):
        return int(text)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:30]!r} is no date such as 2026-01-31T12:00:00") from None
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
