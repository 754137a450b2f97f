"""The executing node: admits or refuses, starts and stops, reports, and keeps ends until their homes took them.

Authority over this node's resources: whatever others believe, committed never passes permitted in any dimension at an
admission. Fences by attempt: an attempt older than one seen, or one that was refused or ended here, never starts; an
older attempt that still runs when a newer one arrives is stopped. Everything is durable before it is answered.
Knows nothing of jobs as a whole, queues or other nodes' loads.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from msgspec.structs import replace

from scheduler.abilities import describe, requirements
from scheduler.alarms import Alarms
from scheduler.amendments import AmendmentsTaken
from scheduler.company import RUNS, rules
from scheduler.condition import ORDINARY, Condition, FrozenFor, HealthState, Stood
from scheduler.config import SchedulerConfig
from scheduler.draining import Draining
from scheduler.effects import Effects
from scheduler.estimate import estimate_s
from scheduler.events import (
    ContainerCondition,
    ContainerEnded,
    ContainerFrozen,
    ContainerStarted,
    ContainerThawed,
    RemoveContainer,
    StartContainer,
    StopContainer,
)
from scheduler.fit import shortage, unmet
from scheduler.frost import Frost
from scheduler.holds import HoldsKept
from scheduler.index import ClusterView
from scheduler.leases import LeasesTaken, is_single
from scheduler.messages import (
    BATCH_MAX,
    Admit,
    Admitted,
    Census,
    ConditionIs,
    Ended,
    EndedTaken,
    Gone,
    Holding,
    Parting,
    Refused,
    Reserved,
    Started,
    Stop,
)
from scheduler.model import NOWHERE, Allocation, AllocationId, Reach, Resources, Result
from scheduler.records import ALLOCATIONS, HeldRecord, Rows, delete_held, put_held, read_table
from scheduler.repeat import Repeat
from scheduler.reporting import Reporting
from scheduler.rooms import Rooms
from scheduler.rules import Rules
from scheduler.spec.health import OnUnhealthy
from scheduler.yielding import Yielding

STOP_S = 1.0
"""What ending a container takes beside its grace, for plans."""


@dataclass(slots=True)
class Held:
    """An allocation of this node: admitted, running, being stopped, or ended and kept for its home."""

    allocation: Allocation
    running: bool = False
    reach: Reach = NOWHERE
    condition: Condition = ORDINARY
    unhealthy: str = ""
    frozen_for: FrozenFor | None = None
    stood: Stood | None = None
    stopping: bool = False
    result: Result | None = None


@dataclass(slots=True)
class _Home:
    """What this node holds of one home."""

    live: dict[AllocationId, None] = field(default_factory=dict)
    told_from: int = 0


class Admission:
    """One node's own allocations and resources."""

    def __init__(
        self, config: SchedulerConfig, view: ClusterView, alarms: Alarms, number: int, boot_epoch: int, rules: Rules
    ) -> None:
        self._config = config
        self._rules = rules
        self._view = view
        self._alarms = alarms
        self._held: dict[AllocationId, Held] = {}
        self._current: dict[tuple[int, int], AllocationId] = {}
        self._fence: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._homes: dict[str, _Home] = {}
        self._boot_epoch = boot_epoch
        self.reporting = Reporting(config, view, alarms, number, boot_epoch)
        self.rooms = Rooms(config, alarms, self.reporting)
        self.holds = HoldsKept(config)
        self._ends: Repeat[AllocationId] = Repeat("ends", config, alarms, view.alive, self._say_ends)
        self.amendments = AmendmentsTaken(self.reporting, self._running, self._replace, self._stands)
        self.draining = Draining(config, view, alarms, self.reporting, self._held)
        self.frost = Frost(alarms, self.reporting, self._held, self.holds, rules, self.amendments.under_way, _write)
        self.yielding = Yielding(config, view, alarms, self.reporting, self._held, self.holds, rules, self.frost)
        self.reporting.before_telling = self.frost.look
        self.reporting.owed = self.frost.owed
        self.leases = LeasesTaken(config, view, alarms, boot_epoch)

    # --- what the rest of this node asks

    def held(self) -> dict[AllocationId, Held]:
        """Return this node's allocations, ended ones that were not taken yet included. Read only."""
        return self._held

    def restore(self, fx: Effects, rows: Rows) -> None:
        """Take over what the ledger remembers; what became of the containers, the shell tells next."""
        for record in read_table(rows, ALLOCATIONS, HeldRecord).values():
            held = Held(
                record.allocation,
                unhealthy=record.unhealthy,
                frozen_for=record.frozen_for,
                stood=record.stood,
                result=record.result,
            )
            if record.result is None:
                self._count_in(fx, held)
            else:
                # Kept from now on: a wall clock that was wrong once must not make a result look old.
                self._keep_end(fx, record.allocation)
            self._held[record.allocation.id] = held
            if record.result is None and is_single(record.allocation):
                self.leases.take(fx, record.allocation)
        for home in self._homes:
            self._alarms.set_if_unset(("holding", home), fx.now)

    # --- what homes say

    def on_admit(self, fx: Effects, home: str, order: Admit) -> None:
        """Admit or refuse each task of the order; the answer travels with a fresh report."""
        self.frost.look(fx)  # a word just before in the same message may have ended a hold
        admitted: list[tuple[int, int]] = []
        refused: dict[tuple[str, int, int], list[tuple[int, int]]] = {}
        for index, attempt in order.tasks:
            id_ = AllocationId(order.job, index, attempt)
            refusal = self._decide(fx, home, order, id_)
            if refusal is None:
                admitted.append((index, attempt))
            else:
                refused.setdefault(refusal, []).append((index, attempt))
        self._tell_report(fx, home)
        if admitted:
            fx.say(home, (Reserved if order.reserve_s else Admitted)(order.job, tuple(admitted)))
        for (cause, need, free), tasks in refused.items():
            fx.say(home, Refused(order.job, tuple(tasks), cause, need, free))
        self._settle(fx, order)

    def on_stop(self, fx: Effects, home: str, order: Stop) -> None:
        """Stop an attempt of this home; one that is not here will never start either."""
        held = self._held.get(order.id)
        if held is None:
            if self.rooms.give_back(home, order.id):
                self._tell_report(fx, home)
            self._raise_fence(order.id)
            fx.say(home, Gone((order.id,)))
        elif held.allocation.home != home:
            return
        elif held.result is not None:
            self._ends.say(home, order.id)
        else:
            self._stop(fx, held, order.why)

    def on_census(self, fx: Effects, home: str, census: Census) -> None:
        """Say which of these are not here."""
        gone = []
        for id_ in census.ids:
            held = self._held.get(id_)
            if held is None:
                self._raise_fence(id_)
                gone.append(id_)
            elif held.result is not None and held.allocation.home == home:
                self._ends.say(home, id_)
        if gone:
            fx.say(home, Gone(tuple(gone)))

    def on_taken(self, fx: Effects, home: str, taken: EndedTaken) -> None:
        """Forget what the home has in its ledger."""
        for id_ in taken.ids:
            held = self._held.get(id_)
            if held is not None and held.result is not None and held.allocation.home == home:
                self._forget(fx, held)

    # --- what the runtime says

    def on_started(self, fx: Effects, event: ContainerStarted) -> None:
        """The container runs: tell its home. A container nobody ordered is stopped."""
        held = self._held.get(event.id)
        if held is None or held.result is not None:
            fx.act(StopContainer(event.id, 0.0, "no such allocation on this node"))
            return
        if not held.running:
            held.running = True
            self.yielding.started(fx.now, event.id)
            self.reporting.ends(event.id, fx.now + estimate_s(held.allocation.spec, self._config))
        held.reach = event.reach
        self.frost.started(fx, held)
        fx.say(held.allocation.home, Started(event.id, event.reach))
        if held.unhealthy:
            self._stop(fx, held, held.unhealthy)

    def on_condition(self, fx: Effects, event: ContainerCondition) -> None:
        """Tell its home what it is doing; end what is unhealthy, if it asks so. Its home decides what follows."""
        held = self._held.get(event.id)
        if held is None or held.result is not None:
            return
        held.condition = event.condition
        self._tell_condition(fx, held)
        asked = held.allocation.spec.life.health
        unwell = event.condition.health is HealthState.UNHEALTHY
        if unwell and asked is not None and asked.unhealthy is OnUnhealthy.RESTART and not held.stopping:
            held.unhealthy = event.condition.why or "its checks failed"
            _write(fx, held)
            self._stop(fx, held, f"unhealthy: {held.unhealthy}")

    def on_frost(self, fx: Effects, event: ContainerFrozen | ContainerThawed) -> None:
        """It stands, or goes on: tell its home."""
        frost = self.frost
        held = frost.on_frozen(fx, event) if isinstance(event, ContainerFrozen) else frost.on_thawed(fx, event)
        if held is not None:
            self._tell_condition(fx, held)

    def on_ended(self, fx: Effects, event: ContainerEnded) -> None:
        """The container ended: free its space, keep the result until its home took it."""
        held = self._held.get(event.id)
        if held is None:
            fx.act(RemoveContainer(event.id))
            return
        if held.result is None:
            self.amendments.ended(fx, event.id)
            self._count_out(held)
            self.frost.over(fx, held)
            held.result = event.result
            if held.unhealthy or held.stopping or held.stood:
                told = {"unhealthy": held.unhealthy, "stopped": held.stopping, "stood": held.stood}
                held.result = replace(event.result, **told)
            held.running, held.unhealthy = False, ""
            self._left(held.allocation)
            _write(fx, held)
            self._keep_end(fx, held.allocation)
            self._tell_report(fx, held.allocation.home)
            gang = held.allocation.spec.gang
            if gang is not None and gang.size > 1:
                self.reporting.pushing.parted(fx, Parting(event.id.job, event.id.index, gang.size))

    # --- members and alarms

    def on_up(self, fx: Effects, name: str) -> None:
        """A node is back: tell it its ends and what of it is held here."""
        self.leases.on_up(fx, name)
        self.draining.on_up(name)
        self._ends.back(name)
        self.reporting.pushing.on_up(name)
        if name in self._homes:
            self._alarms.set(("holding", name), fx.now)

    def on_forgotten(self, name: str) -> None:
        """A home is gone for good; what ended is kept for its time, in case it is not."""
        if name in self._homes and not self._homes[name].live:
            del self._homes[name]
            self._alarms.cancel(("holding", name))

    def on_reign(self, fx: Effects, leader: str, epoch: int) -> None:
        """A new leader begins: tell it how this node stands; what it does not hold anew ends soon."""
        self.reporting.push()
        self.holds.on_reign(fx.now, epoch, self._config.settle_s)

    def ring_room(self, fx: Effects, id_: AllocationId) -> None:
        """A home did not make up its mind in time."""
        self.rooms.ring(id_)

    def ring_leases(self, fx: Effects) -> None:
        """Ask for leases again, and give up what never got one."""
        for id_ in self.leases.ring(fx):
            self.on_ended(fx, ContainerEnded(id_, Result(error="its home did not grant it a lease")))

    def ring_ends(self, fx: Effects, home: str) -> None:
        """Repeat ends."""
        self._ends.ring(fx, home)

    def ring_keep(self, fx: Effects, id_: AllocationId) -> None:
        """A result was kept long enough: its home is gone for good."""
        held = self._held.get(id_)
        if held is not None and held.result is not None:
            self._forget(fx, held)

    def ring_holding(self, fx: Effects, home: str) -> None:
        """Tell a home what is held of it, a batch at a time."""
        state = self._homes.get(home)
        if state is None or not state.live:
            self._homes.pop(home, None)
            return
        ids = list(state.live)
        start = state.told_from if state.told_from < len(ids) else 0
        batch = ids[start : start + BATCH_MAX]
        state.told_from = start + len(batch)
        if self._view.alive(home):
            held = [self._held[id_] for id_ in batch]
            told = tuple(self.frost.condition(x) for x in held)
            conditions = told if any(each != ORDINARY for each in told) else ()
            reaches = tuple(x.reach for x in held)
            fx.say(home, Holding(tuple(batch), tuple(x.running for x in held), reaches, conditions))
        more = state.told_from < len(ids)
        pause_s = self._config.holding_interval_s
        self._alarms.set(("holding", home), fx.now + (pause_s / 100 if more else pause_s))

    def flush(self, fx: Effects) -> None:
        """At the end of an event: say what is fresh."""
        self.frost.look(fx)
        self._ends.flush(fx)
        self.draining.flush(fx)
        self.yielding.flush(fx)
        self.reporting.flush(fx)

    # --- inside

    def _decide(self, fx: Effects, home: str, order: Admit, id_: AllocationId) -> tuple[str, int, int] | None:
        """Admit (None), or name the cause with need and free."""
        held = self._held.get(id_)
        if held is not None:
            return None if held.allocation.home == home else ("held for another home", 0, 0)
        if self.rooms.give_back(home, id_):
            refusal = None
        else:
            self.rooms.drop_older(home, id_)
            refusal = self._refusal(fx, home, order, id_)
        older = self._current.get((id_.job, id_.index))
        if older is not None and older.attempt < id_.attempt and self._held[older].allocation.home == home:
            self._stop(fx, self._held[older], "a newer attempt of this task exists")
        if refusal is None:
            self.holds.started(id_.job, id_.attempt)
            if order.reserve_s:
                end_s = fx.now + estimate_s(order.spec, self._config)
                self.rooms.keep(fx, home, id_, order.spec.request, end_s, order.reserve_s)
                return None
        self._raise_fence(id_)
        if refusal is not None:
            return refusal
        self._admit(fx, Held(Allocation(id_, home, order.owner, order.spec, order.gang_nodes)))
        return None

    def _refusal(self, fx: Effects, home: str, order: Admit, id_: AllocationId) -> tuple[str, int, int] | None:
        if id_.attempt <= self._fence.get((id_.job, id_.index), 0):
            return "an attempt as new or newer was answered here", 0, 0
        if order.boot_epoch != self._boot_epoch:
            return "the node restarted", order.boot_epoch, self._boot_epoch
        if order.epoch and order.epoch < self.reporting.epoch:
            return "the order of an older leader", order.epoch, self.reporting.epoch
        if self.reporting.measured is None:
            return "the node is starting", 0, 0
        if not self.reporting.accepting:
            return "the node takes nothing new", 0, 0
        if not self.reporting.measured.room:
            return "the node's disk is full", 0, 0
        beside = rules(order.spec, order.job)
        if (constraint := unmet((*requirements(order.spec), *beside), self._labels(bool(beside)))) is not None:
            return describe(constraint), 0, 0
        if (reserved := self._rules.refusal(order.spec, self._view.me, fx.now)) is not None:
            return reserved, 0, 0
        free = self.reporting.free
        if (short := shortage(order.spec.request, free)) is not None:
            return short.dimension, short.need, short.free
        return self._held_back(fx, home, order, free)

    def _labels(self, runs: bool) -> dict[str, str]:
        measured = self.reporting.measured
        labels = {"node": self._view.me, **dict(measured.labels if measured else ())}
        if runs:
            labels[RUNS] = self.reporting.company.text()
        return labels

    def _held_back(self, fx: Effects, home: str, order: Admit, free: Resources) -> tuple[str, int, int] | None:
        """Refuse what would run into a hold of a better-ranked job."""
        need, run_s = order.spec.request, estimate_s(order.spec, self._config)
        known = (order.epoch, order.go)
        hold = self.holds.in_the_way(fx.now, home, order.job, order.rank, known, run_s, need, free)
        return (f"held for job {hold.job}", 0, 0) if hold is not None else None

    def _admit(self, fx: Effects, held: Held) -> None:
        _write(fx, held)
        self._held[held.allocation.id] = held
        self._count_in(fx, held)
        self._alarms.set_if_unset(("holding", held.allocation.home), fx.now + self._config.holding_interval_s)
        if is_single(held.allocation):
            self.leases.take(fx, held.allocation)
        else:
            fx.act(StartContainer(held.allocation))

    def _running(self, id_: AllocationId) -> Allocation | None:
        held = self._held.get(id_)
        return held.allocation if held is not None and held.running and held.result is None else None

    def _replace(self, fx: Effects, allocation: Allocation) -> None:
        self._held[allocation.id].allocation = allocation
        _write(fx, self._held[allocation.id])

    def _stands(self, id_: AllocationId) -> bool:
        return self._held[id_].frozen_for is not None

    def _tell_condition(self, fx: Effects, held: Held) -> None:
        fx.say(held.allocation.home, ConditionIs(held.allocation.id, self.frost.condition(held)))

    def _count_in(self, fx: Effects, held: Held) -> None:
        """Book a live allocation in; by the estimate it ends when it has run that long from now on."""
        id_, spec = held.allocation.id, held.allocation.spec
        self.reporting.book(id_, spec.request, fx.now + estimate_s(spec, self._config))
        self.reporting.company.add(id_, spec)
        self._current[(id_.job, id_.index)] = id_
        self._homes.setdefault(held.allocation.home, _Home()).live[id_] = None

    def _count_out(self, held: Held) -> None:
        """Book a live allocation out."""
        id_ = held.allocation.id
        self.reporting.unbook(id_)
        self.reporting.company.drop(id_)
        if self._current.get((id_.job, id_.index)) == id_:
            del self._current[(id_.job, id_.index)]
        self._homes[held.allocation.home].live.pop(id_, None)

    def _tell_report(self, fx: Effects, home: str) -> None:
        """The newest report travels before this answer, and to the leader."""
        self.reporting.tell(fx, home)
        self.reporting.push()

    def _settle(self, fx: Effects, order: Admit) -> None:
        """Tell the leader that its order is answered, with the report that shows how."""
        if order.epoch:
            self.reporting.push()
            self.reporting.pushing.settled(fx, order.epoch, order.go, len(order.tasks))

    def _stop(self, fx: Effects, held: Held, why: str) -> None:
        """Stop a live one; asking again is harmless, the shell may have crashed in between."""
        held.stopping = True
        self._left(held.allocation)
        grace_s = self.frost.grace_s(held)
        self.reporting.ends_by(held.allocation.id, fx.now + grace_s + STOP_S)
        fx.act(StopContainer(held.allocation.id, grace_s, why))

    def _left(self, allocation: Allocation) -> None:
        """It has ended, or is being ended: no lease and no new place is asked for it any more."""
        self.leases.drop(allocation.id)
        self.draining.over(allocation.home, allocation.id)
        self.yielding.over(allocation.home, allocation.id)

    def _keep_end(self, fx: Effects, allocation: Allocation) -> None:
        self._raise_fence(allocation.id)
        self._ends.say(allocation.home, allocation.id)
        self._alarms.set(("keep", allocation.id), fx.now + self._config.ended_keep_s)

    def _forget(self, fx: Effects, held: Held) -> None:
        id_ = held.allocation.id
        del self._held[id_]
        self._alarms.cancel(("keep", id_))
        self._ends.answered(held.allocation.home, id_)
        delete_held(fx, id_)
        fx.act(RemoveContainer(id_))

    def _raise_fence(self, id_: AllocationId) -> None:
        """Remember that attempts up to this one never start here (again); the oldest memories go first."""
        key = (id_.job, id_.index)
        self._fence[key] = max(id_.attempt, self._fence.get(key, 0))
        self._fence.move_to_end(key)
        while len(self._fence) > self._config.fence_keep:
            self._fence.popitem(last=False)

    def _say_ends(self, fx: Effects, home: str, ids: list[AllocationId]) -> None:
        for id_ in ids:
            held = self._held.get(id_)
            if held is not None and held.result is not None:
                fx.say(home, Ended(id_, held.result))


def _write(fx: Effects, held: Held) -> None:
    put_held(fx, HeldRecord(held.allocation, held.result, held.unhealthy, held.frozen_for, held.stood))
