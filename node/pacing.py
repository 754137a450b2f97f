"""What this node says by gossip, at a pace: the first word at once, later ones of the same key not more often than at
an interval, and of several only the last.

A busy node's report changes with every task, and every word costs every node some packets. Whoever has to know at once
(a task's home, the queue's leader) is told so directly; gossip tells everybody else, who lives well with a view of a
node's load that is a second old. What is rare and changes what others do is told sooner.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

import trio

INTERVAL_S = 0.25
LOAD_INTERVAL_S = 1.0


@dataclass(slots=True)
class _Pause:
    """After a word: what is to be said when it is over, and whether that can wait for longer."""

    said_s: float = -inf
    value: bytes | None = None
    load: bool = True
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def end_s(self) -> float:
        return self.said_s + (LOAD_INTERVAL_S if self.load else INTERVAL_S)


class Paced:
    """Passes on what is published."""

    def __init__(self, say: Callable[[str, bytes], None], nursery: trio.Nursery) -> None:
        self._say = say
        self._nursery = nursery
        self._pauses: dict[str, _Pause] = {}

    def publish(self, key: str, value: bytes, load: bool = False) -> None:
        """Say it now, or when the key's pause is over, unless a newer value comes before; `load` has a longer one."""
        pause = self._pauses.get(key)
        if pause is None:
            pause = self._pauses[key] = _Pause()
            self._nursery.start_soon(self._rest, key, pause)
        pause.value, pause.load = value, pause.load and load
        self._speak(key, pause)
        pause.scope.deadline = pause.end_s()

    async def _rest(self, key: str, pause: _Pause) -> None:
        while trio.current_time() < pause.end_s():
            with trio.CancelScope(deadline=pause.end_s()) as pause.scope:
                await trio.sleep_forever()
            self._speak(key, pause)
        del self._pauses[key]

    def _speak(self, key: str, pause: _Pause) -> None:
        """Say what is to be said, unless the pause goes on; then another one begins."""
        if pause.value is not None and trio.current_time() >= pause.end_s():
            value, pause.value, pause.load, pause.said_s = pause.value, None, True, trio.current_time()
            self._say(key, value)
