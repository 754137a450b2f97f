"""Room that a node keeps for members of gangs while their home gathers the others: for a moment, in memory only.

Nothing runs in a room and nothing of it is durable: the home either has it turned into an allocation, or gives it back
(by the attempt's number, so that a late word about an older attempt frees nothing), or lets it run out.
"""

from __future__ import annotations

from typing import NamedTuple

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.model import AllocationId, Resources
from scheduler.reporting import Reporting

PATIENCE_MAX = 8
"""A home whose nodes are slow may ask for room for so many times longer than usual."""


class _Room(NamedTuple):
    home: str
    id: AllocationId


class Rooms:
    """At most one room for each task: that of its newest attempt."""

    def __init__(self, config: SchedulerConfig, alarms: Alarms, reporting: Reporting) -> None:
        self._config = config
        self._alarms = alarms
        self._reporting = reporting
        self._rooms: dict[tuple[int, int], _Room] = {}

    def keep(self, fx: Effects, home: str, id_: AllocationId, need: Resources, end_s: float, reserve_s: float) -> None:
        """Keep room, or keep it for longer; the room of an older attempt has to be given back before."""
        key = (id_.job, id_.index)
        if key not in self._rooms:
            self._rooms[key] = _Room(home, id_)
            self._reporting.book(("room", id_), need, end_s)
        self._alarms.set(("room", id_), fx.now + min(reserve_s, PATIENCE_MAX * self._config.reserve_s))

    def kept(self, home: str, id_: AllocationId) -> bool:
        """Whether there is room for this very attempt of that home."""
        return self._rooms.get((id_.job, id_.index)) == _Room(home, id_)

    def drop_older(self, home: str, id_: AllocationId) -> None:
        """A newer attempt of the task is asked for: the older one's room is over."""
        room = self._rooms.get((id_.job, id_.index))
        if room is not None and room.home == home and room.id.attempt < id_.attempt:
            self.give_back(home, room.id)

    def give_back(self, home: str, id_: AllocationId) -> bool:
        """Free the room of this very attempt; return whether there was any."""
        if not self.kept(home, id_):
            return False
        del self._rooms[(id_.job, id_.index)]
        self._alarms.cancel(("room", id_))
        self._reporting.unbook(("room", id_))
        return True

    def ring(self, id_: AllocationId) -> None:
        """The home took too long."""
        room = self._rooms.get((id_.job, id_.index))
        if room is not None and room.id == id_:
            self.give_back(room.home, id_)
            self._reporting.push()
