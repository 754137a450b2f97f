"""Backfilling: which waiting jobs may start now, planned from the users' time estimates.

Owns the rule, for a pool of equal processors (slots). It knows no clock, no nodes and no real run times: what happens
comes in with its time, and what may start now comes out. After every single event the plan is complete, so that the
same events in the same order always give the same starts.

    FCFS           strictly in order of arrival: while the head does not fit, nobody starts.
    EASY           the head gets a reservation at its shadow time, the first estimated end at which enough is free (all
                   releases of that same moment counted); what then remains is the extra. Another job may start if it
                   fits now and either ends by the shadow time, by its estimate, or fits into the extra.
                   (Lifka, JSSPP 1995.) Candidates are tried in order of arrival, or the shortest estimate first
                   (SJBF; Tsafrir, Etsion, Feitelson, IEEE TPDS 2007), equal ones in order of arrival.
    conservative   every job gets a reservation when it arrives, at the earliest gap that delays nobody. When a job ends
                   early, the waiting ones are moved forward in order of arrival, each to the earliest gap then left.
                   (Mu'alem, Feitelson, IEEE TPDS 2001.)

Whoever holds processors past the estimate is no longer counted: an estimate is a limit that somebody enforces, so at
that moment they are free or about to be.

EASY does little work an event, for three facts, each of which a test compares with a rule that knows none of them:
a job that may not start now may not start later either until something *ends* (free and extra only shrink); starting a
candidate moves neither the head's shadow time nor spoils it; and an arrival can start nobody but itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from math import inf
from typing import NamedTuple, Protocol

from scheduler.errors import SchedulerError
from scheduler.profile import Profile, Releases
from scheduler.waiting import Candidates, Waiting

NOBODY: tuple[int, ...] = ()


class NeverFits(SchedulerError):
    """The caller's fault: the job needs more than the whole pool, or nothing."""


class Reservation(NamedTuple):
    """When a waiting job starts at the latest, if all estimates hold, and what is left beside it then."""

    job: int
    start_s: float
    extra: int


class Planner(Protocol):
    """A machine: events with their times in (never going back), jobs that start now out, in order.

    `wake_s` is when it wants to be woken although nothing happened; infinity for never. Jobs are named by integers.
    """

    wake_s: float

    def submitted(self, now_s: float, job: int, need: int, estimate_s: float) -> Sequence[int]:
        """Take a job. Raises NeverFits, changing nothing."""
        ...

    def ended(self, now_s: float, job: int) -> Sequence[int]:
        """Take back what a running job held; KeyError when it doesn't run."""
        ...

    def withdrawn(self, now_s: float, job: int) -> Sequence[int]:
        """Forget a waiting job; KeyError when it doesn't wait."""
        ...

    def woken(self, now_s: float) -> Sequence[int]:
        """It is `wake_s`."""
        ...

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        ...


class Fcfs:
    """First come, first served; the pool and the line that EASY builds upon.

    The head of the line is the first in order of arrival that does not fit; while there is none, nobody waits.
    """

    wake_s = inf

    def __init__(self, processors: int) -> None:
        self.processors = processors
        self.free = processors
        self._releases = Releases()
        self._running: dict[int, tuple[int, float]] = {}
        self._head: Waiting | None = None
        self._behind: dict[int, Waiting] = {}
        self._line: deque[Waiting] = deque()
        self._arrivals = 0

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._behind) + (self._head is not None)

    def submitted(self, now_s: float, job: int, need: int, estimate_s: float) -> Sequence[int]:
        """Take a job; return the jobs that start now. Raises NeverFits, changing nothing."""
        check_need(need, self.processors)
        freed = now_s >= self._releases.next_s and self._expire(now_s)
        self._arrivals += 1
        if self._head is None and need <= self.free:
            self._start(now_s, job, need, estimate_s)
            return (job,)
        arrival = Waiting(job, need, estimate_s, self._arrivals)
        if self._head is None:
            self._lead(arrival)
        elif freed:
            self._join(arrival)
            return self._pass(now_s)
        elif self._slips_in(now_s, arrival):
            return (job,)
        else:
            self._join(arrival)
        return NOBODY

    def ended(self, now_s: float, job: int) -> Sequence[int]:
        """Take back what a running job held; return the jobs that start now."""
        need, end_s = self._running.pop(job)
        freed = now_s >= self._releases.next_s and self._expire(now_s)
        if end_s > now_s:
            self._releases.remove(end_s, need)
            self.free += need
            freed = True
        return self._pass(now_s) if freed and self._head is not None else NOBODY

    def withdrawn(self, now_s: float, job: int) -> Sequence[int]:
        """Forget a waiting job; return the jobs that start now."""
        if self._head is not None and self._head.job == job:
            self._lead(self._next())
        else:
            self._leave(self._behind[job])
        self._expire(now_s)
        return self._pass(now_s) if self._head is not None else NOBODY

    def woken(self, now_s: float) -> Sequence[int]:
        """Nothing is ever planned for a time without an event."""
        return NOBODY

    def _expire(self, now_s: float) -> bool:
        due = self._releases.expire(now_s)
        self.free += due
        return due > 0

    def _start(self, now_s: float, job: int, need: int, estimate_s: float) -> None:
        end_s = now_s + estimate_s
        self.free -= need
        self._running[job] = (need, end_s)
        self._releases.add(end_s, need)

    def _pass(self, now_s: float) -> Sequence[int]:
        """Start all that may, with somebody in the line."""
        started = []
        head = self._head
        while head is not None and head.need <= self.free:
            self._start(now_s, head.job, head.need, head.estimate_s)
            started.append(head.job)
            head = self._next()
        self._lead(head)
        return started

    def _lead(self, head: Waiting | None) -> None:
        self._head = head

    def _next(self) -> Waiting | None:
        """Take the next from behind the head; the line still lists those that started out of order or left."""
        line = self._line
        while line:
            first = line.popleft()
            if self._behind.get(first.job) is first:
                self._leave(first)
                return first
        return None

    def _join(self, job: Waiting) -> None:
        self._line.append(job)
        self._behind[job.job] = job

    def _leave(self, job: Waiting) -> None:
        del self._behind[job.job]

    def _slips_in(self, now_s: float, arrival: Waiting) -> bool:
        """Whether a job that arrives behind a waiting head was started."""
        return False


class Easy(Fcfs):
    """EASY backfilling; with `shortest_first`, candidates are tried by estimate (SJBF)."""

    def __init__(self, processors: int, shortest_first: bool = False) -> None:
        super().__init__(processors)
        self._shortest_first = shortest_first
        self._candidates = Candidates()
        self._shadow_s: float | None = None
        self._extra = 0

    def reservation(self) -> Reservation | None:
        """Return the head's reservation as of the last event, None when nobody waits."""
        if self._head is None:
            return None
        return Reservation(self._head.job, self._plan(), self._extra)

    def _plan(self) -> float:
        """Return the head's shadow time; worked out anew only when something ended since."""
        if self._shadow_s is None:
            assert self._head is not None
            self._shadow_s, released = self._releases.earliest(self._head.need - self.free)
            self._extra = self.free + released - self._head.need
        return self._shadow_s

    def _pass(self, now_s: float) -> Sequence[int]:
        started = list(super()._pass(now_s))
        candidates = self._candidates
        if candidates.any_within(self.free):
            shadow_s = self._plan()
            for each in candidates.pick(now_s, self.free, shadow_s, self._extra):
                del self._behind[each.job]
                self._start_beside(now_s, each)
                started.append(each.job)
        return started

    def _slips_in(self, now_s: float, arrival: Waiting) -> bool:
        if arrival.need > self.free:
            return False
        in_time = now_s + arrival.estimate_s <= self._plan()
        if in_time or arrival.need <= self._extra:
            self._start_beside(now_s, arrival)
            return True
        return False

    def _start_beside(self, now_s: float, job: Waiting) -> None:
        """Start a job beside the head's reservation, which stays as it is but for the extra."""
        self._start(now_s, job.job, job.need, job.estimate_s)
        if self._shadow_s is not None and now_s + job.estimate_s > self._shadow_s:
            self._extra -= job.need

    def _lead(self, head: Waiting | None) -> None:
        self._head = head
        self._shadow_s = None

    def _join(self, job: Waiting) -> None:
        super()._join(job)
        self._candidates.add(self._order(job), job)

    def _leave(self, job: Waiting) -> None:
        super()._leave(job)
        self._candidates.remove(self._order(job), job)

    def _order(self, job: Waiting) -> float:
        return job.estimate_s if self._shortest_first else 0


class _Planned:
    """A waiting job and the start it is promised."""

    __slots__ = ("estimate_s", "need", "start_s")

    def __init__(self, need: int, estimate_s: float, start_s: float) -> None:
        self.need = need
        self.estimate_s = estimate_s
        self.start_s = start_s


class Conservative:
    """Conservative backfilling: a reservation for every waiting job, never moved back."""

    def __init__(self, processors: int) -> None:
        self.processors = processors
        self.wake_s: float = inf
        self._profile = Profile(-inf, processors)
        self._running: dict[int, tuple[int, float]] = {}
        self._planned: dict[int, _Planned] = {}
        self._starts: list[tuple[float, int, int]] = []
        self._changes = 0

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._planned)

    def reservations(self) -> list[tuple[int, float]]:
        """Return (job, promised start) of all that wait, in order of arrival."""
        return [(job, plan.start_s) for job, plan in self._planned.items()]

    def submitted(self, now_s: float, job: int, need: int, estimate_s: float) -> Sequence[int]:
        """Take a job; return the jobs that start now. Raises NeverFits, changing nothing."""
        check_need(need, self.processors)
        started = self.woken(now_s)
        start_s = self._profile.earliest(need, estimate_s)
        self._profile.take(start_s, start_s + estimate_s, need)
        if start_s <= now_s:
            self._running[job] = (need, now_s + estimate_s)
            return [*started, job]
        self._planned[job] = _Planned(need, estimate_s, start_s)
        self._promise(job, start_s)
        return started

    def ended(self, now_s: float, job: int) -> Sequence[int]:
        """Take back what a running job held; return the jobs that start now."""
        need, end_s = self._running.pop(job)
        started = self.woken(now_s)
        self._profile.take(now_s, end_s, -need)
        return [*started, *self._move_forward(now_s)] if self._planned else started

    def withdrawn(self, now_s: float, job: int) -> Sequence[int]:
        """Forget a waiting job; return the jobs that start now."""
        plan = self._planned.pop(job)
        started = self.woken(now_s)
        self._profile.take(plan.start_s, plan.start_s + plan.estimate_s, -plan.need)
        return [*started, *self._move_forward(now_s)]

    def woken(self, now_s: float) -> Sequence[int]:
        """Start the jobs whose promised time has come."""
        self._profile.advance(now_s)
        if now_s < self.wake_s:
            return NOBODY
        started = []
        while self._starts and self._starts[0][0] <= now_s:
            start_s, _, job = heappop(self._starts)
            plan = self._planned.get(job)
            if plan is not None and plan.start_s == start_s:
                self._begin(job, plan)
                started.append(job)
        self._set_wake()
        return started

    def _move_forward(self, now_s: float) -> list[int]:
        """Move each waiting job to the earliest gap, in order of arrival; return those that start now."""
        profile = self._profile
        started = []
        for job, plan in self._planned.items():
            start_s = profile.earliest(plan.need, plan.estimate_s, plan.start_s)
            if start_s < plan.start_s:
                profile.take(plan.start_s, plan.start_s + plan.estimate_s, -plan.need)
                profile.take(start_s, start_s + plan.estimate_s, plan.need)
                plan.start_s = start_s
                if start_s <= now_s:
                    started.append(job)
                else:
                    self._promise(job, start_s)
        for job in started:
            self._begin(job, self._planned[job])
        self._set_wake()
        return started

    def _begin(self, job: int, plan: _Planned) -> None:
        del self._planned[job]
        self._running[job] = (plan.need, plan.start_s + plan.estimate_s)

    def _promise(self, job: int, start_s: float) -> None:
        self._changes += 1
        heappush(self._starts, (start_s, self._changes, job))
        if start_s < self.wake_s:
            self.wake_s = start_s

    def _set_wake(self) -> None:
        """Find the next promised start; promises that were moved are dropped from the heap here."""
        starts = self._starts
        while starts and ((plan := self._planned.get(starts[0][2])) is None or plan.start_s != starts[0][0]):
            heappop(starts)
        self.wake_s = starts[0][0] if starts else inf


def check_need(need: int, processors: int) -> None:
    """Raise NeverFits unless 1 <= need <= processors."""
    if not 1 <= need <= processors:
        raise NeverFits(f"processors: {need} is not valid; the pool has {processors}")


PLANNERS: dict[str, Callable[[int], Planner]] = {
    "fcfs": Fcfs,
    "easy": Easy,
    "sjbf": lambda processors: Easy(processors, shortest_first=True),
    "conservative": Conservative,
}
