"""Leases for jobs marked `single`: at most one attempt of a task runs at any moment, whatever is cut off from whom.

The node asks, naming its own clock; the home grants `lease_s` seconds counted from that question, and remembers, on
its own clock, when it last granted. So the home's reckoning always ends after the node's, however late a message is,
and no clock is compared with another (Gray and Cheriton 1989). A container starts only under a lease, and its
supervisor stops it when the lease has passed, with or without an agent. The home makes no new attempt before the
last lease it may have granted has surely passed: its length and what clocks may differ in pace, the container's stop
grace, and a margin for the kill. Nothing here is durable: after a restart the home takes all it knows for granted
just now, and a node asks anew. A home whose record another node may take over (etcd) grants while it surely holds it;
the one that takes over counts from that moment, as after a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.events import RenewLease, StartContainer
from scheduler.index import ClusterView
from scheduler.messages import BATCH_MAX, Lease, LeaseAsk
from scheduler.model import Allocation, AllocationId, OnLost

PACE = 1.02
"""Two monotonic clocks differ in pace by far less; crystals are good to a ten-thousandth."""
KILL_MARGIN_S = 2.0
RENEWALS = 4
FIRST_LEASE_S = 10.0


def is_single(allocation: Allocation) -> bool:
    """Whether this may never run beside another attempt of its task."""
    return allocation.spec.on_lost is OnLost.SINGLE


class LeasesGiven:
    """The home's side: what it granted last, and what it grants no more."""

    def __init__(self, config: SchedulerConfig, alarms: Alarms) -> None:
        self._config = config
        self._alarms = alarms
        self._granted: dict[AllocationId, float] = {}
        self._refused: dict[AllocationId, None] = {}
        self.home_until_s = inf
        """From then on somebody else may be this home, so that nothing is granted: nobody could know of it."""

    def assume(self, now: float, id_: AllocationId) -> None:
        """After a restart: a lease may have been granted until just now."""
        self._granted[id_] = now

    def on_ask(self, fx: Effects, node: str, ask: LeaseAsk, current: Callable[[AllocationId], bool]) -> None:
        """Grant what is asked for attempts that count and are not given up, while this is surely their home."""
        if fx.now >= self.home_until_s:
            return
        granted = tuple(id_ for id_ in ask.ids if current(id_) and id_ not in self._refused)
        for id_ in granted:
            self._granted[id_] = fx.now
        if granted:
            fx.say(node, Lease(granted, ask.boot_epoch, ask.clock_s, self._config.lease_s))

    def give_up(self, now: float, id_: AllocationId, stop_grace_s: float) -> bool:
        """Its node is given up: grant no more; return whether it may still run, and then ring "lease" when not."""
        passed_s = self.passed_s(id_, stop_grace_s)
        if now >= passed_s:
            return False
        self._refused[id_] = None
        self._alarms.set(("lease", id_), passed_s)
        return True

    def pardon(self, ids: Iterable[AllocationId]) -> None:
        """The node is back before any harm was done."""
        for id_ in ids:
            self._refused.pop(id_, None)
            self._alarms.cancel(("lease", id_))

    def passed_s(self, id_: AllocationId, stop_grace_s: float) -> float:
        """Return when, on this home's clock, it has surely ended; long ago if it was never granted anything."""
        granted_s = self._granted.get(id_)
        if granted_s is None:
            return float("-inf")
        return granted_s + self._config.lease_s * PACE + stop_grace_s + KILL_MARGIN_S

    def over(self, id_: AllocationId) -> None:
        """The attempt is over."""
        self._granted.pop(id_, None)
        self.pardon((id_,))


class LeasesTaken:
    """The node's side: starts what has a lease, and asks again in good time."""

    def __init__(self, config: SchedulerConfig, view: ClusterView, alarms: Alarms, boot_epoch: int) -> None:
        self._config = config
        self._view = view
        self._alarms = alarms
        self._boot_epoch = boot_epoch
        self._held: dict[AllocationId, Allocation] = {}
        self._since: dict[AllocationId, float] = {}
        self._until: dict[AllocationId, float] = {}

    def take(self, fx: Effects, allocation: Allocation) -> None:
        """Admitted (or found after a restart): start it as soon as it has a lease."""
        self._held[allocation.id] = allocation
        self._since[allocation.id] = fx.now
        self._ask(fx, allocation.home, [allocation.id])
        self._alarms.set_if_unset(("leases", None), fx.now + self._pace_s)

    def drop(self, id_: AllocationId) -> None:
        """It has ended, or is not to start any more."""
        for book in (self._held, self._since, self._until):
            book.pop(id_, None)

    def on_lease(self, fx: Effects, home: str, lease: Lease) -> None:
        """The home's grant counts from the moment we asked. One asked for before this boot is void: so is its clock."""
        if lease.boot_epoch != self._boot_epoch:
            return
        until_s = lease.clock_s + lease.lease_s
        for id_ in lease.ids:
            allocation = self._held.get(id_)
            if allocation is None or allocation.home != home or until_s <= max(fx.now, self._until.get(id_, 0.0)):
                continue
            fx.act(RenewLease(id_, until_s) if id_ in self._until else StartContainer(allocation, until_s))
            self._until[id_] = until_s

    def ring(self, fx: Effects) -> list[AllocationId]:
        """Ask for all again; return those that have waited too long for their first lease: others need the room."""
        homes: dict[str, list[AllocationId]] = {}
        for id_, allocation in self._held.items():
            homes.setdefault(allocation.home, []).append(id_)
        for home, ids in homes.items():
            self._ask(fx, home, ids)
        if homes:
            self._alarms.set(("leases", None), fx.now + self._pace_s)
        patience_s = max(self._config.lease_s, FIRST_LEASE_S)
        return [id_ for id_, since_s in self._since.items() if id_ not in self._until and fx.now > since_s + patience_s]

    def on_up(self, fx: Effects, home: str) -> None:
        """A home is back: what it did not answer is asked again at once."""
        self._ask(fx, home, [id_ for id_, each in self._held.items() if each.home == home])

    @property
    def _pace_s(self) -> float:
        return self._config.lease_s / RENEWALS

    def _ask(self, fx: Effects, home: str, ids: list[AllocationId]) -> None:
        for start in range(0, len(ids) if self._view.alive(home) else 0, BATCH_MAX):
            fx.say(home, LeaseAsk(tuple(ids[start : start + BATCH_MAX]), self._boot_epoch, fx.now))
