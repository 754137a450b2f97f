"""The line of waiting jobs: in the order of their ranks, and by what they ask for.

Jobs that ask for the same have the same shape; where the first of them finds no place the others find none either, so a
pass over the line tries shapes, not jobs. A shape is worth a try ("hot") when a job of it comes, or when room grew that
could take it; one that was tried in vain is cold until then. So a hundred thousand waiting jobs cost a pass nothing
unless something changed for them. Owns the order and the heat, not the rule of what may start.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from sortedcontainers import SortedDict

from scheduler.fit import fits
from scheduler.model import Constraint, Resources
from scheduler.queue import Rank


class Shape(NamedTuple):
    """What a job asks for: `amount` on one node, or on each of `nodes` different ones (a gang; 0: not one), for how
    long, and where.
    """

    amount: Resources
    constraints: tuple[Constraint, ...]
    nodes: int
    estimate_s: float


class Line:
    """Waiting jobs. Adding, removing and heating cost O(log n) each."""

    def __init__(self) -> None:
        self._order: SortedDict[Rank, int] = SortedDict()
        self._places: dict[int, tuple[Rank, Shape]] = {}
        self._members: dict[Shape, list[Rank]] = {}
        self._sizes: SortedDict[tuple[int, int], Shape] = SortedDict()
        self._serials: dict[Shape, int] = {}
        self._serial = 0
        self._hot: dict[Shape, Rank] = {}
        self._heap: list[tuple[Rank, int, Shape]] = []

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, job: object) -> bool:
        return job in self._places

    def jobs(self) -> Iterator[int]:
        """Yield the jobs in order."""
        yield from self._order.values()

    def first(self, count: int) -> list[int]:
        """Return the first so many jobs."""
        return list(islice(self._order.values(), count))

    def position(self, job: int) -> int:
        """Return a job's place (0: next), -1 when it is not in line."""
        place = self._places.get(job)
        return int(self._order.index(place[0])) if place is not None else -1

    def add(self, job: int, rank: Rank, shape: Shape) -> None:
        """Put a job in line, or move it; it is worth a try."""
        if self._places.get(job) == (rank, shape):
            return
        self.remove(job)
        self._order[rank] = job
        self._places[job] = (rank, shape)
        members = self._members.get(shape)
        if members is None:
            members = self._members[shape] = []
            self._serial += 1
            self._serials[shape] = self._serial
            self._sizes[(shape.amount.cpu_milli, self._serial)] = shape
        insort(members, rank)
        self.heat(shape)

    def remove(self, job: int) -> None:
        """Take a job out, if it is in."""
        place = self._places.pop(job, None)
        if place is None:
            return
        rank, shape = place
        del self._order[rank]
        members = self._members[shape]
        del members[bisect_left(members, rank)]
        if not members:
            del self._members[shape], self._sizes[(shape.amount.cpu_milli, self._serials.pop(shape))]
            self._hot.pop(shape, None)

    # --- what is worth a try

    def heat(self, shape: Shape) -> None:
        """The first job of a shape is worth a try."""
        rank = self._members[shape][0]
        if self._hot.get(shape) != rank:
            self._hot[shape] = rank
            heapq.heappush(self._heap, (rank, self._serials[shape], shape))

    def heat_what_fits(self, free: Iterable[Resources]) -> None:
        """Room grew to these amounts, each on a node: what could fit into one of them is worth a try."""
        for room in _largest(free):
            for shape in self._sizes.values()[: self._sizes.bisect_right((room.cpu_milli, self._serial))]:
                if fits(shape.amount, room):
                    self.heat(shape)

    @property
    def hot(self) -> bool:
        """Whether any shape is worth a try."""
        return bool(self._hot)

    def next_hot(self) -> int | None:
        """Return the best-ranked job whose shape is worth a try, and cool the shape; None when there is none."""
        while self._heap:
            rank, _, shape = heapq.heappop(self._heap)
            if self._hot.get(shape) != rank:
                continue
            del self._hot[shape]
            best = self._members[shape][0]
            if best != rank:
                self.heat(shape)
                continue
            return int(self._order[rank])
        return None

    def reheat(self, shape: Shape) -> None:
        """A job of this shape found a place: so may the next."""
        if shape in self._members:
            self.heat(shape)


def _largest(free: Iterable[Resources]) -> list[Resources]:
    """Drop the amounts that are no more than another one in every dimension."""
    kept: list[Resources] = []
    for room in sorted(free, key=lambda each: (each.cpu_milli, each.memory_bytes), reverse=True):
        if room.cpu_milli > 0 and not any(_within(room, other) for other in kept):
            kept.append(room)
    return kept


def _within(room: Resources, other: Resources) -> bool:
    return (
        room.cpu_milli <= other.cpu_milli
        and room.memory_bytes <= other.memory_bytes
        and all(amount <= other.get(name) for name, amount in room.extra)
    )
