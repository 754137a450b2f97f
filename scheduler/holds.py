"""Holds: what nodes keep free for the best-ranked waiting jobs. Told by the leader, enforced by each node.

A hold is soft: it ends with its job's start or its owner's death, when a newer word takes its place, and in any case
after its time to live, so that a late message leaves no orphan for long. (epoch, sequence) orders the words of all
leaders. Nodes only ever use holds to refuse; nothing is promised by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import msgspec

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.fit import fits
from scheduler.index import ClusterView
from scheduler.messages import HoldNoted, HoldRoom
from scheduler.model import Resources
from scheduler.plan import Held
from scheduler.repeat import Repeat

SLACK_S = 0.005
"""A job may pass a shadow time by this much: what a message takes on its way must not decide."""

RENEWALS = 3
"""Renewals within one time to live."""

NOTHING = Resources()


class _Said(NamedTuple):
    owner: str
    attempt: int
    held: Held


@dataclass(slots=True)
class _Word:
    """The last word for a node on a job, until it is answered."""

    said: _Said
    amount: Resources
    sequence: int


class HoldsSaid:
    """The leader's side: what each node is to hold for which job, repeated until the node knows.

    `numbers` are the orders' too: an order with a higher number than a hold was given with that hold in mind.
    """

    def __init__(self, config: SchedulerConfig, view: ClusterView, alarms: Alarms, numbers: Iterator[int]) -> None:
        self._config = config
        self._alarms = alarms
        self._said: dict[tuple[str, int], _Said] = {}
        self._words: dict[tuple[str, int], _Word] = {}
        self._numbers = numbers
        self._repeat: Repeat[int] = Repeat("holdings", config, alarms, view.alive, self._speak, config.quick_retry_s)
        self.epoch = 0

    def clear(self) -> None:
        """The role is given up, or taken anew: the nodes' holds end by themselves."""
        for node in {node for node, _ in self._words}:
            self._repeat.forget(node)
        self._said.clear()
        self._words.clear()
        self._alarms.cancel(("holds", None))

    def started(self, job: int, node: str) -> None:
        """The job was ordered there: the node drops its hold by itself."""
        if self._said.pop((node, job), None) is not None:
            self._words.pop((node, job), None)
            self._repeat.answered(node, job)

    def update(self, fx: Effects, holds: dict[str, list[Held]], owner_of: Callable[[int], tuple[str, int]]) -> None:
        """Say what is new, larger, later or over. A shadow time that came nearer can wait for the renewal."""
        wanted = {(node, held.job): held for node, helds in holds.items() for held in helds}
        for node, job in [key for key in self._said if key not in wanted]:
            self._say(node, self._said.pop((node, job)), NOTHING)
        for (node, job), held in wanted.items():
            said = self._said.get((node, job))
            if said is not None and _still_good(said.held, held):
                continue
            owner, attempt = owner_of(job)
            said = self._said[(node, job)] = _Said(owner, attempt, held)
            self._say(node, said, held.amount)
        if self._said:
            self._alarms.set_if_unset(("holds", None), fx.now + self._config.hold_ttl_s / RENEWALS)

    def renew(self, fx: Effects, holds: dict[str, list[Held]]) -> None:
        """Say all of it again, as it is planned now."""
        current = {(node, held.job): held for node, helds in holds.items() for held in helds}
        for (node, job), said in self._said.items():
            held = current.get((node, job), said.held)
            self._said[(node, job)] = said._replace(held=held)
            self._say(node, self._said[(node, job)], held.amount)
        if self._said:
            self._alarms.set(("holds", None), fx.now + self._config.hold_ttl_s / RENEWALS)

    def on_noted(self, node: str, noted: HoldNoted) -> None:
        """A node knows a word; if it was the last on that job, nothing is left to say."""
        word = self._words.get((node, noted.job))
        if word is not None and noted.epoch == self.epoch and noted.sequence == word.sequence:
            self._repeat.answered(node, noted.job)
            del self._words[(node, noted.job)]

    def ring(self, fx: Effects, node: str) -> None:
        """Repeat what a node did not answer."""
        self._repeat.ring(fx, node)

    def flush(self, fx: Effects) -> None:
        """At the end of an event, before orders are said: say what is fresh."""
        self._repeat.flush(fx)

    def _say(self, node: str, said: _Said, amount: Resources) -> None:
        self._words[(node, said.held.job)] = _Word(said, amount, next(self._numbers))
        self._repeat.say(node, said.held.job)

    def _speak(self, fx: Effects, node: str, jobs: list[int]) -> None:
        for job in jobs:
            word = self._words.get((node, job))
            if word is None:
                self._repeat.answered(node, job)
                continue
            owner, attempt, held = word.said
            in_s = max(0.0, held.shadow_s - fx.now)
            rank = tuple(held.rank)
            fx.say(node, HoldRoom(self.epoch, word.sequence, owner, job, attempt, rank, in_s, word.amount))


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

    def cpu_above(self, now: float, tier: int) -> int:
        """Return how much CPU is held for jobs of higher tiers than this."""
        return sum(
            kept.hold.amount.cpu_milli
            for kept in self._kept.values()
            if kept.until_s > now and kept.hold.rank and -kept.hold.rank[0] > tier
        )

    def next_end_s(self, now: float) -> float:
        """Return when the next hold ends, unless it is said again; infinity: there is none."""
        ends = (kept.until_s for kept in self._kept.values() if kept.until_s > now and kept.hold.amount != NOTHING)
        return min(ends, default=inf)

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
        order: tuple[int, int],
        estimate_s: float,
        need: Resources,
        free: Resources,
    ) -> HoldRoom | None:
        """Return a hold that keeps `need` from starting in `free` now, or None.

        Those of a worse rank bind nobody; neither do the asker's own (a lost withdrawal must not starve it), nor those
        before whose shadow time the job is over by its estimate, nor those that the leader knew of when it gave the
        order (epoch, go): a word that they are over may be late.
        """
        self._expire(now)
        end_s = now + estimate_s
        for kept in self._kept.values():
            hold = kept.hold
            if hold.job == job or hold.owner == asker or end_s <= kept.shadow_s + SLACK_S:
                continue
            if rank and rank <= hold.rank:
                continue
            if order[0] == hold.epoch and order[1] > hold.sequence:
                continue
            free = free - hold.amount
            if not fits(need, free):
                return hold
        return None

    def _expire(self, now: float) -> None:
        for job in [job for job, kept in self._kept.items() if kept.until_s <= now]:
            del self._kept[job]
