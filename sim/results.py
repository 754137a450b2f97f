"""What a replay was like for those who waited and for those who paid.

Owns the measures and their definitions; knows neither policies nor files but CSV. A job counts once it has ended: in an
interrupted replay the others are left out and counted as `jobs_unfinished`.

    wait                start - submission
    turnaround          end - submission
    bounded slowdown    max(1, turnaround / max(run time, 10 s)): the 10 s keep short jobs from ruling the average
                        (Feitelson et al., JSSPP 1997)
    utilisation         processor seconds used / (processors x makespan)
    makespan            last end - first submission
    percentile p        the smallest value that at least p per cent of the jobs do not exceed
    fairness            Jain's index over the users' mean bounded slowdowns: 1 when all fare alike, 1/users when one
                        bears everything
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, fsum, inf
from operator import add, mul, sub
from typing import IO, NamedTuple

from sim.replay import Schedule

SLOWDOWN_BOUND_S = 10


class Summary(NamedTuple):
    """The figures of one replay; times in seconds, utilisation and fairness from 0 to 1."""

    policy: str
    clairvoyant: bool
    processors: int
    jobs: int
    jobs_unfinished: int
    avg_bounded_slowdown: float
    median_bounded_slowdown: float
    p95_bounded_slowdown: float
    mean_wait_s: float
    p50_wait_s: float
    p95_wait_s: float
    p99_wait_s: float
    max_wait_s: float
    mean_turnaround_s: float
    makespan_s: float
    utilisation: float
    mean_queue: float
    users: int
    fairness: float


class Outcome(NamedTuple):
    """How one job fared."""

    id: int
    user: int
    need: int
    submit_s: float
    start_s: float
    run_s: float
    estimate_s: float

    @property
    def end_s(self) -> float:
        """When it ended."""
        return self.start_s + self.run_s

    @property
    def wait_s(self) -> float:
        """How long it waited."""
        return self.start_s - self.submit_s

    @property
    def bounded_slowdown(self) -> float:
        """How much longer it took than alone on the machine."""
        return bounded_slowdown(self.wait_s, self.run_s)


def bounded_slowdown(wait_s: float, run_s: float) -> float:
    """Return max(1, (wait + run) / max(run, 10 s))."""
    slowdown = (wait_s + run_s) / (run_s if run_s > SLOWDOWN_BOUND_S else SLOWDOWN_BOUND_S)
    return slowdown if slowdown > 1.0 else 1.0


def outcomes(schedule: Schedule) -> Iterator[Outcome]:
    """Yield the jobs that ended, in order of submission."""
    work, starts_s = schedule.workload, schedule.starts_s
    until_s = inf if schedule.complete else schedule.until_s
    columns = (work.ids, work.users, work.needs, work.submit_s, starts_s, work.run_s, work.estimate_s)
    for each in map(Outcome._make, zip(*columns, strict=True)):
        if each.start_s is not None and each.start_s + each.run_s <= until_s:
            yield each


def summarise(schedule: Schedule) -> Summary:
    """Return the figures of a replay; all zero where no job ended."""
    ended = list(outcomes(schedule))
    _, owners, needs, submits, starts, runs, _ = zip(*ended, strict=True) if ended else [()] * 7
    waits = list(map(sub, starts, submits))
    slowdowns = list(map(bounded_slowdown, waits, runs))
    span_s = max(map(add, starts, runs)) - min(submits) if ended else 0
    users, fairness = _fairness(owners, slowdowns)
    waits_sorted, slowdowns_sorted = sorted(waits), sorted(slowdowns)
    return Summary(
        policy=schedule.policy,
        clairvoyant=schedule.clairvoyant,
        processors=schedule.processors,
        jobs=len(ended),
        jobs_unfinished=len(schedule.workload) - len(ended),
        avg_bounded_slowdown=mean(slowdowns),
        median_bounded_slowdown=percentile(slowdowns_sorted, 50),
        p95_bounded_slowdown=percentile(slowdowns_sorted, 95),
        mean_wait_s=mean(waits),
        p50_wait_s=percentile(waits_sorted, 50),
        p95_wait_s=percentile(waits_sorted, 95),
        p99_wait_s=percentile(waits_sorted, 99),
        max_wait_s=waits_sorted[-1] if waits else 0,
        mean_turnaround_s=mean(list(map(add, waits, runs))),
        makespan_s=span_s,
        utilisation=fsum(map(mul, needs, runs)) / (schedule.processors * span_s) if span_s else 0,
        mean_queue=fsum(waits) / span_s if span_s else 0,
        users=users,
        fairness=fairness,
    )


def mean(values: Sequence[float]) -> float:
    """Return the mean, exactly summed; 0 for nothing."""
    return fsum(values) / len(values) if values else 0.0


def percentile(ascending: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of values in ascending order; 0 for nothing."""
    return ascending[max(0, ceil(len(ascending) * percent / 100) - 1)] if ascending else 0


def _fairness(owners: Sequence[int], slowdowns: list[float]) -> tuple[int, float]:
    by_user: dict[int, list[float]] = {}
    for user, slowdown in zip(owners, slowdowns, strict=True):
        by_user.setdefault(user, []).append(slowdown)
    means = [mean(each) for each in by_user.values()]
    return len(means), jain(means)


def jain(values: Sequence[float]) -> float:
    """Return Jain's fairness index of positive values; 1 for nothing."""
    return fsum(values) ** 2 / (len(values) * fsum([each * each for each in values])) if values else 1.0


def write_csv(out: IO[str], schedule: Schedule) -> None:
    """Write a line for each job that ended."""
    out.write("job,user,processors,submit_s,start_s,end_s,wait_s,run_s,estimate_s,bounded_slowdown\n")
    for each in outcomes(schedule):
        out.write(
            f"{each.id},{each.user},{each.need},{each.submit_s},{each.start_s},{each.end_s},{each.wait_s},"
            f"{each.run_s},{each.estimate_s},{each.bounded_slowdown:.6f}\n"
        )


class Step(NamedTuple):
    """From `time_s` on: how much is busy, how many jobs wait."""

    time_s: float
    busy: int
    waiting: int


def timeline(schedule: Schedule, steps_max: int = 800) -> list[Step]:
    """Return busy processors and waiting jobs over time, as means over equal intervals, `steps_max` at most."""
    changes: list[tuple[float, int, int]] = []
    for each in outcomes(schedule):
        changes += ((each.submit_s, 0, 1), (each.start_s, each.need, -1), (each.end_s, -each.need, 0))
    if not changes:
        return []
    changes.sort()
    first, last = changes[0][0], changes[-1][0]
    width = (last - first) / steps_max or 1.0
    areas = [[0.0, 0.0] for _ in range(steps_max)]
    busy = waiting = 0
    now = first
    for time_s, need, waits in changes:
        _spread(areas, now - first, time_s - first, width, busy, waiting)
        now, busy, waiting = time_s, busy + need, waiting + waits
    return [
        Step(first + place * width, round(used / width), round(queue / width))
        for place, (used, queue) in enumerate(areas)
    ]


def _spread(areas: list[list[float]], start: float, end: float, width: float, busy: int, waiting: int) -> None:
    """Add a stretch of time to the intervals it covers."""
    place = int(start / width)
    while start < end and place < len(areas):
        upto = min(end, (place + 1) * width)
        areas[place][0] += (upto - start) * busy
        areas[place][1] += (upto - start) * waiting
        start = upto
        place += 1
