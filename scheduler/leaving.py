"""Gangs that are leaving: what room they leave is heard of node by node, and only the whole of it is worth a pass.

Soft, the leader's alone. Bounded: whoever is waited for in vain is waited for once, and the oldest of those are
forgotten.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from scheduler.messages import Parting

GIVEN_UP_MAX = 1000
MOST_LONGER = 4
"""Gangs of which most members were heard in time are waited for so many times longer."""


class _Gang(NamedTuple):
    members: int
    ended: set[int]


class Leaving:
    """Of which gangs some members' ends were heard, and others' not yet.

    None is waited for longer than `gather_s`, but for those of which most were heard by then: they do leave as one, and
    a word was lost, or lost again when it was repeated.
    """

    def __init__(self, gather_s: float) -> None:
        self._gather_s = gather_s
        self._heard: dict[int, _Gang] = {}
        self._given_up: dict[int, None] = {}
        self._since_s = -inf
        self.until_s = -inf

    def hear(self, now: float, parting: Parting) -> None:
        """A member ended."""
        if parting.job in self._given_up:
            return
        if not self._heard:
            self._since_s, self.until_s = now, now + self._gather_s
        gang = self._heard.setdefault(parting.job, _Gang(parting.members, set()))
        gang.ended.add(parting.index)
        if len(gang.ended) == gang.members:
            del self._heard[parting.job]

    def waits(self, now: float) -> bool:
        """Whether somebody is to be waited for; who has not left in time is not, and never again."""
        if self._heard and now >= self.until_s:
            self._give_up(now)
        return bool(self._heard)

    def clear(self) -> None:
        """Forget everything."""
        self._heard.clear()
        self._given_up.clear()

    def _give_up(self, now: float) -> None:
        self.until_s = self._since_s + MOST_LONGER * self._gather_s
        for job, gang in list(self._heard.items()):
            if now >= self.until_s or 2 * len(gang.ended) <= gang.members:
                del self._heard[job]
                self._given_up[job] = None
        while len(self._given_up) > GIVEN_UP_MAX:
            del self._given_up[next(iter(self._given_up))]
