"""What this node says by gossip, at a pace: the first word at once, later ones of the same key not more often than at
an interval, and of several only the last.

A busy node's report changes with every task, and every word costs every node some packets. Whoever has to know at once
(a task's home, the queue's leader) is told so directly; gossip tells everybody else, who lives well with a view that is
a second old. What is rare and changes what others do, such as that somebody waits, is told sooner.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from scheduler.messages import REPORT_KEY

INTERVAL_S = 0.25
REPORT_INTERVAL_S = 1.0


class Paced:
    """Passes on what is published."""

    def __init__(self, say: Callable[[str, bytes], None], nursery: trio.Nursery) -> None:
        self._say = say
        self._nursery = nursery
        self._unsaid: dict[str, bytes | None] = {}

    def publish(self, key: str, value: bytes) -> None:
        """Say it now, or when the key's pause is over, unless a newer value comes before."""
        if key in self._unsaid:
            self._unsaid[key] = value
            return
        self._unsaid[key] = None
        self._say(key, value)
        self._nursery.start_soon(self._pause, key, REPORT_INTERVAL_S if key == REPORT_KEY else INTERVAL_S)

    async def _pause(self, key: str, interval_s: float) -> None:
        await trio.sleep(interval_s)
        while (value := self._unsaid[key]) is not None:
            self._unsaid[key] = None
            self._say(key, value)
            await trio.sleep(interval_s)
        del self._unsaid[key]
