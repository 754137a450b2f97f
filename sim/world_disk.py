"""A virtual disk's commits, of which a power loss takes some of the last that were not synced.

Owns the order of commits since the last sync. A commit is synced, and with it all before it, unless it touches only
what may be lost with the host (docs/decisions/0007).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from scheduler.events import Change, Put
from scheduler.records import LOST_WITH_THE_HOST

UNSYNCED_MAX = 1000
"""Commits that a power loss may take; a real system writes its pages back long before there are more."""

Tables = dict[str, dict[str, bytes]]
Undo = tuple[str, str, bytes | None]
"""A table, a key, and what was there before, if anything."""


@dataclass(slots=True)
class CommitLog:
    """What would have to be undone, oldest commit first."""

    lost: int = 0
    _unsynced: list[list[Undo]] = field(default_factory=list)

    def commit(self, disk: Tables, changes: Sequence[Change], about_to: Callable[[Change], None]) -> None:
        """Write changes as one commit; `about_to` hears of each before it is there."""
        undo: list[Undo] = []
        for change in changes:
            about_to(change)
            undo.append((change.table, change.key, disk[change.table].get(change.key)))
            if isinstance(change, Put):
                disk[change.table][change.key] = change.value
            else:
                disk[change.table].pop(change.key, None)
        if any(change.table not in LOST_WITH_THE_HOST for change in changes):
            self._unsynced.clear()
        elif undo:
            self._unsynced = [*self._unsynced[-UNSYNCED_MAX + 1 :], undo]

    def lose_power(self, disk: Tables, chance: random.Random) -> int:
        """Undo any number of the last commits that were not synced; returns how many."""
        kept = chance.randint(0, len(self._unsynced))
        lost, self._unsynced = self._unsynced[kept:], []
        for table, key, before in (each for commit in reversed(lost) for each in reversed(commit)):
            if before is None:
                disk[table].pop(key, None)
            else:
                disk[table][key] = before
        self.lost += len(lost)
        return len(lost)

    def clear(self) -> None:
        """The disk is gone: there is nothing left to lose."""
        self._unsynced.clear()
