"""Gangs that are leaving: what room they leave is heard of node by node, and only the whole of it is worth a pass.

Soft, the leader's alone. Bounded: whoever is waited for in vain is waited for once, and the oldest of those are
forgotten.
"""

from __future__ import annotations

from math import inf

from scheduler.messages import Parting

GIVEN_UP_MAX = 1000


class Leaving:
    """Of which gangs some members' ends were heard, and others' not yet; none is waited for longer than `gather_s`."""

    def __init__(self, gather_s: float) -> None:
        self._gather_s = gather_s
        self._heard: dict[int, set[int]] = {}
        self._given_up: dict[int, None] = {}
        self.until_s = -inf

    def hear(self, now: float, parting: Parting) -> None:
        """A member ended."""
        if parting.job in self._given_up:
            return
        if not self._heard:
            self.until_s = now + self._gather_s
        ended = self._heard.setdefault(parting.job, set())
        ended.add(parting.index)
        if len(ended) == parting.members:
            del self._heard[parting.job]

    def waits(self, now: float) -> bool:
        """Whether somebody is to be waited for; who has not left in time is not, and never again."""
        if now >= self.until_s:
            self._give_up()
        return bool(self._heard)

    def clear(self) -> None:
        """Forget everything."""
        self._heard.clear()
        self._given_up.clear()

    def _give_up(self) -> None:
        self._given_up.update(dict.fromkeys(self._heard))
        self._heard.clear()
        while len(self._given_up) > GIVEN_UP_MAX:
            del self._given_up[next(iter(self._given_up))]
