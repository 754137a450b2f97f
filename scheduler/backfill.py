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
                   early, the waiting ones are moved forward in order of arrival, each to the earliest gap there is then.
                   (Mu'alem, Feitelson, IEEE TPDS 2001.)

Whoever holds processors past the estimate is no longer counted: an estimate is a limit that somebody enforces, so at
that moment they are free or about to be.

EASY does little work an event, for three facts, each of which a test compares with a rule that knows none of them:
a job that may not start now may not start later either until something *ends* (free and extra only shrink); starting a
candidate moves neither the head's shadow time nor spoils it; and an arrival can start nobody but itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf
from typing import NamedTuple, Protocol

from scheduler.errors import SchedulerError
from scheduler.profile import Releases
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
    """First come, first served."""

    wake_s = inf

    def __init__(self, processors: int) -> None:
        self.processors = processors
        self.free = processors
        self._releases = Releases()
        self._running: dict[int, tuple[int, float]] = {}
        self._queue: deque[Waiting] = deque()
        self._waiting: dict[int, Waiting] = {}
        self._arrivals = 0

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    def submitted(self, now_s: float, job: int, need: int, estimate_s: float) -> Sequence[int]:
        """Take a job; return the jobs that start now. Raises NeverFits, changing nothing."""
        check_need(need, self.processors)
        expired = now_s >= self._releases.next_s and self._expire(now_s)
        waits = self._waiting
        self._arrivals += 1
        if not waits and need <= self.free:
            self._start(now_s, job, need, estimate_s)
            return (job,)
        arrival = waits[job] = Waiting(job, need, estimate_s, self._arrivals)
        self._queue.append(arrival)
        return self._pass(now_s) if expired or len(waits) == 1 else self._arrived(now_s, arrival)

    def ended(self, now_s: float, job: int) -> Sequence[int]:
        """Take back what a running job held; return the jobs that start now."""
        need, end_s = self._running.pop(job)
        freed = now_s >= self._releases.next_s and self._expire(now_s)
        if end_s > now_s:
            self._releases.remove(end_s, need)
            self.free += need
            freed = True
        return self._pass(now_s) if freed and self._waiting else NOBODY

    def withdrawn(self, now_s: float, job: int) -> Sequence[int]:
        """Forget a waiting job; return the jobs that start now."""
        self._drop(self._waiting.pop(job))
        self._expire(now_s)
        return self._pass(now_s) if self._waiting else NOBODY

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

    def _head(self) -> Waiting:
        """Return the first that waits; those that started out of order or left are skipped."""
        queue = self._queue
        while queue[0].job not in self._waiting:
            queue.popleft()
        return queue[0]

    def _start_heads(self, now_s: float) -> list[int]:
        started = []
        while self._waiting and (head := self._head()).need <= self.free:
            self._queue.popleft()
            del self._waiting[head.job]
            self._drop(head)
            self._start(now_s, head.job, head.need, head.estimate_s)
            started.append(head.job)
        return started

    def _pass(self, now_s: float) -> Sequence[int]:
        return self._start_heads(now_s)

    def _arrived(self, now_s: float, arrival: Waiting) -> Sequence[int]:
        """Whether a job that arrived behind others may start at once."""
        return NOBODY

    def _drop(self, job: Waiting) -> None:
        """A job no longer waits."""


class Easy(Fcfs):
    """EASY backfilling; with `shortest_first`, candidates are tried by estimate (SJBF)."""

    def __init__(self, processors: int, shortest_first: bool = False) -> None:
        super().__init__(processors)
        self._shortest_first = shortest_first
        self._candidates = Candidates()
        self._heading: Waiting | None = None
        self._shadow_s = -1.0
        self._extra = -1

    def reservation(self, now_s: float) -> Reservation | None:
        """Return the head's reservation, None when nobody waits."""
        if not self._waiting:
            return None
        self._plan(now_s)
        return Reservation(self._head().job, self._shadow_s, self._extra)

    def ended(self, now_s: float, job: int) -> Sequence[int]:
        """Take back what a running job held; return the jobs that start now."""
        self._extra = -1
        return super().ended(now_s, job)

    def _plan(self, now_s: float) -> None:
        """Give the head its reservation, unless the one it has still holds."""
        if self._extra < 0:
            need = self._head().need
            self._shadow_s, released = self._releases.earliest(need - self.free)
            self._extra = self.free + released - need

    def _pass(self, now_s: float) -> Sequence[int]:
        self._extra = -1
        started = self._start_heads(now_s)
        if not self._waiting:
            return started
        self._set_head()
        candidates = self._candidates
        if candidates.count and self.free and candidates.least_need() <= self.free:
            self._plan(now_s)
            for each in candidates.pick(now_s, self.free, self._shadow_s, self._extra):
                del self._waiting[each.job]
                self._start_beside(now_s, each)
                started.append(each.job)
        return started

    def _arrived(self, now_s: float, arrival: Waiting) -> Sequence[int]:
        if arrival.need <= self.free:
            self._plan(now_s)
            if arrival.need <= self._extra or now_s + arrival.estimate_s <= self._shadow_s:
                self._start_beside(now_s, arrival)
                del self._waiting[arrival.job]
                return (arrival.job,)
        self._candidates.add(self._order(arrival), arrival)
        return NOBODY

    def _order(self, job: Waiting) -> float:
        return job.estimate_s if self._shortest_first else 0
