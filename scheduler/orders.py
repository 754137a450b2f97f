"""The leader's orders on their way: what they claim of its view until the nodes answer for themselves.

An order is numbered, belongs to one job, and asks for tasks on one node (or, for a gang, on several). Each node's
answer comes after a report that covers what it took, so from then on the report speaks and the claim goes. An order
without any answer is given up after a while. Knows no ranks and no plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.index import ClusterView
from scheduler.messages import Go, Muster
from scheduler.model import Resources


@dataclass(slots=True)
class Order:
    """`places`: how many tasks of `request` each node has not answered for yet; `units` is as the job waits."""

    job: int
    units: int
    request: Resources
    places: dict[str, int]
    end_s: float
    home: str = ""
    said: Go | Muster | None = None


class Orders:
    """Orders by number; numbers only grow within an epoch."""

    def __init__(self, config: SchedulerConfig, view: ClusterView, alarms: Alarms) -> None:
        self._config = config
        self._view = view
        self._alarms = alarms
        self._orders: dict[int, Order] = {}
        self.numbers = count(1)
        self.epoch = 0

    def give(
        self, fx: Effects, job: int, units: int, request: Resources, places: Mapping[str, int], estimate_s: float
    ) -> int:
        """Number an order, claim its room, and return the number."""
        go = next(self.numbers)
        order = self._orders[go] = Order(job, units, request, dict(places), fx.now + estimate_s)
        for node, tasks in order.places.items():
            self._view.claim(self._key(go, node), node, request * tasks, order.end_s)
        self._alarms.set(("order", go), fx.now + self._config.go_timeout_s)
        return go

    def remember(self, go: int, home: str, said: Go | Muster) -> None:
        """Keep what was said to the job's home, to say it again."""
        order = self._orders[go]
        order.home, order.said = home, said

    def said(self, go: int) -> Go | Muster | None:
        """Return what was said, None when the order was given up."""
        order = self._orders.get(go)
        return order.said if order is not None else None

    def answered(self, go: int, node: str, tasks: int) -> None:
        """A node answered for so many tasks of an order: its report speaks for them."""
        order = self._orders.get(go)
        if order is None or node not in order.places:
            return
        order.places[node] -= tasks
        if order.places[node] > 0:
            self._view.shrink(self._key(go, node), order.request * order.places[node])
        else:
            del order.places[node]
            self._view.release(self._key(go, node))

    def declined(self, go: int, units: int) -> None:
        """A home had no use for part of an order: a gang's is for nothing then."""
        order = self._orders.get(go)
        if order is None:
            return
        order.units -= units
        for node in list(order.places):
            self.answered(go, node, order.places[node] if order.units <= 0 else units)

    def drop(self, go: int) -> Order | None:
        """Give an order up, and its claims with it."""
        order = self._orders.pop(go, None)
        if order is not None:
            for node in order.places:
                self._view.release(self._key(go, node))
            self._alarms.cancel(("order", go))
        return order

    def clear(self) -> None:
        """Give everything up."""
        for go in list(self._orders):
            self.drop(go)

    def _key(self, go: int, node: str) -> tuple[str, int, int, str]:
        return claim_key(self.epoch, go, node)


def claim_key(epoch: int, go: int, node: str) -> tuple[str, int, int, str]:
    """Return what an order's claim on a node is named by."""
    return ("go", epoch, go, node)
