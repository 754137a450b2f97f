"""The fast planners against rules written down as plainly as possible, and the properties every plan must have."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from math import inf
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.backfill import PLANNERS, Easy, Fcfs, NeverFits, Planner


class Job(NamedTuple):
    submit: float
    run: float
    estimate: float
    need: int


def replay(jobs: list[Job], planner: Planner) -> list[float]:
    """Play the events, submissions before ends, ends in order of start; return every start."""
    starts = [inf] * len(jobs)
    ends: list[tuple[float, int, int]] = []
    arrivals = sorted(range(len(jobs)), key=lambda index: jobs[index].submit)
    place = 0
    while place < len(jobs) or ends or planner.wake_s < inf:
        submit = jobs[arrivals[place]].submit if place < len(jobs) else inf
        end = ends[0][0] if ends else inf
        now = min(submit, end, planner.wake_s)
        if now == submit:
            index = arrivals[place]
            place += 1
            started = planner.submitted(now, index, jobs[index].need, jobs[index].estimate)
        elif now == end:
            started = planner.ended(now, heapq.heappop(ends)[2])
        else:
            started = planner.woken(now)
        for index in started:
            assert starts[index] == inf, "started twice"
            starts[index] = now
            heapq.heappush(ends, (now + jobs[index].run, len([each for each in starts if each < inf]), index))
    assert planner.waiting == 0
    return starts


class Plain:
    """The rules, word for word: nothing is kept between events but who waits and who runs."""

    wake_s = inf

    def __init__(self, processors: int, order: Callable[[Job], float] | None) -> None:
        self.processors = processors
        self.order = order
        self.line: list[tuple[int, Job]] = []
        self.runs: dict[int, tuple[int, float]] = {}

    @property
    def waiting(self) -> int:
        return len(self.line)

    def submitted(self, now: float, job: int, need: int, estimate: float) -> list[int]:
        self.line.append((job, Job(now, 0, estimate, need)))
        return self.schedule(now)

    def ended(self, now: float, job: int) -> list[int]:
        del self.runs[job]
        return self.schedule(now)

    def withdrawn(self, now: float, job: int) -> list[int]:
        self.line = [each for each in self.line if each[0] != job]
        return self.schedule(now)

    def woken(self, now: float) -> list[int]:
        raise AssertionError("never asked for")

    def free_at(self, moment: float) -> int:
        return self.processors - sum(need for need, end in self.runs.values() if end > moment)

    def schedule(self, now: float) -> list[int]:
        before = set(self.runs)
        while self.line and self.line[0][1].need <= self.free_at(now):
            self.start(now, self.line[0])
        if self.line and self.order is not None:
            self.backfill(now, self.order)
        return [job for job in self.runs if job not in before]

    def backfill(self, now: float, order: Callable[[Job], float]) -> None:
        head = self.line[0][1]
        moments = sorted({end for _, end in self.runs.values() if end > now})
        shadow = next(moment for moment in moments if self.free_at(moment) >= head.need)
        extra = self.free_at(shadow) - head.need
        for entry in sorted(self.line[1:], key=lambda entry: order(entry[1])):
            job = entry[1]
            if job.need > self.free_at(now):
                continue
            if now + job.estimate <= shadow:
                self.start(now, entry)
            elif job.need <= extra:
                extra -= job.need
                self.start(now, entry)

    def start(self, now: float, entry: tuple[int, Job]) -> None:
        self.line.remove(entry)
        self.runs[entry[0]] = (entry[1].need, now + entry[1].estimate)


class PlainConservative:
    """Reservations as a list; the earliest gap by trying every moment at which anything ends."""

    def __init__(self, processors: int) -> None:
        self.processors = processors
        self.line: list[int] = []
        self.booked: dict[int, tuple[float, float, int]] = {}

    @property
    def waiting(self) -> int:
        return len(self.line)

    @property
    def wake_s(self) -> float:
        return min((self.booked[job][0] for job in self.line), default=inf)

    def gap(self, now: float, need: int, estimate: float) -> float:
        moments = sorted({now} | {end for _, end, _ in self.booked.values() if end > now})
        return next(each for each in moments if self.holds(each, each + estimate, need))

    def holds(self, start: float, end: float, need: int) -> bool:
        points = {start} | {each for each, _, _ in self.booked.values() if start < each < end}
        return all(
            sum(n for s, e, n in self.booked.values() if s <= point < e) + need <= self.processors for point in points
        )

    def submitted(self, now: float, job: int, need: int, estimate: float) -> list[int]:
        start = self.gap(now, need, estimate)
        self.booked[job] = (start, start + estimate, need)
        self.line.append(job)
        return self.woken(now)

    def ended(self, now: float, job: int) -> list[int]:
        started = self.woken(now)
        del self.booked[job]
        for each in self.line:
            start, end, need = self.booked.pop(each)
            new = self.gap(now, need, end - start)
            self.booked[each] = (new, new + (end - start), need)
        return started + self.woken(now)

    def withdrawn(self, now: float, job: int) -> list[int]:
        started = self.woken(now)
        self.line.remove(job)
        return started + self.ended(now, job)

    def woken(self, now: float) -> list[int]:
        started = sorted((self.booked[job][0], job) for job in self.line if self.booked[job][0] <= now)
        self.line = [job for job in self.line if self.booked[job][0] > now]
        return [job for _, job in started]


PLAIN: dict[str, Callable[[int], Planner]] = {
    "fcfs": lambda processors: Plain(processors, None),
    "easy": lambda processors: Plain(processors, lambda job: 0),
    "sjbf": lambda processors: Plain(processors, lambda job: job.estimate),
    "conservative": PlainConservative,
}


@st.composite
def workloads(draw: st.DrawFn) -> list[Job]:
    """Few distinct times and sizes, so that ties, exact fits and coinciding ends are the rule."""
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, 4), st.integers(1, 12), st.integers(0, 12), st.integers(1, 8)),
            min_size=1,
            max_size=40,
        )
    )
    jobs, now = [], 0
    for gap, run, slack, need in rows:
        now += gap
        jobs.append(Job(now, run, run + slack, need))
    return jobs


@pytest.mark.parametrize("policy", PLAIN)
@settings(max_examples=80, deadline=None)
@given(jobs=workloads(), clairvoyant=st.booleans())
def test_the_fast_planner_starts_every_job_when_the_plain_rule_does(
    policy: str, jobs: list[Job], clairvoyant: bool
) -> None:
    if clairvoyant:
        jobs = [job._replace(estimate=job.run) for job in jobs]
    assert replay(jobs, PLANNERS[policy](8)) == replay(jobs, PLAIN[policy](8))


@pytest.mark.parametrize("policy", PLAIN)
@pytest.mark.parametrize("seed", [1, 2])
def test_long_queues_and_many_blocks_change_nothing(policy: str, seed: int) -> None:
    rng = random.Random(seed)
    now, jobs = 0.0, []
    for _ in range(140):
        now += rng.choice((0, 0, 1, 2.5))
        run = rng.choice((1, 3, 10.25, 40, 100))
        jobs.append(Job(now, run, run * rng.choice((1, 1, 2, 5)), rng.choice((1, 1, 2, 8, 30, 64))))
    assert replay(jobs, PLANNERS[policy](64)) == replay(jobs, PLAIN[policy](64)), f"seed {seed}"


@pytest.mark.parametrize("policy", PLANNERS)
@given(jobs=workloads())
def test_every_job_runs_once_and_never_beyond_the_pool(policy: str, jobs: list[Job]) -> None:
    starts = replay(jobs, PLANNERS[policy](8))
    assert all(start >= job.submit for start, job in zip(starts, jobs, strict=True))
    for moment in starts:
        held = sum(job.need for start, job in zip(starts, jobs, strict=True) if start <= moment < start + job.run)
        assert held <= 8


@given(jobs=workloads())
def test_first_come_first_served_starts_in_order_of_arrival(jobs: list[Job]) -> None:
    starts = replay(jobs, Fcfs(8))
    assert starts == sorted(starts)


@given(jobs=workloads(), order=st.sampled_from([False, True]))
def test_with_true_estimates_no_head_starts_after_its_first_shadow_time(jobs: list[Job], order: bool) -> None:
    planner = Easy(8, shortest_first=order)
    promised: dict[int, float] = {}

    class Watched:
        wake_s = inf
        waiting = property(lambda self: planner.waiting)

        def __getattr__(self, name: str) -> Callable[..., object]:
            def call(now: float, *rest: int) -> object:
                started = getattr(planner, name)(now, *rest)
                reserved = planner.reservation()
                if reserved is not None:
                    promised.setdefault(reserved.job, reserved.start_s)
                return started

            return call

    exact = [job._replace(estimate=job.run) for job in jobs]
    starts = replay(exact, Watched())  # type: ignore[arg-type]
    assert all(starts[job] <= by for job, by in promised.items())


@given(jobs=workloads())
def test_a_conservative_promise_is_kept(jobs: list[Job]) -> None:
    planner = PLANNERS["conservative"](8)
    promised: dict[int, float] = {}
    submitted = planner.submitted

    def watched(now_s: float, job: int, need: int, estimate_s: float) -> object:
        started = submitted(now_s, job, need, estimate_s)
        promised.update((each, by) for each, by in planner.reservations() if each == job)  # type: ignore[attr-defined]
        return started

    planner.submitted = watched  # type: ignore[method-assign,assignment]
    starts = replay(jobs, planner)
    assert all(starts[job] <= by for job, by in promised.items())


@pytest.mark.parametrize("policy", PLANNERS)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_withdrawing_waiting_jobs_agrees_with_the_plain_rule(policy: str, seed: int) -> None:
    rng = random.Random(seed)
    fast, plain = PLANNERS[policy](8), PLAIN[policy](8)
    now, waits, runs = 0.0, set(), {}
    for job in range(60):
        now += rng.randrange(3)
        while plain.wake_s <= now:
            due = plain.wake_s
            answers = [sorted(each.woken(due)) for each in (fast, plain)]
            assert answers[0] == answers[1], f"seed {seed}"
            waits -= set(answers[0])
            runs.update(dict.fromkeys(answers[0], due))
        action = rng.random()
        if action < 0.5 or not (waits or runs):
            need, estimate = rng.randrange(1, 9), rng.randrange(1, 20)
            waits.add(job)
            answers = [list(each.submitted(now, job, need, estimate)) for each in (fast, plain)]
        elif action < 0.65 and waits:
            gone = rng.choice(sorted(waits))
            waits.discard(gone)
            answers = [list(each.withdrawn(now, gone)) for each in (fast, plain)]
        elif runs:
            gone = rng.choice(sorted(runs))
            del runs[gone]
            answers = [list(each.ended(now, gone)) for each in (fast, plain)]
        else:
            continue
        assert sorted(answers[0]) == sorted(answers[1]), f"seed {seed}"
        for started in answers[0]:
            waits.discard(started)
            runs[started] = now


@pytest.mark.parametrize("policy", PLANNERS)
@pytest.mark.parametrize("need", [0, 9, -1])
def test_a_job_that_never_fits_is_refused_and_changes_nothing(policy: str, need: int) -> None:
    planner = PLANNERS[policy](8)
    with pytest.raises(NeverFits, match=f"processors: {need} is not valid; the pool has 8"):
        planner.submitted(0, 1, need, 10)
    assert planner.waiting == 0
    assert list(planner.submitted(0, 1, 8, 10)) == [1]


def test_releases_of_one_moment_count_together_for_the_shadow_time() -> None:
    planner = Easy(4)
    for job in range(4):
        planner.submitted(0, job, 1, 10)
    planner.submitted(0, 4, 3, 5)
    assert planner.reservation() == (4, 10, 1)
