"""The node's part in preemption that freezes: tasks that stand still while a higher tier has their CPU.

A task is *marked* (durably, before anything is done), then *stands* (the kernel said so), then *thaws*, and is
forgotten when the kernel said that it goes on. It keeps its memory all the time. Its CPU is lent from the moment it is
known to stand until it has been taken back in full, bit by bit as it comes free: so nobody of its own tier slips into
what it waits for, and a newer hold of a higher tier may have that back. Only then is it thawed, before anybody is told
of the room. So what runs here never needs more CPU than is permitted, wherever an agent dies: one that is restarted
counts what was marked in full, and freezes it again.

As Slurm's suspension by partition priority, but for what Slurm leaves out: there nobody saves up for what stands still.
Knows neither jobs nor leaders; who is to stand for whom, scheduler.yielding decides.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from msgspec.structs import replace

from scheduler.abilities import FREEZE, LIMITS
from scheduler.alarms import Alarms
from scheduler.condition import Condition, FrozenFor, Stood
from scheduler.effects import Effects
from scheduler.events import ContainerFrozen, ContainerThawed, FreezeContainer, ThawContainer
from scheduler.holds import HoldsKept
from scheduler.leases import is_single
from scheduler.messages import Preempt, Preempting
from scheduler.model import AllocationId, JobKind, JobSpec, Resources
from scheduler.reporting import WHOLE_NODE, Owed, Reporting
from scheduler.rules import Rules

if TYPE_CHECKING:
    from scheduler.admission import Held


class Stage(enum.Enum):
    """How far it is: of its CPU something is lent only while it stands."""

    MARKED = enum.auto()
    STANDING = enum.auto()
    THAWING = enum.auto()


@dataclass(slots=True)
class _Frozen:
    """`left_s`: what it has left to run by its estimate. `asked`: who has to hear if it can't be frozen after all."""

    held: Held
    stage: Stage = Stage.MARKED
    left_s: float = inf
    asked: tuple[str, Preempt] | None = None


class Frost:
    """Of one node; `held` is admission's book, `write` makes what it says of one durable; `changing`: whether the
    limits of one are just being changed.
    """

    def __init__(
        self,
        alarms: Alarms,
        reporting: Reporting,
        held: Mapping[AllocationId, Held],
        holds: HoldsKept,
        rules: Rules,
        changing: Callable[[AllocationId], bool],
        write: Callable[[Effects, Held], None],
    ) -> None:
        self._alarms = alarms
        self._reporting = reporting
        self._held = held
        self._holds = holds
        self._rules = rules
        self._changing = changing
        self._write = write
        self._frozen: dict[AllocationId, _Frozen] = {}
        self._barred: set[AllocationId] = set()
        self.thawed: Callable[[float, AllocationId], None] = lambda _now, _id: None
        """Told of each that goes on."""

    # --- what others ask

    def able(self, held: Held) -> bool:
        """Whether this one may be frozen, and can be: a batch task for itself, whose time does not run meanwhile."""
        spec = held.allocation.spec
        return (
            _may_stand(spec)
            and not is_single(held.allocation)
            and held.frozen_for is None
            and not held.condition.frozen
            and held.allocation.id not in self._barred
            and not self._changing(held.allocation.id)
            and self._can
        )

    def lent(self, tier: int) -> list[AllocationId]:
        """Return those below a tier that run no more, or soon will not: what is booked of their CPU could be had."""
        return [
            id_
            for id_, each in self._frozen.items()
            if each.stage is not Stage.THAWING and _alive(each) and self._tier(each) < tier
        ]

    def owed(self) -> list[Owed]:
        """Return those that stand still and wait for CPU, the next to go on first."""
        found = []
        for each in sorted(self._standing(), key=self._order):
            request = each.held.allocation.spec.request
            missing = request.cpu_milli - self._reporting.booked(each.held.allocation.id).cpu_milli
            found.append(Owed(missing, each.left_s, request))
        return [each for each in found if each.cpu_milli]

    def tiers(self) -> set[int]:
        """Return the tiers of those that have taken back some of their CPU, so that there is something to be had."""
        return {self._tier(each) for id_, each in self._frozen.items() if self._had(id_, each)}

    def grace_s(self, held: Held) -> float:
        """How long it may take to end. Ending thaws, so that what runs on would run on CPU that is somebody else's."""
        each = self._frozen.get(held.allocation.id)
        lent = held.frozen_for is not None and (each is None or each.stage is not Stage.THAWING)
        return 0.0 if lent else held.allocation.spec.stop_grace_s

    def condition(self, held: Held) -> Condition:
        """Return what it is doing, with for whom it stands, and how often it did."""
        told = replace(held.condition, stood=held.stood) if held.stood is not None else held.condition
        each = self._frozen.get(held.allocation.id)
        if each is None or each.stage is Stage.MARKED:
            return told
        return replace(told, frozen=True, frozen_for=held.frozen_for)

    # --- what happens to them

    def freeze(self, fx: Effects, ids: Iterable[AllocationId], leader: str, item: Preempt) -> None:
        """Have these stand still for a job; their CPU stays theirs until they do."""
        for id_ in ids:
            held = self._held[id_]
            held.frozen_for = FrozenFor(item.job, self._rules.wall.unix_s(fx.now))
            self._write(fx, held)
            self._frozen[id_] = _Frozen(held, asked=(leader, item))
            fx.act(FreezeContainer(id_, item.job))

    def started(self, fx: Effects, held: Held) -> None:
        """It runs, as far as a new agent knows: if it was marked, nobody knows whether it stands. Freeze it again."""
        id_ = held.allocation.id
        if held.frozen_for is not None and id_ not in self._frozen:
            self._frozen[id_] = _Frozen(held)
            fx.act(FreezeContainer(id_, held.frozen_for.job, again=True))

    def on_frozen(self, fx: Effects, event: ContainerFrozen) -> Held | None:
        """It stands, and its CPU is free from now on; or it can't, and is not asked again. Return what has changed."""
        each = self._frozen.get(event.id)
        if each is None or each.stage is not Stage.MARKED:
            return None
        if event.why:
            self._barred.add(event.id)
            each.held.frozen_for = None
            self._forget(fx, each)
            if each.asked is not None:
                leader, item = each.asked
                fx.say(leader, Preempting(item.epoch, item.go, item.job, False, 0.0))
            return None
        each.stage = Stage.STANDING
        end_s = self._reporting.end_of(event.id)
        each.left_s = max(0.0, end_s - fx.now)
        self._reporting.ends(event.id, inf)
        self._book(each, 0)
        return each.held

    def on_thawed(self, fx: Effects, event: ContainerThawed) -> Held | None:
        """It goes on: there is nothing left to remember. Return what has changed."""
        each = self._frozen.get(event.id)
        if each is None or each.stage is not Stage.THAWING:
            return None
        self._count(fx, each.held)
        self._forget(fx, each)
        self.thawed(fx.now, event.id)
        return each.held

    def over(self, fx: Effects, held: Held) -> None:
        """It has ended, and stands no more."""
        self._count(fx, held)
        self._frozen.pop(held.allocation.id, None)
        self._barred.discard(held.allocation.id)

    def look(self, fx: Effects) -> None:
        """Give back what is free, beside what is held for higher tiers: to the highest first, then to the eldest.

        Before anybody is told what is free, and whenever that, or what is held, may have changed.
        """
        standing = self._standing()
        if not standing:
            self._alarms.cancel(("thaw", None))
            return
        free = self._reporting.free_without((), [each.held.allocation.id for each in standing]).cpu_milli
        for each in sorted(standing, key=self._order):
            need = each.held.allocation.spec.request.cpu_milli
            share = max(0, min(need, free - self._holds.cpu_above(fx.now, self._tier(each))))
            free -= share
            self._book(each, share)
            if share == need:
                self._thaw(fx, each)
        if (next_s := self._holds.next_end_s(fx.now)) < inf:
            self._alarms.set(("thaw", None), next_s)
        else:
            self._alarms.cancel(("thaw", None))

    # --- inside

    def _standing(self) -> list[_Frozen]:
        return [each for each in self._frozen.values() if each.stage is Stage.STANDING and _alive(each)]

    @property
    def _can(self) -> bool:
        measured = self._reporting.measured
        return measured is not None and FREEZE in dict(measured.labels).get(LIMITS, "").split(",")

    def _tier(self, each: _Frozen) -> int:
        return self._rules.tier(each.held.allocation.spec)

    def _order(self, each: _Frozen) -> tuple[int, float, AllocationId]:
        since_s = each.held.frozen_for.since_unix_s if each.held.frozen_for is not None else 0.0
        return -self._tier(each), since_s, each.held.allocation.id

    def _had(self, id_: AllocationId, each: _Frozen) -> bool:
        return each.stage is Stage.STANDING and _alive(each) and self._reporting.booked(id_).cpu_milli > 0

    def _book(self, each: _Frozen, cpu_milli: int) -> None:
        id_ = each.held.allocation.id
        booked = self._reporting.booked(id_)
        if booked.cpu_milli != cpu_milli:
            self._reporting.rebook(id_, Resources(cpu_milli, booked.memory_bytes, booked.extra))
            self._reporting.push()

    def _thaw(self, fx: Effects, each: _Frozen) -> None:
        each.stage = Stage.THAWING
        self._reporting.ends(each.held.allocation.id, fx.now + each.left_s)
        fx.act(ThawContainer(each.held.allocation.id))

    def _count(self, fx: Effects, held: Held) -> None:
        """It stands no more: of all the times that it did, their number and their sum are kept."""
        if held.frozen_for is not None:
            before = held.stood or Stood()
            lasted_s = max(0.0, self._rules.wall.unix_s(fx.now) - held.frozen_for.since_unix_s)
            held.stood, held.frozen_for = Stood(before.times + 1, before.sum_s + lasted_s), None

    def _forget(self, fx: Effects, each: _Frozen) -> None:
        del self._frozen[each.held.allocation.id]
        self._write(fx, each.held)


def _alive(each: _Frozen) -> bool:
    return each.held.result is None and not each.held.stopping


def _may_stand(spec: JobSpec) -> bool:
    """Its time limit counts on while it stands; the others of a gang would wait for it with their CPU."""
    alone = spec.gang is None and not spec.request.get(WHOLE_NODE)
    return alone and spec.kind is JobKind.BATCH and spec.time_limit_s is None and spec.request.cpu_milli > 0
