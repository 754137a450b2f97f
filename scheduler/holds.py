"""Holds: what nodes keep free for the best-ranked waiting jobs. Told by the leader, enforced by each node.

A hold is soft: it ends with its job's start or its owner's death, when a newer word takes its place, and in any case
after its time to live, so that a late message leaves no orphan for long. (epoch, sequence) orders the words of all
leaders. Nodes only ever use holds to refuse; nothing is promised by them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.fit import fits
from scheduler.messages import HoldRoom
from scheduler.model import Resources
from scheduler.plan import Held

SLACK_S = 0.005
"""A job may pass a shadow time by this much: what a message takes on its way must not decide."""

RENEWALS = 3
"""Renewals within one time to live."""

NOTHING = Resources()


class _Said(NamedTuple):
    owner: str
    attempt: int
    held: Held


class HoldsSaid:
    """The leader's side: what was said to which node, and what has to be said now."""

    def __init__(self, config: SchedulerConfig, alarms: Alarms) -> None:
        self._config = config
        self._alarms = alarms
        self._said: dict[tuple[str, int], _Said] = {}
        self._sequence = 0

    def clear(self) -> None:
        """The role is given up, or taken anew: the nodes' holds end by themselves."""
        self._said.clear()
        self._alarms.cancel(("holds", None))

    def started(self, job: int, node: str) -> None:
        """The job was ordered there: the node drops its hold by itself."""
        self._said.pop((node, job), None)

    def update(
        self, fx: Effects, epoch: int, holds: dict[str, list[Held]], owner_of: Callable[[int], tuple[str, int]]
    ) -> None:
        """Say what is new, larger, later or over. A shadow time that came nearer can wait for the renewal."""
        wanted = {(node, held.job): held for node, helds in holds.items() for held in helds}
        for node, job in [key for key in self._said if key not in wanted]:
            self._say(fx, epoch, node, self._said.pop((node, job)), NOTHING)
        for (node, job), held in wanted.items():
            said = self._said.get((node, job))
            if said is not None and _still_good(said.held, held):
                continue
            owner, attempt = owner_of(job)
            said = self._said[(node, job)] = _Said(owner, attempt, held)
            self._say(fx, epoch, node, said, held.amount)
        if self._said:
            self._alarms.set_if_unset(("holds", None), fx.now + self._config.hold_ttl_s / RENEWALS)

    def renew(self, fx: Effects, epoch: int, holds: dict[str, list[Held]]) -> None:
        """Say all of it again, as it is planned now."""
        current = {(node, held.job): held for node, helds in holds.items() for held in helds}
        for (node, job), said in self._said.items():
            held = current.get((node, job), said.held)
            self._said[(node, job)] = said._replace(held=held)
            self._say(fx, epoch, node, self._said[(node, job)], held.amount)
        if self._said:
            self._alarms.set(("holds", None), fx.now + self._config.hold_ttl_s / RENEWALS)

    def _say(self, fx: Effects, epoch: int, node: str, said: _Said, amount: Resources) -> None:
        self._sequence += 1
        held = said.held
        shadow_in_s = max(0.0, held.shadow_s - fx.now)
        fx.say(
            node,
            HoldRoom(epoch, self._sequence, said.owner, held.job, said.attempt, tuple(held.rank), shadow_in_s, amount),
        )


def _still_good(said: Held, held: Held) -> bool:
    return said.amount == held.amount and said.rank == held.rank and said.shadow_s >= held.shadow_s - SLACK_S


@dataclass(slots=True)
class _Kept:
    """A hold on this node; one that was ended is kept for its time to live, so that a late older word finds it.

    `started`: the newest attempt of its job that has room here.
    """

    hold: HoldRoom
    shadow_s: float
    until_s: float
    started: int = 0


class HoldsKept:
    """The node's side: one hold for each job, the newest word of the newest leader."""

    def __init__(self, config: SchedulerConfig) -> None:
        self._config = config
        self._kept: dict[int, _Kept] = {}

    def jobs(self, now: float) -> list[int]:
        """Return the jobs for which something is held here."""
        return [job for job, kept in self._kept.items() if kept.until_s > now and kept.hold.amount != NOTHING]

    def on_hold(self, now: float, hold: HoldRoom) -> None:
        """Take a leader's word, unless a newer one came before it."""
        self._expire(now)
        known = self._kept.get(hold.job)
        if known is not None:
            if (hold.epoch, hold.sequence) <= (known.hold.epoch, known.hold.sequence):
                return
            if 0 < hold.attempt <= known.started:
                return
        started = known.started if known is not None else 0
        self._kept[hold.job] = _Kept(hold, now + hold.shadow_in_s, now + self._config.hold_ttl_s, started)

    def on_reign(self, now: float, epoch: int, within_s: float) -> None:
        """A new leader has begun: what it does not say again within that time ends."""
        for kept in self._kept.values():
            if kept.hold.epoch < epoch:
                kept.until_s = min(kept.until_s, now + within_s)

    def started(self, job: int, attempt: int) -> None:
        """This attempt of the job has room here: nothing more is held for it."""
        kept = self._kept.get(job)
        if kept is not None:
            kept.started = max(kept.started, attempt)
            kept.hold = msgspec.structs.replace(kept.hold, amount=NOTHING)

    def on_away(self, node: str) -> None:
        """A home is out of reach: its jobs can't start."""
        for job in [job for job, kept in self._kept.items() if kept.hold.owner == node]:
            del self._kept[job]

    def in_the_way(
        self,
        now: float,
        asker: str,
        job: int,
        rank: tuple[float, ...],
        estimate_s: float,
        need: Resources,
        free: Resources,
    ) -> HoldRoom | None:
        """Return a hold that keeps `need` from starting in `free` now, or None.

        Those of a worse rank bind nobody; neither do the asker's own (a lost withdrawal must not starve it), nor those
        from whose shadow time on the job is over by its estimate.
        """
        self._expire(now)
        end_s = now + estimate_s
        for kept in self._kept.values():
            hold = kept.hold
            if hold.job == job or hold.owner == asker or end_s <= kept.shadow_s + SLACK_S:
                continue
            if rank and rank <= hold.rank:
                continue
            free = free - hold.amount
            if not fits(need, free):
                return hold
        return None

    def _expire(self, now: float) -> None:
        for job in [job for job, kept in self._kept.items() if kept.until_s <= now]:
            del self._kept[job]
