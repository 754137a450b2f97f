"""Taking turns by name: of the tasks that want the same thing done one goes on at a time, in the order of coming.

A name costs something only while somebody holds it or waits for it.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio


@dataclass(slots=True)
class _Turn:
    lock: trio.Lock = field(default_factory=trio.Lock)
    users: int = 0


class Turns:
    """A lock for each name; `name in turns` while it is held or waited for."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._turns

    @asynccontextmanager
    async def take(self, name: str, deadline_s: float = math.inf) -> AsyncIterator[None]:
        """Wait until nobody else has this name's turn; from the deadline (on trio's clock) on, go on all the same."""
        turn = self._turns.setdefault(name, _Turn())
        turn.users += 1
        held = False
        try:
            with trio.move_on_at(deadline_s):
                await turn.lock.acquire()
                held = True
            yield
        finally:
            if held:
                turn.lock.release()
            turn.users -= 1
            if not turn.users:
                self._turns.pop(name, None)
