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

from sortedcontainers import SortedDict, SortedKeyList

from scheduler.fit import fits
from scheduler.messages import Wait
from scheduler.model import Constraint, Resources
from scheduler.queue import Rank

HEAP_SLACK = 64


class Shape(NamedTuple):
    """What a job asks for: `amount` on one node, or on each of `nodes` different ones (a gang; 0: not one), for how
    long, and where.
    """

    amount: Resources
    constraints: tuple[Constraint, ...]
    nodes: int
    estimate_s: float


def shape_of(wait: Wait) -> Shape:
    """Return what a waiting job asks for."""
    amount = wait.request * wait.per_node if wait.nodes else wait.request
    return Shape(amount, wait.constraints, wait.nodes, wait.estimate_s)


class _Kind:
    """All waiting jobs of one shape, best rank first. `hot`: the rank with which it is worth a try, if it is."""

    __slots__ = ("cpu_milli", "extra", "hot", "key", "members", "memory_bytes", "serial", "shape")

    def __init__(self, shape: Shape, serial: int) -> None:
        self.shape = shape
        self.serial = serial
        self.cpu_milli = shape.amount.cpu_milli
        self.memory_bytes = shape.amount.memory_bytes
        self.extra = bool(shape.amount.extra)
        self.key = (self.cpu_milli, serial)
        self.members: list[Rank] = []
        self.hot: Rank | None = None


class Line:
    """Waiting jobs. Adding and removing cost O(log n); heating costs what is heated."""

    def __init__(self) -> None:
        self._order: SortedDict[Rank, int] = SortedDict()
        self._places: dict[int, tuple[Rank, _Kind]] = {}
        self._kinds: dict[Shape, _Kind] = {}
        self._sizes: SortedKeyList[_Kind] = SortedKeyList(key=lambda kind: kind.key)
        self._serial = 0
        self._hot_count = self._looks = 0
        self._heap: list[tuple[Rank, int, _Kind]] = []

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
        place = self._places.get(job)
        if place is not None:
            if place[0] == rank and place[1].shape == shape:
                return
            self.remove(job)
        kind = self._kinds.get(shape)
        if kind is None:
            self._serial += 1
            kind = self._kinds[shape] = _Kind(shape, self._serial)
            self._sizes.add(kind)
        self._order[rank] = job
        self._places[job] = (rank, kind)
        insort(kind.members, rank)
        self._heat(kind)

    def remove(self, job: int) -> None:
        """Take a job out, if it is in."""
        place = self._places.pop(job, None)
        if place is None:
            return
        rank, kind = place
        del self._order[rank]
        del kind.members[bisect_left(kind.members, rank)]
        if not kind.members:
            del self._kinds[kind.shape]
            self._sizes.remove(kind)
            self._cool(kind)

    # --- what is worth a try

    def heat_what_fits(self, free: Iterable[Resources]) -> None:
        """Room grew to these amounts, each on a node: what could fit into one of them is worth a try."""
        for room in _largest(free):
            memory_bytes = room.memory_bytes
            for kind in self._sizes.irange_key(max_key=(room.cpu_milli, self._serial)):
                if kind.memory_bytes > memory_bytes or kind.hot == kind.members[0]:
                    continue
                if not kind.extra or fits(kind.shape.amount, room):
                    self._heat(kind)

    @property
    def hot(self) -> bool:
        """Whether any shape is worth a try."""
        return self._hot_count > 0

    def begin_pass(self, looks: int) -> None:
        """A pass may look at so many shapes."""
        self._looks = looks

    def next_hot(self, room: Resources) -> int | None:
        """Return the best-ranked job that is worth a try, and cool its shape; None when there is none.

        What is larger than `room` is cooled without a try. When the pass has looked often enough it is None, too.
        """
        cpu_milli, memory_bytes = room.cpu_milli, room.memory_bytes
        while self._heap and self._looks > 0:
            rank, _, kind = heapq.heappop(self._heap)
            if kind.hot != rank:
                continue
            self._looks -= 1
            self._cool(kind)
            if kind.members[0] != rank:
                self._heat(kind)
            elif kind.cpu_milli <= cpu_milli and kind.memory_bytes <= memory_bytes:
                return int(self._order[rank])
        return None

    def reheat(self, shape: Shape) -> None:
        """A job of this shape found a place: so may the next."""
        kind = self._kinds.get(shape)
        if kind is not None:
            self._heat(kind)

    def _heat(self, kind: _Kind) -> None:
        rank = kind.members[0]
        if kind.hot != rank:
            self._hot_count += kind.hot is None
            kind.hot = rank
            if len(self._heap) > HEAP_SLACK + 2 * len(self._kinds):
                self._heap = [(each.hot, each.serial, each) for each in self._kinds.values() if each.hot is not None]
                heapq.heapify(self._heap)  # without what was said of them before
            else:
                heapq.heappush(self._heap, (rank, kind.serial, kind))

    def _cool(self, kind: _Kind) -> None:
        self._hot_count -= kind.hot is not None
        kind.hot = None


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
