"""A job in its home's memory: its record, the tasks ever attempted, and counters.

Owns which task is tried next and what the job's state is. An array is one of these: tasks that were never attempted
exist only as a cursor over the spec's indices, so a waiting array of a million costs what one job costs, and nothing
here walks over all tasks of a job for one task's event.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

import msgspec

from scheduler.condition import ORDINARY, Condition
from scheduler.lifecycle import FINAL, LIVE, Phase, phase_of
from scheduler.model import AllocationId, JobRecord, JobSpec, Reach, State, TaskRecord

UNTOUCHED = TaskRecord()


@dataclass(slots=True)
class Told:
    """What the leader was last told of this job, and the newest of its orders that was obeyed."""

    version: int = 0
    wanted: int = 0
    epoch: int = 0
    go: int = 0
    position: int = -1
    waiting: int = 0
    quota: str = ""
    making_room: int = 0
    start_s: float = inf


def ranges(indices: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield ascending indices as ranges (first, last) of neighbours."""
    first = last = -2
    for index in indices:
        if index != last + 1:
            if first >= 0:
                yield first, last
            first = index
        last = index
    if first >= 0:
        yield first, last


class Block(NamedTuple):
    """Something that keeps a whole job from starting: a word for programs, and a line for people."""

    kind: str
    text: str


@dataclass(slots=True)
class Job:
    """One job of this home. `since_s`: waiting since, on this node's monotonic clock; `begun_s`: since when every task
    has begun. While there are `blocks` none of its tasks asks for a place. `one_by_one`: its tasks wait, one by one,
    for those of another job.
    """

    record: JobRecord
    since_s: float
    tasks: dict[int, TaskRecord] = field(default_factory=dict)
    live: dict[int, None] = field(default_factory=dict)
    reach: dict[int, Reach] = field(default_factory=dict)
    conditions: dict[int, Condition] = field(default_factory=dict)
    told: Told = field(default_factory=Told)
    refusals: int = 0
    blocks: tuple[Block, ...] = ()
    begun_s: float | None = None
    one_by_one: bool = False
    _counts: Counter[Phase] = field(default_factory=Counter)
    _cursor: int = 0
    _again: list[int] = field(default_factory=list)
    _delayed: dict[int, None] = field(default_factory=dict)
    _freed: list[int] = field(default_factory=list)
    _freed_ever: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.one_by_one = self.spec.queueing.corresponding is not None

    @property
    def id(self) -> int:
        """The job's id."""
        return self.record.id

    @property
    def spec(self) -> JobSpec:
        """What the user asked for."""
        return self.record.spec

    def task(self, index: int) -> TaskRecord:
        """Return a task's record; the untouched one for a task that was never attempted."""
        return self.tasks.get(index, UNTOUCHED)

    def put(self, index: int, record: TaskRecord) -> None:
        """Replace a task's record and keep the counters right."""
        old = self.tasks.get(index)
        if old is not None:
            self._counts[phase_of(old)] -= 1
        self.tasks[index] = record
        phase = phase_of(record)
        self._counts[phase] += 1
        if phase in LIVE:
            self.live[index] = None
        else:
            self.live.pop(index, None)
            self.reach.pop(index, None)
            self.conditions.pop(index, None)

    def notice(self, index: int, condition: Condition) -> bool:
        """Remember what a live task is doing; return whether that is new."""
        changed = self.conditions.get(index, ORDINARY) != condition
        if condition == ORDINARY:
            self.conditions.pop(index, None)
        else:
            self.conditions[index] = condition
        return changed

    def current(self, id_: AllocationId, node: str) -> bool:
        """Whether this is the task's newest attempt, still live, on that node."""
        record = self.tasks.get(id_.index)
        return record is not None and record.attempt == id_.attempt and record.node == node and phase_of(record) in LIVE

    # --- which tasks wait

    @property
    def untouched(self) -> int:
        """How many tasks were never attempted."""
        return len(self.spec.indices()) - len(self.tasks)

    @property
    def wanted(self) -> int:
        """How many tasks could be placed now, as far as the job itself is concerned. A gang waits as one, and whole."""
        if self.record.cancelled or self.blocks:
            return 0
        fresh = len(self._freed) if self.one_by_one else self.untouched
        pending = fresh + len(self._again)
        if self.spec.gang is not None:
            return int(pending == self.spec.gang.size)
        throttle = self.spec.array.throttle if self.spec.array else 0
        return min(pending, max(0, throttle - len(self.live))) if throttle else pending

    @property
    def waiting(self) -> int:
        """How many tasks have no place, whatever keeps them from asking for one."""
        return 0 if self.record.cancelled else self.untouched + self._counts[Phase.WAITING]

    def free(self, first: int, last: int) -> bool:
        """Let the tasks of these indices start that wait one by one; return whether any is new."""
        indices = self.spec.indices()
        start = indices.start + -(-(max(first, indices.start) - indices.start) // indices.step) * indices.step
        found = False
        for index in range(start, min(last, indices.stop - 1) + 1, indices.step):
            if index not in self._freed_ever:
                self._freed_ever.add(index)
                found = True
                if index not in self.tasks:
                    heapq.heappush(self._freed, index)
        return found

    def freed_ranges(self) -> tuple[tuple[int, int], ...]:
        """Return the indices that were freed, as ranges (first, last)."""
        return tuple(ranges(sorted(self._freed_ever)))

    def never_freed(self) -> list[int]:
        """Return the untouched tasks whose corresponding ones have not succeeded."""
        return [i for i in self.spec.indices() if i not in self.tasks and i not in self._freed_ever]

    def next_index(self) -> int:
        """Take the next task to try: one that was tried before, else the first untouched one."""
        if self._again:
            return heapq.heappop(self._again)
        if self.one_by_one:
            return heapq.heappop(self._freed)
        self._cursor += 1
        return self.spec.indices()[self._cursor - 1]

    def wait_again(self, index: int) -> None:
        """Line a task up for another attempt."""
        self._delayed.pop(index, None)
        heapq.heappush(self._again, index)

    def wait_later(self, index: int) -> None:
        """Keep a task back until `wait_again`."""
        self._delayed[index] = None

    def delayed(self, index: int) -> bool:
        """Whether a task is kept back."""
        return index in self._delayed

    def clear_waiting(self) -> list[int]:
        """Take all tasks that were tried before and wait for another attempt out of the line; return them."""
        waiting = [*self._again, *self._delayed]
        self._again, self._delayed, self._freed = [], {}, []
        return waiting

    def resume(self) -> None:
        """After a restart: find the cursor and the waiting tasks from the records."""
        indices = self.spec.indices()
        self._cursor = indices.index(max(self.tasks)) + 1 if self.tasks else 0
        for first, last in self.record.released:
            self.free(first, last)
        self._again = sorted(index for index, record in self.tasks.items() if phase_of(record) is Phase.WAITING)

    # --- what users see

    @property
    def state(self) -> State:
        """The job's state, from its counters."""
        if not self.finished:
            begun = self._counts[Phase.RUNNING] or any(self._counts[phase] for phase in FINAL)
            return State.RUNNING if begun else State.PENDING
        if self.record.cancelled and self.untouched:
            return State.CANCELLED
        for phase in (Phase.CANCELLED, Phase.FAILED, Phase.LOST):
            if self._counts[phase]:
                return State(phase.value)
        return State.SUCCEEDED

    @property
    def ended_any(self) -> bool:
        """Whether any task is in a final state."""
        return any(self._counts[phase] for phase in FINAL)

    @property
    def succeeded_count(self) -> int:
        """How many tasks have succeeded."""
        return self._counts[Phase.SUCCEEDED]

    @property
    def begun(self) -> bool:
        """Whether no task is left that has not begun."""
        waiting = self._counts[Phase.WAITING] + self._counts[Phase.ASKED] + self._counts[Phase.ADMITTED]
        return self.finished or (self.untouched == 0 and waiting == 0)

    @property
    def finished(self) -> bool:
        """Whether every task is in a final state."""
        untouched = 0 if self.record.cancelled else self.untouched
        return untouched == 0 and sum(self._counts[phase] for phase in FINAL) == len(self.tasks)

    def counts(self) -> dict[State, int]:
        """Return how many tasks are in each state, untouched ones included."""
        counts = dict.fromkeys(State, 0)
        for phase, count in self._counts.items():
            counts[State.PENDING if phase in (Phase.WAITING, Phase.ASKED, Phase.ADMITTED) else State(phase.value)] += (
                count
            )
        counts[State.CANCELLED if self.record.cancelled else State.PENDING] += self.untouched
        return counts

    def cancel(self, why: str = "") -> None:
        """Mark the job cancelled; untouched tasks are cancelled by this alone."""
        self.record = msgspec.structs.replace(self.record, cancelled=True, why_cancelled=why)
