"""Does this node take tasks, and are those it has to go? Cordon, uncordon and drain, remembered across restarts.

A cordoned node takes nothing new. A draining one also asks the homes of what it has to take it elsewhere: services at
once, batch tasks at the deadline if there is one and until then they may end. Homes decide what becomes of their
tasks; the node goes on asking until it was told to stop them.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING

import msgspec

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.events import Accepting, Drain
from scheduler.index import ClusterView
from scheduler.messages import BATCH_MAX, Evict
from scheduler.model import AllocationId, JobKind
from scheduler.records import META, Rows
from scheduler.repeat import Repeat
from scheduler.reporting import Reporting
from scheduler.wall import WallClock

if TYPE_CHECKING:
    from scheduler.admission import Held

ROW = "accepting"


class AcceptingRow(msgspec.Struct, frozen=True, array_like=True):
    """The row of META that remembers what an operator said."""

    accepting: bool
    draining: bool
    deadline_unix_s: float | None


class Draining:
    """This node's readiness to take and to keep; `held` is admission's book, read only here."""

    def __init__(
        self,
        config: SchedulerConfig,
        view: ClusterView,
        alarms: Alarms,
        reporting: Reporting,
        held: Mapping[AllocationId, Held],
    ) -> None:
        self._alarms = alarms
        self._reporting = reporting
        self._held = held
        self._deadline_unix_s: float | None = None
        self._wall = WallClock()
        self._evicts: Repeat[AllocationId] = Repeat("evicts", config, alarms, view.alive, self._speak)

    def restore(self, fx: Effects, rows: Rows, unix_s: float) -> None:
        """Go on as before the restart."""
        self._wall.see(fx.now, unix_s)
        raw = rows.get(META, {}).get(ROW)
        if raw is not None:
            row = msgspec.msgpack.decode(raw, type=AcceptingRow)
            self._set(fx, row.accepting, row.draining, row.deadline_unix_s)

    def on_accepting(self, fx: Effects, event: Accepting) -> None:
        """Cordon or uncordon; either ends a drain that has not come to its end."""
        self._set(fx, event.accepting, False, None)
        self._write(fx)

    def on_drain(self, fx: Effects, event: Drain) -> None:
        """Take nothing new, and send away what is here: services now, batch tasks at the deadline."""
        self._wall.see(fx.now, event.unix_s)
        deadline = None if event.deadline_s is None else self._wall.unix_s(fx.now) + event.deadline_s
        self._set(fx, False, True, deadline)
        self._write(fx)

    def ring(self, fx: Effects) -> None:
        """The deadline is over: batch tasks too are to go."""
        for id_, held in self._held.items():
            if held.result is None and not held.stopping:
                self._evicts.say(held.allocation.home, id_)

    def over(self, home: str, id_: AllocationId) -> None:
        """It has ended, or its home has had it stopped."""
        self._evicts.answered(home, id_)

    def ring_evicts(self, fx: Effects, home: str) -> None:
        """Ask again."""
        self._evicts.ring(fx, home)

    def on_up(self, home: str) -> None:
        """A home is back."""
        self._evicts.back(home)

    def flush(self, fx: Effects) -> None:
        """At the end of an event: say what is fresh."""
        self._evicts.flush(fx)

    def _set(self, fx: Effects, accepting: bool, draining: bool, deadline_unix_s: float | None) -> None:
        self._alarms.cancel(("drain", None))
        self._deadline_unix_s = deadline_unix_s
        self._reporting.set_accepting(accepting, draining=draining)
        if deadline_unix_s is not None:
            self._alarms.set(("drain", None), max(fx.now, self._wall.when(deadline_unix_s)))
        for id_, held in self._held.items():
            if held.result is None and not held.stopping:
                if draining and held.allocation.spec.kind is JobKind.SERVICE:
                    self._evicts.say(held.allocation.home, id_)
                else:
                    self._evicts.answered(held.allocation.home, id_)

    def _write(self, fx: Effects) -> None:
        row = AcceptingRow(self._reporting.accepting, self._reporting.draining, self._deadline_unix_s)
        fx.put(META, ROW, msgspec.msgpack.encode(row))

    def _speak(self, fx: Effects, home: str, ids: list[AllocationId]) -> None:
        deadline = self._deadline_unix_s
        within_s = inf if deadline is None else max(0.0, self._wall.when(deadline) - fx.now)
        for start in range(0, len(ids), BATCH_MAX):
            fx.say(home, Evict(tuple(ids[start : start + BATCH_MAX]), within_s))
