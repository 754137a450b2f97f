"""Any CSV, through a mapping that says which column means what: Azure's VM table, Google's events, a site's own.

The mapping is TOML. A column is a name from the first line, or, without one (`header = false`), a number from 0.

    header = false                                                   # Azure's public VM trace
    arrive = {column = 3, unit = "s"}
    leave = {column = 4, unit = "s"}
    cpu = {column = 9, unit = "cores", values = {">24" = 30}}
    memory = {column = 10, unit = "GiB", values = {">64" = 70}}

Tasks come and go (`arrive`, and `leave` or `duration`; `cpu`, `memory`), or are batch jobs (`submit`, `run`,
`processors`; `estimate`, `user`). A trace of events has one row for each beginning and end:

    id = ["collection_id", "instance_index"]                         # Google's
    event = {column = "type", arrive = ["3"], leave = ["4", "5", "6", "7", "8"]}
    time = {column = "time", unit = "us"}
    cpu = {column = "resource_request.cpus", unit = "cores", scale = 64}
    memory = {column = "resource_request.memory", unit = "GiB", scale = 256}

`scale` multiplies (shares of the largest machine become amounts), `values` replaces texts, and
`keep = {column = "priority", values = ["Production"]}` leaves other rows out. A time of 2^63 - 1 means after the trace,
as in Google's. A task keeps what it asked for when it began. Owns the mapping and the reading; what the amounts mean is
the file's.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from math import inf, isfinite
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from sim.errors import BadTrace
from sim.nodes import WHOLE_MILLI, Demand
from sim.placement import Visit
from sim.traces.batch import BatchTrace
from sim.traces.text import BadLines, open_text
from sim.workload import Job, Workload

if TYPE_CHECKING:
    import _csv

ROWS_MAX = 10_000_000
OPEN_EVENTS_MAX = 10_000_000
AMOUNT_MAX = 1 << 50
NEVER = float((1 << 63) - 1)
# The first unit of each kind is meant where none is said.
TIMES = {"s": 1.0, "us": 1e-6, "ms": 1e-3, "min": 60.0, "h": 3600.0, "d": 86_400.0, "date": 0.0}
CPUS = {"cores": 1000.0, "millicores": 1.0, "percent": 10.0}
MIB = 1 << 20
MEMORIES = {"bytes": 1 / MIB, "KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0, "MB": 1e6 / MIB, "GB": 1e9 / MIB}
COUNTS = {"": 1.0}


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a value stands and how it is to be read."""

    column: str | int
    unit: str = ""
    scale: float = 1.0
    values: dict[str, float | str] = {}


class Keep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows whose column has one of these texts are kept."""

    column: str | int
    values: list[str]


class Events(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The texts in a column that mean a beginning and an end."""

    column: str | int
    arrive: list[str]
    leave: list[str]


class Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mapping as its file has it; `arrive`, `time` with `event`, or `submit` says of which kind the trace is."""

    header: bool = True
    delimiter: Annotated[str, msgspec.Meta(min_length=1, max_length=1)] = ","
    arrive: Column | None = None
    leave: Column | None = None
    duration: Column | None = None
    cpu: Column | None = None
    memory: Column | None = None
    gpus: Column | None = None
    id: list[str | int] = []
    event: Events | None = None
    time: Column | None = None
    submit: Column | None = None
    run: Column | None = None
    estimate: Column | None = None
    processors: Column | None = None
    user: Column | None = None
    keep: Keep | None = None


UNITS: dict[str, dict[str, float]] = {
    **dict.fromkeys(("arrive", "leave", "duration", "time", "submit", "run", "estimate"), TIMES),
    "cpu": CPUS,
    "memory": MEMORIES,
    "gpus": COUNTS,
    "processors": COUNTS,
    "user": COUNTS,
}
NEEDED = {"arrive": ("arrive", "cpu"), "event": ("event", "time", "cpu"), "submit": ("submit", "run", "processors")}


def read_mapping(path: str | Path) -> Mapping:
    """Read and check a mapping; raises BadTrace, naming what is wrong."""
    try:
        mapping = msgspec.toml.decode(Path(path).read_bytes(), type=Mapping)
    except OSError as error:
        raise BadTrace(str(path), (error.strerror or str(error)).lower()) from None
    except (msgspec.MsgspecError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadTrace(str(path), str(error)) from None
    kinds = [kind for kind in NEEDED if getattr(mapping, kind) is not None]
    if len(kinds) != 1:
        raise BadTrace(str(path), "give one of arrive (tasks), event (events of tasks) or submit (batch jobs)")
    for name in NEEDED[kinds[0]]:
        if getattr(mapping, name) is None:
            raise BadTrace(str(path), f"{name}: is needed where there is {kinds[0]}")
    if mapping.event is not None and not mapping.id:
        raise BadTrace(str(path), "id: is needed to tell which events belong together")
    for name, units in UNITS.items():
        column: Column | None = getattr(mapping, name)
        if column is not None and (column.unit or next(iter(units))) not in units:
            raise BadTrace(str(path), f"{name}: unit {column.unit!r} is not valid; one of {', '.join(units)}")
    return mapping


def read_visits(path: str | Path, mapping: Mapping, strict: bool = False) -> tuple[list[Visit], BadLines]:
    """Read tasks that come and go, in order of arrival; raises BadTrace as other readers do."""
    if mapping.submit is not None:
        raise BadTrace(str(path), "its mapping is of batch jobs; tasks need arrive or event")
    bad = BadLines(str(path), strict)
    with _rows(path, mapping, bad) as (rows, values):
        visits = list(_paired(rows, values, mapping, bad) if mapping.event else _whole(rows, values, bad))
    if not visits:
        raise BadTrace(str(path), f"no tasks ({bad.count} bad lines)")
    visits.sort(key=attrgetter("arrive_s"))
    return visits, bad


def read_jobs(path: str | Path, mapping: Mapping, processors: int = 0, strict: bool = False) -> BatchTrace:
    """Read batch jobs for a machine of that size (0: as large as its largest job); raises BadTrace."""
    if mapping.submit is None:
        raise BadTrace(str(path), "its mapping is of tasks; batch jobs need submit, run and processors")
    bad, left_out = BadLines(str(path), strict), {"never ran": 0, "more processors than the machine has": 0}
    jobs: list[Job] = []
    users: dict[str, int] = {}
    with _rows(path, mapping, bad) as (rows, values):
        for number, row in rows:
            try:
                job = _job(row, values, users, len(jobs) + 1)
            except ValueError as error:
                bad.add(number, str(error))
                continue
            if job is None or (processors and job.need > processors):
                left_out["never ran" if job is None else "more processors than the machine has"] += 1
            else:
                jobs.append(job)
    if not jobs:
        raise BadTrace(str(path), f"no job that ran ({bad.count} bad lines)")
    first_s = min(job.submit_s for job in jobs)
    workload = Workload(Path(path).name)
    for job in jobs:
        workload.append(job._replace(submit_s=job.submit_s - first_s))
    workload.sort()
    machine = processors or max(workload.needs)
    return BatchTrace(workload, machine, bad, {why: count for why, count in left_out.items() if count})


Row = Sequence[str]
Reader = Callable[[Row], float]


class _Values:
    """How to get each value out of a row; `None` where the mapping has no such column."""

    def __init__(self, mapping: Mapping, place: Callable[[str | int], int]) -> None:
        def of(name: str) -> Reader | None:
            column: Column | None = getattr(mapping, name)
            return None if column is None else _reader(name, column, place(column.column))

        self.arrive, self.leave, self.duration, self.time = of("arrive"), of("leave"), of("duration"), of("time")
        self.cpu, self.memory, self.gpus = of("cpu"), of("memory"), of("gpus")
        self.submit, self.run, self.estimate, self.processors = (
            of("submit"), of("run"), of("estimate"), of("processors")
        )  # fmt: skip
        self.user = place(mapping.user.column) if mapping.user else None
        self.id = [place(each) for each in mapping.id]
        self.event = place(mapping.event.column) if mapping.event else None

    def demand(self, row: Row) -> Demand:
        """Return what a row's task asks for."""
        assert self.cpu is not None
        cpu, memory = self.cpu(row), self.memory(row) if self.memory else 0
        gpus = self.gpus(row) if self.gpus else 0
        for name, amount in (("cpu", cpu), ("memory", memory)):
            if amount > AMOUNT_MAX:
                raise ValueError(f"{name}: is empty" if amount == inf else f"{name}: {amount:g} is too much")
        devices = 0 if gpus == inf else round(gpus)
        return Demand(round(cpu), round(memory), devices, WHOLE_MILLI if devices else 0)


def _reader(name: str, column: Column, place: int) -> Reader:
    units = UNITS[name]
    factor = units[column.unit or next(iter(units))] * column.scale
    timed = units is TIMES
    texts = {text: str(value) for text, value in column.values.items()}

    def read(row: Row) -> float:
        text = row[place].strip()
        text = texts.get(text, text)
        if column.unit == "date":
            return _date_s(name, text)
        if not text:
            return inf
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"{name}: {text[:20]!r} is no number") from None
        if not isfinite(value) or value < 0:
            raise ValueError(f"{name}: {text[:20]!r} is not valid; 0 or more")
        return inf if timed and value >= NEVER else value * factor

    return read


def _date_s(name: str, text: str) -> float:
    if not text:
        return inf
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{name}: {text[:30]!r} is no date such as 2026-01-31 12:00:00") from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


@contextmanager
def _rows(path: str | Path, mapping: Mapping, bad: BadLines) -> Iterator[tuple[Iterable[tuple[int, Row]], _Values]]:
    """The rows that are kept, with their line numbers, and how to read them."""
    try:
        with open_text(path) as lines:
            rows = csv.reader(lines, delimiter=mapping.delimiter)
            header = next(rows, []) if mapping.header else []

            widths = [1]

            def place(column: str | int) -> int:
                if isinstance(column, int) and not mapping.header:
                    widths.append(column + 1)
                    return column
                if column not in header:
                    raise BadTrace(str(path), f"no column {column!r} in its first line", 1)
                widths.append(header.index(str(column)) + 1)
                return widths[-1] - 1

            keep = (place(mapping.keep.column), frozenset(mapping.keep.values)) if mapping.keep else None
            values = _Values(mapping, place)
            yield _kept(str(path), rows, keep, max(widths), bad), values
    except (OSError, EOFError, csv.Error) as error:
        raise BadTrace(str(path), f"cannot be read: {error}") from None


def _kept(
    path: str, rows: _csv.Reader, keep: tuple[int, frozenset[str]] | None, width: int, bad: BadLines
) -> Iterator[tuple[int, Row]]:
    for row in islice(rows, ROWS_MAX):
        if len(row) < width:
            bad.add(rows.line_num, f"{len(row)} columns; its mapping names {width}")
        elif keep is None or row[keep[0]] in keep[1]:
            yield rows.line_num, row
    if next(rows, None) is not None:
        raise BadTrace(path, f"more than {ROWS_MAX} rows")


def _whole(rows: Iterable[tuple[int, Row]], values: _Values, bad: BadLines) -> Iterator[Visit]:
    """Rows that have beginning and end."""
    assert values.arrive is not None
    for number, row in rows:
        try:
            arrive_s = values.arrive(row)
            if values.leave is not None:
                leave_s = values.leave(row)
            else:
                leave_s = arrive_s + values.duration(row) if values.duration else inf
            if not isfinite(arrive_s):
                raise ValueError("arrive: is empty, or after the trace")  # noqa: TRY301
            if leave_s < arrive_s:
                raise ValueError(f"it would leave at {leave_s:g} s, before it arrives at {arrive_s:g} s")  # noqa: TRY301
            visit = Visit(arrive_s, leave_s, values.demand(row))
        except ValueError as error:
            bad.add(number, str(error))
            continue
        yield visit


def _paired(rows: Iterable[tuple[int, Row]], values: _Values, mapping: Mapping, bad: BadLines) -> Iterator[Visit]:
    """Rows that are beginnings or ends; what never ended stays."""
    assert mapping.event is not None
    assert values.event is not None
    assert values.time is not None
    begun: dict[tuple[str, ...], tuple[float, Demand]] = {}
    arrive, leave = frozenset(mapping.event.arrive), frozenset(mapping.event.leave)
    for number, row in rows:
        try:
            key, kind, now_s = tuple(row[place] for place in values.id), row[values.event].strip(), values.time(row)
            if kind in arrive and key not in begun and len(begun) < OPEN_EVENTS_MAX:
                if not isfinite(now_s):
                    raise ValueError("time: is empty, or after the trace")  # noqa: TRY301
                begun[key] = (now_s, values.demand(row))
            elif kind in leave and key in begun:
                began_s, demand = begun.pop(key)
                yield Visit(began_s, max(began_s, now_s), demand)
        except ValueError as error:
            bad.add(number, str(error))
    yield from (Visit(began_s, inf, demand) for began_s, demand in begun.values())


def _job(row: Row, values: _Values, users: dict[str, int], number: int) -> Job | None:
    assert values.submit is not None
    assert values.run is not None
    assert values.processors is not None
    submit_s, run_s, need = values.submit(row), values.run(row), values.processors(row)
    if not isfinite(submit_s):
        raise ValueError("submit: is empty, or after the trace")
    if isfinite(need) and need > AMOUNT_MAX:
        raise ValueError(f"processors: {need:g} are too many")
    if not isfinite(run_s) or run_s <= 0 or not isfinite(need) or need < 1:
        return None
    estimate_s = values.estimate(row) if values.estimate else run_s
    user = users.setdefault(row[values.user], len(users) + 1) if values.user is not None else -1
    return Job(number, submit_s, run_s, max(estimate_s if isfinite(estimate_s) else 0, run_s), round(need), user)
