"""The node's part in preemption: what could give way here, and which tasks do when the leader asks for room.

The node chooses among its own: the lowest tiers first, then the youngest, and none that is not needed. It asks their
homes, who decide and stop them; it never stops one by itself. Or, where the settings say so, it has them stand still
without asking anybody, for they lose nothing (scheduler.frost). Nothing is done unless room is held here for the
job it is for, so that nobody else gets it. A task that runs for less than the settings' `run_min_s`, whose home is out
of reach, or whose home said no a short while ago, stays; so does one that can't be frozen where others are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.fit import fits
from scheduler.frost import Frost
from scheduler.holds import HoldsKept
from scheduler.index import ClusterView
from scheduler.messages import BATCH_MAX, GiveWay, Keeps, Preempt, Preempting
from scheduler.model import AllocationId, Resources, Tier
from scheduler.repeat import Repeat
from scheduler.reporting import Reporting
from scheduler.rules import Rules
from scheduler.settings import PreemptMode

if TYPE_CHECKING:
    from scheduler.admission import Held

TIERS_TOLD = 8
LOOK_PAUSE_S = 0.1
"""What could give way is looked at so often at most: with 500 containers a look takes a millisecond."""
KEPT_S = 60.0
"""A task whose home did not let it go is not asked for again before this."""
ASKED_S = 30.0
"""A home that has not answered for so long is not asked any more: the room may be needed by nobody now."""


class _Open(NamedTuple):
    """What could give way, and since when it has run for long enough. Sorts by who goes first."""

    tier: int
    order: float
    id: AllocationId

    @property
    def ripe_s(self) -> float:
        """From then on it may be asked; the youngest go first."""
        return -self.order


class Yielding:
    """Of one node; `held` is admission's book, read only here."""

    def __init__(
        self,
        config: SchedulerConfig,
        view: ClusterView,
        alarms: Alarms,
        reporting: Reporting,
        held: Mapping[AllocationId, Held],
        holds: HoldsKept,
        rules: Rules,
        frost: Frost,
    ) -> None:
        self._view = view
        self._alarms = alarms
        self._reporting = reporting
        self._held = held
        self._holds = holds
        self._rules = rules
        self._frost = frost
        frost.thawed = self._thawed
        self._asked: dict[AllocationId, tuple[Preempt, float]] = {}
        self._kept: dict[AllocationId, float] = {}
        self._since: dict[AllocationId, float] = {}
        self._told: tuple[int, bytes] | None = None
        self._look_s = -inf
        self._asks: Repeat[AllocationId] = Repeat("giveways", config, alarms, view.alive, self._speak)

    @property
    def on(self) -> bool:
        """Whether anything may be preempted."""
        return self._rules.settings.preemption.mode is not PreemptMode.OFF

    @property
    def _freezes(self) -> bool:
        return self._rules.settings.preemption.mode is PreemptMode.FREEZE

    def started(self, now: float, id_: AllocationId) -> None:
        """It runs, as far as this agent knows since now."""
        self._since.setdefault(id_, now)
        self.changed()

    def _thawed(self, now: float, id_: AllocationId) -> None:
        """It may run for its shortest time again before it has to stand once more."""
        self._since[id_] = now
        self.changed()

    def changed(self) -> None:
        """Look anew at what could give way."""
        self._told = None

    def over(self, home: str, id_: AllocationId) -> None:
        """It has ended, or its home has had it stopped."""
        self._since.pop(id_, None)
        self._kept.pop(id_, None)
        if self._asked.pop(id_, None) is not None:
            self._asks.answered(home, id_)
        self.changed()

    def on_preempt(self, fx: Effects, leader: str, item: Preempt) -> None:
        """Make room for a job, if it is held for it here; without the hold the leader asks again."""
        if not self.on or item.epoch != self._reporting.epoch or item.job not in self._holds.jobs(fx.now):
            return
        victims = self._victims(fx.now, item)
        if victims is None:
            fx.say(leader, Preempting(item.epoch, item.go, item.job, False, self._wait_s(fx.now, item.tier)))
            return
        if self._freezes:
            self._frost.freeze(fx, victims, leader, item)
        else:
            self._ask(fx, victims, item)
        self.changed()
        grace_s = max((self._frost.grace_s(self._held[id_]) for id_ in self._leaving()), default=0.0)
        fx.say(leader, Preempting(item.epoch, item.go, item.job, True, grace_s))

    def on_keeps(self, fx: Effects, home: str, item: Keeps) -> None:
        """A home does not let these go: the leader better looks elsewhere."""
        for id_ in item.ids:
            if id_ in self._asked and self._held[id_].allocation.home == home:
                asked, _ = self._asked.pop(id_)
                self._asks.answered(home, id_)
                self._kept[id_] = inf if item.ever else fx.now + KEPT_S
                fx.say(self._view.leader, Preempting(asked.epoch, asked.go, asked.job, False, 0.0))
        self.changed()

    def ring(self, fx: Effects, home: str) -> None:
        """Ask a home again."""
        for id_ in [id_ for id_, (_, until_s) in self._asked.items() if until_s <= fx.now]:
            del self._asked[id_]
            self._asks.answered(self._held[id_].allocation.home, id_)
        self.changed()
        self._asks.ring(fx, home)

    def flush(self, fx: Effects) -> None:
        """At the end of an event: say what is fresh, and report what could give way now, if anything changed."""
        self._asks.flush(fx)
        now = self._reporting.version, self._rules.settings.digest
        if now == self._told:
            return
        if self.on and fx.now < self._look_s:
            self._alarms.set(("ripe", None), self._look_s)
            return
        self._told, self._look_s = now, fx.now + LOOK_PAUSE_S
        tiers = self._tiers(fx.now) if self.on else ()
        if tiers != self._reporting.tiers:
            self._reporting.set_tiers(tiers)
        self._alarms.cancel(("ripe", None))
        if self.on and (next_s := self._next_s(fx.now)) < inf:
            self._alarms.set(("ripe", None), next_s)

    # --- inside

    def _ask(self, fx: Effects, victims: list[AllocationId], item: Preempt) -> None:
        for id_ in victims:
            self._asked[id_] = item, fx.now + ASKED_S
            self._asks.say(self._held[id_].allocation.home, id_)

    def _leaving(self) -> list[AllocationId]:
        """What is on its way out already, whoever it is for."""
        return [
            id_ for id_, held in self._held.items() if held.result is None and (held.stopping or id_ in self._asked)
        ]

    def _lower(self, now: float) -> list[_Open]:
        """What could give way, now or when it has run for longer."""
        found = []
        run_min_s = self._rules.settings.preemption.run_min_s
        for id_, held in self._held.items():
            open_ = held.running and not held.stopping and held.result is None and id_ not in self._asked
            if open_ and self._kept.get(id_, now) <= now and self._may_go(held):
                ripe_s = self._since.get(id_, now) + run_min_s
                found.append(_Open(self._rules.tier(held.allocation.spec), -ripe_s, id_))
        return found

    def _may_go(self, held: Held) -> bool:
        """What stands already gives nothing more; to be stopped, a task needs its home."""
        if self._freezes:
            return self._frost.able(held)
        return held.frozen_for is None and self._view.alive(held.allocation.home)

    def _wait_s(self, now: float, tier: int) -> float:
        """In how many seconds the first of those that are too young may be asked."""
        times = [each.ripe_s for each in self._lower(now) if each.tier < tier and each.ripe_s > now]
        return min(times, default=now) - now

    def _next_s(self, now: float) -> float:
        """When more could give way: one has run for long enough, or its home may be asked again."""
        times = [each.ripe_s for each in self._lower(now)]
        return min((each for each in (*times, *self._kept.values()) if each > now), default=inf)

    def _victims(self, now: float, item: Preempt) -> list[AllocationId] | None:
        """Return what has to leave beside what does already; None when that is not enough."""
        ripe = [each for each in self._lower(now) if each.tier < item.tier and each.ripe_s <= now]
        chosen: list[AllocationId] = []
        for _, _, id_ in sorted(ripe):
            if self._fits(item, chosen):
                break
            chosen.append(id_)
        if not self._fits(item, chosen):
            return None
        for id_ in reversed(chosen.copy()):
            without = [each for each in chosen if each != id_]
            if self._fits(item, without):
                chosen = without
        return chosen

    def _fits(self, item: Preempt, chosen: Sequence[AllocationId]) -> bool:
        return fits(item.amount, self._free(item.tier, chosen))

    def _free(self, tier: int, chosen: Sequence[AllocationId]) -> Resources:
        """What would be free if these gave way, beside what leaves already and what stands below a tier."""
        gone, still = self._leaving(), self._frost.lent(tier)
        (still if self._freezes else gone).extend(chosen)
        return self._reporting.free_without(gone, still)

    def _tiers(self, now: float) -> tuple[Tier, ...]:
        """What would be free if all of a tier and of those below gave way, beside what leaves already."""
        ripe = [each for each in self._lower(now) if each.ripe_s <= now]
        found = []
        for tier in sorted({each.tier for each in ripe} | self._frost.tiers())[:TIERS_TOLD]:
            found.append(Tier(tier, self._free(tier + 1, [each.id for each in ripe if each.tier <= tier])))
        return tuple(found)

    def _speak(self, fx: Effects, home: str, ids: list[AllocationId]) -> None:
        groups: dict[tuple[int, int], list[AllocationId]] = {}
        for id_ in ids:
            if id_ in self._asked:
                item, _ = self._asked[id_]
                groups.setdefault((item.job, item.tier), []).append(id_)
            else:
                self._asks.answered(home, id_)
        for (job, tier), found in groups.items():
            for start in range(0, len(found), BATCH_MAX):
                fx.say(home, GiveWay(job, tier, tuple(found[start : start + BATCH_MAX])))
