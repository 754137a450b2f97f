"""The queue's plan: reservations for the best-ranked jobs that find no room, and what may slip past them.

EASY backfilling (Lifka, JSSPP 1995) over nodes with several dimensions. The first job that does not fit is the head. A
node could take its share of the head now, or once enough of what runs there has ended by the estimates. The shadow time
is the earliest at which enough nodes could; the head's holds go on the nodes that free latest by then, so that free
ones stay usable. Another job may start on a node if it ends by the shadow time of each better-ranked hold there, by its
estimate, or fits beside them. Short ones take held nodes first, so that the others are left for long ones.

Conservative (Mu'alem, Feitelson, IEEE TPDS 2001), here: not the first job alone gets a reservation, but so many in
order, each planned with the holds of the better ones taken out of the nodes they are on.

Owns reservations, not the line, nor what is said to whom. The plan is as good as its view: reports less what is in
flight, in what is free and in what comes free.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from sortedcontainers import SortedList

from scheduler.choice import RUNNERS_UP
from scheduler.fit import fits, unmet
from scheduler.horizon import Horizon
from scheduler.index import ClusterView, Node
from scheduler.line import Shape
from scheduler.model import Constraint, Resources
from scheduler.queue import Rank

Slot = tuple[float, str]

MOMENT_S = 0.02
"""Releases this close to each other are one: a gang's nodes start and end it at once, as far as messages allow."""

_LAST = "\U0010ffff"


class Held(NamedTuple):
    """What a reservation keeps on one node, from its shadow time on."""

    job: int
    rank: Rank
    shadow_s: float
    amount: Resources


class Wish(NamedTuple):
    """A waiting job, as the plan sees it."""

    job: int
    rank: Rank
    shape: Shape
    images: tuple[bytes, ...] = ()


class Reservation:
    """One job's reservation: from when on each node could take its share, in order, and the nodes it keeps."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.needed = max(1, wish.shape.nodes)
        self._slots: SortedList[Slot] = SortedList()
        self._times: dict[str, float] = {}

    def update(self, node: str, time_s: float) -> None:
        """From that time on a node could take its share."""
        old = self._times.get(node, inf)
        if old == time_s:
            return
        if old < inf:
            self._slots.remove((old, node))
        if time_s < inf:
            self._times[node] = time_s
            self._slots.add((time_s, node))
        else:
            self._times.pop(node, None)

    @property
    def ready(self) -> bool:
        """Whether enough nodes could take their shares now."""
        return self.due_s == -inf

    @property
    def due_s(self) -> float:
        """When enough nodes can take their shares; infinity when they never will, by the estimates."""
        return self._slots[self.needed - 1][0] if len(self._slots) >= self.needed else inf

    def window(self) -> tuple[float, list[str]]:
        """Return the shadow time and the nodes to keep: of those that can by then, the ones that free latest.

        All releases of the shadow's moment are counted, so the shadow is the last of them.
        """
        due_s = self.due_s
        if due_s == inf:
            return inf, []
        end = self._slots.bisect_right((due_s + MOMENT_S, _LAST))
        kept = self._slots[end - self.needed : end]
        return kept[-1][0], [name for _, name in kept]


class Plan:
    """Reservations in rank order, and the nodes with room. Refreshed with the names of the nodes that changed."""

    def __init__(self, view: ClusterView, horizon: Horizon) -> None:
        self._view = view
        self._horizon = horizon
        self._room: dict[str, Node] = {}
        self._held: dict[str, list[Held]] = {}
        self._possible: dict[tuple[Resources, tuple[Constraint, ...]], int] = {}
        self._possible_shape = -1
        self._pins: dict[int, tuple[tuple[str, ...], float]] = {}
        self.reservations: list[Reservation] = []
        self.considered: list[str] = []
        """The best nodes of the last choice, and some that were the next best."""

    def clear(self) -> None:
        """Forget all reservations."""
        self.reservations = []
        self._held = {}

    def started(self, job: int) -> None:
        """The job was ordered: what was kept for it stands in nobody's way from now on."""
        self.reservations = [each for each in self.reservations if each.wish.job != job]
        for name in [name for name, held in self._held.items() if any(each.job == job for each in held)]:
            self._held[name] = [each for each in self._held[name] if each.job != job]

    @property
    def holds(self) -> dict[str, list[Held]]:
        """What is held, by node, best rank first. Read only."""
        return self._held

    # --- the view

    def refresh(self, changed: Iterable[str]) -> list[Node]:
        """Look anew at the nodes that changed; return those of them that have room."""
        found = []
        for name in changed:
            node = self._view.get(name)
            if node is not None and node.usable and node.free.cpu_milli > 0 and node.free.memory_bytes > 0:
                self._room[name] = node
                found.append(node)
            else:
                self._room.pop(name, None)
            if self.reservations:
                self._time(self.reservations[0], name, node)
        return found

    @property
    def has_room(self) -> bool:
        """Whether anything is free anywhere."""
        return bool(self._room)

    def largest_room(self) -> Resources:
        """Return the most that is free of each of CPU and memory, on whichever node."""
        cpu_milli = memory_bytes = 0
        for node in self._room.values():
            cpu_milli = max(cpu_milli, node.free.cpu_milli)
            memory_bytes = max(memory_bytes, node.free.memory_bytes)
        return Resources(cpu_milli, memory_bytes)

    def room(self) -> list[Resources]:
        """Return what is free on the nodes with room."""
        return [node.free for node in self._room.values()]

    def possible(self, shape: Shape) -> bool:
        """Whether the cluster could take a job of this shape, were it empty."""
        if not shape.nodes:
            return self._view.possible(shape.amount, shape.constraints)
        if self._possible_shape != self._view.shape:
            self._possible, self._possible_shape = {}, self._view.shape
        key = (shape.amount, shape.constraints)
        count = self._possible.get(key)
        if count is None:
            count = self._possible[key] = sum(
                node.usable and fits(shape.amount, node.permitted) and unmet(shape.constraints, node.labels) is None
                for node in self._view.nodes()
            )
        return count >= shape.nodes

    # --- reservations

    def reserve(self, now: float, wishes: list[Wish]) -> bool:
        """Give these jobs, best first, their reservations; return whether others may start now that might not before.

        The first one's is kept up to date from change to change and costs what changed; the others' are made anew.
        """
        before, old = self._held, self.reservations
        keep = bool(old) and bool(wishes) and old[0].wish == wishes[0]
        self._held, self.reservations = {}, []
        for place, wish in enumerate(wishes):
            reservation = old[0] if keep and place == 0 else self._planned(wish)
            self.reservations.append(reservation)
            shadow_s, nodes = self._window(now, reservation)
            for name in nodes:
                self._held.setdefault(name, []).append(Held(wish.job, wish.rank, shadow_s, wish.shape.amount))
        return not keep or self._loosened(before)

    def pin(self, job: int, nodes: tuple[str, ...], since_s: float) -> None:
        """Room is being made for a job: while it has a reservation it keeps these nodes (none: no more), from now."""
        if nodes:
            self._pins[job] = nodes, since_s
        else:
            self._pins.pop(job, None)

    def _window(self, now: float, reservation: Reservation) -> tuple[float, list[str]]:
        if reservation.wish.job in self._pins:
            nodes, since_s = self._pins[reservation.wish.job]
            return since_s, list(nodes)
        due_s, found = reservation.window()
        return max(now, due_s), found

    def _planned(self, wish: Wish) -> Reservation:
        reservation = Reservation(wish)
        for node in self._view.nodes():
            self._time(reservation, node.name, node)
        return reservation

    def _time(self, reservation: Reservation, name: str, node: Node | None) -> None:
        shape = reservation.wish.shape
        if node is None or not node.usable or unmet(shape.constraints, node.labels) is not None:
            reservation.update(name, inf)
            return
        amount = shape.amount
        for held in self._held.get(name, ()):
            if held.rank < reservation.wish.rank:
                amount = amount + held.amount
        reservation.update(name, self._horizon.free_from_s(node, amount))

    def _loosened(self, before: dict[str, list[Held]]) -> bool:
        """Whether a hold went from a node with room, or its shadow time moved back."""
        for name, old in before.items():
            if name in self._room and old != (new := self._held.get(name, [])):
                times = {each.job: each.shadow_s for each in new}
                if any(times.get(each.job, inf) > each.shadow_s for each in old):
                    return True
        return False

    # --- places

    def places(self, wish: Wish, count: int, now: float) -> dict[str, int]:
        """Choose nodes for up to `count` tasks, or for a gang, beside the better-ranked holds: {node: how many}."""
        shape = wish.shape
        if len(self._room) < shape.nodes:
            return {}
        found = self._candidates(wish, now + shape.estimate_s)
        if not shape.nodes:
            return self._fill(wish, found, count)
        if len(found) < shape.nodes:
            return {}
        best = heapq.nsmallest(shape.nodes + RUNNERS_UP, found, key=lambda each: each[0])
        self.considered = [node.name for _, node, _ in best]
        return dict.fromkeys(self.considered[: shape.nodes], 1)

    def _candidates(self, wish: Wish, end_s: float) -> list[tuple[tuple[bool, int, int], Node, Resources]]:
        """Return (how good, node, what may be used there) of every node that can take a share; the least is best."""
        amount, constraints = wish.shape.amount, wish.shape.constraints
        found = []
        for node in self._room.values():
            free = node.free
            if not fits(amount, free) or (constraints and unmet(constraints, node.labels) is not None):
                continue
            held = self._held.get(node.name)
            if held is not None:
                free = _beside(wish, held, free, end_s)
                if not fits(amount, free):
                    continue
            found.append(((held is None, *self._view.grade(amount, node, wish.job, wish.images)), node, free))
        return found

    def _fill(
        self, wish: Wish, found: list[tuple[tuple[bool, int, int], Node, Resources]], count: int
    ) -> dict[str, int]:
        amount = wish.shape.amount
        places: dict[str, int] = {}
        best = sorted(found, key=lambda each: each[0])
        self.considered = [node.name for _, node, _ in best[: 1 + RUNNERS_UP]]
        for _, node, free in best:
            while count > 0 and fits(amount, free):
                places[node.name] = places.get(node.name, 0) + 1
                free = free - amount
                count -= 1
        return places


def _beside(wish: Wish, held: list[Held], free: Resources, end_s: float) -> Resources:
    """Return what of a node's room is left beside the better-ranked holds that the job would run into."""
    for each in held:
        if each.rank < wish.rank and each.job != wish.job and end_s > each.shadow_s:
            free = free - each.amount
    return free
