"""The waiting jobs as the queue leader knows them: in line, set aside, or out of the line for a quota.

Owns: what homes said of each job, its rank, and where it stands. A job that no node could take even when empty is set
aside, and one whose quota has no room is capped, lest they hold others up. May not know: orders and reservations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from scheduler.index import ClusterView
from scheduler.line import Line, Shape, shape_of
from scheduler.messages import Wait
from scheduler.plan import Wish
from scheduler.queue import Rank, rank
from scheduler.quotas import QuotasKept
from scheduler.settings import Settings
from scheduler.shares import NOTABLE, Shares


@dataclass(slots=True)
class Entry:
    """A waiting job. `wanted` reflects the orders up to `go_seen`; `orders` are the newer ones: {go: count}."""

    home: str
    wait: Wait
    wish: Wish
    orders: dict[int, int] = field(default_factory=dict)
    position_told: int = -1
    start_told_s: float = inf

    @property
    def remaining(self) -> int:
        """How many tasks (a gang is one) have neither a place nor an order on its way."""
        return self.wait.wanted - sum(self.orders.values())


class Waitlist:
    """`possible`: whether any node could take what has this shape, were it empty."""

    def __init__(self, view: ClusterView, settings: Settings, possible: Callable[[Shape], bool]) -> None:
        self._view = view
        self._settings = settings
        self._possible = possible
        self.entries: dict[int, Entry] = {}
        self.line = Line()
        self.quotas = QuotasKept(settings)
        self.shares = Shares(settings)
        self._aside: dict[int, None] = {}
        self._capped: dict[int, str] = {}
        self._clocks: dict[tuple[str, int], float] = {}
        self._quotas_seen = 0
        self._shape = -1

    @property
    def waiting(self) -> int:
        """How many jobs wait in line; those set aside are not counted, for they hold nobody up."""
        return len(self.entries) - len(self._aside) - len(self._capped)

    def quota_of(self, job_id: int) -> str:
        """Return the quota that has no room for a job, "" if none."""
        return self._capped.get(job_id, "")

    def in_order(self) -> list[tuple[int, Entry]]:
        """Return the waiting jobs in order, those set aside last."""
        line = [(job_id, self.entries[job_id]) for job_id in self.line.jobs()]
        return line + [pair for pair in self.entries.items() if pair[0] not in self.line]

    def first(self) -> Entry:
        """Return the first in line; there must be one."""
        return self.entries[self.line.first(1)[0]]

    def clear(self) -> None:
        """Forget all."""
        self.entries.clear()
        self.line = Line()
        self.quotas.clear()
        self.shares.clear()
        self._aside.clear()
        self._capped.clear()
        self._clocks.clear()

    # --- what homes say

    def enter(self, now: float, home: str, wait: Wait, epoch: int) -> list[int]:
        """Take a home's word on a job; return the orders that it shows to have, if it is of this epoch."""
        entry = self.entries.get(wait.job)
        # The first word of a home fixes how its clock lies to ours, so that its jobs keep their order among themselves.
        offset_s = self._clocks.setdefault((home, wait.boot_epoch), now - wait.clock_s)
        wish = Wish(wait.job, self._rank(wait, wait.since_s + offset_s), shape_of(wait), wait.images)
        if entry is None:
            entry = self.entries[wait.job] = Entry(home, wait, wish)
        else:
            if entry.wish.shape != wish.shape:  # the job was changed: what was hopeless may not be any more
                self._aside.pop(wait.job, None)
            entry.wait, entry.wish = wait, wish
        seen = [go for go in entry.orders if go <= wait.go_seen] if wait.epoch == epoch else []
        for go in seen:
            del entry.orders[go]
        self.shares.enter(wait.account, wait.owner, wait.job)
        self.relist(wait.job, entry)
        return seen

    def remove(self, job_id: int) -> Entry | None:
        """Forget a job; return what was known of it."""
        entry = self.entries.pop(job_id, None)
        if entry is not None:
            self.line.remove(job_id)
            self.shares.leave(entry.wait.account, entry.wait.owner, job_id)
            self._aside.pop(job_id, None)
            self._capped.pop(job_id, None)
            self.quotas.flight(job_id, (), 0)
        return entry

    def of_home(self, home: str) -> list[int]:
        """Return the jobs of a home."""
        return [job_id for job_id, entry in self.entries.items() if entry.home == home]

    def forget_clocks(self, home: str) -> None:
        """A home is out of reach: how its clock lies is to be found anew."""
        for key in [key for key in self._clocks if key[0] == home]:
            del self._clocks[key]

    # --- where they stand

    def _rank(self, wait: Wait, since_s: float) -> Rank:
        factor = self.shares.factor(wait.account, wait.owner)
        return rank(wait.priority, since_s, wait.job, factor, self._settings.ranking, wait.tier)

    def rank_some_anew(self) -> bool:
        """Give those whose share moved their new rank; return whether any of them stands elsewhere now."""
        notable_s, moved = NOTABLE * self._settings.ranking.share_s, False
        for job_id in self.shares.take():
            entry = self.entries[job_id]
            old = entry.wish.rank
            new = self._rank(entry.wait, old.since_s)
            if abs(new.score - old.score) > notable_s:
                entry.wish = entry.wish._replace(rank=new)
                self.relist(job_id, entry)
                moved = True
        return moved

    def relist(self, job_id: int, entry: Entry) -> None:
        """Put a job in line while some of its tasks have no order; one set aside stays aside, and one capped capped."""
        self.quotas.flight(job_id, entry.wait.draws, sum(entry.orders.values()))
        if entry.remaining <= 0:
            self.line.remove(job_id)
            self._capped.pop(job_id, None)
        elif job_id not in self._aside and job_id not in self._capped:
            self.line.add(job_id, entry.wish.rank, entry.wish.shape)

    def cap(self, entry: Entry) -> bool:
        """Take a job whose quotas have no room out of the line, lest it hold others up; return whether it has none."""
        job_id = entry.wish.job
        if not entry.wait.draws or self.quotas.room(entry.wait.draws) > 0:
            return False
        self._capped[job_id] = self.quotas.blocking(entry.wait.draws)
        self.line.remove(job_id)
        return True

    def set_aside(self, job_id: int) -> None:
        """No node could take it."""
        self._aside[job_id] = None
        self.line.remove(job_id)

    def reconsider(self) -> None:
        """What the cluster could take may have changed, or what was given back, or a limit."""
        self._reconsider_aside()
        self._reconsider_capped()

    def _reconsider_aside(self) -> None:
        if self._shape == self._view.shape:
            return
        self._shape = self._view.shape
        for job_id in list(self._aside):
            entry = self.entries[job_id]
            if self._possible(entry.wish.shape):
                del self._aside[job_id]
                self.relist(job_id, entry)

    def _reconsider_capped(self) -> None:
        if self._quotas_seen == self.quotas.version:
            return
        self._quotas_seen = self.quotas.version
        for job_id in list(self._capped):
            entry = self.entries[job_id]
            if self.quotas.room(entry.wait.draws) > 0:
                del self._capped[job_id]
                self.relist(job_id, entry)
