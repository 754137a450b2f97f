"""Replays batch jobs on a pool of equal processors, with the planner the agents' queue uses.

Owns the order of events and the starts that come of it. It knows the true run times; the planner is told estimates only
(the run times themselves, if it is to be clairvoyant). Events are handled one at a time: at equal times submissions
come first, in the order of the trace, then ends, in the order of their starts, then what the planner wanted to be woken
for. Nothing is random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from math import inf
from typing import NamedTuple

from scheduler.backfill import PLANNERS, Planner
from sim.errors import BadValue
from sim.workload import Workload

WATCH_EVERY_EVENTS = 512

Watch = Callable[[int, float], bool]


class Ran(NamedTuple):
    """A processor's worth of a job ran on a node, by its number from 0."""

    start_s: float
    end_s: float
    node: int


class Schedule(NamedTuple):
    """What came out: the starts (None: not before the end), and whether all of the workload was played.

    An interrupted replay stopped at `until_s`; later starts and ends are unknown. `ran`: where, if there were nodes.
    """

    workload: Workload
    processors: int
    policy: str
    clairvoyant: bool
    starts_s: list[float | None]
    until_s: float
    complete: bool
    events: int
    ran: Sequence[Ran] = ()


def replay_jobs(
    workload: Workload, processors: int, policy: str = "easy", clairvoyant: bool = False, watch: Watch | None = None
) -> Schedule:
    """Play the workload to its end. Raises BadValue for an unknown policy or a pool too small for a job.

    `watch(jobs submitted, virtual time)` is called now and then; when it returns False the replay stops there.
    """
    check_policy(policy)
    if workload.needs and not 1 <= min(workload.needs) <= max(workload.needs) <= processors:
        raise BadValue("processors", processors, f"a job asks for {max(workload.needs)}, and every job for at least 1")
    starts: list[float | None] = [None] * len(workload)
    planner = PLANNERS[policy](processors)
    now_s, events, complete = _play(workload, planner, clairvoyant, starts, watch or (lambda _done, _now: True))
    return Schedule(workload, processors, policy, clairvoyant, starts, now_s, complete, events)


def check_policy(policy: str) -> None:
    """Raise BadValue unless there is a planner of that name."""
    if policy not in PLANNERS:
        raise BadValue("policy", policy, f"one of {', '.join(PLANNERS)}")


def _play(
    workload: Workload, planner: Planner, clairvoyant: bool, starts: list[float | None], watch: Watch
) -> tuple[float, int, bool]:
    """The event loop; one function, because a million events pass through it."""
    submit_s, run_s, needs = workload.submit_s, workload.run_s, workload.needs
    estimate_s = run_s if clairvoyant else workload.estimate_s
    ends: list[tuple[float, int, int]] = []
    submitted, started_count, events, jobs = 0, 0, 0, len(workload)
    next_submit_s = submit_s[0] if jobs else inf
    next_end_s = now_s = inf
    while True:
        if next_submit_s <= next_end_s and next_submit_s <= planner.wake_s:
            if next_submit_s == inf:
                return (now_s if events else 0.0), events, True
            now_s = next_submit_s
            started = planner.submitted(now_s, submitted, needs[submitted], estimate_s[submitted])
            submitted += 1
            next_submit_s = submit_s[submitted] if submitted < jobs else inf
        elif next_end_s <= planner.wake_s:
            now_s, _, job = heappop(ends)
            started = planner.ended(now_s, job)
            next_end_s = ends[0][0] if ends else inf
        else:
            now_s = planner.wake_s
            started = planner.woken(now_s)
        if started:
            for job in started:
                starts[job] = now_s
                heappush(ends, (now_s + run_s[job], started_count, job))
                started_count += 1
            next_end_s = ends[0][0]
        events += 1
        if events % WATCH_EVERY_EVENTS == 0 and not watch(submitted, now_s):
            return now_s, events, False
